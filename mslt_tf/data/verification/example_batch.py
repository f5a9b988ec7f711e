"""Pre-training examples as arrays, and what follows from their features.

B batch, S sequence, P predictions, N words of a batch.
"""

import dataclasses
import functools

import numpy as np

from mslt_tf.data.examples import vocabulary

_SPECIAL_TOKENS = (
  vocabulary.PADDING,
  vocabulary.CLS,
  vocabulary.SEP,
  vocabulary.MASK,
)


@dataclasses.dataclass(frozen=True)
class Words:
  """What is predicted as a whole: words, or tokens as words of one piece."""

  row: np.ndarray  # [N], its example
  start: np.ndarray  # [N], the place of its first piece in all of `input_ids`
  length: np.ndarray  # [N], pieces
  num_predicted: np.ndarray  # [N], pieces


@dataclasses.dataclass(frozen=True)
class Batch:
  """B examples, by the names of `features`; what follows is computed once."""

  vocabulary: vocabulary.Vocabulary
  whole_word_masking: bool
  input_ids: np.ndarray  # [B, S]
  input_mask: np.ndarray  # [B, S]
  segment_ids: np.ndarray  # [B, S]
  masked_lm_positions: np.ndarray  # [B, P]
  masked_lm_ids: np.ndarray  # [B, P]
  masked_lm_weights: np.ndarray  # [B, P]
  next_sentence_labels: np.ndarray  # [B]

  def __len__(self) -> int:
    return len(self.input_ids)

  @functools.cached_property
  def num_tokens(self) -> np.ndarray:
    """[B]"""
    return np.count_nonzero(self.input_mask, axis=1)

  @functools.cached_property
  def num_predictions(self) -> np.ndarray:
    """[B]"""
    return np.count_nonzero(self.masked_lm_weights, axis=1)

  @functools.cached_property
  def is_token(self) -> np.ndarray:
    """[B, S] booleans"""
    column = np.arange(self.input_ids.shape[1])
    return column < self.num_tokens[:, np.newaxis]

  @functools.cached_property
  def is_slot(self) -> np.ndarray:
    """[B, P] booleans: whether a prediction's place is used."""
    slot = np.arange(self.masked_lm_ids.shape[1])
    return slot < self.num_predictions[:, np.newaxis]

  @functools.cached_property
  def places(self) -> np.ndarray:
    """[predictions of the batch], in all of `input_ids`"""
    row = np.repeat(np.arange(len(self)), self.num_predictions)
    position = self.masked_lm_positions[self.is_slot]
    return row * self.input_ids.shape[1] + position

  @functools.cached_property
  def is_predicted(self) -> np.ndarray:
    """[B, S] booleans"""
    is_predicted = np.zeros(self.input_ids.shape, bool)
    is_predicted.ravel()[self.places] = True
    return is_predicted

  @functools.cached_property
  def original_ids(self) -> np.ndarray:
    """[B, S], before masking"""
    ids = self.input_ids.copy()
    ids.ravel()[self.places] = self.masked_lm_ids[self.is_slot]
    return ids

  @functools.cached_property
  def is_special(self) -> np.ndarray:
    """[B, S] booleans: [PAD], [CLS], [SEP] or [MASK], before masking"""
    ids = [self.vocabulary.ids[token] for token in _SPECIAL_TOKENS]
    return np.isin(self.original_ids, ids)

  @functools.cached_property
  def words(self) -> Words:
    """Of examples of the right form (`example_rules`)."""
    is_piece = self.is_token & ~self.is_special  # [B, S]
    is_start = is_piece.copy()
    if self.whole_word_masking:
      # After [CLS] or [SEP] a word begins, even if truncation has cut its head.
      is_continuation = self.vocabulary.is_continuation[self.original_ids]
      is_start[:, 1:] &= ~(is_continuation[:, 1:] & is_piece[:, :-1])
    pieces = np.flatnonzero(is_piece)
    first = np.flatnonzero(is_start.ravel()[pieces])  # [N], of all pieces
    start = pieces[first]
    is_predicted = self.is_predicted.ravel()[pieces]
    return Words(
      row=start // self.input_ids.shape[1],
      start=start,
      length=np.diff(first, append=len(pieces)),
      num_predicted=np.add.reduceat(is_predicted, first, dtype=np.int64),
    )
