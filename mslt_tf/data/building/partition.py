"""Which documents are held out, and the groups that the others are cut into.

Documents with the lowest keys are held out. The others, and these, are cut into
groups of consecutive keys. A group is what one task holds in memory to make
examples of, and where it finds random next sentences: since keys are hashes, a
random sample of the corpus.
"""

from collections.abc import Sequence

import numpy as np

from mslt_tf import errors
from mslt_tf.data.building import corpus as corpus_lib
from mslt_tf.data.building import external_sort

MIN_DOCUMENTS = 2  # of a split: a random next comes from another document.

# Of the text of a group.
_GROUP_BYTES = 1 << 23
_GROUP_DOCUMENTS = 64  # Fewer are no sample, unless they are large.
_MOST_GROUP_BYTES = 1 << 26


def split(
  keys: np.ndarray, heldout_fraction: float
) -> dict[str, external_sort.KeyRange]:
  """Returns the keys of the training and of the held-out documents.

  The lowest keys are held out, so all copies of a document are on one side.
  Each side has at least two different documents.

  Args:
    keys: [documents] of the corpus, ascending and different.
    heldout_fraction: expected share of documents that are held out.

  Raises:
    errors.InputError: there are fewer than four different documents.
  """
  if len(keys) < 2 * MIN_DOCUMENTS:
    raise errors.InputError(
      f"the input has {len(keys)} different documents, but training and"
      f" held-out data need {MIN_DOCUMENTS} each; give more files, or with"
      " --input_format=sentences put blank lines between documents."
    )
  limit = np.uint64(heldout_fraction * 2**64)
  num_heldout = int(np.searchsorted(keys, limit))
  num_heldout = min(max(num_heldout, MIN_DOCUMENTS), len(keys) - MIN_DOCUMENTS)
  cut = int(keys[num_heldout])
  return {
    "train": external_sort.KeyRange(cut, external_sort.KEY_END),
    "heldout": external_sort.KeyRange(0, cut),
  }


def groups(
  corpus: corpus_lib.Corpus, keys: external_sort.KeyRange
) -> list[external_sort.KeyRange]:
  """Returns the groups that the documents of a split are cut into.

  Args:
    corpus: the documents.
    keys: of the split.
  """
  is_own = corpus.keys >= np.uint64(keys.start)
  if keys.end < external_sort.KEY_END:
    is_own &= corpus.keys < np.uint64(keys.end)
  num_documents = external_sort.bucket_counts(corpus.keys[is_own])
  # Where the split begins within a bucket, its text is counted as a whole.
  num_bytes = np.where(num_documents > 0, corpus.num_bytes, 0)
  buckets = external_sort.ALL_KEYS.split(len(num_documents))
  cuts = [keys.start]
  documents_left, bytes_left = num_documents.sum(), num_bytes.sum()
  in_group = bytes_in_group = 0
  for bucket in np.flatnonzero(num_documents):
    in_group += num_documents[bucket]
    bytes_in_group += num_bytes[bucket]
    documents_left -= num_documents[bucket]
    bytes_left -= num_bytes[bucket]
    if _is_group(in_group, bytes_in_group) and _is_group(
      documents_left, bytes_left
    ):
      cuts.append(buckets[bucket].end)
      in_group = bytes_in_group = 0
  return [
    external_sort.KeyRange(start, end)
    for start, end in zip(cuts, [*cuts[1:], keys.end], strict=True)
  ]


def _is_group(num_documents: int, num_bytes: int) -> bool:
  """Says whether this is enough for a group."""
  return bool(
    (num_documents >= _GROUP_DOCUMENTS and num_bytes >= _GROUP_BYTES)
    or (num_documents >= MIN_DOCUMENTS and num_bytes >= _MOST_GROUP_BYTES)
  )


def sample(
  corpus: corpus_lib.Corpus,
  groups_of_split: Sequence[external_sort.KeyRange],
  num_bytes: int,
) -> list[external_sort.KeyRange]:
  """Returns the first groups that have `num_bytes` of text together."""
  chosen = []
  for keys in groups_of_split:
    if num_bytes <= 0:
      break
    chosen.append(keys)
    first, last = keys.start >> 48, (keys.end - 1) >> 48
    num_bytes -= int(corpus.num_bytes[first : last + 1].sum())
  return chosen
