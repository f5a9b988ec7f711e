"""The features of a pre-training example; the one place that spells them.

Names and types are those of google-research/bert's create_pretraining_data.py,
so its TFRecords and ours can be read by the same programs. Model Garden's
script of that name can give two of them other names, which are read too.

B batch, S sequence, P predictions, V vocabulary, D hidden.
"""

import dataclasses
import enum

import numpy as np
import tensorflow as tf

INPUT_IDS = "input_ids"  # [S]
INPUT_MASK = "input_mask"  # [S], 1 at tokens and 0 at padding
SEGMENT_IDS = "segment_ids"  # [S], 1 at the second segment
MASKED_LM_POSITIONS = "masked_lm_positions"  # [P]
MASKED_LM_IDS = "masked_lm_ids"  # [P]
MASKED_LM_WEIGHTS = "masked_lm_weights"  # [P], 1.0 at predictions
NEXT_SENTENCE_LABELS = "next_sentence_labels"  # [1], 1 is a random next
# Not in shards: [S, D], what the frozen part of a stage makes of an example.
FROZEN_STATES = "frozen_states"


class Naming(enum.Enum):
  """What the features of a shard are called; the value is for errors."""

  BERT = "google-research/bert"
  MODEL_GARDEN_V2 = "tf-models-official's --use_v2_feature_names"

  def stored(self, name: str) -> str:
    """Returns what the shard calls a feature of ours."""
    is_bert = self is Naming.BERT
    return name if is_bert else _MODEL_GARDEN_V2_NAMES.get(name, name)


_MODEL_GARDEN_V2_NAMES = {
  INPUT_IDS: "input_word_ids",
  SEGMENT_IDS: "input_type_ids",
}


def lengths(sequence_length: int, max_predictions: int) -> dict[str, int]:
  """Returns how many values each feature has, S and P given."""
  return {
    INPUT_IDS: sequence_length,
    INPUT_MASK: sequence_length,
    SEGMENT_IDS: sequence_length,
    MASKED_LM_POSITIONS: max_predictions,
    MASKED_LM_IDS: max_predictions,
    MASKED_LM_WEIGHTS: max_predictions,
    NEXT_SENTENCE_LABELS: 1,
  }


def limits(sequence_length: int, vocab_size: int) -> dict[str, int]:
  """Returns what the values of each whole-number feature are below."""
  return {
    INPUT_IDS: vocab_size,
    INPUT_MASK: 2,
    SEGMENT_IDS: 2,
    MASKED_LM_POSITIONS: sequence_length,
    MASKED_LM_IDS: vocab_size,
    NEXT_SENTENCE_LABELS: 2,
  }


# Numbers of the fields in tensorflow/core/example/{example,feature}.proto.
_FEATURES = 1  # of Example
_FEATURE_MAP = 1  # of Features
_MAP_KEY, _MAP_VALUE = 1, 2
_FLOAT_LIST, _INT64_LIST = 2, 3  # of Feature
_LIST_VALUE = 1  # of Int64List and FloatList
_LENGTH_DELIMITED = 2  # The wire type of strings, messages and packed lists.

_ROWS = 1024  # Serialized at a time, which bounds memory.


@dataclasses.dataclass(frozen=True)
class Examples:
  """B examples, padded with zeros."""

  input_ids: np.ndarray  # [B, S], after masking
  num_tokens: np.ndarray  # [B], without padding
  second_start: np.ndarray  # [B], the place where the second segment begins
  masked_lm_positions: np.ndarray  # [B, P], sorted
  masked_lm_ids: np.ndarray  # [B, P], the ids that stood at these positions
  num_predictions: np.ndarray  # [B]
  is_random_next: np.ndarray  # [B] booleans

  def __len__(self) -> int:
    return len(self.input_ids)

  def __getitem__(self, index: np.ndarray | slice) -> "Examples":
    return Examples(
      *(getattr(self, field.name)[index] for field in dataclasses.fields(self))
    )


def serialize(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
  """Returns the examples as `tf.train.Example` messages.

  The bytes are those of `SerializeToString(deterministic=True)`, the entries
  of the feature map sorted by name, without making an object of each value.

  Returns:
    The messages one after the other, uint8, and the [B] length of each.
  """
  parts = [
    _serialize_some(examples[start : start + _ROWS])
    for start in range(0, len(examples), _ROWS)
  ]
  empty = np.zeros(0, np.uint8), np.zeros(0, np.int64)
  contents, content_lengths = zip(empty, *parts, strict=True)
  return np.concatenate(contents), np.concatenate(content_lengths)


def empty_example(
  sequence_length: int, max_predictions: int, *, naming: Naming
) -> bytes:
  """Returns a serialized example whose features are all 0."""
  feature = {}
  for name, length in lengths(sequence_length, max_predictions).items():
    if name == MASKED_LM_WEIGHTS:
      zeros = tf.train.Feature(
        float_list=tf.train.FloatList(value=[0.0] * length)
      )
    else:
      zeros = tf.train.Feature(
        int64_list=tf.train.Int64List(value=[0] * length)
      )
    feature[naming.stored(name)] = zeros
  example = tf.train.Example(features=tf.train.Features(feature=feature))
  return example.SerializeToString()


def parse_batch(
  serialized: tf.Tensor,
  *,
  sequence_length: int,
  max_predictions: int,
  vocab_size: int,
  naming: Naming = Naming.BERT,
) -> dict[str, tf.Tensor]:
  """Returns the features of `serialized` [B] examples.

  Args:
    serialized: [B] strings, each a serialized `tf.train.Example`.
    sequence_length: S.
    max_predictions: P.
    vocab_size: V.
    naming: what the examples call their features.

  Returns:
    int32 [B, S] and [B, P], float32 [B, P] for the weights, and int32 [B] for
    the next-sentence labels, by the names of this module. A malformed example
    raises `tf.errors.InvalidArgumentError`; outside the `limits` is malformed.
  """
  specs = {
    name: tf.io.FixedLenFeature(
      [length], tf.float32 if name == MASKED_LM_WEIGHTS else tf.int64
    )
    for name, length in lengths(sequence_length, max_predictions).items()
  }
  stored = tf.io.parse_example(
    serialized, {naming.stored(name): spec for name, spec in specs.items()}
  )
  parsed = {name: stored[naming.stored(name)] for name in specs}
  # A GPU would look up zeros for an id out of range, and XLA another id.
  is_within = [
    tf.reduce_all((parsed[name] >= 0) & (parsed[name] < limit))
    for name, limit in limits(sequence_length, vocab_size).items()
  ]
  tf.debugging.Assert(
    tf.reduce_all(is_within), ["an id or a position is out of range"]
  )
  parsed[NEXT_SENTENCE_LABELS] = tf.squeeze(
    parsed[NEXT_SENTENCE_LABELS], axis=-1
  )
  return {
    name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value
    for name, value in parsed.items()
  }


def _serialize_some(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
  sequence = np.arange(examples.input_ids.shape[1])
  prediction = np.arange(examples.masked_lm_ids.shape[1])
  is_token = sequence < examples.num_tokens[:, np.newaxis]  # [B, S]
  is_second = sequence >= examples.second_start[:, np.newaxis]  # [B, S]
  is_prediction = prediction < examples.num_predictions[:, np.newaxis]  # [B, P]
  payloads = {
    INPUT_IDS: _varints(examples.input_ids),
    INPUT_MASK: _varints(is_token.view(np.uint8)),
    SEGMENT_IDS: _varints((is_token & is_second).view(np.uint8)),
    MASKED_LM_POSITIONS: _varints(examples.masked_lm_positions),
    MASKED_LM_IDS: _varints(examples.masked_lm_ids),
    MASKED_LM_WEIGHTS: _floats(is_prediction),
    NEXT_SENTENCE_LABELS: _varints(examples.is_random_next[:, np.newaxis]),
  }
  entries = []
  for name in sorted(payloads):
    kind = _FLOAT_LIST if name == MASKED_LM_WEIGHTS else _INT64_LIST
    key = _constant(name.encode(), len(examples))
    feature = _field(kind, _field(_LIST_VALUE, payloads[name]))
    entry = _joined([_field(_MAP_KEY, key), _field(_MAP_VALUE, feature)])
    entries.append(_field(_FEATURE_MAP, entry))
  message = _field(_FEATURES, _joined(entries))
  values = np.concatenate(message.values, axis=1)
  is_used = np.concatenate(message.is_used, axis=1)
  return values[is_used], message.lengths


@dataclasses.dataclass(frozen=True)
class _Bytes:
  """A byte string for each of B rows.

  That of row i is the used ones of `values[0][i]`, then of `values[1][i]` and
  so on, `lengths[i]` bytes in all.
  """

  values: list[np.ndarray]  # [B, any], uint8
  is_used: list[np.ndarray]  # [B, any], booleans
  lengths: np.ndarray  # [B]


def _joined(parts: list[_Bytes]) -> _Bytes:
  return _Bytes(
    [values for part in parts for values in part.values],
    [is_used for part in parts for is_used in part.is_used],
    np.sum([part.lengths for part in parts], axis=0),
  )


def _field(number: int, content: _Bytes) -> _Bytes:
  """Returns a length-delimited field of a message."""
  tag = bytes([number << 3 | _LENGTH_DELIMITED])
  return _joined(
    [
      _constant(tag, len(content.lengths)),
      _varints(content.lengths[:, np.newaxis]),
      content,
    ]
  )


def _constant(content: bytes, num_rows: int) -> _Bytes:
  shape = (num_rows, len(content))
  return _Bytes(
    [np.broadcast_to(np.frombuffer(content, np.uint8), shape)],
    [np.broadcast_to(True, shape)],
    np.full(num_rows, len(content)),
  )


def _floats(values: np.ndarray) -> _Bytes:
  """Returns the [B, any] values as floats of four bytes."""
  content = values.astype("<f4").view(np.uint8)
  return _Bytes(
    [content],
    [np.broadcast_to(True, content.shape)],
    np.full(len(content), content.shape[1]),
  )


def _varints(values: np.ndarray) -> _Bytes:
  """Returns the [B, any] values, not negative, with seven bits a byte.

  The lowest bits come first, and the highest bit of a byte says that more
  bytes follow.
  """
  num_bytes = -(-int(values.max(initial=1)).bit_length() // 7)
  content = np.empty((*values.shape, num_bytes), np.uint8)
  is_used = np.empty((*values.shape, num_bytes), bool)
  rest = values
  has_more = np.ones(values.shape, bool)
  for place in range(num_bytes):
    is_used[:, :, place] = has_more
    has_more = rest > 0x7F
    content[:, :, place] = rest.astype(np.uint8) | has_more.view(np.uint8) << 7
    rest = rest >> 7
  is_used = is_used.reshape(len(values), -1)
  return _Bytes(
    [content.reshape(len(values), -1)],
    [is_used],
    np.count_nonzero(is_used, axis=1),
  )
