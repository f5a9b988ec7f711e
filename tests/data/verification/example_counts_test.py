"""Counts of a few examples, against literals."""

import dataclasses

import numpy as np

from mslt_tf.data.verification import example_counts


def test_what_stands_in_examples_is_counted(make_batch):
  batch = make_batch(
    "[CLS] a/[MASK] [UNK] b/b [SEP] c/a [SEP]",
    "[CLS] a b c/[UNK] a [SEP] b c a b [SEP]",
  )
  batch = dataclasses.replace(batch, next_sentence_labels=np.array([1, 0]))
  counts = example_counts.of_batch(batch)
  in_part, expected_in_part = counts.in_part, counts.expected_in_part
  assert dataclasses.astuple(counts)[:-2] == (2, 18, 1, 1, 1, 4, 1, 1, 2, 1)
  # Three of 4 tokens, in the parts 0, 2, 4 and 6, and one of 8.
  assert in_part.tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
  np.testing.assert_allclose(
    expected_in_part,
    3 / 4 * np.array([1, 0, 1, 0, 1, 0, 1, 0]) + 1 / 8,
  )


def test_of_whole_words_those_of_one_piece_are_counted_by_their_place(
  make_batch,
):
  batch = make_batch(
    "[CLS] a/[MASK] ##a/[MASK] b c/c [SEP] a ##b [SEP]",
    "[CLS] a ##a [SEP] b/b ##b/b [SEP]",
    whole_word_masking=True,
  )
  counts = example_counts.of_batch(batch)
  assert counts.in_part.tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
  assert counts.expected_in_part.tolist() == [0.5, 0, 0, 0, 0.5, 0, 0, 0]


def test_counts_are_added_up(make_batch):
  counts = example_counts.of_batch(make_batch("[CLS] a/b [SEP] b [SEP]"))
  total = sum([counts, counts], start=example_counts.Counts())
  assert (total.num_examples, total.num_tokens, total.num_hidden) == (2, 10, 0)
  assert total.in_part.tolist() == [2, 0, 0, 0, 0, 0, 0, 0]
  assert total.expected_in_part.tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
