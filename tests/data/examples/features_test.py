"""The features are those of google-research/bert, and survive a round trip."""

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf.data.examples import features

# Two sequences of 4, with 2 predictions at most: [5, 9, 7] with the place of a
# padding, its second segment from 9 on and 8 hidden behind it; and a whole one.
EXAMPLES = features.Examples(
  input_ids=np.array([[5, 9, 7, 0], [300, 2, 4, 70_000]], np.int32),
  num_tokens=np.array([3, 4]),
  second_start=np.array([1, 3]),
  masked_lm_positions=np.array([[1, 0], [0, 2]], np.int32),
  masked_lm_ids=np.array([[8, 0], [6, 128]], np.int32),
  num_predictions=np.array([1, 2]),
  is_random_next=np.array([True, False]),
)


def _serialized(examples: features.Examples) -> list[bytes]:
  content, lengths = features.serialize(examples)
  assert content.dtype == np.uint8 and len(content) == lengths.sum()
  ends = np.cumsum(lengths)
  return [
    content[end - length : end].tobytes()
    for end, length in zip(ends, lengths, strict=True)
  ]


def test_names_and_types_are_those_of_the_original_bert():
  example = tf.train.Example.FromString(_serialized(EXAMPLES)[0])
  kinds = {
    name: (
      feature.WhichOneof("kind"),
      list(getattr(feature, feature.WhichOneof("kind")).value),
    )
    for name, feature in example.features.feature.items()
  }
  assert kinds == {
    "input_ids": ("int64_list", [5, 9, 7, 0]),
    "input_mask": ("int64_list", [1, 1, 1, 0]),
    "segment_ids": ("int64_list", [0, 1, 1, 0]),
    "masked_lm_positions": ("int64_list", [1, 0]),
    "masked_lm_ids": ("int64_list", [8, 0]),
    "masked_lm_weights": ("float_list", [1.0, 0.0]),
    "next_sentence_labels": ("int64_list", [1]),
  }


def _by_protobuf(examples: features.Examples, row: int) -> bytes:
  num_tokens = int(examples.num_tokens[row])
  num_second = max(num_tokens - int(examples.second_start[row]), 0)
  num_predictions = int(examples.num_predictions[row])
  sequence_length = examples.input_ids.shape[1]
  max_predictions = examples.masked_lm_ids.shape[1]
  padding = [0] * (sequence_length - num_tokens)
  weights = [1.0] * num_predictions
  weights += [0.0] * (max_predictions - num_predictions)
  integers = {
    "input_ids": examples.input_ids[row].tolist(),
    "input_mask": [1] * num_tokens + padding,
    "segment_ids": [0] * (num_tokens - num_second) + [1] * num_second + padding,
    "masked_lm_positions": examples.masked_lm_positions[row].tolist(),
    "masked_lm_ids": examples.masked_lm_ids[row].tolist(),
    "next_sentence_labels": [int(examples.is_random_next[row])],
  }
  feature = {
    name: tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    for name, values in integers.items()
  }
  feature["masked_lm_weights"] = tf.train.Feature(
    float_list=tf.train.FloatList(value=weights)
  )
  example = tf.train.Example(features=tf.train.Features(feature=feature))
  return example.SerializeToString(deterministic=True)


def _random_examples(
  rng, num_examples, sequence_length, max_predictions, vocab_size
) -> features.Examples:
  num_tokens = rng.integers(sequence_length, size=num_examples, endpoint=True)
  num_predictions = rng.integers(
    max_predictions, size=num_examples, endpoint=True
  )
  # Ids of all magnitudes, so of one to three bytes.
  ids = vocab_size ** rng.random(
    (num_examples, sequence_length + max_predictions)
  )
  ids = ids.astype(np.int32)
  is_token = np.arange(sequence_length) < num_tokens[:, None]
  is_prediction = np.arange(max_predictions) < num_predictions[:, None]
  positions = rng.integers(sequence_length, size=is_prediction.shape)
  return features.Examples(
    input_ids=ids[:, :sequence_length] * is_token,
    num_tokens=num_tokens,
    second_start=rng.integers(num_tokens + 1),
    masked_lm_positions=np.sort(positions) * is_prediction,
    masked_lm_ids=ids[:, sequence_length:] * is_prediction,
    num_predictions=num_predictions,
    is_random_next=rng.random(num_examples) < 0.5,
  )


@pytest.mark.parametrize(
  "num_examples, sequence_length, max_predictions, vocab_size",
  [
    (1, 8, 1, 100),  # Every value in one byte.
    (40, 9, 7, 127),
    (41, 13, 3, 129),
    (42, 127, 20, 16_383),
    (43, 128, 20, 30_522),
    (44, 131, 31, 16_385),
    (45, 512, 76, 1_000_000),
    (46, 512, 300, 2_100_000),  # Ids of four bytes.
    (2500, 11, 2, 500),  # More than are serialized at a time.
  ],
)
def test_the_bytes_are_those_of_protobuf(
  num_examples, sequence_length, max_predictions, vocab_size
):
  examples = _random_examples(
    np.random.default_rng(num_examples),
    num_examples,
    sequence_length,
    max_predictions,
    vocab_size,
  )
  expected = [_by_protobuf(examples, row) for row in range(num_examples)]
  assert _serialized(examples) == expected


def test_an_example_of_zeros_is_serialized():
  zeros = features.Examples(
    input_ids=np.zeros((1, 8), np.int32),
    num_tokens=np.array([0]),
    second_start=np.array([0]),
    masked_lm_positions=np.zeros((1, 3), np.int32),
    masked_lm_ids=np.zeros((1, 3), np.int32),
    num_predictions=np.array([0]),
    is_random_next=np.array([False]),
  )
  assert _serialized(zeros) == [_by_protobuf(zeros, 0)]


def test_no_examples_are_no_bytes():
  content, lengths = features.serialize(EXAMPLES[:0])
  assert content.tolist() == [] and lengths.tolist() == []


def test_examples_are_picked():
  picked = EXAMPLES[np.array([1, 0])]
  assert len(picked) == 2
  assert _serialized(picked) == _serialized(EXAMPLES)[::-1]


def test_a_parsed_batch_has_the_shapes_and_types_of_the_model_inputs():
  batch = features.parse_batch(
    tf.constant(_serialized(EXAMPLES) + _serialized(EXAMPLES[:1])),
    sequence_length=4,
    max_predictions=2,
    vocab_size=70_001,
  )
  assert {
    name: (value.dtype.name, tuple(value.shape))
    for name, value in batch.items()
  } == {
    "input_ids": ("int32", (3, 4)),
    "input_mask": ("int32", (3, 4)),
    "segment_ids": ("int32", (3, 4)),
    "masked_lm_positions": ("int32", (3, 2)),
    "masked_lm_ids": ("int32", (3, 2)),
    "masked_lm_weights": ("float32", (3, 2)),
    "next_sentence_labels": ("int32", (3,)),
  }
  assert batch["input_ids"].numpy().tolist() == [
    [5, 9, 7, 0],
    [300, 2, 4, 70_000],
    [5, 9, 7, 0],
  ]
  assert batch["segment_ids"].numpy().tolist() == [
    [0, 1, 1, 0],
    [0, 0, 0, 1],
    [0, 1, 1, 0],
  ]
  assert batch["next_sentence_labels"].numpy().tolist() == [1, 0, 1]
