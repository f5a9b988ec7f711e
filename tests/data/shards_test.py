"""Shards hold every example once, in a random order of the seed."""

import itertools
import os
import pathlib

import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import record_index
from mslt_tf.data import shards

EXAMPLES = [str(index).encode() for index in range(100)]


def _write(directory, *, num_shards=7, seed=(3, 0)) -> list[list[bytes]]:
  """Writes EXAMPLES; returns the records of each shard."""
  written = shards.write(
    "odd",
    iter(EXAMPLES),
    directory=str(directory),
    num_shards=num_shards,
    seed=seed,
  )
  return [
    [raw.numpy() for raw in tf.data.TFRecordDataset(str(directory / name))]
    for name in (shard["file"] for shard in written)
  ]


def test_each_example_is_in_one_shard_and_shards_are_of_one_size(tmp_path):
  records = _write(tmp_path)
  assert sorted(itertools.chain(*records), key=int) == EXAMPLES
  assert sorted(map(len, records)) == [14, 14, 14, 14, 14, 15, 15]


def test_only_the_shards_and_their_indexes_are_left(tmp_path):
  _write(tmp_path, num_shards=2)
  assert sorted(os.listdir(tmp_path)) == [
    "odd-00000-of-00002.tfrecord",
    "odd-00000-of-00002.tfrecord.index",
    "odd-00001-of-00002.tfrecord",
    "odd-00001-of-00002.tfrecord.index",
  ]


def test_the_order_is_random_and_of_the_seed(tmp_path):
  (order,) = _write(tmp_path, num_shards=1)
  places = [int(record) for record in order]
  # Neighbours stay neighbours in 1 of 100 places of a random order.
  neighbours = sum(b - a == 1 for a, b in itertools.pairwise(places))
  assert neighbours < 8
  assert _write(tmp_path, num_shards=1) == [order]
  assert _write(tmp_path, num_shards=1, seed=(4, 0)) != [order]
  assert _write(tmp_path, num_shards=1, seed=(3, 1)) != [order]


def test_fewer_examples_than_shards_are_an_error(tmp_path):
  with pytest.raises(
    errors.InputError, match=r"num_shards=101 is more than the 100 odd"
  ):
    _write(tmp_path, num_shards=101)


def test_the_index_of_a_shard_points_at_every_64th_record(tmp_path):
  records = [bytes([index % 251]) * (index % 7) for index in range(150)]
  path = str(tmp_path / "shard")
  shard = shards.write_shard(path, records, records_per_block=64)
  content = pathlib.Path(path).read_bytes()
  assert shard == {"num_examples": 150, "bytes": len(content)}
  index = record_index.of_shard(path, records_per_block=64)
  # A record is its length in 8 bytes, 4 of checksum, data, 4 of checksum.
  for place, offset in zip((0, 64, 128), index.offsets, strict=True):
    length = int.from_bytes(content[offset : offset + 8], "little")
    assert content[offset + 12 : offset + 12 + length] == records[place]
