"""The features are those of google-research/bert, and survive a round trip."""

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf.data import features


def _example() -> bytes:
  return features.to_example(
    np.array([5, 9, 7], np.int32),
    np.array([0, 1, 1], np.int32),
    masked_lm_positions=np.array([1]),
    masked_lm_ids=np.array([8], np.int32),
    is_random_next=True,
    sequence_length=4,
    max_predictions=2,
  )


def test_names_and_types_are_those_of_the_original_bert():
  example = tf.train.Example.FromString(_example())
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


def test_a_parsed_batch_has_the_shapes_and_types_of_the_model_inputs():
  batch = features.parse_batch(
    tf.constant([_example()] * 3), sequence_length=4, max_predictions=2
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
  assert batch["input_ids"].numpy().tolist() == [[5, 9, 7, 0]] * 3
  assert batch["next_sentence_labels"].numpy().tolist() == [1, 1, 1]


def test_too_many_tokens_are_refused():
  with pytest.raises(ValueError, match=r"sequence_length=4"):
    features.to_example(
      [1] * 5,
      [0] * 5,
      masked_lm_positions=[],
      masked_lm_ids=[],
      is_random_next=False,
      sequence_length=4,
      max_predictions=2,
    )
