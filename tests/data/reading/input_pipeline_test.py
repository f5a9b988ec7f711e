"""Batches come in an order that depends on seed and batch index alone."""

import hashlib
import itertools
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.building import shards
from mslt_tf.data.examples import features
from mslt_tf.data.reading import input_pipeline
from mslt_tf.data.reading import manifest
from mslt_tf.data.reading import stored_states

BLOCK = 3
NUM_LANES = 64
# Most shards end in a short block. A lane has one or two examples.
SHARD_SIZES = (4, 7, 1, 10, 0, 13, 2, 16, 22, 32)
NUM_EXAMPLES = 107
# Two windows of four blocks for each lane, and no block is cut.
EVEN_SHARD_SIZES = (768, 768)

# Of "[PAD]" and a line's end, by the program sha256sum.
VOCAB_SHA256 = (
  "cd66c3d348c719ac791d8a6bd5c74cce2e1966c7b4a1fe00c1ef4c30b8d30ce7"
)


def _example(index: int) -> bytes:
  """An example whose first id is its index."""
  content, _ = features.serialize(
    features.Examples(
      input_ids=np.array([[index + 1000, 5, 6, 0, 0]]),
      num_tokens=np.array([3]),
      second_start=np.array([2]),
      masked_lm_positions=np.array([[1, 0]]),
      masked_lm_ids=np.array([[index, 0]]),
      num_predictions=np.array([1]),
      is_random_next=np.array([index % 2 == 0]),
    )
  )
  return content.tobytes()


def _write_data(directory, shard_sizes=SHARD_SIZES) -> manifest.Data:
  train = []
  start = 0
  for index, size in enumerate(shard_sizes):
    name = f"train-{index}.tfrecord"
    records = [_example(place) for place in range(start, start + size)]
    train.append(
      shards.write_shard(
        str(directory / name), records, records_per_block=BLOCK
      )
    )
    start += size
  heldout = shards.write_shard(
    str(directory / "heldout.tfrecord"),
    [_example(index) for index in range(500, 511)],
    records_per_block=BLOCK,
  )
  counts = {"num_documents": 2, "num_sentences": 3, "num_tokens": 4}
  (directory / "vocab.txt").write_text("[PAD]\n")
  (directory / "manifest.json").write_text(
    json.dumps(
      {
        "format_version": 2,
        "sequence_length": 5,
        "max_predictions": 2,
        "lower_case": True,
        "vocab": {"file": "vocab.txt", "size": 3000, "sha256": VOCAB_SHA256},
        "records_per_block": BLOCK,
        "unigram_mlm_loss": 5.5,
        "splits": {
          "train": {"num_examples": start, "shards": train, **counts},
          "heldout": {
            "num_examples": 11,
            "shards": [heldout],
            **counts,
          },
        },
      }
    )
  )
  return manifest.open_data(str(directory))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> manifest.Data:
  return _write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def even_data(tmp_path_factory) -> manifest.Data:
  return _write_data(tmp_path_factory.mktemp("even"), EVEN_SHARD_SIZES)


def _indices(dataset: tf.data.Dataset, num_batches: int) -> list[list[int]]:
  return [
    (batch["input_ids"][:, 0].numpy() - 1000).tolist()
    for batch in dataset.take(num_batches)
  ]


def _flat(batches: list[list[int]]) -> list[int]:
  return list(itertools.chain.from_iterable(batches))


def _stream(data, num_batches, *, batch_size=4, seed=3, **kwargs):
  dataset = input_pipeline.train_batches(
    data, batch_size=batch_size, seed=seed, **kwargs
  )
  return _indices(dataset, num_batches)


def _heldout(data, **kwargs):
  return _indices(input_pipeline.heldout_batches(data, **kwargs), 99)


def _damage(path: str, start: int, stop: int) -> None:
  """Changes every byte from `start` to `stop`."""
  content = np.fromfile(path, np.uint8)
  content[start:stop] ^= 255
  content.tofile(path)


def test_each_epoch_sees_each_record_once(data):
  records = _flat(_stream(data, 81))  # 324 records: three epochs and 3.
  for epoch in range(3):
    start = epoch * NUM_EXAMPLES
    assert sorted(records[start : start + NUM_EXAMPLES]) == list(
      range(NUM_EXAMPLES)
    )


def test_epochs_differ_and_are_not_in_file_order(even_data):
  records = _flat(_stream(even_data, 48, batch_size=64))
  first, second = records[:1536], records[1536:]
  assert first != second
  for epoch in (first, second):
    # Neighbours stay neighbours in 1 of 768 places of a random order.
    assert (np.diff(epoch) == 1).sum() < 20


def test_a_block_is_of_one_lane_or_of_neighbours(data):
  blocks = {}
  start = 0
  for size in SHARD_SIZES:
    for place in range(size):
      blocks[start + place] = (start, place // BLOCK)
    start += size
  lanes = {block: set() for block in blocks.values()}
  for place, record in enumerate(_flat(_stream(data, 27))[:NUM_EXAMPLES]):
    lanes[blocks[record]].add(place % NUM_LANES)
  for each in lanes.values():
    assert max(each) - min(each) < len(each)


def test_a_window_of_a_lane_is_four_blocks_out_of_order(even_data):
  records = np.array(_flat(_stream(even_data, 12, batch_size=128)))
  windows = records.reshape(2, 12, NUM_LANES).transpose(2, 0, 1)
  blocks = windows // BLOCK
  assert all(len(set(each)) == 4 for each in blocks.reshape(128, 12).tolist())
  # Neighbours in a window are of one block in 2 of 11 places.
  assert (np.diff(blocks) == 0).mean() < 0.25
  assert len({tuple(each % 12) for each in windows.reshape(128, 12)}) > 100


def test_entering_at_a_batch_gives_what_follows_it(data):
  # An epoch is 26.75 batches.
  whole = _stream(data, 85)
  for first_batch in (1, 26, 27, 53, 80):
    entered = _stream(data, 5, first_batch=first_batch)
    assert entered == whole[first_batch:][:5]


@pytest.mark.parametrize("workers", [{}, {"num_workers": 4, "worker": 3}])
def test_entering_in_a_window_gives_what_follows_it(even_data, workers):
  # A window is 32 batches, an epoch 64.
  whole = _stream(even_data, 100, batch_size=24, **workers)
  for first_batch in (31, 33, 95):
    entered = _stream(
      even_data, 5, batch_size=24, first_batch=first_batch, **workers
    )
    assert entered == whole[first_batch:][:5]


@pytest.mark.parametrize("num_epochs", [4 * 10**9, 4 * 10**17])
def test_entering_far_away_is_possible(data, num_epochs):
  # The least common multiple: batch 107 n begins epoch 4 n.
  first_batch = 107 * num_epochs // 4
  records = _flat(_stream(data, 27, first_batch=first_batch))
  assert sorted(records[:NUM_EXAMPLES]) == list(range(NUM_EXAMPLES))
  shares = [
    _stream(data, 27, first_batch=first_batch, num_workers=2, worker=worker)
    for worker in range(2)
  ]
  assert sorted(_flat(shares[0] + shares[1])) == sorted(records)


def test_the_batch_size_only_cuts_the_same_stream(data):
  four = _flat(_stream(data, 35, batch_size=4))
  seven = _flat(_stream(data, 20, batch_size=7))
  assert four == seven
  entered = _flat(_stream(data, 5, batch_size=7, first_batch=15))
  assert entered == four[105:]


def test_a_batch_may_be_larger_than_the_data(data):
  (batch,) = _stream(data, 1, batch_size=250)
  assert sorted(batch[:107]) == sorted(batch[107:214]) == list(range(107))


@pytest.mark.parametrize(
  "batch_size, num_workers, cycle", [(4, 4, 4), (12, 2, 4), (64, 2, 64)]
)
def test_workers_share_each_batch(data, batch_size, num_workers, cycle):
  whole = np.array(_stream(data, 30, batch_size=batch_size))
  places = np.arange(whole.size).reshape(whole.shape)
  for worker in range(num_workers):
    share = _stream(
      data,
      30,
      batch_size=batch_size,
      num_workers=num_workers,
      worker=worker,
    )
    is_own = places % cycle // (cycle // num_workers) == worker
    assert _flat(share) == whole[is_own].tolist()
    assert {len(part) for part in share} == {batch_size // num_workers}


def test_data_may_be_smaller_than_the_number_of_lanes(tmp_path):
  data = _write_data(tmp_path, (4, 1))
  whole = _stream(data, 10, batch_size=8)
  assert all(
    sorted(_flat(whole)[start : start + 5]) == [0, 1, 2, 3, 4]
    for start in range(0, 80, 5)
  )
  shares = [
    _stream(data, 10, batch_size=8, num_workers=4, worker=worker)
    for worker in range(4)
  ]
  for batch, parts in zip(whole, zip(*shares, strict=True), strict=True):
    assert sorted(_flat(parts)) == sorted(batch)


def test_parts_cut_a_share(data):
  kwargs = dict(batch_size=24, num_workers=2, worker=1, first_batch=3)
  share = _stream(data, 10, **kwargs)
  parts = _stream(data, 30, num_parts=3, **kwargs)
  assert {len(part) for part in parts} == {4}
  assert _flat(parts) == _flat(share)


def _blocks_of(records: list[int]) -> set[int]:
  return {record // BLOCK for record in records}


def test_a_worker_reads_only_its_own_blocks(tmp_path):
  data = _write_data(tmp_path, EVEN_SHARD_SIZES)
  # 24 batches of 64 are an epoch.
  own = dict(batch_size=64, num_workers=2, worker=0)
  share = _stream(data, 24, **own)
  assert len(_blocks_of(_flat(share))) == 256  # of 512
  for shard_index, shard in enumerate(data.train.shards):
    ends = [*shard.index.offsets[1:], shard.index.num_bytes]
    for index, (start, end) in enumerate(
      zip(shard.index.offsets, ends, strict=True)
    ):
      if shard_index * 256 + index not in _blocks_of(_flat(share)):
        _damage(shard.path, start, end)
  assert _stream(data, 24, **own) == share
  with pytest.raises(tf.errors.DataLossError):
    _stream(data, 1, batch_size=64, num_workers=2, worker=1)


def _bytes_read() -> int:
  """Returns how many bytes this process has read so far."""
  return int(pathlib.Path("/proc/self/io").read_text().split()[1])


def test_two_workers_read_half_of_the_bytes_each(even_data):
  num_bytes = sum(shard.index.num_bytes for shard in even_data.train.shards)
  num_epochs = 20
  for worker in range(2):
    before = _bytes_read()
    _stream(
      even_data, 24 * num_epochs, batch_size=64, num_workers=2, worker=worker
    )
    share = (_bytes_read() - before) / num_bytes / num_epochs
    assert 0.48 < share < 0.65  # What is read ahead comes on top.


def test_entering_late_reads_no_more_than_entering_early(even_data):
  num_bytes = sum(shard.index.num_bytes for shard in even_data.train.shards)
  for first_batch in (11, 24_000):  # A thousand epochs come before the latter.
    before = _bytes_read()
    _stream(even_data, 1, batch_size=64, first_batch=first_batch)
    # A window is half an epoch; some more are read ahead.
    assert 0.4 < (_bytes_read() - before) / num_bytes < 5


def test_seeds_give_different_orders_and_the_same_seed_the_same(data):
  assert _stream(data, 9, seed=3) == _stream(data, 9, seed=3)
  assert _stream(data, 9, seed=3) != _stream(data, 9, seed=4)


def test_the_order_stays_what_it_was_when_runs_were_started(data, even_data):
  # A changed order would make a resumed run see other data without a word.
  streams = [
    _stream(data, 60),
    _stream(even_data, 30, batch_size=64, num_workers=2, worker=1),
  ]
  digest = hashlib.sha256(str(streams).encode()).hexdigest()
  assert digest[:16] == "583bfd7d16e21c41"


def test_batches_hold_all_features_with_static_shapes(data):
  dataset = input_pipeline.train_batches(data, batch_size=4, seed=0)
  assert {
    name: (spec.shape.as_list(), spec.dtype.name)
    for name, spec in dataset.element_spec.items()
  } == {
    "input_ids": ([4, 5], "int32"),
    "input_mask": ([4, 5], "int32"),
    "segment_ids": ([4, 5], "int32"),
    "masked_lm_positions": ([4, 2], "int32"),
    "masked_lm_ids": ([4, 2], "int32"),
    "masked_lm_weights": ([4, 2], "float32"),
    "next_sentence_labels": ([4], "int32"),
  }


def test_training_batches_can_be_had_in_file_order(data):
  dataset = input_pipeline.train_batches_in_file_order(
    data, batch_size=8, num_parts=2
  )
  *batches, last = _indices(dataset, 99)
  # 107 examples, and 5 empty ones that fill up the last of 14 batches.
  assert _flat(batches) + last[:-1] == [*range(107), *[-1000] * 4]
  assert [len(batch) for batch in [*batches, last]] == [4] * 28


@pytest.mark.parametrize("worker", [0, 1])
def test_every_example_comes_with_its_own_states(worker, data, tmp_path):
  states = np.arange(NUM_EXAMPLES * 5 * 2, dtype=np.float32)
  states = states.reshape([NUM_EXAMPLES, 5, 2])
  description = stored_states.Description(
    data_fingerprint="",
    weights_sha256="",
    dtype="float32",
    num_examples=NUM_EXAMPLES,
    sequence_length=5,
    hidden_size=2,
  )
  stored = stored_states.write(str(tmp_path), description, [states])
  batches = input_pipeline.train_batches(
    data,
    batch_size=8,
    seed=3,
    first_batch=5,
    num_workers=2,
    worker=worker,
    states=stored,
  )
  for batch in batches.take(40):  # Three epochs.
    numbers = batch["input_ids"][:, 0].numpy() - 1000
    np.testing.assert_array_equal(batch["frozen_states"], states[numbers])


def test_heldout_batches_are_in_file_order_and_end(data):
  # Empty examples fill up the last one.
  empty = -1000
  assert _heldout(data, batch_size=4) == [
    [500, 501, 502, 503],
    [504, 505, 506, 507],
    [508, 509, 510, empty],
  ]
  assert _heldout(data, batch_size=4, max_examples=5) == [
    [500, 501, 502, 503],
    [504, empty, empty, empty],
  ]


def test_empty_examples_are_all_zeros(data):
  *_, last = input_pipeline.heldout_batches(data, batch_size=4)
  assert last["input_mask"][:, 0].numpy().tolist() == [1, 1, 1, 0]
  for name, values in last.items():
    assert not values[3].numpy().any(), name
  assert last["input_ids"].shape == (4, 5)


@pytest.mark.parametrize(
  "num_workers, num_parts, max_examples",
  [(2, 1, 1), (2, 1, 8), (4, 1, 9), (2, 2, None), (4, 2, 7)],
)
def test_workers_share_the_heldout_examples(
  data, max_examples, num_workers, num_parts
):
  shares = [
    _heldout(
      data,
      batch_size=8,
      max_examples=max_examples,
      num_workers=num_workers,
      worker=worker,
      num_parts=num_parts,
    )
    for worker in range(num_workers)
  ]
  num_examples = max_examples or 11
  num_batches = 1 if num_examples <= 8 else 2
  assert {len(share) for share in shares} == {num_batches * num_parts}
  seen = [index for index in _flat(_flat(shares)) if index >= 0]
  assert seen == list(range(500, 500 + num_examples))


def test_a_worker_reads_only_its_heldout_examples(tmp_path):
  data = _write_data(tmp_path)
  (shard,) = data.heldout.shards
  _damage(shard.path, shard.index.offsets[2], shard.index.num_bytes)
  own = dict(batch_size=4, num_workers=2)
  assert _flat(_heldout(data, worker=0, **own))[:5] == [500, 501, 502, 503, 504]
  with pytest.raises(tf.errors.DataLossError):
    _heldout(data, worker=1, **own)


def test_a_damaged_record_is_noticed_and_its_file_found(tmp_path):
  data = _write_data(tmp_path)
  assert input_pipeline.find_damage(data) is None
  path = str(tmp_path / "train-1.tfrecord")
  middle = data.train.shards[1].index.num_bytes // 2
  _damage(path, middle, middle + 1)
  with pytest.raises(tf.errors.DataLossError):
    _stream(data, 27)
  assert input_pipeline.find_damage(data) == path


def test_an_index_that_points_beside_the_records_is_found(tmp_path):
  _write_data(tmp_path)
  path = str(tmp_path / "train-1.tfrecord.index")
  _damage(path, 48, 49)  # The lowest byte of the second block's offset.
  data = manifest.open_data(str(tmp_path))
  with pytest.raises(tf.errors.DataLossError):
    _stream(data, 27)
  assert input_pipeline.find_damage(data) == path


def test_numbers_out_of_range_are_errors(data):
  with pytest.raises(errors.InputError, match=r"batch_size=0"):
    input_pipeline.train_batches(data, batch_size=0, seed=0)
  with pytest.raises(errors.InputError, match=r"first_batch=-1"):
    input_pipeline.train_batches(data, batch_size=4, seed=0, first_batch=-1)
  with pytest.raises(errors.InputError, match=r"max_examples=0"):
    input_pipeline.heldout_batches(data, batch_size=4, max_examples=0)


@pytest.mark.parametrize(
  "kwargs, message",
  [
    (dict(num_workers=0), "num_workers=0 is below 1"),
    (dict(num_parts=0), "num_parts=0 is below 1"),
    (dict(num_workers=2, worker=2), "worker=2 .* num_workers=2"),
    (dict(worker=-1), "worker=-1 .* num_workers=1"),
    (dict(num_workers=5), "batch_size=12 .* num_workers=5"),
    (dict(num_parts=8), "batch_size=12 .* num_parts=8"),
  ],
)
def test_batches_that_cannot_be_shared_out_are_errors(data, kwargs, message):
  with pytest.raises(errors.InputError, match=message):
    input_pipeline.train_batches(data, batch_size=12, seed=0, **kwargs)
  with pytest.raises(errors.InputError, match=message):
    input_pipeline.heldout_batches(data, batch_size=12, **kwargs)


def test_workers_that_lanes_cannot_be_dealt_to_are_an_error(data):
  with pytest.raises(
    errors.InputError, match=r"num_workers=3 does not divide 4, .*batch_size=12"
  ):
    input_pipeline.train_batches(data, batch_size=12, seed=0, num_workers=3)
