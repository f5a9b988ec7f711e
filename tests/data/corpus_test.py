"""The corpus: what is held out, and the documents as one flat array."""

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.data import corpus
from mslt_tf.data import documents


def _documents(numbers) -> list[documents.Document]:
  return [documents.Document((f"Text {index}.",)) for index in numbers]


def _ids(*sentences) -> list[np.ndarray]:
  return [np.array(sentence, np.int32) for sentence in sentences]


def test_documents_come_back_from_the_flat_array():
  tokenized = corpus.TokenizedDocuments(
    [_ids([1, 2, 3], [4]), _ids([5, 6]), _ids([7], [8, 9], [10])]
  )
  assert tokenized.tokens.tolist() == list(range(1, 11))
  assert tokenized.num_sentences == 6
  assert [
    [sentence.tolist() for sentence in document] for document in tokenized
  ] == [[[1, 2, 3], [4]], [[5, 6]], [[7], [8, 9], [10]]]
  assert [ids.tolist() for ids in tokenized[2][1:]] == [[8, 9], [10]]


def test_what_is_empty_is_left_out_and_counted():
  tokenized = corpus.TokenizedDocuments(
    [_ids([], [1]), _ids([], []), _ids([2, 3])]
  )
  assert len(tokenized) == 2
  assert tokenized.num_sentences == 2
  assert tokenized.num_empty == 1
  assert tokenized.num_empty_sentences == 3


def test_about_the_share_asked_for_is_held_out():
  train, heldout = corpus.split(_documents(range(2000)), 0.1)
  assert sorted(train + heldout, key=str) == sorted(
    _documents(range(2000)), key=str
  )
  assert 150 < len(heldout) < 250


def test_what_is_held_out_depends_on_the_text_alone():
  _, heldout = corpus.split(_documents(range(2000)), 0.1)
  _, fewer = corpus.split(_documents(reversed(range(500))), 0.1)
  assert fewer == [
    text for text in reversed(heldout) if text in _documents(range(500))
  ]


def test_copies_are_on_one_side():
  train, heldout = corpus.split(_documents([0, 1, 2, 3] * 3), 0.5)
  assert len(train) == len(heldout) == 6
  assert not set(train) & set(heldout)


def test_three_different_documents_are_too_few():
  with pytest.raises(errors.InputError, match="3 different documents"):
    corpus.split(_documents([0, 1, 2, 2, 2]), 0.5)
