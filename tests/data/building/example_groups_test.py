"""A group of documents becomes examples, and facts about them."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.building import example_groups
from mslt_tf.data.examples import vocabulary

WORDS = tuple(f"w{index}" for index in range(30))


def _settings(path, **changed) -> example_groups.Settings:
  used = vocabulary.Vocabulary((*vocabulary.SPECIAL_TOKENS, *WORDS))
  vocabulary.save(used, str(path))
  arguments = dict(
    vocab_path=str(path),
    vocab_sha256=used.sha256,
    lower_case=True,
    sequence_length=13,
    max_predictions=3,
    masked_lm_prob=0.15,
    short_sequence_prob=0.1,
    whole_word_masking=False,
    remove_duplicates=False,
    num_dupes=2,
    seed=(3, 0),
  )
  return example_groups.Settings(**(arguments | changed))


TEXTS = [
  b"w0 w1 w2\nw3\nw4 w5",
  b"w6 unknown\nw7 w8 w9 w0",
  b"w6 unknown\nw7 w8 w9 w0",
  b"\x00\n \t",
  b"w1 w2\n\x00\nw3 w4 w5 w6",
]


def _make(settings, index=0, texts=TEXTS):
  lengths = []
  content = []

  def add(some: bytes, some_lengths: np.ndarray) -> None:
    content.append(some)
    lengths.extend(some_lengths.tolist())

  keys, facts = example_groups.make_group(texts, index, settings, add)
  ends = np.cumsum([0, *lengths])
  whole = b"".join(content)
  records = [whole[a:b] for a, b in itertools.pairwise(ends)]
  return keys, records, facts


def test_a_group_tells_what_it_is_made_of(tmp_path):
  keys, records, facts = _make(_settings(tmp_path / "vocab"))
  counts = facts["token_counts"]
  assert len(counts) == 35
  # [UNK] and w0 and w3, from the texts by eye.
  assert (counts[1], counts[5], counts[8]) == (2, 3, 2)
  assert {
    name: value for name, value in facts.items() if not isinstance(value, list)
  } == {
    "num_groups": 1,
    "num_documents": 4,
    "num_sentences": 9,
    "num_tokens": 24,
    "empty_documents": 1,
    "empty_sentences": 3,
    "duplicate_documents": 0,
  }
  predictions = np.zeros(35, int)
  for record in records:
    feature = tf.train.Example.FromString(record).features.feature
    for token, weight in zip(
      feature["masked_lm_ids"].int64_list.value,
      feature["masked_lm_weights"].float_list.value,
      strict=True,
    ):
      predictions[token] += int(weight)
  assert facts["prediction_counts"] == predictions.tolist()
  assert keys.tolist() == sorted(set(keys.tolist()))
  assert len(keys) == len(records)


def test_duplicates_go_by_option(tmp_path):
  _, _, facts = _make(_settings(tmp_path / "vocab", remove_duplicates=True))
  assert facts["num_documents"] == 3
  assert facts["duplicate_documents"] == 1


def test_examples_are_of_the_seed_and_of_the_group(tmp_path):
  _, records, _ = _make(_settings(tmp_path / "vocab"))
  assert _make(_settings(tmp_path / "vocab"))[1] == records
  assert _make(_settings(tmp_path / "vocab", seed=(4, 0)))[1] != records
  assert _make(_settings(tmp_path / "vocab", seed=(3, 1)))[1] != records
  assert _make(_settings(tmp_path / "vocab"), index=1)[1] != records


def test_documents_without_tokens_are_an_error_that_asks_why(tmp_path):
  with pytest.raises(
    errors.InputError, match=r"group of 2 documents 1 have .*tokens"
  ):
    _make(_settings(tmp_path / "vocab"), texts=TEXTS[2:4])


def test_facts_are_summed():
  total = example_groups.total(
    [{"a": 1, "b": [1, 2]}, {"a": 2, "b": [0, 5]}, {"a": 4, "b": [1, 0]}]
  )
  assert total["a"] == 7
  assert total["b"].tolist() == [2, 7]
