"""Examples are pairs of segments, masked, in a random order."""

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.data.examples import example_recipe
from mslt_tf.data.examples import sentence_pairs
from mslt_tf.data.examples import vocabulary

CLS, SEP, MASK = 2, 3, 4
FIRST_WORD = 5
VOCABULARY = vocabulary.Vocabulary(
  (
    *vocabulary.SPECIAL_TOKENS,
    *(f"word{number}" for number in range(3000)),
    *(f"##piece{number}" for number in range(700)),
  )
)


def _documents(*lengths: list[int]) -> sentence_pairs.TokenizedDocuments:
  """Documents of sentences of these lengths, of words in their order."""
  words = iter(range(FIRST_WORD, len(VOCABULARY)))
  return sentence_pairs.TokenizedDocuments.of(
    [
      [np.array([next(words) for _ in range(length)]) for length in document]
      for document in lengths
    ]
  )


# Of one sentence each, so short that nothing is truncated.
ONE_PAIR_EACH = _documents([12], [13], [14])


def _recipe(**kwargs) -> example_recipe.Recipe:
  arguments = dict(
    vocabulary=VOCABULARY,
    sequence_length=33,
    max_predictions=7,
    masked_lm_prob=0.15,
    short_sequence_prob=0.1,
    whole_word_masking=False,
  )
  return example_recipe.Recipe(**(arguments | kwargs))


def _batches(documents, recipe=None, *, num_dupes=1, seed=1, batch_size=4096):
  return list(
    example_recipe.of_documents(
      documents,
      recipe or _recipe(),
      num_dupes=num_dupes,
      rng=np.random.default_rng(seed),
      batch_size=batch_size,
    )
  )


def _unmasked(batch) -> list[list[int]]:
  """Returns the tokens of each example, the hidden ones restored."""
  result = []
  for row in range(len(batch)):
    ids = batch.input_ids[row].copy()
    count = batch.num_predictions[row]
    positions = batch.masked_lm_positions[row, :count]
    ids[positions] = batch.masked_lm_ids[row, :count]
    assert not ids[batch.num_tokens[row] :].any()
    result.append(ids[: batch.num_tokens[row]].tolist())
  return result


def test_an_example_is_two_stretches_of_text_between_special_tokens():
  documents = _documents([4, 9, 2] * 30, [7] * 50, [3])
  (batch,) = _batches(documents, num_dupes=3)
  # Where the documents begin: at 0, 450 and 800.
  borders = FIRST_WORD + np.array([450, 800])
  for row, tokens in enumerate(_unmasked(batch)):
    second_start = batch.second_start[row]
    first, second = tokens[1 : second_start - 1], tokens[second_start:-1]
    assert tokens == [CLS, *first, SEP, *second, SEP]
    for segment in (first, second):
      assert segment == list(range(segment[0], segment[0] + len(segment)))
    documents_of = np.searchsorted(borders, [first[0], second[0]], side="right")
    assert (documents_of[0] != documents_of[1]) == batch.is_random_next[row]


def test_masking_follows_the_recipe():
  documents = _documents([6] * 100, [7] * 100)
  (batch,) = _batches(documents, _recipe(short_sequence_prob=0.0))
  is_full = batch.num_tokens == 33
  assert is_full.mean() > 0.9
  assert (batch.num_predictions[is_full] == 5).all()  # 4.95
  assert (batch.input_ids == MASK).sum() > 0.6 * batch.num_predictions.sum()
  (batch,) = _batches(documents, _recipe(max_predictions=2))
  assert batch.masked_lm_ids.shape[1] == 2
  assert batch.num_predictions.max() == 2


@pytest.mark.parametrize("whole_word_masking", [False, True])
def test_whole_words_are_masked_if_the_recipe_says_so(whole_word_masking):
  # Two words of three pieces each in a sentence, and room for five sentences.
  word = [FIRST_WORD, FIRST_WORD + 3001, FIRST_WORD + 3002]
  sentence = np.array(word * 2)
  documents = sentence_pairs.TokenizedDocuments.of(
    [[sentence] * 100, [sentence] * 50]
  )
  recipe = _recipe(
    short_sequence_prob=0.0,
    masked_lm_prob=0.2,
    whole_word_masking=whole_word_masking,
  )
  (batch,) = _batches(documents, recipe)
  hidden = np.bincount(batch.masked_lm_ids.ravel())[word]
  is_whole = batch.num_predictions % 3 == 0
  assert (len(set(hidden)) == 1) == whole_word_masking
  assert is_whole.all() == whole_word_masking


def test_batches_are_full_but_the_last():
  documents = _documents([6] * 100, [7] * 100)
  (whole,) = _batches(documents, num_dupes=4)
  sizes = [
    len(batch) for batch in _batches(documents, num_dupes=4, batch_size=29)
  ]
  assert set(sizes[:-1]) == {29} and 1 <= sizes[-1] <= 29
  assert sum(sizes) == len(whole)


def test_each_dupe_has_all_of_the_text_masked_in_another_way():
  (batch,) = _batches(ONE_PAIR_EACH, num_dupes=50)
  firsts = [tokens[1] for tokens in _unmasked(batch)]
  assert [firsts.count(FIRST_WORD + place) for place in (0, 12, 25)] == [50] * 3
  assert len(np.unique(batch.masked_lm_positions, axis=0)) > 140


def test_the_order_is_random():
  firsts = [
    _unmasked(_batches(ONE_PAIR_EACH, seed=seed, batch_size=1)[0])[0][1]
    for seed in range(300)
  ]
  # 100 of each with a standard deviation of 8.
  for place in (0, 12, 25):
    assert 60 < firsts.count(FIRST_WORD + place) < 140


def test_the_dupes_are_mixed():
  documents = _documents([6] * 200, [7] * 180)
  (batch,) = _batches(documents, num_dupes=5)
  firsts = np.array([tokens[1] for tokens in _unmasked(batch)])
  # Neither in the order of the text nor dupe after dupe.
  fifth = len(firsts) // 5
  correlation = np.corrcoef(firsts[:-fifth], firsts[fifth:])[0, 1]
  assert abs(correlation) < 0.25
  assert abs(np.corrcoef(firsts, np.arange(len(firsts)))[0, 1]) < 0.25


def test_the_same_generator_state_gives_the_same_examples():
  documents = _documents([6] * 50, [7] * 60)
  first, second, other = (
    _batches(documents, seed=seed)[0] for seed in (2, 2, 3)
  )
  for name, values in vars(first).items():
    assert values.tolist() == getattr(second, name).tolist()
  assert first.input_ids.tolist() != other.input_ids.tolist()


def test_one_document_alone_is_an_error():
  with pytest.raises(errors.InputError, match=r"at least 2"):
    _batches(_documents([5, 6]))
