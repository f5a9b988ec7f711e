"""An example as a person reads it; verification_test has whole reports."""

import dataclasses

import numpy as np

from mslt_tf.data.verification import report


def test_an_example_shows_what_stood_there_and_what_is_read(make_batch):
  batch = make_batch(
    "[CLS] a ##b/[MASK] ##a c [SEP] b/c ##a/##a [SEP]", whole_word_masking=True
  )
  label = "  label           the second segment follows the first"
  assert report.example(batch) == [
    "  first segment   a[##b->MASK]a c",
    "  second segment  [b->c][##a->##a]",
    label,
    "  length          9 tokens, 3 predictions",
  ]
  batch = dataclasses.replace(batch, next_sentence_labels=np.array([1]))
  assert label.replace("follows the first", "is a random one") in (
    report.example(batch)
  )
