"""Examples become the tokens, segments and masks that BERT reads."""

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.glue import examples as examples_lib
from mslt_tf.glue import inputs

# Ids 0 to 4, then a to e.
VOCABULARY = vocabulary_lib.Vocabulary(
  (*vocabulary_lib.SPECIAL_TOKENS, "a", "b", "c", "d", "e")
)


@pytest.fixture(scope="module")
def encode():
  tokenizer = vocabulary_lib.make_tokenizer(VOCABULARY, lower_case=True)

  def of(first, second=None, labels=None, max_length=9):
    return inputs.encode(
      examples_lib.Examples(first, second, labels),
      tokenizer,
      VOCABULARY,
      max_length=max_length,
    )

  return of


def tokens(encoded, index):
  """Returns an example's tokens, and where its second text begins."""
  features = encoded.features(
    np.array([index]), length=encoded.lengths[index], num_rows=1
  )
  words = [VOCABULARY.tokens[each] for each in features["input_ids"][0]]
  return " ".join(words), features["segment_ids"][0].tolist()


def test_a_text_stands_between_cls_and_sep(encode):
  encoded = encode(["a b", "", "C x"])
  assert tokens(encoded, 0) == ("[CLS] a b [SEP]", [0, 0, 0, 0])
  assert tokens(encoded, 1) == ("[CLS] [SEP]", [0, 0])
  assert tokens(encoded, 2) == ("[CLS] c [UNK] [SEP]", [0, 0, 0, 0])
  assert encoded.num_cut == 0


def test_a_pairs_second_text_is_segment_1(encode):
  encoded = encode(["a b", "", "a"], ["c", "d e", ""])
  assert tokens(encoded, 0) == ("[CLS] a b [SEP] c [SEP]", [0, 0, 0, 0, 1, 1])
  assert tokens(encoded, 1) == ("[CLS] [SEP] d e [SEP]", [0, 0, 1, 1, 1])
  assert tokens(encoded, 2) == ("[CLS] a [SEP] [SEP]", [0, 0, 0, 1])


def test_a_long_text_loses_its_end(encode):
  encoded = encode(["a b c d e", "a b c"], max_length=5)
  assert tokens(encoded, 0)[0] == "[CLS] a b c [SEP]"
  assert tokens(encoded, 1)[0] == "[CLS] a b c [SEP]"
  assert encoded.num_cut == 1


def cut_token_by_token(first, second, room):
  """As google-research/bert says it."""
  first, second = list(first), list(second)
  while len(first) + len(second) > room:
    (first if len(first) > len(second) else second).pop()
  return len(first), len(second)


@pytest.mark.parametrize("max_length", [7, 8, 9, 10])
def test_the_longer_text_of_a_pair_is_cut(encode, max_length):
  sizes = [(i, j) for i in range(9) for j in range(9)]
  encoded = encode(
    ["a " * i for i, _ in sizes], ["b " * j for _, j in sizes], None, max_length
  )
  for index, (i, j) in enumerate(sizes):
    kept = cut_token_by_token("a" * i, "b" * j, max_length - 3)
    words = tokens(encoded, index)[0].split()
    assert (words.count("a"), words.count("b")) == kept, (i, j)
  assert encoded.num_cut == sum(i + j > max_length - 3 for i, j in sizes)


def test_a_batch_is_padded_with_zeros_and_rows_of_no_weight(encode):
  labels = np.array([2, 0, 1], np.int32)
  encoded = encode(["a b", "c", "d e d"], labels=labels)
  features = encoded.features(np.array([2, 0]), length=6, num_rows=3)
  np.testing.assert_array_equal(
    features["input_ids"],
    [[2, 8, 9, 8, 3, 0], [2, 5, 6, 3, 0, 0], [0] * 6],
  )
  np.testing.assert_array_equal(
    features["input_mask"],
    [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0], [0] * 6],
  )
  assert not features["segment_ids"].any()
  np.testing.assert_array_equal(features["labels"], [1, 2, 0])
  np.testing.assert_array_equal(features["weights"], [1, 1, 0])


def test_without_labels_they_are_zeros(encode):
  encoded = encode(["a", "b"])
  features = encoded.features(np.array([1]), length=4, num_rows=2)
  np.testing.assert_array_equal(features["labels"], [0, 0])


def test_a_length_without_room_is_refused(encode):
  with pytest.raises(errors.InputError, match="max_sequence_length=3 must be"):
    encode(["a"], max_length=3)
