"""Pairs are what their label says, and fit into a sequence."""

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.data import sentence_pairs


def _documents(lengths: list[list[int]]) -> list[list[np.ndarray]]:
  """Documents in which every token is unique, so that its place is known.

  Token = 100,000 * (document + 1) + its place in the document.
  """
  result = []
  for index, document in enumerate(lengths):
    ends = np.cumsum(document)
    tokens = 100_000 * (index + 1) + np.arange(ends[-1])
    result.append(np.split(tokens, ends[:-1]))
  return result


def _many_documents(rng) -> list[list[np.ndarray]]:
  return _documents(
    [rng.integers(1, 31, size=rng.integers(1, 90)).tolist() for _ in range(41)]
  )


def _all_pairs(documents, *, rng, sequence_length=37, short_sequence_prob=0.1):
  return [
    (index, pair)
    for index in range(len(documents))
    for pair in sentence_pairs.pairs_of_document(
      documents,
      index,
      sequence_length=sequence_length,
      short_sequence_prob=short_sequence_prob,
      rng=rng,
    )
  ]


def test_the_second_segment_is_what_the_label_says():
  rng = np.random.default_rng(3)
  pairs = _all_pairs(_many_documents(rng), rng=rng)
  assert {pair.is_random_next for _, pair in pairs} == {False, True}
  for index, pair in pairs:
    assert set(pair.first // 100_000) == {index + 1}
    (second_document,) = set(pair.second // 100_000)
    if pair.is_random_next:
      assert second_document != index + 1
    else:
      assert second_document == index + 1
      assert pair.second[0] > pair.first[-1]


def test_without_truncation_the_second_segment_follows_at_once():
  rng = np.random.default_rng(4)
  documents = _documents([[3] * 40, [2] * 50])
  for _, pair in _all_pairs(
    documents, rng=rng, sequence_length=400, short_sequence_prob=0.0
  ):
    if not pair.is_random_next:
      assert pair.second[0] == pair.first[-1] + 1


def test_half_of_the_pairs_that_could_continue_are_random():
  rng = np.random.default_rng(5)
  documents = _documents([[5] * 2000, [5] * 2000])
  pairs = _all_pairs(documents, rng=rng, short_sequence_prob=0.0)
  share = np.mean([pair.is_random_next for _, pair in pairs])
  # About 800 tosses: five standard deviations are 0.09.
  assert 0.41 < share < 0.59


def test_a_document_of_one_sentence_gives_one_random_pair():
  rng = np.random.default_rng(6)
  pairs = list(
    sentence_pairs.pairs_of_document(
      _documents([[4], [3, 3]]),
      0,
      sequence_length=37,
      short_sequence_prob=0.0,
      rng=rng,
    )
  )
  assert [pair.is_random_next for pair in pairs] == [True]
  assert pairs[0].first.tolist() == [100_000, 100_001, 100_002, 100_003]


def test_sentences_not_used_before_a_random_next_are_used_later():
  rng = np.random.default_rng(7)
  documents = _documents([[3] * 301, [3] * 5])
  # Room for all: nothing is truncated except by the random text.
  seen = set()
  for index, pair in _all_pairs(
    documents, rng=rng, sequence_length=40, short_sequence_prob=0.0
  ):
    if index == 0:
      seen.update(pair.first.tolist())
      if not pair.is_random_next:
        seen.update(pair.second.tolist())
  # Truncation takes a few tokens of a pair; whole stretches would be missed
  # if unused sentences were not given back (about a quarter of the text).
  assert len(seen) > 0.93 * 903


def test_pairs_fit_and_both_segments_have_tokens():
  rng = np.random.default_rng(8)
  for _, pair in _all_pairs(_many_documents(rng), rng=rng, sequence_length=17):
    assert len(pair.first) >= 1 and len(pair.second) >= 1
    assert len(pair.first) + len(pair.second) <= 14


def test_a_tenth_of_the_documents_is_cut_short():
  rng = np.random.default_rng(9)
  # So long that a random place is rarely too near to the end for 20 tokens.
  documents = _documents([[1] * 5000] * 2)
  num_short = 0
  for _ in range(2000):
    pair = next(
      sentence_pairs.pairs_of_document(
        documents,
        0,
        sequence_length=23,
        short_sequence_prob=0.1,
        rng=rng,
      )
    )
    num_short += len(pair.first) + len(pair.second) < 20
  # 0.1 of 2,000, less one in 19 that draws the full length: 189 with a
  # standard deviation of 13.
  assert 120 < num_short < 260


def _truncated_lengths(first: int, second: int, max_tokens: int):
  """One token at a time, as the original does."""
  while first + second > max_tokens:
    if first > second:
      first -= 1
    else:
      second -= 1
  return first, second


def test_truncation_takes_from_the_longer_segment():
  rng = np.random.default_rng(10)
  for max_tokens in (5, 6, 13):
    for first in range(1, 16):
      for second in range(1, 16):
        kept = sentence_pairs._truncate(
          np.arange(first),
          np.arange(second),
          max_tokens=max_tokens,
          rng=rng,
        )
        assert (len(kept[0]), len(kept[1])) == _truncated_lengths(
          first, second, max_tokens
        )
        assert (np.diff(kept[0]) == 1).all() and (np.diff(kept[1]) == 1).all()


def test_truncation_takes_from_front_and_back_alike():
  rng = np.random.default_rng(11)
  starts = [
    sentence_pairs._truncate(
      np.arange(101), np.arange(1), max_tokens=2, rng=rng
    )[0][0]
    for _ in range(200)
  ]
  # 100 tosses each, 200 times: 50 with a standard deviation of 0.35.
  assert 48 < np.mean(starts) < 52


def test_segments_are_joined_with_special_tokens():
  pair = sentence_pairs.Pair(np.array([7, 8]), np.array([9]), False)
  input_ids, segment_ids = sentence_pairs.join(pair, cls_id=1, sep_id=2)
  assert input_ids.tolist() == [1, 7, 8, 2, 9, 2]
  assert segment_ids.tolist() == [0, 0, 0, 0, 1, 1]


def test_one_document_alone_is_an_error():
  with pytest.raises(errors.InputError, match=r"at least 2"):
    _all_pairs(_documents([[3, 4]]), rng=np.random.default_rng(12))
