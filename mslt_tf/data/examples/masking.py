"""Masked language modelling: which tokens are hidden, and behind what.

The rule of the original BERT (Devlin et al. 2019, section 3.1 and A.1), for
many sequences at once. Pure NumPy. B batch, P predictions, S sequence, V
vocabulary.
"""

import dataclasses

import numpy as np

MASK_TOKEN_SHARE = 0.8  # of the predictions become [MASK],
RANDOM_TOKEN_SHARE = 0.1  # become a random token; the rest stay as they are.


@dataclasses.dataclass(frozen=True)
class Masked:
  """Masked sequences: what the model reads and what it is to predict."""

  input_ids: np.ndarray  # [B, S]
  positions: np.ndarray  # [B, P], sorted, then zeros
  ids: np.ndarray  # [B, P], the ids that stood at `positions`, then zeros
  num_predictions: np.ndarray  # [B]


@dataclasses.dataclass(frozen=True)
class _Words:
  """What is masked as a whole: words, or single tokens as words of one piece.

  The maskable tokens of all sequences are numbered through, and so are the
  words, N in all.
  """

  start: np.ndarray  # [N], the first maskable token of each
  length: np.ndarray  # [N], pieces
  row_start: np.ndarray  # [B], the first word of each sequence
  row_length: np.ndarray  # [B], words


def mask(
  input_ids: np.ndarray,
  num_tokens: np.ndarray,
  *,
  special_ids: tuple[int, ...],
  mask_id: int,
  vocab_size: int,
  masked_lm_prob: float,
  max_predictions: int,
  rng: np.random.Generator,
  is_continuation: np.ndarray | None = None,
) -> Masked:
  """Hides a share of the tokens.

  The number of predictions is `masked_lm_prob` of the sequence length (special
  tokens counted, as in BERT), rounded, at least 1, at most `max_predictions`.
  A random token may be any id of the vocabulary, as in BERT.

  Args:
    input_ids: [B, S] ids, at least one of each sequence not special.
    num_tokens: [B] lengths of the sequences; what follows is padding.
    special_ids: ids that are never masked: [CLS] and [SEP].
    mask_id: the id of [MASK].
    vocab_size: V.
    masked_lm_prob: share of the tokens to predict.
    max_predictions: P.
    rng: the source of every choice.
    is_continuation: [V] booleans, true for word pieces that continue a word
      ("##"). If given, whole words are masked: a word whose pieces no longer
      fit into the number of predictions is passed over.
  """
  is_maskable = np.arange(input_ids.shape[1]) < num_tokens[:, np.newaxis]
  for special_id in special_ids:
    is_maskable &= input_ids != special_id
  num_maskable = np.count_nonzero(is_maskable, axis=1)
  maskable = np.flatnonzero(is_maskable)  # places in all of `input_ids`
  words = _words(input_ids, maskable, num_maskable, is_continuation)
  most = np.rint(num_tokens * masked_lm_prob).astype(np.int64)
  most = np.clip(most, 1, max_predictions)
  num_masked = _choose(words, most, rng)  # [N]

  chosen = np.flatnonzero(num_masked)
  places = maskable[_ranges(words.start[chosen], num_masked[chosen])]
  ids = input_ids.ravel()[places]
  masked_ids = input_ids.copy()
  masked_ids.ravel()[places] = _replacements(
    ids, mask_id=mask_id, vocab_size=vocab_size, rng=rng
  )
  num_predictions = np.add.reduceat(num_masked, words.row_start)
  is_prediction = (
    np.arange(max_predictions) < num_predictions[:, np.newaxis]
  )  # [B, P]
  return Masked(
    masked_ids,
    positions=_spread(places % input_ids.shape[1], is_prediction),
    ids=_spread(ids, is_prediction),
    num_predictions=num_predictions,
  )


def _words(
  input_ids: np.ndarray,
  maskable: np.ndarray,
  num_maskable: np.ndarray,
  is_continuation: np.ndarray | None,
) -> _Words:
  """Returns what is masked as a whole.

  Args:
    input_ids: [B, S].
    maskable: the places of maskable tokens in all of `input_ids`.
    num_maskable: [B], how many are in each sequence.
    is_continuation: see `mask`.
  """
  row_start = np.cumsum(num_maskable) - num_maskable
  if is_continuation is None:
    start = np.arange(len(maskable))
    return _Words(start, np.ones_like(start), row_start, num_maskable)
  is_start = ~is_continuation[input_ids.ravel()[maskable]]
  # After [CLS] or [SEP] a word begins, even if truncation has cut its head.
  is_start[1:] |= np.diff(maskable) > 1
  is_start[row_start] = True
  start = np.flatnonzero(is_start)
  row_start = np.searchsorted(start, row_start)
  return _Words(
    start,
    np.diff(start, append=len(maskable)),
    row_start,
    np.diff(row_start, append=len(start)),
  )


def _choose(
  words: _Words, most: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
  """Chooses random words of `most` [B] pieces in all.

  The words of a sequence are drawn without replacement, one of each sequence
  at a time, as in the shuffle of Fisher and Yates.

  Returns:
    [N], how many pieces of each word to mask: none or all, or some of the word
    drawn first where every word is too long.
  """
  num_masked = np.zeros(len(words.start), np.int64)
  width = int(words.row_length.max(initial=0))
  order = np.tile(np.arange(width, dtype=np.int32), (len(most), 1))
  row = np.arange(len(most))  # The sequences that are not done,
  left = most  # and how many more pieces each may have.
  first_drawn = row
  for step in range(width):
    num_words = words.row_length[row]
    draw = rng.random(len(row), np.float32) * (num_words - step)
    drawn = step + draw.astype(np.int64)
    word = words.row_start[row] + order[row, drawn]
    order[row, drawn] = order[row, step]
    if step == 0:
      first_drawn = word
    length = words.length[word]
    length = np.where(length <= left, length, 0)
    num_masked[word] = length
    left = left - length
    is_unfinished = (left > 0) & (num_words > step + 1)
    row, left = row[is_unfinished], left[is_unfinished]
  is_without = np.add.reduceat(num_masked, words.row_start) == 0
  num_masked[first_drawn[is_without]] = most[is_without]
  return num_masked


def _ranges(start: np.ndarray, length: np.ndarray) -> np.ndarray:
  """Returns `length` numbers from each of `start` up, one after the other."""
  end = np.cumsum(length)
  return np.arange(end[-1]) + np.repeat(start - end + length, length)


def _replacements(
  ids: np.ndarray, *, mask_id: int, vocab_size: int, rng: np.random.Generator
) -> np.ndarray:
  """Returns what stands in the place of each of `ids`."""
  draws = rng.random(len(ids))
  random_ids = rng.integers(vocab_size, size=len(ids), dtype=np.int32)
  return np.where(
    draws < MASK_TOKEN_SHARE,
    mask_id,
    np.where(draws < MASK_TOKEN_SHARE + RANDOM_TOKEN_SHARE, random_ids, ids),
  )


def _spread(values: np.ndarray, is_prediction: np.ndarray) -> np.ndarray:
  """Returns `values` in the true places [B, P], row by row, zeros elsewhere."""
  result = np.zeros(is_prediction.shape, np.int32)
  result[is_prediction] = values
  return result
