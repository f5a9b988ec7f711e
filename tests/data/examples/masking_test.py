"""Masking hides the right share of the right tokens."""

import itertools
import random

import numpy as np
import pytest

from mslt_tf.data.examples import masking

CLS, SEP, MASK = 1, 2, 3
VOCAB_SIZE = 1009


def _sequences(rng, *lengths: int) -> tuple[np.ndarray, np.ndarray]:
  """Rows of these lengths, padded to the longest, and the lengths."""
  input_ids = rng.integers(10, VOCAB_SIZE, size=(len(lengths), max(lengths)))
  input_ids = input_ids.astype(np.int32)
  for ids, length in zip(input_ids, lengths, strict=True):
    ids[[0, length // 3, length - 1]] = CLS, SEP, SEP
    ids[length:] = 0
  return input_ids, np.array(lengths)


def _mask(sequences, rng, **kwargs) -> masking.Masked:
  arguments = dict(
    special_ids=(CLS, SEP),
    mask_id=MASK,
    vocab_size=VOCAB_SIZE,
    masked_lm_prob=0.15,
    max_predictions=20,
  )
  input_ids, num_tokens = sequences
  return masking.mask(input_ids, num_tokens, rng=rng, **(arguments | kwargs))


def _positions(masked: masking.Masked) -> list[list[int]]:
  """Returns the positions of each sequence, without padding."""
  return [
    positions[:count].tolist()
    for positions, count in zip(
      masked.positions, masked.num_predictions, strict=True
    )
  ]


def test_the_number_of_predictions():
  rng = np.random.default_rng(1)
  # 9.15, 1.05, 0.6, 30, and halves to even: 1.5, 4.5, 7.5.
  sequences = _sequences(rng, 61, 7, 4, 200, 10, 30, 50)
  masked = _mask(sequences, rng)
  assert masked.num_predictions.tolist() == [9, 1, 1, 20, 2, 4, 8]
  masked = _mask(sequences, rng, max_predictions=7)
  assert masked.num_predictions.tolist() == [7, 1, 1, 7, 2, 4, 7]


def test_at_least_one_token_is_masked():
  rng = np.random.default_rng(2)
  masked = _mask(_sequences(rng, 6, 9), rng, masked_lm_prob=0.01)
  assert masked.num_predictions.tolist() == [1, 1]


def test_all_tokens_are_masked_where_there_are_fewer_than_predictions():
  rng = np.random.default_rng(2)
  masked = _mask(_sequences(rng, 9, 6), rng, masked_lm_prob=0.99)
  assert _positions(masked) == [[1, 2, 4, 5, 6, 7], [1, 3, 4]]


def test_special_tokens_and_padding_are_never_masked():
  rng = np.random.default_rng(3)
  input_ids, num_tokens = _sequences(rng, *[23, 19, 11] * 60)
  masked = _mask((input_ids, num_tokens), rng, masked_lm_prob=0.99)
  is_out_of_bounds = np.isin(input_ids, (CLS, SEP)) | (
    np.arange(23) >= num_tokens[:, None]
  )
  for row, positions in enumerate(_positions(masked)):
    assert positions
    assert not is_out_of_bounds[row, positions].any()
  unchanged = masked.input_ids[is_out_of_bounds]
  assert unchanged.tolist() == input_ids[is_out_of_bounds].tolist()


def test_targets_are_the_hidden_tokens_in_the_order_of_their_positions():
  rng = np.random.default_rng(4)
  sequences = _sequences(rng, 61, 12, 47)
  before = sequences[0].copy()
  masked = _mask(sequences, rng)
  assert sequences[0].tolist() == before.tolist()
  restored = masked.input_ids.copy()
  for row, positions in enumerate(_positions(masked)):
    assert positions == sorted(set(positions))
    ids = masked.ids[row, : len(positions)]
    assert ids.tolist() == before[row, positions].tolist()
    restored[row, positions] = ids
  assert restored.tolist() == before.tolist()


def test_predictions_are_padded_with_zeros():
  rng = np.random.default_rng(5)
  masked = _mask(_sequences(rng, 7, 61), rng, max_predictions=9)
  assert masked.positions.shape == masked.ids.shape == (2, 9)
  assert masked.positions[0, 1:].tolist() == [0] * 8
  assert masked.ids[0, 1:].tolist() == [0] * 8
  assert masked.positions[1].all() and masked.ids[1].all()
  assert masked.input_ids.dtype == masked.ids.dtype == np.int32


def test_predictions_are_masked_replaced_and_kept_as_80_to_10_to_10():
  rng = np.random.default_rng(5)
  masked = _mask(_sequences(rng, *[133] * 1000), rng)
  now = np.take_along_axis(masked.input_ids, masked.positions, axis=1)
  is_random = (now != MASK) & (now != masked.ids)
  num_masked, num_kept = (now == MASK).sum(), (now == masked.ids).sum()
  # 20,000 predictions: the standard deviations are 57, 42 and 42.
  assert num_masked + num_kept + is_random.sum() == 20_000
  assert abs(num_masked - 16_000) < 300
  assert abs(num_kept - 2_000) < 230
  assert abs(is_random.sum() - 2_000) < 230
  # About 1,990 draws from 1,009 ids reach 1 - exp(-1.97) = 0.86 of them.
  replacements = set(now[is_random].tolist())
  assert len(replacements) > 800
  assert min(replacements) < 10 and max(replacements) < VOCAB_SIZE


def test_every_place_is_masked_equally_often():
  rng = np.random.default_rng(6)
  masked = _mask(_sequences(rng, *[21] * 3000), rng)
  counts = np.bincount(masked.positions[:, :3].ravel(), minlength=21)
  # 9,000 predictions on 18 places: 500, a standard deviation of 22.
  places = np.delete(counts, [0, 7, 20])
  assert places.sum() == 9000
  assert places.min() > 390 and places.max() < 610


def test_every_set_of_places_is_equally_likely():
  rng = np.random.default_rng(7)
  # Places 1, 3, 4, 5 and 6, and two of them are masked.
  masked = _mask(_sequences(rng, *[8] * 5000), rng, masked_lm_prob=0.25)
  sets, counts = np.unique(masked.positions[:, :2], axis=0, return_counts=True)
  # 10 sets: 500 each, a standard deviation of 21.
  assert len(sets) == 10
  assert counts.min() > 395 and counts.max() < 605


def test_the_same_generator_state_gives_the_same_masking():
  sequences = _sequences(np.random.default_rng(7), 61, 50)
  first = _mask(sequences, np.random.default_rng(8))
  second = _mask(sequences, np.random.default_rng(8))
  other = _mask(sequences, np.random.default_rng(9))
  assert first.input_ids.tolist() == second.input_ids.tolist()
  assert first.positions.tolist() != other.positions.tolist()


IS_CONTINUATION = np.arange(VOCAB_SIZE) >= 500

# The piece after [SEP] is the cut-off end of a word: a word of its own.
PIECES = [CLS, 11, 501, 502, 12, 13, 503, SEP, 504, 14, 505, SEP]
WORDS = [[1, 2, 3], [4], [5, 6], [8], [9, 10]]


def _repeated(ids: list[int], count: int) -> tuple[np.ndarray, np.ndarray]:
  return np.array([ids] * count, np.int32), np.full(count, len(ids))


def _is_whole(positions: list[int], words: list[list[int]]) -> bool:
  """Says whether `positions` are a union of whole `words`."""
  whole = [word for word in words if set(word) <= set(positions)]
  return sorted(itertools.chain(*whole)) == positions


def test_whole_words_are_masked_together():
  masked = _mask(
    _repeated(PIECES, 300),
    np.random.default_rng(10),
    masked_lm_prob=0.34,
    is_continuation=IS_CONTINUATION,
  )
  for positions in _positions(masked):
    assert 1 <= len(positions) <= 4
    assert _is_whole(positions, WORDS)
  seen = {place for positions in _positions(masked) for place in positions}
  assert seen == {1, 2, 3, 4, 5, 6, 8, 9, 10}


def test_a_word_does_not_go_on_in_the_next_sequence():
  # No special tokens between the rows, nor padding.
  sequences = np.array([[11, 501], [502, 12]], np.int32), np.array([2, 2])
  for seed in range(10):
    masked = _mask(
      sequences,
      np.random.default_rng(seed),
      masked_lm_prob=0.99,
      is_continuation=IS_CONTINUATION,
    )
    assert _positions(masked) == [[0, 1], [0, 1]]


def test_a_word_longer_than_the_predictions_is_masked_in_part():
  ids = [CLS, 11, 501, 502, SEP, 12, 503, 504, SEP]
  rng = np.random.default_rng(11)
  for max_predictions, firsts in ((1, ([1], [5])), (2, ([1, 2], [5, 6]))):
    positions = _positions(
      _mask(
        _repeated(ids, 200),
        rng,
        masked_lm_prob=0.3,
        max_predictions=max_predictions,
        is_continuation=IS_CONTINUATION,
      )
    )
    # 100 of each with a standard deviation of 7.
    assert positions.count(firsts[0]) + positions.count(firsts[1]) == 200
    assert 60 < positions.count(firsts[0]) < 140


def test_whole_words_are_chosen_as_by_a_shuffle():
  # One at a time, as the original does it.
  rng = random.Random(12)
  expected: dict[tuple[int, ...], int] = {}
  for _ in range(20_000):
    chosen: list[int] = []
    for word in rng.sample(WORDS, len(WORDS)):
      if len(chosen) + len(word) <= 4:
        chosen += word
    key = tuple(sorted(chosen))
    expected[key] = expected.get(key, 0) + 1
  masked = _mask(
    _repeated(PIECES, 20_000),
    np.random.default_rng(13),
    masked_lm_prob=0.34,
    is_continuation=IS_CONTINUATION,
  )
  counts = dict.fromkeys(expected, 0)
  for positions in _positions(masked):
    counts[tuple(positions)] += 1
  for key, count in expected.items():
    # Five standard deviations of the difference.
    assert abs(counts[key] - count) < 5 * np.sqrt(2 * count)


@pytest.mark.parametrize("is_continuation", [None, IS_CONTINUATION])
def test_a_sequence_is_masked_alike_beside_longer_and_shorter_ones(
  is_continuation,
):
  rng = np.random.default_rng(14)
  sequences = _sequences(rng, *[19, 4, 31] * 700)
  masked = _mask(
    sequences, rng, masked_lm_prob=0.2, is_continuation=is_continuation
  )
  positions = _positions(masked)
  for row, length, most in ((0, 19, 4), (1, 4, 1), (2, 31, 6)):
    counts = np.bincount(np.concatenate(positions[row::3]), minlength=length)
    assert len(counts) == length
    inner = np.delete(counts, [0, length // 3, length - 1])
    # A place is masked 700 most / (length - 3) times.
    expected = 700 * most / (length - 3)
    assert np.abs(inner - expected).max() < 0.5 * expected
