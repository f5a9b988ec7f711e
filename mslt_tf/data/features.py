"""The features of a pre-training example; the one place that spells them.

Names and types are those of google-research/bert's create_pretraining_data.py,
so its TFRecords and ours can be read by the same programs.

B batch, S sequence, P predictions.
"""

import numpy as np
import tensorflow as tf

INPUT_IDS = "input_ids"  # [S]
INPUT_MASK = "input_mask"  # [S], 1 at tokens and 0 at padding
SEGMENT_IDS = "segment_ids"  # [S], 1 at the second segment
MASKED_LM_POSITIONS = "masked_lm_positions"  # [P]
MASKED_LM_IDS = "masked_lm_ids"  # [P]
MASKED_LM_WEIGHTS = "masked_lm_weights"  # [P], 1.0 at predictions
NEXT_SENTENCE_LABELS = "next_sentence_labels"  # [1], 1 is a random next


def to_example(
  input_ids,
  segment_ids,
  *,
  masked_lm_positions,
  masked_lm_ids,
  is_random_next: bool,
  sequence_length: int,
  max_predictions: int,
) -> bytes:
  """Returns a serialized `tf.train.Example`, padded with zeros.

  Args:
    input_ids: ids after masking, at most `sequence_length`.
    segment_ids: 0 or 1 for each of `input_ids`.
    masked_lm_positions: sorted positions, at most `max_predictions`.
    masked_lm_ids: the ids that stood at these positions.
    is_random_next: whether the second segment is from another document.
    sequence_length: S.
    max_predictions: P.
  """
  num_tokens = len(input_ids)
  num_masked = len(masked_lm_positions)
  if num_tokens > sequence_length or num_masked > max_predictions:
    raise ValueError(
      f"{num_tokens} tokens and {num_masked} predictions do not fit into"
      f" sequence_length={sequence_length} and"
      f" max_predictions={max_predictions}."
    )
  token_padding = [0] * (sequence_length - num_tokens)
  prediction_padding = [0] * (max_predictions - num_masked)
  feature = {
    INPUT_IDS: _int64(input_ids, token_padding),
    INPUT_MASK: _int64([1] * num_tokens, token_padding),
    SEGMENT_IDS: _int64(segment_ids, token_padding),
    MASKED_LM_POSITIONS: _int64(masked_lm_positions, prediction_padding),
    MASKED_LM_IDS: _int64(masked_lm_ids, prediction_padding),
    MASKED_LM_WEIGHTS: tf.train.Feature(
      float_list=tf.train.FloatList(
        value=[1.0] * num_masked + [0.0] * len(prediction_padding)
      )
    ),
    NEXT_SENTENCE_LABELS: _int64([int(is_random_next)], []),
  }
  example = tf.train.Example(features=tf.train.Features(feature=feature))
  # Map fields are written in hash order unless told otherwise, and the same
  # input must give the same bytes.
  return example.SerializeToString(deterministic=True)


def parse_batch(
  serialized: tf.Tensor, *, sequence_length: int, max_predictions: int
) -> dict[str, tf.Tensor]:
  """Returns the features of `serialized` [B] examples.

  Args:
    serialized: [B] strings, each a serialized `tf.train.Example`.
    sequence_length: S.
    max_predictions: P.

  Returns:
    int32 [B, S] and [B, P], float32 [B, P] for the weights, and int32 [B] for
    the next-sentence labels.
  """
  sequence = tf.io.FixedLenFeature([sequence_length], tf.int64)
  predictions = tf.io.FixedLenFeature([max_predictions], tf.int64)
  parsed = tf.io.parse_example(
    serialized,
    {
      INPUT_IDS: sequence,
      INPUT_MASK: sequence,
      SEGMENT_IDS: sequence,
      MASKED_LM_POSITIONS: predictions,
      MASKED_LM_IDS: predictions,
      MASKED_LM_WEIGHTS: tf.io.FixedLenFeature([max_predictions], tf.float32),
      NEXT_SENTENCE_LABELS: tf.io.FixedLenFeature([1], tf.int64),
    },
  )
  parsed[NEXT_SENTENCE_LABELS] = tf.squeeze(
    parsed[NEXT_SENTENCE_LABELS], axis=-1
  )
  return {
    name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value
    for name, value in parsed.items()
  }


def _int64(values, padding: list[int]) -> tf.train.Feature:
  values = np.asarray(values).tolist()  # Python integers, quickly.
  return tf.train.Feature(int64_list=tf.train.Int64List(value=values + padding))
