"""Batches come in an order that depends on seed and batch index alone."""

import dataclasses
import hashlib
import itertools
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import build
from mslt_tf.data import features
from mslt_tf.data import input_pipeline

NUM_EXAMPLES = 107
# Most end in a short block, so that windows differ in size.
SHARD_SIZES = (4, 7, 1, 10, 0, 13, 2, 16, 22, 32)
BLOCK = 3


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


def _write_data(directory, monkeypatch) -> None:
  monkeypatch.setattr(build, "RECORDS_PER_BLOCK", BLOCK)
  shards = []
  start = 0
  for index, size in enumerate(SHARD_SIZES):
    name = f"train-{index}.tfrecord"
    records = [_example(place) for place in range(start, start + size)]
    shard = build._write_shard(str(directory / name), records)
    shards.append({"file": name, **shard})
    start += size
  heldout = build._write_shard(
    str(directory / "heldout.tfrecord"),
    [_example(index) for index in range(500, 511)],
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
        "vocab": {"file": "vocab.txt", "size": 1234, "sha256": "ab"},
        "records_per_block": BLOCK,
        "unigram_mlm_loss": 5.5,
        "splits": {
          "train": {"num_examples": NUM_EXAMPLES, "shards": shards, **counts},
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
def directory(tmp_path, monkeypatch):
  _write_data(tmp_path, monkeypatch)
  return tmp_path


@pytest.fixture
def data(directory) -> input_pipeline.Data:
  return input_pipeline.open_data(str(directory))


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


def test_the_manifest_is_read(data, directory):
  assert data.vocab_size == 1234
  assert data.lower_case is True
  assert data.unigram_mlm_loss == 5.5
  assert data.train.num_examples == NUM_EXAMPLES
  assert data.heldout.num_documents == 2
  content = (directory / "manifest.json").read_bytes()
  assert data.fingerprint == hashlib.sha256(content).hexdigest()


def test_a_missing_directory_or_manifest_is_an_error(tmp_path):
  with pytest.raises(errors.InputError, match=r"nowhere' does not exist"):
    input_pipeline.open_data(str(tmp_path / "nowhere"))
  with pytest.raises(errors.InputError, match=r"has no manifest.json"):
    input_pipeline.open_data(str(tmp_path))


@pytest.mark.parametrize(
  "place, value, message",
  [
    (["format_version"], 2, "format_version=2"),
    (["sequence_length"], "128", "sequence_length=128 is not a whole number"),
    (["max_predictions"], None, "max_predictions=None"),
    (["lower_case"], 1, "lower_case=1 is not true or false"),
    (["vocab"], [], "vocab. is not an object"),
    (["vocab", "size"], True, "vocab.size=True"),
    (["vocab", "file"], "../vocab.txt", "vocab.file"),
    (["unigram_mlm_loss"], "low", "unigram_mlm_loss=low"),
    (["splits", "train", "shards"], {}, "splits.train.shards"),
    (["splits", "train", "num_examples"], 9, "num_examples=9 is not the sum"),
    (["splits", "heldout", "shards", 0, "block_offsets"], [0], "block_offsets"),
    (
      ["splits", "heldout", "shards", 0, "block_offsets"],
      [0, 9, 9, 12],
      "not increasing",
    ),
  ],
)
def test_a_malformed_manifest_is_an_error_that_names_the_field(
  directory, place, value, message
):
  path = directory / "manifest.json"
  manifest = json.loads(path.read_text())
  parent = manifest
  for key in place[:-1]:
    parent = parent[key]
  parent[place[-1]] = value
  path.write_text(json.dumps(manifest))
  with pytest.raises(errors.InputError, match=message) as raised:
    input_pipeline.open_data(str(directory))
  assert str(path) in str(raised.value)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_manifest_that_is_no_json_object_is_an_error(directory, content):
  (directory / "manifest.json").write_bytes(content)
  with pytest.raises(errors.InputError, match=r"manifest.json"):
    input_pipeline.open_data(str(directory))


def test_a_cut_off_shard_is_an_error_that_names_it(directory):
  path = directory / "train-1.tfrecord"
  path.write_bytes(path.read_bytes()[:-5])
  with pytest.raises(errors.InputError, match=r"train-1.tfrecord.*cut off"):
    input_pipeline.open_data(str(directory))


@pytest.mark.parametrize("name", ["train-1.tfrecord", "vocab.txt"])
def test_a_missing_file_is_an_error_that_names_it(directory, name):
  os.remove(directory / name)
  with pytest.raises(errors.InputError, match=rf"{name}' is missing"):
    input_pipeline.open_data(str(directory))


def test_a_damaged_record_is_noticed_and_its_file_found(directory, data):
  assert input_pipeline.find_damage(data) is None
  path = directory / "train-1.tfrecord"
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(tf.errors.DataLossError):
    _stream(data, 27)
  assert input_pipeline.find_damage(data) == str(path)


@pytest.mark.parametrize(
  "expected, message",
  [
    (dict(vocab_size=30522), "vocab_size=30522, but .* vocab_size=1234"),
    (dict(sequence_length=128), "sequence_length=128, but .*length=5"),
    (dict(max_predictions=20), "max_predictions=20, but .*predictions=2"),
    (dict(lower_case=False), "lower_case=False, but .*lower_case=True"),
  ],
)
def test_data_for_another_model_is_an_error(data, expected, message):
  with pytest.raises(errors.InputError, match=message):
    input_pipeline.check(data, **expected)


def test_data_for_this_model_is_right(data):
  input_pipeline.check(
    data,
    vocab_size=1234,
    sequence_length=5,
    max_predictions=2,
    lower_case=True,
  )
  with pytest.raises(dataclasses.FrozenInstanceError):
    data.vocab_size = 1


def test_numbers_out_of_range_are_errors(data):
  with pytest.raises(errors.InputError, match=r"batch_size=0"):
    input_pipeline.train_batches(data, batch_size=0, seed=0)
  with pytest.raises(errors.InputError, match=r"first_batch=-1"):
    input_pipeline.train_batches(data, batch_size=4, seed=0, first_batch=-1)
  with pytest.raises(errors.InputError, match=r"max_examples=0"):
    input_pipeline.heldout_batches(data, batch_size=4, max_examples=0)
