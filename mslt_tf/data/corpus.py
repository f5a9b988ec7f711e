"""Text files -> the tokenized corpus, in training and held-out documents.

The text of a document decides whether it is held out, not its place or a seed.
The corpus is held in memory as flat int32 arrays, and while it is made, its
text is too.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from absl import logging

from mslt_tf import errors
from mslt_tf.data import documents
from mslt_tf.data import progress
from mslt_tf.data import vocabulary

_MIN_DOCUMENTS = 2  # of a split: a random next comes from another document.
_HASH_BITS = 64


class TokenizedDocuments(Sequence):
  """Documents of sentences of ids, one flat array behind them.

  A document is a sequence of sentences, a sentence an int32 array of ids.
  Empty sentences and documents are left out and counted.
  """

  def __init__(self, tokenized_documents: Iterable[Sequence[np.ndarray]]):
    arrays = []
    lengths: list[int] = []
    document_ends = [0]
    self.num_empty = 0
    self.num_empty_sentences = 0
    for sentences in tokenized_documents:
      kept = [ids for ids in sentences if len(ids)]
      self.num_empty_sentences += len(sentences) - len(kept)
      if not kept:
        self.num_empty += 1
        continue
      arrays.append(np.concatenate(kept))
      lengths.extend(len(ids) for ids in kept)
      document_ends.append(len(lengths))
    self.tokens = np.concatenate([np.zeros(0, np.int32), *arrays])
    self.num_sentences = len(lengths)
    self._sentence_ends = np.cumsum([0, *lengths])
    self._document_ends = document_ends

  def __len__(self) -> int:
    return len(self._document_ends) - 1

  def __getitem__(self, index):
    start = self._document_ends[index]
    end = self._document_ends[index + 1]
    return _Document(self.tokens, self._sentence_ends[start : end + 1])


class _Document(Sequence):
  """A document whose sentences are cut out when asked for."""

  def __init__(self, tokens: np.ndarray, ends: np.ndarray):
    self._tokens = tokens
    self._ends = ends

  def __len__(self) -> int:
    return len(self._ends) - 1

  def __getitem__(self, index):
    if isinstance(index, slice):
      return [self[place] for place in range(*index.indices(len(self)))]
    return self._tokens[self._ends[index] : self._ends[index + 1]]


@dataclasses.dataclass(frozen=True)
class Corpus:
  """The tokenized input."""

  vocabulary: vocabulary.Vocabulary
  train: TokenizedDocuments
  heldout: TokenizedDocuments
  num_undecodable: int  # places where bytes were no UTF-8

  @property
  def num_unknown(self) -> int:
    """The number of tokens that are [UNK]."""
    unknown_id = self.vocabulary.ids[vocabulary.UNKNOWN]
    return sum(
      int((split.tokens == unknown_id).sum())
      for split in (self.train, self.heldout)
    )

  @property
  def dropped(self) -> dict[str, int]:
    """How much of the input is not in the corpus as it was written."""
    return {
      "empty_documents": self.train.num_empty + self.heldout.num_empty,
      "empty_sentences": (
        self.train.num_empty_sentences + self.heldout.num_empty_sentences
      ),
      "undecodable_places": self.num_undecodable,
    }


def read(
  files: Sequence[str],
  given_vocabulary: vocabulary.Vocabulary | None,
  *,
  vocab_size: int | None,
  input_format: str,
  lower_case: bool,
  heldout_fraction: float,
) -> Corpus:
  """Reads, splits and tokenizes.

  Args:
    files: text files.
    given_vocabulary: the vocabulary, or None.
    vocab_size: where none is given, the size of the one to learn from the
      training documents.
    input_format: one of `documents.FORMATS`.
    lower_case: whether the tokenizer lower-cases and strips accents.
    heldout_fraction: expected share of documents that are held out.

  Raises:
    errors.InputError: files that cannot be read, or too little in them.
  """
  texts = list(
    progress.logged(
      documents.read(files, input_format=input_format), "Reading documents"
    )
  )
  if not texts:
    names = files[0] + (f" and {len(files) - 1} more" if files[1:] else "")
    raise errors.InputError(f"input {names} holds no text.")
  train, heldout = split(texts, heldout_fraction)
  if given_vocabulary is None:
    assert vocab_size is not None  # One of the two is given.
    used_vocabulary = _learn(train, vocab_size, lower_case=lower_case)
  else:
    used_vocabulary = given_vocabulary
  tokenizer = vocabulary.make_tokenizer(used_vocabulary, lower_case=lower_case)
  tokenized = {}
  for name, side in (("training", train), ("held-out", heldout)):
    tokenized[name] = TokenizedDocuments(
      vocabulary.tokenize(tokenizer, text.sentences)
      for text in progress.logged(
        side, f"Tokenizing {name} documents", total=len(side)
      )
    )
    if len(tokenized[name]) < _MIN_DOCUMENTS:
      raise errors.InputError(
        f"only {len(tokenized[name])} {name} documents have tokens, and"
        f" {_MIN_DOCUMENTS} are needed; is the vocabulary one of this text?"
      )
  return Corpus(
    used_vocabulary,
    train=tokenized["training"],
    heldout=tokenized["held-out"],
    num_undecodable=sum(text.num_undecodable for text in texts),
  )


def split(
  texts: Sequence[documents.Document], heldout_fraction: float
) -> tuple[list[documents.Document], list[documents.Document]]:
  """Returns the training and the held-out documents, in their order.

  A document is held out if the hash of its text is among the lowest, so all
  copies of a document are on one side. Each side has at least two different
  documents.

  Raises:
    errors.InputError: there are fewer than four different documents.
  """
  digests = [_digest(text) for text in texts]
  distinct = sorted(set(digests))
  if len(distinct) < 2 * _MIN_DOCUMENTS:
    raise errors.InputError(
      f"the input has {len(distinct)} different documents, but training and"
      f" held-out data need {_MIN_DOCUMENTS} each; give more files, or with"
      " --input_format=sentences put blank lines between documents."
    )
  limit = heldout_fraction * 2**_HASH_BITS
  num_heldout = sum(digest < limit for digest in distinct)
  num_heldout = min(
    max(num_heldout, _MIN_DOCUMENTS), len(distinct) - _MIN_DOCUMENTS
  )
  cut = distinct[num_heldout]
  pairs = list(zip(digests, texts, strict=True))
  return (
    [text for digest, text in pairs if digest >= cut],
    [text for digest, text in pairs if digest < cut],
  )


def _digest(text: documents.Document) -> int:
  """Returns a hash of the sentences, uniform in 0 .. 2 ** _HASH_BITS - 1."""
  content = "\n".join(text.sentences).encode()
  return int.from_bytes(
    hashlib.sha256(content).digest()[: _HASH_BITS // 8], "big"
  )


def _learn(
  texts: Sequence[documents.Document], vocab_size: int, *, lower_case: bool
) -> vocabulary.Vocabulary:
  counts = vocabulary.count_words(
    (
      sentence
      for text in progress.logged(
        texts, "Counting words of training documents", total=len(texts)
      )
      for sentence in text.sentences
    ),
    lower_case=lower_case,
  )
  logging.info(
    "Learning a vocabulary of %s tokens from %s different words ...",
    f"{vocab_size:,}",
    f"{len(counts):,}",
  )
  return vocabulary.learn(counts, vocab_size=vocab_size)
