"""The rules that every example of a data set keeps.

They are computed anew from the finished examples, not by the code that made
them, of which this is a check.

B batch, N words of a batch.
"""

from collections.abc import Sequence

import numpy as np

from mslt_tf.data.examples import sentence_pairs
from mslt_tf.data.examples import vocabulary
from mslt_tf.data.verification import example_batch

# What an example that breaks a rule is like, and [B] booleans that say which
# do.
_Rule = tuple[str, np.ndarray]


def first_broken(
  batch: example_batch.Batch, masked_lm_prob: float
) -> tuple[int, str] | None:
  """Returns the first example that breaks a rule, and the rule; or None.

  Its form comes first: the rules of predictions hold for examples of the right
  form.

  Args:
    batch: what to check.
    masked_lm_prob: share of the tokens to predict.
  """
  return _first_broken(_form(batch)) or _first_broken(
    _predictions(batch, masked_lm_prob)
  )


def _first_broken(rules: Sequence[_Rule]) -> tuple[int, str] | None:
  is_broken = np.stack([broken for _, broken in rules])  # [rules, B]
  if not is_broken.any():
    return None
  row = int(is_broken.any(axis=0).argmax())
  rule, _ = rules[int(is_broken[:, row].argmax())]
  return row, rule


def _form(batch: example_batch.Batch) -> list[_Rule]:
  """Returns the rules that hold for any examples of BERT."""
  special_ids = batch.vocabulary.ids
  row = np.arange(len(batch))
  column = np.arange(batch.input_ids.shape[1])
  ids, is_token, is_slot = batch.original_ids, batch.is_token, batch.is_slot
  is_sep = ids == special_ids[vocabulary.SEP]
  first_sep = is_sep.argmax(axis=1)
  is_second = is_token & (column > first_sep[:, np.newaxis])
  is_step = np.diff(batch.masked_lm_positions, axis=1) > 0
  num_special = np.count_nonzero(batch.is_special & is_token, axis=1)
  return [
    (
      "input_mask is not 1 at the tokens and then 0",
      (batch.input_mask != is_token).any(axis=1),
    ),
    (
      "input_ids are not 0 at the padding",
      ((batch.input_ids != 0) & ~is_token).any(axis=1),
    ),
    (
      "masked_lm_weights are not 1 at the predictions and then 0",
      (batch.masked_lm_weights != is_slot).any(axis=1),
    ),
    ("nothing is predicted", batch.num_predictions == 0),
    (
      "masked_lm_positions are not 0 after the predictions",
      ((batch.masked_lm_positions != 0) & ~is_slot).any(axis=1),
    ),
    (
      "masked_lm_ids are not 0 after the predictions",
      ((batch.masked_lm_ids != 0) & ~is_slot).any(axis=1),
    ),
    (
      "masked_lm_positions do not ascend",
      (~is_step & is_slot[:, 1:]).any(axis=1),
    ),
    (
      "masked_lm_positions are not all inside the tokens",
      batch.masked_lm_positions.max(axis=1) >= batch.num_tokens,
    ),
    (
      "a special token is predicted",
      (batch.is_special & batch.is_predicted).any(axis=1),
    ),
    (
      "the first token is not [CLS]",
      ids[:, 0] != special_ids[vocabulary.CLS],
    ),
    (
      "the last token is not [SEP]",
      ~is_sep[row, batch.num_tokens - 1],
    ),
    (
      "with the predictions put back, it does not have two [SEP]",
      np.count_nonzero(is_sep, axis=1) != 2,
    ),
    (
      "[MASK] stands where nothing is predicted",
      (ids == special_ids[vocabulary.MASK]).any(axis=1),
    ),
    (
      "a special token stands inside a segment",
      num_special != sentence_pairs.NUM_SPECIAL_TOKENS,
    ),
    (
      "a segment is empty",
      (first_sep < 2) | (batch.num_tokens < first_sep + 3),
    ),
    (
      "segment_ids are not 0 to the first [SEP], 1 to the second and then 0",
      (batch.segment_ids != is_second).any(axis=1),
    ),
  ]


def _predictions(
  batch: example_batch.Batch, masked_lm_prob: float
) -> list[_Rule]:
  """Returns the rules of BERT's masking, for examples of the right form."""
  words = batch.words
  max_predictions = batch.masked_lm_ids.shape[1]
  number = f"min({max_predictions}, max(1, round(tokens * {masked_lm_prob})))"
  most = np.rint(batch.num_tokens * masked_lm_prob).astype(np.int64)
  most = np.clip(most, 1, max_predictions)  # [B]
  left = most - batch.num_predictions

  def is_row_with(is_such: np.ndarray) -> np.ndarray:
    """[N] booleans -> [B] booleans"""
    return np.bincount(words.row[is_such], minlength=len(batch)) > 0

  is_unpredicted = words.num_predicted == 0
  # Where every word is too long, as many pieces as may be are predicted from
  # the beginning of one.
  is_cut = ~is_unpredicted & (words.num_predicted < words.length)
  is_beginning = (
    is_cut
    & batch.is_predicted.ravel()[words.start]
    & (words.num_predicted == most[words.row])
  )
  first = batch.masked_lm_positions[:, 0]
  last = batch.masked_lm_positions.max(axis=1)
  may_be_cut = (
    is_row_with(is_beginning)
    & (last - first == batch.num_predictions - 1)
    & ~is_row_with(words.length <= most[words.row])
  )
  fits = is_row_with(is_unpredicted & (words.length <= left[words.row]))
  reason = ", though a word would fit" if batch.whole_word_masking else ""
  return [
    (f"it has more predictions than {number}", left < 0),
    (
      "a word is predicted in part, despite whole_word_masking",
      is_row_with(is_cut) & ~may_be_cut,
    ),
    (f"it has fewer predictions than {number}{reason}", fits),
  ]
