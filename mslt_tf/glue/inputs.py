"""Examples of a task as the token ids that a model reads.

S sequence.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from mslt_tf import errors
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.glue import examples as examples_lib

_NUM_SPECIAL_TOKENS = 3  # Of a pair: [CLS] first [SEP] second [SEP].


@dataclasses.dataclass(frozen=True)
class Inputs:
  """N examples, without padding.

  Attributes:
    ids: int32, the ids of all examples one after another.
    lengths: int64 [N], how many each has.
    second_starts: int64 [N], the place in an example where its second text
      begins; its length where there is none.
    labels: [N] as of `examples.Examples`, or None.
    num_cut: How many examples were longer than allowed.
  """

  ids: np.ndarray
  lengths: np.ndarray
  second_starts: np.ndarray
  labels: np.ndarray | None
  num_cut: int

  def __len__(self) -> int:
    return len(self.lengths)

  def features(
    self, indices: np.ndarray, *, length: int, num_rows: int
  ) -> dict[str, np.ndarray]:
    """Returns the model's features of a batch, padded with zeros.

    Args:
      indices: Which examples, at most `num_rows`.
      length: S, at least the length of each.
      num_rows: B; rows without an example have `weights` 0.

    Returns:
      `input_ids`, `input_mask`, `segment_ids` int32 [B, S]; `labels` [B], zeros
      without labels; `weights` float32 [B].
    """
    lengths = _padded(self.lengths[indices], num_rows)[:, np.newaxis]
    starts = _padded(self._starts[indices], num_rows)[:, np.newaxis]
    second_starts = _padded(self.second_starts[indices], num_rows)
    places = np.arange(length)
    is_token = places < lengths  # [B, S]
    # Behind the last example there is nothing to read.
    positions = np.minimum(starts + places, len(self.ids) - 1)
    is_second = is_token & (places >= second_starts[:, np.newaxis])
    labels = np.zeros(len(indices), np.int32)
    if self.labels is not None:
      labels = self.labels[indices]
    return {
      "input_ids": np.where(is_token, self.ids[positions], 0),
      "input_mask": is_token.astype(np.int32),
      "segment_ids": is_second.astype(np.int32),
      "labels": _padded(labels, num_rows),
      "weights": _padded(np.ones(len(indices), np.float32), num_rows),
    }

  @functools.cached_property
  def _starts(self) -> np.ndarray:
    return np.cumsum(self.lengths) - self.lengths


def encode(
  examples: examples_lib.Examples,
  tokenizer: vocabulary_lib.Tokenizer,
  vocabulary: vocabulary_lib.Vocabulary,
  *,
  max_length: int,
) -> Inputs:
  """Returns examples as BERT's fine-tuning reads them.

  `[CLS] first [SEP]`, or `[CLS] first [SEP] second [SEP]`. What is too long is
  cut at its end; of a pair the longer text, token by token.

  Raises:
    errors.InputError: `max_length` holds no token of a text.
  """
  if max_length <= _NUM_SPECIAL_TOKENS:
    raise errors.InputError(
      f"max_sequence_length={max_length} must be above {_NUM_SPECIAL_TOKENS}."
    )
  texts = [examples.first]
  if examples.second is not None:
    texts.append(examples.second)
  split = [vocabulary_lib.tokenize(tokenizer, each) for each in texts]
  kept = _kept([lengths for _, lengths in split], max_length)
  is_cut = np.sum([each for _, each in split], 0) > np.sum(kept, 0)
  cls, sep = (
    vocabulary.ids[each] for each in (vocabulary_lib.CLS, vocabulary_lib.SEP)
  )
  lengths = np.sum(kept, 0) + len(kept) + 1
  starts = np.cumsum(lengths) - lengths
  ids = np.full(lengths.sum(), sep, np.int32)
  ids[starts] = cls
  offset = starts + 1
  for (text_ids, text_lengths), num_kept in zip(split, kept, strict=True):
    _copy(text_ids, text_lengths, num_kept, ids, offset)
    offset = offset + num_kept + 1
  return Inputs(
    ids=ids,
    lengths=lengths,
    second_starts=lengths if len(kept) == 1 else kept[0] + 2,
    labels=examples.labels,
    num_cut=int(is_cut.sum()),
  )


def _kept(lengths: Sequence[np.ndarray], max_length: int) -> list[np.ndarray]:
  """Returns how many tokens [N] of each text stay."""
  room = max_length - len(lengths) - 1
  if len(lengths) == 1:
    return [np.minimum(lengths[0], room)]
  first, second = lengths
  # Token by token from the longer one, of equals from the second.
  half = -(-room // 2)
  return [
    np.minimum(first, np.maximum(room - second, half)),
    np.minimum(second, np.maximum(room - first, room - half)),
  ]


def _copy(
  ids: np.ndarray,
  lengths: np.ndarray,
  num_kept: np.ndarray,
  target: np.ndarray,
  offsets: np.ndarray,
) -> None:
  """Copies the first ids of each of N texts to its place in `target`."""
  starts = np.cumsum(lengths) - lengths
  places = np.arange(len(ids)) - np.repeat(starts, lengths)
  is_kept = places < np.repeat(num_kept, lengths)
  targets = np.repeat(offsets, lengths) + places
  target[targets[is_kept]] = ids[is_kept]


def _padded(values: np.ndarray, num_rows: int) -> np.ndarray:
  padding = np.zeros(num_rows - len(values), values.dtype)
  return np.concatenate([values, padding])
