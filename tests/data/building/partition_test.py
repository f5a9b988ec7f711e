"""What is held out, and the groups that a corpus is cut into."""

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.data.building import corpus
from mslt_tf.data.building import external_sort
from mslt_tf.data.building import partition


def _keys(numbers) -> np.ndarray:
  return np.unique(
    np.array([corpus.key_of(b"Text %d." % index) for index in numbers], "u8")
  )


def test_about_the_share_asked_for_is_held_out():
  keys = _keys(range(2000))
  ranges = partition.split(keys, 0.1)
  assert ranges["heldout"].start == 0
  assert ranges["heldout"].end == ranges["train"].start
  assert ranges["train"].end == 2**64
  num_heldout = int((keys < ranges["heldout"].end).sum())
  assert 150 < num_heldout < 250
  # Those in the lowest tenth of the hashes, whatever else there is.
  assert num_heldout == int((keys < np.uint64(2**64 // 10)).sum())


@pytest.mark.parametrize(
  "number, fraction, heldout", [(4, 0.01, 2), (5, 0.01, 2), (5, 0.99, 3)]
)
def test_each_side_has_two_documents(number, fraction, heldout):
  keys = _keys(range(number))
  ranges = partition.split(keys, fraction)
  assert int((keys < ranges["heldout"].end).sum()) == heldout


def test_three_different_documents_are_too_few():
  with pytest.raises(errors.InputError, match="3 different documents"):
    partition.split(_keys([0, 1, 2, 2, 2]), 0.5)


def _corpus(num_documents: int, num_bytes: int) -> corpus.Corpus:
  """Documents with evenly spread keys, all of one size."""
  step = 2**64 // num_documents
  keys = np.arange(num_documents, dtype=np.uint64) * np.uint64(step)
  sizes = np.full(num_documents, num_bytes)
  return corpus.Corpus((), keys, external_sort.bucket_counts(keys, sizes))


def _documents_of(text: corpus.Corpus, groups) -> list[int]:
  return [
    sum(group.start <= key < group.end for key in text.keys.tolist())
    for group in groups
  ]


@pytest.mark.parametrize(
  "num_documents, num_bytes, expected",
  [
    # 8 MiB of text and 64 documents or more; the rest goes to the last.
    (1000, 1 << 15, [256, 256, 488]),
    (1000, 1 << 10, [1000]),
    (200, 1 << 20, [64, 64, 72]),
    # Large ones: 64 MiB and two documents.
    (10, 1 << 25, [2, 2, 2, 2, 2]),
    (3, 1 << 27, [3]),
  ],
)
def test_groups_are_large_and_few_at_once(num_documents, num_bytes, expected):
  text = _corpus(num_documents, num_bytes)
  groups = partition.groups(text, external_sort.ALL_KEYS)
  assert groups[0].start == 0 and groups[-1].end == 2**64
  assert _documents_of(text, groups) == expected


def test_groups_are_of_a_split():
  text = _corpus(1000, 1 << 15)
  cut = int(text.keys[300])
  heldout = partition.groups(text, external_sort.KeyRange(0, cut))
  train = partition.groups(text, external_sort.KeyRange(cut, 2**64))
  assert (heldout[0].start, heldout[-1].end) == (0, cut)
  assert (train[0].start, train[-1].end) == (cut, 2**64)
  assert _documents_of(text, heldout) == [300]
  assert _documents_of(text, train) == [256, 444]


def test_a_sample_is_the_first_groups():
  text = _corpus(1000, 1 << 15)
  groups = partition.groups(text, external_sort.ALL_KEYS)
  assert partition.sample(text, groups, 1) == groups[:1]
  assert partition.sample(text, groups, (1 << 23) + 1) == groups[:2]
  assert partition.sample(text, groups, 1 << 40) == groups
