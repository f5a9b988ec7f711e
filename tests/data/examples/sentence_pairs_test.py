"""Pairs are what their label says, and fit into a sequence."""

import dataclasses
import random

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.data.examples import sentence_pairs


def _documents(lengths) -> sentence_pairs.TokenizedDocuments:
  """Documents of sentences of these lengths; a token is its own place."""
  tokens = iter(range(10**9))
  return sentence_pairs.TokenizedDocuments.of(
    [
      [np.array([next(tokens) for _ in range(length)]) for length in document]
      for document in lengths
    ]
  )


def _many_documents(rng) -> sentence_pairs.TokenizedDocuments:
  return _documents(
    [rng.integers(1, 31, size=rng.integers(1, 90)).tolist() for _ in range(41)]
  )


def _plan(
  documents, rng, *, sequence_length=37, short_sequence_prob=0.1
) -> sentence_pairs.Pairs:
  return sentence_pairs.plan(
    documents,
    sequence_length=sequence_length,
    short_sequence_prob=short_sequence_prob,
    rng=rng,
  )


def _document_of(documents, place) -> np.ndarray:
  """Returns the document that each token stands in."""
  ends = documents.sentence_ends[documents.document_ends]
  return np.searchsorted(ends, place, side="right") - 1


def test_documents_are_flat_arrays():
  documents = sentence_pairs.TokenizedDocuments.of(
    [
      [np.array([7, 8]), np.array([9])],
      [np.array([5])],
      [np.array([6, 6, 6])],
    ]
  )
  assert documents.tokens.tolist() == [7, 8, 9, 5, 6, 6, 6]
  assert documents.tokens.dtype == np.int32
  assert documents.sentence_ends.tolist() == [0, 2, 3, 4, 7]
  assert documents.document_ends.tolist() == [0, 2, 3, 4]
  assert documents.text_ends.tolist() == [0, 1, 2, 3]
  assert len(documents) == 3


def test_the_second_segment_is_what_the_label_says():
  rng = np.random.default_rng(3)
  documents = _many_documents(rng)
  pairs = _plan(documents, rng)
  is_random_next = pairs.is_random_next
  assert set(is_random_next.tolist()) == {False, True}
  first = _document_of(documents, pairs.first_start)
  second = _document_of(documents, pairs.second_start)
  assert (_document_of(documents, pairs.first_end - 1) == first).all()
  assert (_document_of(documents, pairs.second_end - 1) == second).all()
  assert ((first != second) == is_random_next).all()
  is_later = pairs.second_start >= pairs.first_end
  assert is_later[~is_random_next].all()


def test_pairs_fit_and_both_segments_have_tokens():
  rng = np.random.default_rng(8)
  pairs = _plan(_many_documents(rng), rng, sequence_length=17)
  first = pairs.first_end - pairs.first_start
  second = pairs.second_end - pairs.second_start
  assert first.min() >= 1 and second.min() >= 1
  assert (first + second).max() == 14


# With sentences of 3 tokens and room for 10 of them, nothing is truncated.
UNTRUNCATED = dict(sequence_length=33, short_sequence_prob=0.0)


def test_each_pair_starts_where_the_used_text_of_the_last_one_ends():
  documents = _documents([[3] * 301, [3] * 5, [3], [3] * 44])
  pairs = _plan(documents, np.random.default_rng(4), **UNTRUNCATED)
  used_end = np.where(pairs.is_random_next, pairs.first_end, pairs.second_end)
  # All of the text is used, in its order, so none that a random next replaced
  # is lost.
  assert pairs.first_start.tolist() == [0, *used_end[:-1].tolist()]
  assert used_end[-1] == len(documents.tokens)


def test_without_truncation_the_second_segment_follows_at_once():
  documents = _documents([[3] * 301, [3] * 400])
  pairs = _plan(documents, np.random.default_rng(5), **UNTRUNCATED)
  actual = pairs[~pairs.is_random_next]
  assert len(actual) > 20
  assert (actual.second_start == actual.first_end).all()


def test_sentences_are_gathered_to_the_target_or_the_end_of_the_document():
  documents = _documents([[3] * 301, [3] * 400, [3] * 2])
  pairs = _plan(documents, np.random.default_rng(6), **UNTRUNCATED)
  num_tokens = (
    pairs.first_end - pairs.first_start + pairs.second_end - pairs.second_start
  )
  ends = documents.sentence_ends[documents.document_ends]
  is_last = np.isin(pairs.second_end, ends)
  assert (num_tokens[~is_last] == 30).all()
  assert (num_tokens[is_last] <= 30).all()


def test_the_last_sentence_gathered_may_pass_the_target():
  # 20 + 20 tokens are 6 too many, and each segment loses 3.
  documents = _documents([[20, 20], [40, 40]])
  for seed in range(20):
    pairs = _plan(
      documents, np.random.default_rng(seed), short_sequence_prob=0.0
    )
    first = pairs[0:1]
    if not first.is_random_next[0]:
      assert first.first_end - first.first_start == 17
      assert first.second_end - first.second_start == 17
      break
  else:
    pytest.fail("twenty random nexts in a row")


def test_half_of_the_pairs_that_could_continue_are_random():
  documents = _documents([[5] * 20_000, [5] * 20_000])
  pairs = _plan(
    documents,
    np.random.default_rng(7),
    sequence_length=43,
    short_sequence_prob=0.0,
  )
  # A pair uses 8 sentences, or 4 on average where the next is random.
  assert 6300 < len(pairs) < 7000
  # Five standard deviations are 0.03.
  assert 0.47 < pairs.is_random_next.mean() < 0.53


def test_all_splits_are_equally_likely():
  documents = _documents([[3] * 30_000] * 2)
  pairs = _plan(documents, np.random.default_rng(8), **UNTRUNCATED)
  splits = (pairs.first_end - pairs.first_start) // 3
  counts = np.bincount(splits, minlength=11)
  # About 8,000 pairs of 10 sentences: 890 each, a standard deviation of 28.
  assert counts[0] == 0 and counts[10] == 0
  assert counts[1:10].min() > 740 and counts[1:10].max() < 1040


def test_a_document_of_one_sentence_gives_one_random_pair():
  documents = _documents([[4], [3, 3]])
  pairs = _plan(documents, np.random.default_rng(9))[0:1]
  assert pairs.is_random_next.tolist() == [True]
  assert (pairs.first_start[0], pairs.first_end[0]) == (0, 4)
  assert pairs.second_start[0] in (4, 7)


def test_other_documents_are_equally_likely_whatever_their_lengths():
  documents = _documents([[1] * 3, [1] * 6000, [1] * 70])
  pairs = _plan(
    documents,
    np.random.default_rng(10),
    sequence_length=8,
    short_sequence_prob=0.0,
  )
  is_of_the_long = _document_of(documents, pairs.first_start) == 1
  random_pairs = pairs[is_of_the_long & pairs.is_random_next]
  other = _document_of(documents, random_pairs.second_start)
  counts = np.bincount(other, minlength=3)
  # Around 860 pairs: 430 each, a standard deviation of 15.
  assert counts[1] == 0
  assert abs(counts[0] - counts[2]) < 5 * 30
  # Of the shortest document, each sentence.
  starts = random_pairs.second_start[other == 0]
  assert np.bincount(starts, minlength=3).min() > 95


def test_a_random_next_is_of_another_text_than_its_copies():
  documents = dataclasses.replace(
    _documents([[1] * 3, [1] * 900, [1] * 900, [1] * 900, [1] * 2]),
    text_ends=np.array([0, 1, 4, 5]),
  )
  pairs = _plan(
    documents,
    np.random.default_rng(22),
    sequence_length=8,
    short_sequence_prob=0.0,
  )
  pairs = pairs[pairs.is_random_next]
  first = _document_of(documents, pairs.first_start)
  second = _document_of(documents, pairs.second_start)
  counts = np.bincount(second[(first >= 1) & (first <= 3)], minlength=5)
  # Around 390 pairs: half of them each, a standard deviation of 10.
  assert counts[1:4].tolist() == [0, 0, 0]
  assert counts.sum() > 300 and abs(counts[0] - counts[4]) < 5 * 20
  # The others have all but themselves.
  assert set(second[first == 0].tolist()) <= {1, 2, 3, 4}
  assert set(second[first == 4].tolist()) <= {0, 1, 2, 3}


def test_copies_of_one_text_alone_are_an_error():
  copies = dataclasses.replace(
    _documents([[3, 4], [3, 4], [3, 4]]), text_ends=np.array([0, 3])
  )
  with pytest.raises(errors.InputError, match=r"^1 different document is"):
    _plan(copies, np.random.default_rng(23))


def test_a_tenth_of_the_documents_has_a_shorter_target():
  # Of sentences of one token, exactly the target is gathered.
  documents = _documents([[1] * 90] * 2000)
  pairs = _plan(documents, np.random.default_rng(11), sequence_length=23)
  document = _document_of(documents, pairs.first_start)
  ends = documents.sentence_ends[documents.document_ends]
  is_whole = ~pairs.is_random_next & ~np.isin(pairs.second_end, ends)
  targets = (pairs.second_end - pairs.first_start)[is_whole]
  by_document: dict[int, set[int]] = {}
  for place, target in zip(document[is_whole], targets, strict=True):
    by_document.setdefault(place, set()).add(target)
  # One target a document.
  assert {len(values) for values in by_document.values()} == {1}
  drawn = np.array([values.pop() for values in by_document.values()])
  share = (drawn < 20).mean()
  # 0.1, less one in 19 that draws the full length; 5 standard deviations.
  assert abs(share - 0.0947) < 0.035
  assert set(drawn.tolist()) == set(range(2, 21))


def _truncated_lengths(first: int, second: int, max_tokens: int):
  """One token at a time, as the original does."""
  while first + second > max_tokens:
    if first > second:
      first -= 1
    else:
      second -= 1
  return first, second


def _untruncated(first: list[int], second: list[int]) -> sentence_pairs.Pairs:
  """Pairs of segments of these lengths, from places 0 and 1,000."""
  zero = np.zeros(len(first), np.int64)
  return sentence_pairs.Pairs(
    zero, zero + first, zero + 1000, zero + 1000 + second, zero == 0
  )


@pytest.mark.parametrize("max_tokens", [5, 6, 13])
def test_truncation_takes_from_the_longer_segment(max_tokens):
  first, second = np.mgrid[1:16, 1:16].reshape(2, -1)
  kept = sentence_pairs._truncate(
    _untruncated(first, second),
    max_tokens=max_tokens,
    rng=np.random.default_rng(12),
  )
  lengths = zip(
    (kept.first_end - kept.first_start).tolist(),
    (kept.second_end - kept.second_start).tolist(),
    strict=True,
  )
  assert list(lengths) == [
    _truncated_lengths(*each, max_tokens)
    for each in zip(first, second, strict=True)
  ]
  assert (kept.first_start >= 0).all() and (kept.first_end <= first).all()
  assert (kept.second_start >= 1000).all()
  assert (kept.second_end <= 1000 + second).all()


def test_truncation_takes_from_front_and_back_alike():
  kept = sentence_pairs._truncate(
    _untruncated(np.full(2000, 101), np.full(2000, 1)),
    max_tokens=2,
    rng=np.random.default_rng(13),
  )
  # 100 tosses each, 2,000 times: 50 with a standard deviation of 0.11, and a
  # variance of 25 with one of 0.8.
  assert abs(kept.first_start.mean() - 50) < 0.6
  assert abs(kept.first_start.var() - 25) < 4


def _original(all_documents, max_tokens, short_sequence_prob, rng):
  """`create_instances_from_document` of google-research/bert, to the letter.

  Only what makes instances of the pairs is left out.
  """
  for document_index, document in enumerate(all_documents):
    target_seq_length = max_tokens
    if rng.random() < short_sequence_prob:
      target_seq_length = rng.randint(2, max_tokens)
    current_chunk = []
    current_length = 0
    i = 0
    while i < len(document):
      segment = document[i]
      current_chunk.append(segment)
      current_length += len(segment)
      if i == len(document) - 1 or current_length >= target_seq_length:
        if current_chunk:
          a_end = 1
          if len(current_chunk) >= 2:
            a_end = rng.randint(1, len(current_chunk) - 1)
          tokens_a = []
          for j in range(a_end):
            tokens_a.extend(current_chunk[j])
          tokens_b = []
          if len(current_chunk) == 1 or rng.random() < 0.5:
            is_random_next = True
            target_b_length = target_seq_length - len(tokens_a)
            for _ in range(10):
              random_index = rng.randint(0, len(all_documents) - 1)
              if random_index != document_index:
                break
            random_document = all_documents[random_index]
            random_start = rng.randint(0, len(random_document) - 1)
            for j in range(random_start, len(random_document)):
              tokens_b.extend(random_document[j])
              if len(tokens_b) >= target_b_length:
                break
            num_unused_segments = len(current_chunk) - a_end
            i -= num_unused_segments
          else:
            is_random_next = False
            for j in range(a_end, len(current_chunk)):
              tokens_b.extend(current_chunk[j])
          while len(tokens_a) + len(tokens_b) > max_tokens:
            longer = tokens_a if len(tokens_a) > len(tokens_b) else tokens_b
            if rng.random() < 0.5:
              del longer[0]
            else:
              longer.pop()
          yield (
            tokens_a[0],
            tokens_a[-1] + 1,
            tokens_b[0],
            tokens_b[-1] + 1,
            is_random_next,
          )
        current_chunk = []
        current_length = 0
      i += 1


def _statistics(documents, columns) -> list[float]:
  """What can be counted about pairs, given as columns of five."""
  first_start, first_end, second_start, second_end, is_random_next = columns
  first, second = first_end - first_start, second_end - second_start
  return [
    len(first),
    *(
      values.sum()
      for values in (
        is_random_next,
        first,
        second,
        first**2,
        second**2,
        first * is_random_next,
        second * is_random_next,
        second_start * is_random_next,
        first + second < 20,
        first + second == 34,
        # Cut off at neither, one or the other side.
        np.isin(first_start, documents.sentence_ends),
        np.isin(first_end, documents.sentence_ends),
        np.isin(second_start, documents.sentence_ends),
        np.isin(second_end, documents.sentence_ends),
      )
    ),
  ]


def test_pairs_are_those_of_the_original_in_distribution():
  rng = np.random.default_rng(14)
  documents = _many_documents(rng)
  sentences = np.split(documents.tokens, documents.sentence_ends[1:-1])
  sentences = [sentence.tolist() for sentence in sentences]
  nested = [
    sentences[start:end]
    for start, end in zip(
      documents.document_ends[:-1], documents.document_ends[1:], strict=True
    )
  ]
  original_rng = random.Random(15)
  ours, theirs = [], []
  for _ in range(300):
    pairs = _plan(documents, rng, short_sequence_prob=0.3)
    ours.append(_statistics(documents, vars(pairs).values()))
    columns = zip(*_original(nested, 34, 0.3, original_rng), strict=True)
    theirs.append(_statistics(documents, map(np.array, columns)))
  difference = np.mean(ours, axis=0) - np.mean(theirs, axis=0)
  deviation = np.sqrt((np.var(ours, axis=0) + np.var(theirs, axis=0)) / 300)
  # Of 15 statistics, one in thousands of tests passes 4.5 deviations.
  assert (np.abs(difference) < 4.5 * deviation).all()
  # One deviation is under 1 % of most statistics, and of the rarest under 5 %.
  assert (deviation / np.mean(theirs, axis=0) < 0.05).all()


def test_the_same_generator_state_gives_the_same_pairs():
  documents = _many_documents(np.random.default_rng(16))
  first, second, other = (
    _plan(documents, np.random.default_rng(seed)) for seed in (17, 17, 18)
  )
  assert first.first_end.tolist() == second.first_end.tolist()
  assert first.second_start.tolist() == second.second_start.tolist()
  assert first.second_start.tolist() != other.second_start.tolist()


def test_one_document_alone_is_an_error():
  with pytest.raises(errors.InputError, match=r"at least 2"):
    _plan(_documents([[3, 4]]), np.random.default_rng(19))


def _pairs(*rows) -> sentence_pairs.Pairs:
  return sentence_pairs.Pairs(*map(np.array, zip(*rows, strict=True)))


def test_pairs_are_concatenated_and_picked():
  pairs = sentence_pairs.Pairs.concatenate(
    [
      _pairs((0, 1, 2, 3, True), (4, 5, 6, 7, False)),
      _pairs((8, 9, 10, 11, True)),
    ]
  )
  assert len(pairs) == 3
  picked = pairs[np.array([2, 0])]
  assert [values.tolist() for values in vars(picked).values()] == [
    [8, 0],
    [9, 1],
    [10, 2],
    [11, 3],
    [True, True],
  ]


def test_segments_are_joined_with_special_tokens_and_padded():
  documents = sentence_pairs.TokenizedDocuments(
    np.arange(100, 130, dtype=np.int32),
    *map(np.array, ([0, 30], [0, 1], [0, 1])),
  )
  rows = sentence_pairs.join(
    documents,
    _pairs((3, 5, 20, 21, True), (0, 1, 26, 30, True)),
    sequence_length=8,
    cls_id=1,
    sep_id=2,
  )
  assert rows.input_ids.tolist() == [
    [1, 103, 104, 2, 120, 2, 0, 0],
    [1, 100, 2, 126, 127, 128, 129, 2],
  ]
  assert rows.input_ids.dtype == np.int32
  assert rows.num_tokens.tolist() == [6, 8]
  assert rows.second_start.tolist() == [4, 3]
  # The documents are as they were.
  assert documents.tokens.tolist() == list(range(100, 130))
