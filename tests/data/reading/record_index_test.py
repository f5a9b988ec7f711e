"""An index says where the blocks of a shard begin, and is made if need be."""

import gzip
import os
import pathlib
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.reading import record_index

# Of different lengths, one of them empty: blocks of 3 and a last one of 2.
RECORDS = [bytes([index]) * (7 * index % 11) for index in range(14)]


@pytest.fixture
def shard(tmp_path) -> str:
  path = str(tmp_path / "foreign.tfrecord")
  with tf.io.TFRecordWriter(path) as writer:
    for record in RECORDS:
      writer.write(record)
  return path


def _open(shard: str) -> record_index.RecordIndex:
  return record_index.of_shard(shard, records_per_block=3)


def _change(path: str, change) -> None:
  content = pathlib.Path(path).read_bytes()
  pathlib.Path(path).write_bytes(change(content))


def test_a_shard_without_an_index_gets_one(shard):
  index = _open(shard)
  content = pathlib.Path(shard).read_bytes()
  assert (index.num_records, index.num_bytes) == (14, len(content))
  assert index.counts.tolist() == [3, 3, 3, 3, 2]
  assert index.sizes.sum() == len(content)
  # A record is its length in 8 bytes, 4 of checksum, data, 4 of checksum.
  for record, offset in zip(RECORDS[::3], index.offsets, strict=True):
    length = int.from_bytes(content[offset : offset + 8], "little")
    assert content[offset + 12 : offset + 12 + length] == record


def test_the_file_is_laid_out_as_documented(shard):
  index = _open(shard)
  fields = [1, 3, 14, os.path.getsize(shard), *index.offsets]
  assert pathlib.Path(shard + ".index").read_bytes() == (
    b"msltidx\n" + struct.pack("<9q", *fields)
  )
  assert sorted(os.listdir(os.path.dirname(shard))) == [
    "foreign.tfrecord",
    "foreign.tfrecord.index",
  ]


def test_scanning_gives_what_writing_knows(shard):
  known = record_index.of_lengths(
    [len(record) for record in RECORDS], records_per_block=3
  )
  scanned = record_index.scan(shard, records_per_block=3)
  assert scanned.num_bytes == known.num_bytes
  assert scanned.offsets.tolist() == known.offsets.tolist()


def test_a_shard_is_scanned_in_stretches(shard, monkeypatch):
  whole = record_index.scan(shard, records_per_block=3)
  # Both less and more than a record; a header has to fit.
  for num_bytes in (12, 13, 30, 100):
    monkeypatch.setattr(record_index, "_SCAN_BYTES", num_bytes)
    scanned = record_index.scan(shard, records_per_block=3)
    assert scanned.offsets.tolist() == whole.offsets.tolist()


def test_an_index_is_read_and_not_made_again(shard):
  offsets = _open(shard).offsets.tolist()
  _change(shard, lambda content: b"\xff" * len(content))
  assert _open(shard).offsets.tolist() == offsets


@pytest.mark.parametrize(
  "change",
  [
    lambda content: b"",
    lambda content: b"NUMPY" + content[5:],
    lambda content: content[:-8],
    lambda content: content[:-3],
    lambda content: content + bytes(8),
    lambda content: content[:16] + struct.pack("<q", 4) + content[24:],
    lambda content: content[:24] + struct.pack("<q", -1) + content[32:],
    lambda content: content[:40] + struct.pack("<q", 7) + content[48:],
    lambda content: content[:-8] + struct.pack("<q", 1 << 40),
  ],
)
def test_a_malformed_index_is_made_again(shard, change):
  offsets = _open(shard).offsets.tolist()
  _change(shard + ".index", change)
  assert _open(shard).offsets.tolist() == offsets
  size = os.path.getsize(shard + ".index")
  assert size == 40 + 8 * len(offsets)


def test_an_index_of_another_shard_is_made_again(shard):
  _open(shard)
  with tf.io.TFRecordWriter(shard) as writer:
    writer.write(b"one")
  assert _open(shard).offsets.tolist() == [0]


def test_an_index_too_large_for_the_shard_is_not_read(shard):
  _open(shard)
  with open(shard + ".index", "r+b") as file:
    file.truncate(1 << 40)  # A sparse file takes no room.
  assert _open(shard).num_records == 14


def test_where_it_cannot_be_written_it_is_kept_in_memory(
  shard, monkeypatch, caplog
):
  def refuse(*args, **kwargs):
    raise tf.errors.PermissionDeniedError(None, None, "read-only bucket")

  monkeypatch.setattr(tf.io.gfile, "rename", refuse)
  assert _open(shard).num_records == 14
  assert not os.path.exists(shard + ".index")
  (line,) = [
    record.message for record in caplog.records if "cannot be" in record.message
  ]
  assert f"{shard}.index" in line and "read-only bucket" in line


def test_an_empty_shard_has_no_blocks(tmp_path):
  path = tmp_path / "empty.tfrecord"
  path.write_bytes(b"")
  assert _open(str(path)).offsets.tolist() == []
  assert _open(str(path)).num_records == 0


@pytest.mark.parametrize(
  "change, message",
  [
    (gzip.compress, "is compressed"),
    (zlib.compress, "is compressed"),
    (lambda content: b"Once upon a time there was\n", "is not a TFRecord file"),
    (lambda content: bytes(100), "is not a TFRecord file"),
    (lambda content: content[:-1], "is cut off"),
    (lambda content: content + b"\0" * 5, "is cut off"),
    (lambda content: content[:16] + b"\1" + content[17:], "damaged.* byte 16,"),
  ],
)
def test_what_is_no_whole_tfrecord_file_is_an_error(shard, change, message):
  _change(shard, change)
  with pytest.raises(errors.InputError, match=message) as raised:
    _open(shard)
  assert shard in str(raised.value)
  assert "\n" not in str(raised.value)


def test_a_length_beyond_all_bounds_ends_the_scan(shard):
  # Its checksum is right, so that nothing else can tell.
  for length in (2**63 + 5, 2**64 - 16, 2**63 - 1):
    header = struct.pack("<Q", length)
    checksum = record_index._masked_crc32c(
      np.frombuffer(header, np.uint8)[np.newaxis]
    )
    content = header + checksum.astype("<u4").tobytes() + bytes(50)
    pathlib.Path(shard).write_bytes(content)
    with pytest.raises(errors.InputError, match="cut off"):
      _open(shard)


def test_a_missing_shard_is_an_error(tmp_path):
  with pytest.raises(errors.InputError, match=r"nothing.tfrecord' is missing"):
    _open(str(tmp_path / "nothing.tfrecord"))
