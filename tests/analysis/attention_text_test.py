"""Text of which attention is drawn or measured."""

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.analysis import attention_text


@pytest.fixture(scope="module")
def model(make_pretrained):
  return make_pretrained(max_positions=9)


def test_a_sentence_stands_between_cls_and_sep(model):
  read = attention_text.of_sentence(model, "W3 w39.")
  assert read.tokens == ("[CLS]", "w3", "w39", ".", "[SEP]")
  np.testing.assert_array_equal(read.features["input_ids"], [[2, 9, 45, 5, 3]])
  np.testing.assert_array_equal(read.features["input_mask"], [[1] * 5])
  np.testing.assert_array_equal(read.features["segment_ids"], [[0] * 5])


def test_the_second_of_a_pair_is_another_segment(model):
  read = attention_text.of_sentence(model, "w1", "w2 w3")
  assert read.tokens == ("[CLS]", "w1", "[SEP]", "w2", "w3", "[SEP]")
  np.testing.assert_array_equal(
    read.features["segment_ids"], [[0, 0, 0, 1, 1, 1]]
  )


def test_a_sentence_may_fill_all_positions_and_no_more(model):
  assert len(attention_text.of_sentence(model, "w1 " * 7).tokens) == 9
  with pytest.raises(errors.InputError, match="9 positions"):
    attention_text.of_sentence(model, "w1 " * 8)
  with pytest.raises(errors.InputError, match="9 positions"):
    attention_text.of_sentence(model, "w1 " * 4, "w2 " * 3)


@pytest.mark.parametrize("texts", [(" ",), ("w1", "\t")])
def test_a_sentence_needs_a_word(model, texts):
  with pytest.raises(errors.InputError, match="no word"):
    attention_text.of_sentence(model, *texts)


def test_lines_are_examples_in_batches_of_about_one_length(model):
  lines = ["w1 w2 w3", "", *["w4"] * 8, "w5 " * 20]
  text = attention_text.of_lines(model, lines, source="lines.txt")
  assert text.source == "lines.txt"
  assert text.num_examples == 10
  first, second = text.batches
  np.testing.assert_array_equal(first["input_ids"], [[2, 10, 3]] * 8)
  np.testing.assert_array_equal(
    second["input_ids"],
    [[2, 7, 8, 9, 3, 0, 0, 0, 0], [2, *[11] * 7, 3]],
  )
  np.testing.assert_array_equal(second["input_mask"].sum(1), [5, 9])


@pytest.mark.parametrize("lines", [[], ["", "  "], ["\u200b"]])
def test_lines_without_words_are_told(model, lines):
  with pytest.raises(errors.InputError, match=r"lines\.txt has no line"):
    attention_text.of_lines(model, lines, source="lines.txt")
