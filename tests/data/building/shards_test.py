"""Shards hold every example once, in one order, and are of one size."""

import itertools
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.building import external_sort
from mslt_tf.data.building import processes
from mslt_tf.data.building import shards
from mslt_tf.data.reading import record_index


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> list[str]:
  """Sorted files of the records 0 to 99, in a random order."""
  directory = tmp_path_factory.mktemp("examples")
  rng = np.random.default_rng(5)
  paths = []
  for index, records in enumerate(np.split(rng.permutation(100), [37, 37])):
    path = str(directory / str(index))
    contents = [b"%d" % record for record in records]
    with external_sort.Writer(path) as writer:
      writer.add(b"".join(contents), np.array([len(c) for c in contents], int))
      keys = rng.integers(2**64, size=len(records), dtype=np.uint64)
      writer.finish(np.sort(keys), {})
    paths.append(path)
  return paths


def _write(directory, examples, num_shards: int) -> list[list[int]]:
  with processes.start(1) as one:
    entries = shards.write(
      "odd", examples, num_shards, directory=str(directory), processes=one
    )
  paths = [str(directory / entry["file"]) for entry in entries]
  records = [
    [int(raw.numpy()) for raw in tf.data.TFRecordDataset(path)]
    for path in paths
  ]
  assert [(entry["num_examples"], entry["bytes"]) for entry in entries] == [
    (len(each), os.path.getsize(path))
    for each, path in zip(records, paths, strict=True)
  ]
  return records


def test_each_example_is_in_one_shard_and_shards_are_of_one_size(
  tmp_path, examples
):
  records = _write(tmp_path, examples, 7)
  assert sorted(itertools.chain(*records)) == list(range(100))
  assert sorted(map(len, records)) == [14, 14, 14, 14, 14, 15, 15]


def test_only_the_shards_and_their_indexes_are_left(tmp_path, examples):
  _write(tmp_path, examples, 2)
  assert sorted(os.listdir(tmp_path)) == [
    "odd-00000-of-00002.tfrecord",
    "odd-00000-of-00002.tfrecord.index",
    "odd-00001-of-00002.tfrecord",
    "odd-00001-of-00002.tfrecord.index",
  ]


def test_shards_only_cut_one_order(tmp_path, examples):
  (tmp_path / "1").mkdir()
  (tmp_path / "7").mkdir()
  (whole,) = _write(tmp_path / "1", examples, 1)
  assert whole == list(itertools.chain(*_write(tmp_path / "7", examples, 7)))
  # The files are mixed: with 37 and 63 records, about half of the neighbours
  # are from different ones.
  keys = [external_sort.SortedFile(path).num_records for path in examples]
  assert keys == [37, 0, 63]
  first = {
    int(bytes(record))
    for record in external_sort.read(
      [external_sort.SortedFile(examples[0])], external_sort.ALL_KEYS
    )[1]
  }
  changes = sum(
    (a in first) != (b in first) for a, b in itertools.pairwise(whole)
  )
  assert 30 < changes < 65


def test_a_finished_shard_is_kept(tmp_path, examples):
  _write(tmp_path, examples, 3)
  path = tmp_path / "odd-00001-of-00003.tfrecord"
  before = path.stat().st_mtime_ns
  (tmp_path / "odd-00002-of-00003.tfrecord").unlink()
  _write(tmp_path, examples, 3)
  assert path.stat().st_mtime_ns == before
  assert (tmp_path / "odd-00002-of-00003.tfrecord").exists()


@pytest.mark.parametrize(
  "num_bytes, what",
  [
    (0, "it has 0 of 33 examples"),
    # Records of two digits.
    (32 * 18, "it has 32 of 33 examples"),
    (32 * 18 + 5, "it has 581 bytes, and its last record is not whole"),
  ],
)
def test_a_damaged_shard_is_removed_and_written_again(
  tmp_path, examples, num_bytes, what
):
  _write(tmp_path, examples, 3)
  path = tmp_path / "odd-00000-of-00003.tfrecord"
  content = path.read_bytes()
  # As many digits in each record, so that the cut is between two of them.
  records = [b"%d" % (10 + index) for index in range(33)]
  shards.write_shard(str(path), records, records_per_block=64)
  os.truncate(path, num_bytes)
  with pytest.raises(errors.UnavailableError, match=f"removed: .*{what}"):
    _write(tmp_path, examples, 3)
  assert not path.exists()
  _write(tmp_path, examples, 3)
  assert path.read_bytes() == content


def test_the_index_of_a_shard_points_at_every_64th_record(tmp_path):
  records = [bytes([index % 251]) * (index % 7) for index in range(150)]
  path = str(tmp_path / "shard")
  shards.write_shard(path, records, records_per_block=64)
  content = pathlib.Path(path).read_bytes()
  assert shards.describe(path) == {
    "file": "shard",
    "num_examples": 150,
    "bytes": len(content),
  }
  index = record_index.of_shard(path, records_per_block=64)
  # A record is its length in 8 bytes, 4 of checksum, data, 4 of checksum.
  for place, offset in zip((0, 64, 128), index.offsets, strict=True):
    length = int.from_bytes(content[offset : offset + 8], "little")
    assert content[offset + 12 : offset + 12 + length] == records[place]
