"""Masking hides the right share of the right tokens."""

import numpy as np
import pytest

from mslt_tf.data import masking

CLS, SEP, MASK = 1, 2, 3
VOCAB_SIZE = 1009


def _sequence(rng, length: int) -> np.ndarray:
  ids = rng.integers(10, VOCAB_SIZE, size=length).astype(np.int32)
  ids[[0, length // 3, -1]] = CLS, SEP, SEP
  return ids


def _mask(ids, rng, **kwargs) -> masking.Masked:
  arguments = dict(
    special_ids=(CLS, SEP),
    mask_id=MASK,
    vocab_size=VOCAB_SIZE,
    masked_lm_prob=0.15,
    max_predictions=20,
  )
  return masking.mask(ids, rng=rng, **(arguments | kwargs))


@pytest.mark.parametrize(
  "length, max_predictions, expected",
  [
    (61, 20, 9),  # 9.15
    (61, 7, 7),
    (7, 20, 1),  # 1.05
    (4, 20, 1),  # 0.6
    (200, 20, 20),
  ],
)
def test_the_number_of_predictions(length, max_predictions, expected):
  rng = np.random.default_rng(1)
  masked = _mask(_sequence(rng, length), rng, max_predictions=max_predictions)
  assert len(masked.positions) == len(masked.ids) == expected


def test_at_least_one_token_is_masked():
  masked = _mask(
    np.array([CLS, 7, SEP, 8, SEP]),
    np.random.default_rng(2),
    masked_lm_prob=0.01,
  )
  assert len(masked.positions) == 1


def test_cls_and_sep_are_never_masked():
  rng = np.random.default_rng(3)
  for _ in range(200):
    ids = _sequence(rng, 23)
    masked = _mask(ids, rng, masked_lm_prob=0.99)
    assert not {0, 7, 22} & set(masked.positions.tolist())
    assert masked.input_ids[[0, 7, 22]].tolist() == [CLS, SEP, SEP]


def test_targets_are_the_hidden_tokens_in_the_order_of_their_positions():
  rng = np.random.default_rng(4)
  ids = _sequence(rng, 61)
  before = ids.copy()
  masked = _mask(ids, rng)
  assert (np.diff(masked.positions) > 0).all()
  assert masked.ids.tolist() == ids[masked.positions].tolist()
  restored = masked.input_ids.copy()
  restored[masked.positions] = masked.ids
  assert restored.tolist() == before.tolist() == ids.tolist()


def test_predictions_are_masked_replaced_and_kept_as_80_to_10_to_10():
  rng = np.random.default_rng(5)
  num_masked = num_kept = num_random = 0
  replacements = set()
  for _ in range(1000):
    masked = _mask(_sequence(rng, 133), rng)
    now = masked.input_ids[masked.positions]
    num_masked += (now == MASK).sum()
    num_kept += (now == masked.ids).sum()
    is_random = (now != MASK) & (now != masked.ids)
    num_random += is_random.sum()
    replacements.update(now[is_random].tolist())
  # 20,000 predictions: the standard deviations are 57, 42 and 42.
  assert num_masked + num_kept + num_random == 20_000
  assert abs(num_masked - 16_000) < 300
  assert abs(num_kept - 2_000) < 230
  assert abs(num_random - 2_000) < 230
  # About 1,990 draws from 1,009 ids reach 1 - exp(-1.97) = 0.86 of them.
  assert len(replacements) > 800
  assert min(replacements) < 10 and max(replacements) < VOCAB_SIZE


def test_every_place_is_masked_equally_often():
  rng = np.random.default_rng(6)
  counts = np.zeros(21)
  for _ in range(3000):
    counts[_mask(_sequence(rng, 21), rng).positions] += 1
  # 9,000 predictions on 18 places: 500, a standard deviation of 22.
  places = np.delete(counts, [0, 7, 20])
  assert places.min() > 390 and places.max() < 610


def test_the_same_generator_state_gives_the_same_masking():
  ids = _sequence(np.random.default_rng(7), 61)
  first = _mask(ids, np.random.default_rng(8))
  second = _mask(ids, np.random.default_rng(8))
  other = _mask(ids, np.random.default_rng(9))
  assert first.input_ids.tolist() == second.input_ids.tolist()
  assert first.positions.tolist() != other.positions.tolist()


def _words(positions: list[int], words: list[list[int]]) -> bool:
  """Says whether `positions` are a union of whole `words`."""
  left = set(positions)
  for word in words:
    if set(word) <= left:
      left -= set(word)
  return not left


def test_whole_words_are_masked_together():
  is_continuation = np.arange(VOCAB_SIZE) >= 500
  # The piece after [SEP] is the cut-off end of a word: a word of its own.
  ids = np.array([CLS, 11, 501, 502, 12, 13, 503, SEP, 504, 14, 505, SEP])
  words = [[1, 2, 3], [4], [5, 6], [8], [9, 10]]
  rng = np.random.default_rng(10)
  seen = set()
  for _ in range(300):
    masked = _mask(
      ids, rng, masked_lm_prob=0.34, is_continuation=is_continuation
    )
    positions = masked.positions.tolist()
    assert 1 <= len(positions) <= 4
    assert _words(positions, words)
    seen.update(positions)
  assert seen == {1, 2, 3, 4, 5, 6, 8, 9, 10}


def test_a_word_longer_than_the_predictions_is_masked_in_part():
  is_continuation = np.arange(VOCAB_SIZE) >= 500
  ids = np.array([CLS, 11, 501, 502, SEP, 12, 503, 504, SEP])
  for seed in range(20):
    masked = _mask(
      ids,
      np.random.default_rng(seed),
      max_predictions=1,
      is_continuation=is_continuation,
    )
    assert masked.positions.tolist() in ([1], [5])
