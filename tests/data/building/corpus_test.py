"""The corpus on disk: what is held out, and the groups it is cut into."""

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.data.building import corpus
from mslt_tf.data.building import external_sort
from mslt_tf.data.building import processes
from mslt_tf.data.text import documents


def _keys(numbers) -> np.ndarray:
  return np.unique(
    np.array([corpus.key_of(b"Text %d." % index) for index in numbers], "u8")
  )


def _read(directory, text: str, **kwargs) -> tuple[list[str], dict]:
  (directory / "text.txt").write_text(text)
  with processes.start(1) as one:
    paths, dropped = corpus.read(
      documents.find([str(directory / "text.txt")], tfds_data_dir=None),
      str(directory),
      processes=one,
      **(
        dict(input_format="sentences", text_field="text", min_words=0) | kwargs
      ),
    )
  return paths, dict(dropped)


def _texts(paths) -> list[bytes]:
  files = external_sort.open_all(paths)
  return corpus.texts(files, external_sort.ALL_KEYS)


def test_documents_are_in_the_order_of_their_hashes(tmp_path):
  paths, _ = _read(tmp_path, "b one .\nb two .\n\na one .\n\nc .\n\na one .\n")
  found = _texts(paths)
  assert sorted(found) == [b"a one .", b"a one .", b"b one .\nb two .", b"c ."]
  keys = [corpus.key_of(text) for text in found]
  assert keys == sorted(keys)
  assert corpus.of_files(paths).keys.tolist() == sorted(set(keys))


def test_a_key_is_the_beginning_of_the_sha256():
  # printf abc | sha256sum
  assert corpus.key_of(b"abc") == 0xBA7816BF8F01CFEA


def test_short_documents_are_dropped_and_counted(tmp_path):
  paths, dropped = _read(
    tmp_path, "one two\nthree\n\none two\n\none\n", min_words=3
  )
  assert _texts(paths) == [b"one two\nthree"]
  assert dropped["short_documents"] == 2


def test_what_was_read_is_not_read_again(tmp_path):
  paths, _ = _read(tmp_path, "a\n\nb\n")
  with open(paths[0], "rb") as file:
    content = file.read()
  # The same name stands for the same text: who changes it has other arguments.
  assert _read(tmp_path, "c\n\nd\n")[0] == paths
  with open(paths[0], "rb") as file:
    assert file.read() == content


def test_about_the_share_asked_for_is_held_out():
  keys = _keys(range(2000))
  ranges = corpus.split(keys, 0.1)
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
  ranges = corpus.split(keys, fraction)
  assert int((keys < ranges["heldout"].end).sum()) == heldout


def test_three_different_documents_are_too_few():
  with pytest.raises(errors.InputError, match="3 different documents"):
    corpus.split(_keys([0, 1, 2, 2, 2]), 0.5)


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
  groups = corpus.groups(text, external_sort.ALL_KEYS)
  assert groups[0].start == 0 and groups[-1].end == 2**64
  assert _documents_of(text, groups) == expected


def test_groups_are_of_a_split():
  text = _corpus(1000, 1 << 15)
  cut = int(text.keys[300])
  heldout = corpus.groups(text, external_sort.KeyRange(0, cut))
  train = corpus.groups(text, external_sort.KeyRange(cut, 2**64))
  assert (heldout[0].start, heldout[-1].end) == (0, cut)
  assert (train[0].start, train[-1].end) == (cut, 2**64)
  assert _documents_of(text, heldout) == [300]
  assert _documents_of(text, train) == [256, 444]


def test_a_sample_is_the_first_groups():
  text = _corpus(1000, 1 << 15)
  groups = corpus.groups(text, external_sort.ALL_KEYS)
  assert corpus.sample(text, groups, 1) == groups[:1]
  assert corpus.sample(text, groups, (1 << 23) + 1) == groups[:2]
  assert corpus.sample(text, groups, 1 << 40) == groups


def test_words_of_a_range_are_counted(tmp_path):
  paths, _ = _read(tmp_path, "The dog.\nThe Cat\n\nthe end\n\nthe end\n")
  for remove_duplicates, number in ((False, 2), (True, 1)):
    words = corpus.count_words(
      corpus.Words(
        tuple(paths),
        external_sort.ALL_KEYS,
        lower_case=True,
        remove_duplicates=remove_duplicates,
      )
    )
    expected = {"the": 2 + number, "dog": 1, ".": 1, "cat": 1, "end": number}
    assert words == expected
