"""What follows from features, against literals."""

import numpy as np


def test_a_batch_tells_what_stood_there_and_what_is_predicted(make_batch):
  batch = make_batch(
    "[CLS] a c/[MASK] [SEP] b/a [SEP]", "[CLS] b/b a [SEP] a b c [SEP]"
  )
  assert batch.num_tokens.tolist() == [6, 8]
  assert batch.num_predictions.tolist() == [2, 1]
  assert batch.original_ids.tolist() == [
    [2, 5, 7, 3, 6, 3, 0, 0, 0, 0, 0],
    [2, 6, 5, 3, 5, 6, 7, 3, 0, 0, 0],
  ]
  assert batch.places.tolist() == [2, 4, 12]
  assert np.flatnonzero(batch.is_predicted).tolist() == [2, 4, 12]
  assert np.flatnonzero(~batch.is_special[0]).tolist() == [1, 2, 4]


def test_without_whole_words_each_token_is_a_word(make_batch):
  words = make_batch(
    "[CLS] a ##a/[MASK] [SEP] b [SEP]", "[CLS] ##b [SEP] c/c [SEP]"
  ).words
  assert words.row.tolist() == [0, 0, 0, 1, 1]
  assert words.start.tolist() == [1, 2, 4, 12, 14]
  assert words.length.tolist() == [1, 1, 1, 1, 1]
  assert words.num_predicted.tolist() == [0, 1, 0, 0, 1]


def test_a_word_is_a_token_and_those_that_continue_it(make_batch):
  # The head of the second segment's first word is cut off.
  words = make_batch(
    "[CLS] a ##a/a ##b/[MASK] [SEP] ##a ##b b [SEP]",
    "[CLS] c [SEP] a ##a/[MASK] [SEP]",
    whole_word_masking=True,
  ).words
  assert words.row.tolist() == [0, 0, 0, 1, 1]
  assert words.start.tolist() == [1, 5, 7, 12, 14]
  assert words.length.tolist() == [3, 2, 1, 1, 2]
  assert words.num_predicted.tolist() == [2, 0, 0, 0, 1]
