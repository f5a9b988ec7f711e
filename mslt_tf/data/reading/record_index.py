"""Where in a shard its records begin: a small file beside it.

A TFRecord file can only be read from its beginning. `<shard>.index` says where
the first record of each block begins, so that any block is read without those
before it. A block is `records_per_block` consecutive records; the last one may
be shorter. An offset for every record would be gigabytes at the size of
Wikipedia and BookCorpus, one for every 64th is some ten megabytes.

The file, little-endian: 8 bytes of magic, then int64: version,
records_per_block, number of records, bytes of the shard, an offset a block.

R records.
"""

import dataclasses
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from mslt_tf import errors
from mslt_tf.data import whole_files

RECORDS_PER_BLOCK = 64

FRAMING_BYTES = 16  # of a record: length, its checksum, the data's checksum.

_MAGIC = b"msltidx\n"
_VERSION = 1
_HEADER = struct.Struct("<8s4q")
_OFFSET_BYTES = 8

_LENGTH_BYTES = 8
_LENGTH_AND_CHECKSUM_BYTES = 12
# Buckets answer slowly and then fast: few large reads.
_SCAN_BYTES = 1 << 24


@dataclasses.dataclass(frozen=True, eq=False)
class RecordIndex:
  """The blocks of a shard."""

  records_per_block: int
  num_records: int
  num_bytes: int  # of the shard
  offsets: np.ndarray  # int64, of the first record of each block

  @property
  def counts(self) -> np.ndarray:
    """Returns the number of records of each block."""
    first = np.arange(len(self.offsets)) * self.records_per_block
    return np.minimum(self.num_records - first, self.records_per_block)

  @property
  def sizes(self) -> np.ndarray:
    """Returns the number of bytes of each block."""
    return np.diff(self.offsets, append=self.num_bytes)


def path_of(shard_path: str) -> str:
  """Returns the path of a shard's index."""
  return f"{shard_path}.index"


def of_lengths(
  lengths: Sequence[int] | np.ndarray, *, records_per_block: int
) -> RecordIndex:
  """Returns the index of a shard whose records have these lengths [R]."""
  ends = np.cumsum(np.asarray(lengths, np.int64) + FRAMING_BYTES)
  starts = np.append(0, ends)
  return RecordIndex(
    records_per_block=records_per_block,
    num_records=len(ends),
    num_bytes=int(starts[-1]),
    offsets=starts[:-1][::records_per_block],
  )


def of_shard(shard_path: str, *, records_per_block: int) -> RecordIndex:
  """Returns the index beside a shard; makes it if there is none that fits.

  Where it cannot be written it is made each time.

  Raises:
    errors.InputError: the shard is no whole, uncompressed TFRecord file.
  """
  index = _read(shard_path, records_per_block)
  if index is not None:
    return index
  logging.info("Indexing %s ...", shard_path)
  index = scan(shard_path, records_per_block=records_per_block)
  try:
    write(index, shard_path)
  except tf.errors.OpError as error:
    logging.warning(
      "%s cannot be written, so %s will be indexed again the next time: %s",
      path_of(shard_path),
      shard_path,
      errors.first_line(error),
    )
  return index


def write(index: RecordIndex, shard_path: str) -> None:
  """Writes the index of a shard, whole or not at all."""
  header = _HEADER.pack(
    _MAGIC,
    _VERSION,
    index.records_per_block,
    index.num_records,
    index.num_bytes,
  )
  # Workers that start together may all write it.
  whole_files.write(
    path_of(shard_path), header + index.offsets.astype("<i8").tobytes()
  )


def scan(shard_path: str, *, records_per_block: int) -> RecordIndex:
  """Returns the index of a shard by going through its records.

  Their lengths are checked, their contents are not.

  Raises:
    errors.InputError: the shard is no whole, uncompressed TFRecord file.
  """
  num_bytes = _num_bytes(shard_path)
  lengths = []
  position = 0
  with tf.io.gfile.GFile(shard_path, "rb") as file:
    while position < num_bytes:
      file.seek(position)
      found = _lengths(file.read(_SCAN_BYTES), position, shard_path)
      lengths.append(found)
      start, position = position, position + int((found + FRAMING_BYTES).sum())
      if not start < position <= num_bytes:
        raise errors.InputError(
          f"{shard_path!r} is cut off: it has {num_bytes} bytes, and its last"
          " record is not whole."
        )
  return of_lengths(
    np.concatenate(lengths) if lengths else np.zeros(0, np.int64),
    records_per_block=records_per_block,
  )


def _read(shard_path: str, records_per_block: int) -> RecordIndex | None:
  """Returns the index beside a shard, or None if none is there that fits."""
  path = path_of(shard_path)
  num_bytes = _num_bytes(shard_path)
  most_records = num_bytes // FRAMING_BYTES
  most_bytes = _index_bytes(most_records, records_per_block)
  if not tf.io.gfile.exists(path) or tf.io.gfile.stat(path).length > most_bytes:
    return None
  with tf.io.gfile.GFile(path, "rb") as file:
    content = file.read()
  if len(content) < _HEADER.size:
    return None
  *fields, num_records, num_bytes_then = _HEADER.unpack_from(content)
  if (
    fields != [_MAGIC, _VERSION, records_per_block]
    or num_bytes_then != num_bytes
    or not 0 <= num_records <= most_records
    or len(content) != _index_bytes(num_records, records_per_block)
  ):
    return None
  offsets = np.frombuffer(content, "<i8", offset=_HEADER.size).astype(np.int64)
  index = RecordIndex(records_per_block, num_records, num_bytes, offsets)
  # A block holds at least the framing of its records.
  begins_at_0 = not len(offsets) or offsets[0] == 0
  if not begins_at_0 or (index.sizes < index.counts * FRAMING_BYTES).any():
    return None
  return index


def _index_bytes(num_records: int, records_per_block: int) -> int:
  return _HEADER.size + _OFFSET_BYTES * -(-num_records // records_per_block)


def _num_bytes(shard_path: str) -> int:
  try:
    return tf.io.gfile.stat(shard_path).length
  except tf.errors.NotFoundError as error:
    raise errors.InputError(f"shard {shard_path!r} is missing.") from error


def _lengths(content: bytes, position: int, shard_path: str) -> np.ndarray:
  """Returns the lengths [R] of the records that begin in `content`, checked.

  Args:
    content: a part of a shard that begins where a record does.
    position: where in the shard that is.
    shard_path: for errors.
  """
  starts = []
  start = 0
  last_start = len(content) - _LENGTH_AND_CHECKSUM_BYTES
  while start <= last_start:
    starts.append(start)
    length = int.from_bytes(content[start : start + _LENGTH_BYTES], "little")
    start += length + FRAMING_BYTES
  places = np.array(starts, np.int64)[:, np.newaxis]
  headers = np.frombuffer(content, np.uint8)[
    places + np.arange(_LENGTH_AND_CHECKSUM_BYTES)
  ]  # [R, 12]
  lengths, checksums = headers[:, :_LENGTH_BYTES], headers[:, _LENGTH_BYTES:]
  is_wrong = _masked_crc32c(lengths) != _integers(checksums, "<u4")
  if is_wrong.any():
    raise errors.InputError(
      f"{shard_path!r} {_what_it_is(content, position, starts, is_wrong)}."
    )
  return _integers(lengths, "<i8")


def _integers(rows: np.ndarray, dtype: str) -> np.ndarray:
  """Returns the integers whose bytes are the rows [R, bytes]."""
  return np.ascontiguousarray(rows).view(dtype)[:, 0]


def _what_it_is(
  content: bytes, position: int, starts: list[int], is_wrong: np.ndarray
) -> str:
  """Says what is wrong with a shard that has a wrong length somewhere."""
  place = position + starts[int(is_wrong.argmax())]
  if place:
    return (
      f"is damaged: there is no record at byte {place}, where one should be"
    )
  if content.startswith(b"\x1f\x8b") or _is_zlib(content):
    return "is compressed; unpack it, since it is read from the middle too"
  return "is not a TFRecord file"


def _is_zlib(content: bytes) -> bool:
  try:
    zlib.decompressobj().decompress(content, 1)
  except zlib.error:
    return False
  return True


def _crc32c_table() -> np.ndarray:
  table = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    is_odd = (table & 1).astype(bool)
    table = np.where(is_odd, table >> 1 ^ np.uint32(0x82F63B78), table >> 1)
  return table


_CRC32C_TABLE = _crc32c_table()


def _masked_crc32c(rows: np.ndarray) -> np.ndarray:
  """Returns the checksums [R] that a TFRecord has for the bytes [R, bytes]."""
  crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
  for column in rows.T:
    crc = _CRC32C_TABLE[(crc ^ column) & 0xFF] ^ crc >> 8
  crc ^= np.uint32(0xFFFFFFFF)
  return (crc >> 15 | crc << 17) + np.uint32(0xA282EAD8)
