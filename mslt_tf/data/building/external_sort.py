"""Sorting what does not fit into memory: files of records sorted by a key.

Each worker writes what it has in the order of its keys, one file a task; who
wants a range of keys reads that range of every file. So a corpus is brought
into the random order of its keys with no more of it in memory than one task
writes or one range holds.

A sorted file, little-endian: the records, one after another; the facts (JSON);
an entry a record (its key and where it ends); the key of every 512th entry; the
tail, which says how many there are of each. It appears under its name when it
is whole, so its existence means that its task is done.

N records.
"""

import contextlib
import dataclasses
import itertools
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mslt_tf.data import whole_files

KEY_END = 1 << 64  # Above every key.
NUM_BUCKETS = 1 << 16  # Of all keys: those with the same first 16 bits.

_ENTRY = np.dtype([("key", "<u8"), ("end", "<u8")])
_ENTRIES_PER_BLOCK = 512
_MAGIC = b"msltsrt\n"
# Magic, number of records, bytes of the records, bytes of the facts.
_TAIL = struct.Struct("<8s3q")
_BUFFER_BYTES = 1 << 12


@dataclasses.dataclass(frozen=True)
class KeyRange:
  """The keys from `start` to before `end`."""

  start: int
  end: int

  def split(self, num_parts: int) -> list["KeyRange"]:
    """Returns consecutive ranges of one width, to a key."""
    width = self.end - self.start
    cuts = [
      self.start + width * part // num_parts for part in range(num_parts + 1)
    ]
    return [KeyRange(start, end) for start, end in itertools.pairwise(cuts)]


ALL_KEYS = KeyRange(0, KEY_END)


class Writer:
  """Writes a sorted file; as a context, which leaves it whole or not at all."""

  def __init__(self, path: str):
    self._path = path
    self._context = contextlib.ExitStack()
    self._lengths: list[np.ndarray] = []

  def __enter__(self) -> "Writer":
    piece = self._context.enter_context(whole_files.writing(self._path))
    self._file = self._context.enter_context(tf.io.gfile.GFile(piece, "wb"))
    return self

  def __exit__(self, *error) -> bool | None:
    return self._context.__exit__(*error)

  def add(self, content: bytes, lengths: np.ndarray) -> None:
    """Adds records that follow those before in the order of their keys.

    Args:
      content: the records, one after another.
      lengths: [N] of each, in bytes.
    """
    self._file.write(content)
    self._lengths.append(lengths)

  def finish(self, keys: np.ndarray, facts: dict[str, Any]) -> None:
    """Writes what follows the records.

    Args:
      keys: [N] uint64, ascending.
      facts: what `facts` of the file will return.
    """
    lengths = np.concatenate([np.zeros(0, np.int64), *self._lengths])
    entries = np.empty(len(lengths), _ENTRY)
    entries["key"] = keys
    entries["end"] = np.cumsum(lengths)
    encoded_facts = json.dumps(facts).encode()
    self._file.write(encoded_facts)
    self._file.write(entries.tobytes())
    self._file.write(_block_keys(entries).tobytes())
    num_bytes = int(lengths.sum())
    self._file.write(
      _TAIL.pack(_MAGIC, len(entries), num_bytes, len(encoded_facts))
    )


@dataclasses.dataclass(frozen=True)
class Entries:
  """Where a sorted file has the records of a range of keys."""

  path: str
  keys: np.ndarray  # [N], uint64, ascending
  ends: np.ndarray  # [N], uint64, of the records
  start: int  # of the first record

  def within(self, keys: KeyRange) -> "Entries":
    """Returns those of a part of the range."""
    low, high = _search(self.keys, keys)
    start = int(self.ends[low - 1]) if low else self.start
    return Entries(self.path, self.keys[low:high], self.ends[low:high], start)

  @property
  def lengths(self) -> np.ndarray:
    """Returns [N] the sizes of the records."""
    return np.diff(self.ends.astype(np.int64), prepend=self.start)

  @property
  def num_bytes(self) -> int:
    """Returns the size of all records."""
    return int(self.lengths.sum())

  def content(self) -> bytes:
    """Reads the records, one after another."""
    if not len(self.keys):
      return b""
    with _open(self.path) as file:
      file.seek(self.start)
      return file.read(self.num_bytes)


class SortedFile:
  """A sorted file that is whole."""

  def __init__(self, path: str):
    self.path = path
    num_bytes = tf.io.gfile.stat(path).length
    with _open(path) as file:
      file.seek(max(num_bytes - _TAIL.size, 0))
      tail = file.read(_TAIL.size)
      if len(tail) < _TAIL.size or not tail.startswith(_MAGIC):
        raise ValueError(f"{path!r} is not a sorted file.")
      _, self.num_records, self._facts_start, facts_bytes = _TAIL.unpack(tail)
      self._entries_start = self._facts_start + facts_bytes
      start = self._entries_start + self.num_records * _ENTRY.itemsize
      file.seek(start)
      self._block_keys = np.frombuffer(
        file.read(num_bytes - _TAIL.size - start), "<u8"
      )

  def facts(self) -> dict[str, Any]:
    with _open(self.path) as file:
      file.seek(self._facts_start)
      return json.loads(file.read(self._entries_start - self._facts_start))

  def entries(self, keys: KeyRange = ALL_KEYS) -> Entries:
    """Reads where the records of a range are."""
    first, last = self._blocks(keys)
    # The entry before the first block says where that begins.
    begin = max(first * _ENTRIES_PER_BLOCK - 1, 0)
    end = min(last * _ENTRIES_PER_BLOCK, self.num_records)
    with _open(self.path) as file:
      file.seek(self._entries_start + begin * _ENTRY.itemsize)
      found = np.frombuffer(file.read((end - begin) * _ENTRY.itemsize), _ENTRY)
    # If `begin` is not 0, its entry is of a key before the range.
    return Entries(self.path, found["key"], found["end"], 0).within(keys)

  def _blocks(self, keys: KeyRange) -> tuple[int, int]:
    """Returns the range of blocks that may hold some of `keys`."""
    low, high = _search(self._block_keys, keys)
    # The first of them may be in the block before.
    return max(low - 1, 0), high


def _open(path: str) -> Any:
  """Opens a file to read parts of it."""
  if "://" in path:
    return tf.io.gfile.GFile(path, "rb")
  # That would read 512 KiB for each part, which may have a hundredth of it.
  return open(path, "rb", buffering=_BUFFER_BYTES)


def open_all(paths: Sequence[str]) -> list[SortedFile]:
  return [SortedFile(path) for path in paths]


def read(
  files: Iterable[SortedFile], keys: KeyRange
) -> tuple[np.ndarray, list[memoryview]]:
  """Returns keys [N] and records of a range of all files, in order of the keys.

  Of equal keys, those of earlier files come first.
  """
  return _merged([file.entries(keys) for file in files])


def iterate(
  files: Iterable[SortedFile], keys: KeyRange, part_bytes: int
) -> Iterator[memoryview]:
  """Yields what `read` returns, with about `part_bytes` of it in memory.

  Keys must be spread evenly, as random ones are.
  """
  found = [file.entries(keys) for file in files]
  num_bytes = sum(each.num_bytes for each in found)
  for part in keys.split(max(1, -(-num_bytes // part_bytes))):
    yield from _merged([each.within(part) for each in found])[1]


def _merged(
  found: Iterable[Entries],
) -> tuple[np.ndarray, list[memoryview]]:
  """Returns keys [N] and records of all files, in order of the keys."""
  all_keys = []
  records: list[memoryview] = []
  for each in found:
    all_keys.append(each.keys)
    view = memoryview(each.content())
    ends = np.cumsum(each.lengths).tolist()
    records += [
      view[start:end] for start, end in zip([0, *ends], ends, strict=False)
    ]
  joined = np.concatenate([np.zeros(0, np.uint64), *all_keys])
  order = np.argsort(joined, kind="stable")
  return joined[order], [records[index] for index in order.tolist()]


def equal_ranges(files: Sequence[SortedFile], num_parts: int) -> list[KeyRange]:
  """Returns ranges that cover all keys and hold as many records each, to one.

  Keys must be spread evenly, as random ones are, and differ.
  """
  counts = np.zeros(NUM_BUCKETS, np.int64)
  for file in files:
    counts += bucket_counts(file.entries().keys)
  cut_in = cut_buckets(counts, num_parts)
  is_cut = np.isin(np.arange(NUM_BUCKETS), cut_in)
  # Each file is read as a whole, once more: fewer reads than of each bucket.
  found = [np.zeros(0, np.uint64)]
  for file in files:
    keys = file.entries().keys
    found.append(keys[is_cut[buckets_of(keys)]])
  inside = np.sort(np.concatenate(found))
  buckets = ALL_KEYS.split(NUM_BUCKETS)
  return cut(
    counts,
    num_parts,
    {
      bucket: inside[slice(*_search(inside, buckets[bucket]))]
      for bucket in cut_in
    },
  )


def cut_buckets(counts: np.ndarray, num_parts: int) -> list[int]:
  """Returns the buckets in which `cut` cuts.

  Args:
    counts: [NUM_BUCKETS] of the keys.
    num_parts: as `cut` has it.
  """
  ends = np.cumsum(counts)
  return np.searchsorted(ends, _ranks(counts, num_parts), side="right").tolist()


def cut(
  counts: np.ndarray, num_parts: int, keys: Mapping[int, np.ndarray]
) -> list[KeyRange]:
  """Returns ranges that cover all keys and hold as many records each, to one.

  Args:
    counts: [NUM_BUCKETS] of the keys.
    num_parts: how many ranges.
    keys: those of each of `cut_buckets`, in any order.
  """
  ends = np.cumsum(counts)
  cuts = [0]
  for rank, bucket in zip(
    _ranks(counts, num_parts), cut_buckets(counts, num_parts), strict=True
  ):
    before = ends[bucket] - counts[bucket]
    cuts.append(int(np.sort(keys[bucket])[rank - before]))
  return [
    KeyRange(start, end)
    for start, end in zip(cuts, [*cuts[1:], KEY_END], strict=True)
  ]


def _ranks(counts: np.ndarray, num_parts: int) -> list[int]:
  """Returns the place of the first record of each part but the first."""
  num_records = int(counts.sum())
  return [num_records * part // num_parts for part in range(1, num_parts)]


def buckets_of(keys: np.ndarray) -> np.ndarray:
  """Returns [N] the bucket of each of `keys`."""
  return (keys >> np.uint64(48)).astype(np.int64)


def bucket_counts(
  keys: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
  """Returns [NUM_BUCKETS] how many keys are in each, or their weights."""
  counts = np.bincount(buckets_of(keys), weights, minlength=NUM_BUCKETS)
  return counts.astype(np.int64)


def _block_keys(entries: np.ndarray) -> np.ndarray:
  return np.ascontiguousarray(entries["key"][::_ENTRIES_PER_BLOCK])


def _search(sorted_keys: np.ndarray, keys: KeyRange) -> tuple[int, int]:
  """Returns the range of places that have one of `keys`."""

  def place(key: int) -> int:
    if key >= KEY_END:
      return len(sorted_keys)
    return int(np.searchsorted(sorted_keys, np.uint64(key), side="left"))

  return place(keys.start), place(keys.end)
