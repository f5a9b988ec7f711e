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
    errors.InputError, match=r"group of 3 documents 1 have .*tokens"
  ):
    _make(_settings(tmp_path / "vocab"), texts=TEXTS[1:4])


def test_a_random_next_is_no_copy_of_the_first_segment(tmp_path):
  # A word tells the text: the copies are of four sentences, so that half of
  # their pairs would be random if any next could be.
  texts = [b"w1", *[b"w2\nw2\nw2\nw2"] * 9, b"\x00", b"w3\nw3"]
  _, records, facts = _make(_settings(tmp_path / "vocab"), texts=texts)
  assert facts["num_documents"] == 11
  labels = {True: 0, False: 0}
  for record in records:
    feature = tf.train.Example.FromString(record).features.feature
    ids = list(feature["input_ids"].int64_list.value)
    for place, token, weight in zip(
      feature["masked_lm_positions"].int64_list.value,
      feature["masked_lm_ids"].int64_list.value,
      feature["masked_lm_weights"].float_list.value,
      strict=True,
    ):
      ids[place] = token if weight else ids[place]
    first, second = (
      {ids[place] for place in segment}
      for segment in (
        range(1, ids.index(3)),
        range(ids.index(3) + 1, len(ids) - 1 - ids[::-1].index(3)),
      )
    )
    (label,) = feature["next_sentence_labels"].int64_list.value
    assert (first != second) == bool(label)
    labels[bool(label)] += 1
  assert min(labels.values()) >= 5


def test_facts_are_summed():
  total = example_groups.total(
    [{"a": 1, "b": [1, 2]}, {"a": 2, "b": [0, 5]}, {"a": 4, "b": [1, 0]}]
  )
  assert total["a"] == 7
  assert total["b"].tolist() == [2, 7]
