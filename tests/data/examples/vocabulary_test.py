"""Vocabularies are BERT's in format, exact in size and always the same."""

import collections
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.data.examples import vocabulary

SENTENCES = (
  "The walker walked and the talker talked.",
  "Walking and talking, the walkers were talking!",
  "A talk is a walk for the talkers.",
)
LETTERS = "adefghiklnorstw"  # those of SENTENCES, once lower-cased


def _learn(vocab_size: int) -> vocabulary.Vocabulary:
  counts = vocabulary.count_words(SENTENCES * 3, lower_case=True)
  return vocabulary.learn(counts, vocab_size=vocab_size)


def _tokens(*words: str) -> vocabulary.Vocabulary:
  return vocabulary.Vocabulary((*vocabulary.SPECIAL_TOKENS, *words))


def test_words_are_counted_in_lower_case_and_apart_from_punctuation():
  counts = vocabulary.count_words(["Ça va, CA va!"], lower_case=True)
  assert counts == collections.Counter({"ca": 2, "va": 2, ",": 1, "!": 1})
  counts = vocabulary.count_words(["Ça va"], lower_case=False)
  assert set(counts) == {"Ça", "va"}


@pytest.mark.parametrize("vocab_size", [55, 71, 300])
def test_a_learned_vocabulary_has_exactly_the_size_asked_for(vocab_size):
  learned = _learn(vocab_size)
  assert len(learned) == vocab_size == len(set(learned.tokens))


def test_unused_tokens_stand_between_padding_and_the_special_tokens():
  tokens = _learn(300).tokens
  assert tokens[:3] == ("[PAD]", "[unused0]", "[unused1]")
  num_unused = sum(token.startswith("[unused") for token in tokens)
  assert tokens[num_unused + 1 : num_unused + 5] == (
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
  )
  assert "walk" in tokens


def test_every_character_of_the_text_is_known():
  learned = _learn(55)
  for letter in LETTERS:
    assert letter in learned.tokens
    assert "##" + letter in learned.tokens


def test_too_small_a_size_is_an_error_that_says_how_much_is_needed():
  with pytest.raises(errors.InputError, match=r"vocab_size=20 is too small"):
    _learn(20)


def test_the_vocabulary_does_not_depend_on_the_hash_seed():
  program = (
    "from tests.data.examples import vocabulary_test as test;"
    "print('sha256', test._learn(71).sha256)"
  )
  root = os.path.abspath(os.path.join(__file__, "../../../.."))
  result = subprocess.run(
    [sys.executable, "-c", program],
    env=dict(os.environ, PYTHONHASHSEED="7", PYTHONPATH=root),
    capture_output=True,
    text=True,
    check=True,
  )
  assert f"sha256 {_learn(71).sha256}" in result.stdout


def test_a_vocabulary_survives_saving(tmp_path):
  path = str(tmp_path / "vocab.txt")
  vocabulary.save(_tokens("one", "##two", "\u2028"), path)
  assert vocabulary.load(path) == _tokens("one", "##two", "\u2028")
  with open(path, "rb") as file:
    content = file.read()
  assert content.startswith(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\none\n##two\n")
  assert vocabulary.load(path).sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
  "content, message",
  [
    ("", "is empty"),
    ("[PAD]\n[UNK]\n[CLS]\none\n", r"has no \[SEP\] \[MASK\]"),
    ("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\none\ntwo\none\n", "'one' 2 times"),
    ("[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\n", "at id 0"),
  ],
)
def test_a_wrong_vocabulary_file_is_an_error(tmp_path, content, message):
  path = tmp_path / "vocab.txt"
  path.write_text(content)
  with pytest.raises(errors.InputError, match=message) as raised:
    vocabulary.load(str(path))
  assert str(path) in str(raised.value)


def test_a_missing_vocabulary_file_is_an_error(tmp_path):
  with pytest.raises(errors.InputError, match=r"vocab.txt"):
    vocabulary.load(str(tmp_path / "vocab.txt"))


def test_sentences_become_ids_of_the_longest_pieces():
  words = _tokens("walk", "##er", "##s", "ca", "!")
  tokenizer = vocabulary.make_tokenizer(words, lower_case=True)
  ids, lengths = vocabulary.tokenize(tokenizer, ["Walkers!", "", "Ça zebra"])
  assert ids.tolist() == [5, 6, 7, 9, 8, 1]
  assert lengths.tolist() == [4, 0, 2]
  assert ids.dtype == np.int32


def test_without_lower_case_accents_and_capitals_stay():
  words = _tokens("walk", "Walk", "Ça")
  tokenizer = vocabulary.make_tokenizer(words, lower_case=False)
  ids, _ = vocabulary.tokenize(tokenizer, ["Walk walk Ça ça"])
  assert ids.tolist() == [6, 5, 7, 1]


def test_continuations_are_marked():
  assert _tokens("walk", "##er").is_continuation.tolist() == (
    [False] * 6 + [True]
  )


def test_a_file_too_large_for_a_vocabulary_is_not_read(tmp_path):
  path = tmp_path / "model.bin"
  with open(path, "wb") as file:
    file.truncate(1 << 32)  # A sparse file takes no room.
  with pytest.raises(errors.InputError, match=r"model.bin' has 4294967296"):
    vocabulary.load(str(path))
