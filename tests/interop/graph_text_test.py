"""Text becomes in a graph the tokens that it becomes in Python."""

import random
import sys
import unicodedata

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf.data.examples import bert_text
from mslt_tf.data.examples import vocabulary
from mslt_tf.interop import graph_text

TOKENS = (
  *vocabulary.SPECIAL_TOKENS,
  *("a", "##b", "b", "##a", "e", "i", "x", "y", "##y", ".", "中", "…", "ß"),
  *("😀", "ο", "##ς", "##σ", "ı", "²", "[", "]", "mask", "’"),
)
ODD_TEXTS = (
  "",
  " \t\r\n",
  "É e\u0301 Ê ÉAB",
  "x\x00\x07\x1f\x7fy x\u200dy x\u00ady x\ufffdy",
  "中文a中 a中b",
  "ΟΣ ΟΣ. ΟΣΟ Σ ßẞ … ² ½ ﬁ ａ",
  "I İ ı IJ Ì i\u0307",
  "a\nb\u00a0a\u3000b\u2028a\u0085b",
  "👩\u200d💻😀😀 a😀b",
  "a" * 200 + " " + "a" * 201 + " b",
  "中" * 300 + "é" * 201 + "." + "é" * 200,
  "[MASK] a[MASK] [CLS]",
  "x⹝y’“a”—b",
  "\u0345\u0301a \U0001d400 \U000e0041a \ue000",
)
# Unicode 14 has given them a lower case, or parts; TensorFlow has Unicode 13.
NEW_IN_UNICODE_14 = {
  0x2C2F, 0xA7C0, 0xA7D0, 0xA7D6, 0xA7D8, 0x11938, *range(0x10570, 0x10596),
}  # fmt: skip


def _inputs(*, lower_case: bool, max_length: int = 20) -> graph_text.TextInputs:
  return graph_text.TextInputs(
    vocabulary=vocabulary.Vocabulary(TOKENS),
    lower_case=lower_case,
    max_length=max_length,
  )


@pytest.fixture(scope="module")
def inputs() -> graph_text.TextInputs:
  return _inputs(lower_case=True)


def _in_python(texts, *, lower_case: bool) -> list[list[int]]:
  tokenizer = vocabulary.make_tokenizer(
    vocabulary.Vocabulary(TOKENS), lower_case=lower_case
  )
  ids, lengths = vocabulary.tokenize(tokenizer, texts)
  return [each.tolist() for each in np.split(ids, np.cumsum(lengths)[:-1])]


@pytest.mark.parametrize("lower_case", [True, False])
def test_odd_texts_have_the_ids_that_training_data_has(lower_case):
  ids = _inputs(lower_case=lower_case).tokenize(tf.constant(ODD_TEXTS))
  assert ids.to_list() == _in_python(ODD_TEXTS, lower_case=lower_case)
  assert len({tuple(each) for each in ids.to_list()}) > 10


@pytest.mark.parametrize("lower_case", [True, False])
def test_every_character_is_prepared_as_in_python(lower_case):
  characters = [
    chr(point)
    for point in range(sys.maxunicode + 1)
    if point not in NEW_IN_UNICODE_14
    # Of what is many and alike, a part.
    and (point < 0x3400 or point % 7 == 0 or 0xF900 <= point < 0x11000)
    and unicodedata.category(chr(point)) != "Cs"
  ]
  assert len(characters) > 150_000
  differ = []
  # At once the reference would take minutes.
  for start in range(0, len(characters), 1000):
    words = [f"x{each}y" for each in characters[start : start + 1000]]
    actual = graph_text.prepare(tf.constant(words), lower_case=lower_case)
    expected = bert_text.prepare(words, lower_case=lower_case)
    differ += [
      (ascii(word), *pair)
      for word, *pair in zip(words, actual.numpy(), expected, strict=True)
      if pair[0] != pair[1]
    ]
  assert differ == []


def test_random_strings_are_prepared_as_in_python():
  rng = random.Random(5)
  pool = "".join(ODD_TEXTS) + "ΑΣ가각ा\u0327\u0316ΐḀ"
  texts = ["".join(rng.choices(pool, k=rng.randrange(40))) for _ in range(3000)]
  actual = graph_text.prepare(tf.constant(texts), lower_case=True)
  assert actual.numpy().tolist() == bert_text.prepare(texts, lower_case=True)


def test_exception_letters_of_unicode_14_keep_their_case():
  text = "x\u2c2fy"
  assert graph_text.prepare(text, lower_case=True).numpy().decode() == text
  (in_python,) = bert_text.prepare([text], lower_case=True)
  assert in_python.decode() == "x\u2c5fy"


def test_bytes_that_are_not_utf_8_are_dropped():
  prepared = graph_text.prepare(b"x\xffy \xf0\x9fa", lower_case=True)
  assert prepared.numpy() == b"xy a"


def test_a_mask_is_a_token_where_masks_are_looked_for(inputs):
  texts = ["[MASK]", "a [MASK].", "", "[MASK][MASK] b", "[mask]"]
  with_masks = inputs.tokenize_with_masks(tf.constant(texts)).to_list()
  ids = vocabulary.Vocabulary(TOKENS).ids
  assert with_masks == [
    [ids[token] for token in tokens.split()]
    for tokens in ("[MASK]", "a [MASK] .", "", "[MASK] [MASK] b", "[ mask ]")
  ]
  as_words = inputs.tokenize(tf.constant(["[MASK]"])).to_list()
  assert as_words == [[ids["["], ids["mask"], ids["]"]]]


def test_text_is_packed_between_cls_and_sep_and_padded(inputs):
  packed = inputs.pack([inputs.tokenize(tf.constant(["a b", "", "i"]))])
  a, b, i = (TOKENS.index(token) for token in "abi")
  assert {name: each.numpy().tolist() for name, each in packed.items()} == {
    "input_word_ids": [[2, a, b, 3], [2, 3, 0, 0], [2, i, 3, 0]],
    "input_mask": [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]],
    "input_type_ids": [[0] * 4] * 3,
  }


def test_of_two_texts_the_longer_is_cut():
  inputs = _inputs(lower_case=True, max_length=8)
  packed = inputs.pack(
    [inputs.tokenize(tf.constant([text])) for text in ("a b", "i i i i i")]
  )
  a, b, i = (TOKENS.index(token) for token in "abi")
  assert packed["input_word_ids"].numpy().tolist() == [[2, a, b, 3, i, i, i, 3]]
  assert packed["input_type_ids"].numpy().tolist() == [[0] * 4 + [1] * 4]


def test_no_text_at_all_is_no_row(inputs):
  packed = inputs.pack([inputs.tokenize(tf.constant([], tf.string))])
  assert packed["input_word_ids"].shape == (0, 2)
