"""Masked language modelling: which tokens are hidden, and behind what.

The rule of the original BERT (Devlin et al. 2019, section 3.1 and A.1), pure
NumPy. P predictions, S sequence, V vocabulary.
"""

import dataclasses

import numpy as np

MASK_TOKEN_SHARE = 0.8  # of the predictions become [MASK],
RANDOM_TOKEN_SHARE = 0.1  # become a random token; the rest stay as they are.


@dataclasses.dataclass(frozen=True)
class Masked:
  """A masked sequence: what the model reads and what it is to predict."""

  input_ids: np.ndarray  # [S]
  positions: np.ndarray  # [P], sorted
  ids: np.ndarray  # [P], the ids that stood at `positions`


def mask(
  input_ids: np.ndarray,
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
    input_ids: [S] ids without padding, at least one of them not special.
    special_ids: ids that are never masked: [CLS] and [SEP].
    mask_id: the id of [MASK].
    vocab_size: V.
    masked_lm_prob: share of the tokens to predict.
    max_predictions: the most predictions of a sequence.
    rng: the source of every choice.
    is_continuation: [V] booleans, true for word pieces that continue a word
      ("##"). If given, whole words are masked: a word whose pieces no longer
      fit into the number of predictions is passed over.
  """
  is_special = np.zeros(len(input_ids), bool)
  for special_id in special_ids:
    is_special |= input_ids == special_id
  candidates = np.flatnonzero(~is_special)
  num_predictions = min(
    max_predictions, max(1, round(len(input_ids) * masked_lm_prob))
  )
  if is_continuation is None:
    positions = rng.permutation(candidates)[:num_predictions]
  else:
    starts = ~is_continuation[input_ids[candidates]]
    # After [CLS] or [SEP] a word begins, even if truncation has cut its head.
    starts |= is_special[candidates - 1]
    words = np.split(candidates, np.flatnonzero(starts)[1:])
    positions = _whole_words(words, num_predictions, rng)
  positions = np.sort(positions)
  ids = input_ids[positions]

  draws = rng.random(len(positions))
  random_ids = rng.integers(vocab_size, size=len(positions))
  replacements = np.where(
    draws < MASK_TOKEN_SHARE,
    mask_id,
    np.where(draws < MASK_TOKEN_SHARE + RANDOM_TOKEN_SHARE, random_ids, ids),
  )
  masked_ids = input_ids.copy()
  masked_ids[positions] = replacements
  return Masked(masked_ids, positions, ids)


def _whole_words(
  words: list[np.ndarray], num_predictions: int, rng: np.random.Generator
) -> np.ndarray:
  """Returns the positions of random words, `num_predictions` at most."""
  order = rng.permutation(len(words))
  chosen = []
  num_left = num_predictions
  for index in order:
    if len(words[index]) <= num_left:
      chosen.append(words[index])
      num_left -= len(words[index])
    if not num_left:
      break
  if not chosen:
    # Every word is longer than there are predictions, and one must be made.
    return words[order[0]][:num_predictions]
  return np.concatenate(chosen)
