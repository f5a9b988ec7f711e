"""Batches come in an order that depends on seed and batch index alone."""

import hashlib
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import features
from mslt_tf.data import input_pipeline
from mslt_tf.data import manifest
from mslt_tf.data import shards

NUM_EXAMPLES = 107
# Most end in a short block, so that windows differ in size.
SHARD_SIZES = (4, 7, 1, 10, 0, 13, 2, 16, 22, 32)
BLOCK = 3

# Of "[PAD]" and a line's end, by the program sha256sum.
VOCAB_SHA256 = (
  "cd66c3d348c719ac791d8a6bd5c74cce2e1966c7b4a1fe00c1ef4c30b8d30ce7"
)


def _example(index: int) -> bytes:
  """An example whose first id is its index."""
  return features.to_example(
    [index + 1000, 5, 6],
    [0, 0, 1],
    masked_lm_positions=[1],
    masked_lm_ids=[index],
    is_random_next=index % 2 == 0,
    sequence_length=5,
    max_predictions=2,
  )


def _write_data(directory) -> None:
  train = []
  start = 0
  for index, size in enumerate(SHARD_SIZES):
    name = f"train-{index}.tfrecord"
    records = [_example(place) for place in range(start, start + size)]
    shard = shards.write_shard(
      str(directory / name), records, records_per_block=BLOCK
    )
    train.append({"file": name, **shard})
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
        "format_version": 1,
        "sequence_length": 5,
        "max_predictions": 2,
        "lower_case": True,
        "vocab": {"file": "vocab.txt", "size": 1234, "sha256": VOCAB_SHA256},
        "records_per_block": BLOCK,
        "unigram_mlm_loss": 5.5,
        "splits": {
          "train": {"num_examples": NUM_EXAMPLES, "shards": train, **counts},
          "heldout": {
            "num_examples": 11,
            "shards": [{"file": "heldout.tfrecord", **heldout}],
            **counts,
          },
        },
      }
    )
  )


@pytest.fixture
def directory(tmp_path):
  _write_data(tmp_path)
  return tmp_path


@pytest.fixture
def data(directory) -> manifest.Data:
  return manifest.open_data(str(directory))


def _indices(dataset: tf.data.Dataset, num_batches: int) -> list[list[int]]:
  return [
    (batch["input_ids"][:, 0].numpy() - 1000).tolist()
    for batch in dataset.take(num_batches)
  ]


def _flat(batches: list[list[int]]) -> list[int]:
  return list(itertools.chain.from_iterable(batches))


def _stream(data, num_batches, *, batch_size=4, seed=3, first_batch=0):
  dataset = input_pipeline.train_batches(
    data, batch_size=batch_size, seed=seed, first_batch=first_batch
  )
  return _indices(dataset, num_batches)


def test_each_epoch_sees_each_record_once(data):
  records = _flat(_stream(data, 81))  # 324 records: three epochs and 3.
  for epoch in range(3):
    start = epoch * NUM_EXAMPLES
    assert sorted(records[start : start + NUM_EXAMPLES]) == list(
      range(NUM_EXAMPLES)
    )


def test_epochs_differ_and_are_not_in_file_order(data):
  records = _flat(_stream(data, 54))
  first, second = records[:NUM_EXAMPLES], records[NUM_EXAMPLES:][:NUM_EXAMPLES]
  assert first != second
  for epoch in (first, second):
    # Neighbours stay neighbours in 1 of 54 places of a random order.
    assert (np.diff(epoch) == 1).sum() < 12


@pytest.mark.parametrize("first_batch", [1, 11, 26, 27, 40, 53, 79])
def test_entering_at_a_batch_gives_what_follows_it(data, first_batch):
  # An epoch is 26.75 batches, a window of 16 blocks about 10.
  whole = _stream(data, first_batch + 5)
  assert _stream(data, 5, first_batch=first_batch) == whole[first_batch:]


def test_entering_far_away_is_possible(data):
  # The least common multiple: batch 107 n begins epoch 4 n.
  records = _flat(_stream(data, 27, first_batch=107 * 10**9))
  assert sorted(records[:NUM_EXAMPLES]) == list(range(NUM_EXAMPLES))


def test_the_batch_size_only_cuts_the_same_stream(data):
  four = _flat(_stream(data, 35, batch_size=4))
  seven = _flat(_stream(data, 20, batch_size=7))
  assert four == seven
  entered = _flat(_stream(data, 5, batch_size=7, first_batch=15))
  assert entered == four[105:]


def test_a_batch_may_be_larger_than_the_data(data):
  (batch,) = _stream(data, 1, batch_size=250)
  assert sorted(batch[:107]) == sorted(batch[107:214]) == list(range(107))


def test_seeds_give_different_orders_and_the_same_seed_the_same(data):
  assert _stream(data, 9, seed=3) == _stream(data, 9, seed=3)
  assert _stream(data, 9, seed=3) != _stream(data, 9, seed=4)


def test_the_order_stays_what_it_was_when_runs_were_started(data):
  # A changed order would make a resumed run see other data without a word.
  digest = hashlib.sha256(str(_stream(data, 60)).encode()).hexdigest()
  assert digest[:16] == "76ebab00c062e1ee"


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


def test_heldout_batches_are_in_file_order_and_end(data):
  dataset = input_pipeline.heldout_batches(data, batch_size=4)
  assert _indices(dataset, 99) == [
    [500, 501, 502, 503],
    [504, 505, 506, 507],
    [508, 509, 510],
  ]
  dataset = input_pipeline.heldout_batches(data, batch_size=4, max_examples=5)
  assert _indices(dataset, 99) == [[500, 501, 502, 503], [504]]


def test_a_damaged_record_is_noticed_and_its_file_found(directory, data):
  assert input_pipeline.find_damage(data) is None
  path = directory / "train-1.tfrecord"
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(tf.errors.DataLossError):
    _stream(data, 27)
  assert input_pipeline.find_damage(data) == str(path)


def test_numbers_out_of_range_are_errors(data):
  with pytest.raises(errors.InputError, match=r"batch_size=0"):
    input_pipeline.train_batches(data, batch_size=0, seed=0)
  with pytest.raises(errors.InputError, match=r"first_batch=-1"):
    input_pipeline.train_batches(data, batch_size=4, seed=0, first_batch=-1)
  with pytest.raises(errors.InputError, match=r"max_examples=0"):
    input_pipeline.heldout_batches(data, batch_size=4, max_examples=0)
