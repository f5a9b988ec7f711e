"""What is wrong with a serialized example, in words.

`features.parse_batch` is fast and only says that something is wrong.
"""

import tensorflow as tf
from google.protobuf import message

from mslt_tf import errors
from mslt_tf.data.examples import features

_MOST_NAMES = 8  # That an error tells.


def naming_of(serialized: bytes) -> features.Naming:
  """Returns what the features of a serialized example are called.

  Raises:
    errors.InputError: it is no example of BERT's pre-training.
  """
  stored = _decode(serialized)
  for naming in features.Naming:
    if naming.stored(features.INPUT_IDS) in stored:
      return naming
  expected = " nor ".join(
    repr(naming.stored(features.INPUT_IDS)) for naming in features.Naming
  )
  names = ", ".join(sorted(stored)[:_MOST_NAMES])
  raise errors.InputError(
    f"it has neither {expected}; its features are {names or 'none'}."
  )


def check(
  serialized: bytes,
  *,
  sequence_length: int,
  max_predictions: int,
  vocab_size: int,
  naming: features.Naming,
) -> None:
  """Checks what `features.parse_batch` with these arguments does.

  Raises:
    errors.InputError: naming the feature.
  """
  stored = _decode(serialized)
  limits = features.limits(sequence_length, vocab_size)
  for name, length in features.lengths(
    sequence_length, max_predictions
  ).items():
    called = naming.stored(name)
    if called not in stored:
      raise errors.InputError(f"it has no feature {called!r}.")
    kind = "int64_list" if name in limits else "float_list"
    values = getattr(stored[called], kind).value
    if stored[called].WhichOneof("kind") not in (kind, None):
      raise errors.InputError(f"{called} is no {kind}.")
    if len(values) != length:
      raise errors.InputError(
        f"{called} has {len(values)} values; with"
        f" sequence_length={sequence_length} and"
        f" max_predictions={max_predictions} it would have {length}."
      )
    for value in values if name in limits else ():
      if not 0 <= value < limits[name]:
        raise errors.InputError(
          f"{called} has {value}, which is not from 0 to {limits[name] - 1}"
          f"{_reason(name, vocab_size, sequence_length)}."
        )


def _decode(serialized: bytes) -> dict[str, tf.train.Feature]:
  try:
    example = tf.train.Example.FromString(serialized)
  except message.DecodeError as error:
    raise errors.InputError("it is no tf.train.Example.") from error
  return dict(example.features.feature)


def _reason(name: str, vocab_size: int, sequence_length: int) -> str:
  if name in (features.INPUT_IDS, features.MASKED_LM_IDS):
    return f", for vocab_size={vocab_size}"
  if name == features.MASKED_LM_POSITIONS:
    return f", for sequence_length={sequence_length}"
  return ""
