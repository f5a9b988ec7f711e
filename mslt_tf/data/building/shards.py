"""Files of examples -> shards.

A shard is a range of the random keys of all examples: so the order of the
examples is random over the whole data set, whatever fits into memory.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Sequence

import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import progress
from mslt_tf.data import whole_files
from mslt_tf.data.building import external_sort
from mslt_tf.data.building import processes as processes_lib
from mslt_tf.data.reading import record_index

# Of a shard, in memory at once.
_PART_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True)
class _Shard:
  """A task: the records of a range of keys."""

  example_paths: tuple[str, ...]
  keys: external_sort.KeyRange
  path: str


def names(split: str, num_shards: int) -> list[str]:
  """Returns the names of the files of a split."""
  return [
    f"{split}-{index:05d}-of-{num_shards:05d}.tfrecord"
    for index in range(num_shards)
  ]


def write(
  name: str,
  example_paths: Sequence[str],
  num_shards: int,
  *,
  directory: str,
  processes: processes_lib.Processes,
) -> list[dict]:
  """Writes shards of nearly equal size, and an index beside each.

  Args:
    name: of the split, with which the names of the files begin.
    example_paths: sorted files of examples.
    num_shards: how many there are; at most as many as examples.
    directory: where the shards go, if they are not there yet.
    processes: what writes them.

  Returns:
    Their entries in the manifest.

  Raises:
    errors.UnavailableError: one was there and was damaged; it is removed.
  """
  files = external_sort.open_all(example_paths)
  num_examples = sum(file.num_records for file in files)
  tasks = [
    _Shard(tuple(example_paths), keys, os.path.join(directory, file_name))
    for file_name, keys in zip(
      names(name, num_shards),
      external_sort.equal_ranges(files, num_shards),
      strict=True,
    )
  ]
  left = [task for task in tasks if not tf.io.gfile.exists(task.path)]
  for _ in progress.logged(
    processes.map(_write_shard, left),
    f"Writing {name} shards",
    total=len(left),
  ):
    pass
  # As `external_sort.equal_ranges` has cut them.
  ends = [num_examples * end // num_shards for end in range(num_shards + 1)]
  return [
    _checked(task.path, end - start)
    for task, (start, end) in zip(tasks, itertools.pairwise(ends), strict=True)
  ]


def _checked(path: str, num_examples: int) -> dict:
  """Returns the entry of a shard that is to have so many examples."""
  try:
    entry = describe(path)
    if entry["num_examples"] == num_examples:
      return entry
    what = f"it has {entry['num_examples']} of {num_examples} examples"
  except errors.InputError as error:
    what = str(error).removesuffix(".")
  tf.io.gfile.remove(path)
  raise errors.UnavailableError(
    f"{path!r} was damaged and is removed: {what}. The same command writes it"
    " again."
  )


def _write_shard(task: _Shard) -> None:
  files = external_sort.open_all(task.example_paths)
  write_shard(
    task.path,
    external_sort.iterate(files, task.keys, _PART_BYTES),
    records_per_block=record_index.RECORDS_PER_BLOCK,
  )


def write_shard(
  path: str, records: Iterable[bytes | memoryview], *, records_per_block: int
) -> dict:
  """Writes one file, whole or not at all, and its index.

  Returns:
    Its entry in the manifest.
  """
  lengths = []
  with whole_files.writing(path) as piece:
    with tf.io.TFRecordWriter(piece) as writer:
      for record in records:
        writer.write(bytes(record))
        lengths.append(len(record))
    index = record_index.of_lengths(
      lengths, records_per_block=records_per_block
    )
    record_index.write(index, path)
  return _entry(path, index)


def describe(path: str) -> dict:
  """Returns the manifest's entry of a shard that `write_shard` wrote."""
  index = record_index.of_shard(
    path, records_per_block=record_index.RECORDS_PER_BLOCK
  )
  return _entry(path, index)


def _entry(path: str, index: record_index.RecordIndex) -> dict:
  return {
    "file": os.path.basename(path),
    "num_examples": index.num_records,
    "bytes": index.num_bytes,
  }
