"""Pairs of segments for next sentence prediction, as in the original BERT.

Follows `create_instances_from_document` of google-research/bert, for all pairs
of many documents at once. Pure NumPy. B pairs, S sequence.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mslt_tf import errors

NUM_SPECIAL_TOKENS = 3  # [CLS] first [SEP] second [SEP]


@dataclasses.dataclass(frozen=True)
class TokenizedDocuments:
  """Documents of sentences of ids, in flat arrays; none of them is empty."""

  tokens: np.ndarray  # [tokens], int32
  sentence_ends: np.ndarray  # [sentences + 1] places in `tokens`, the first 0
  document_ends: np.ndarray  # [documents + 1] sentences, the first 0
  # Copies of a text are documents that follow each other.
  text_ends: np.ndarray  # [different texts + 1] documents, the first 0

  @classmethod
  def of(
    cls, documents: Sequence[Sequence[np.ndarray]]
  ) -> "TokenizedDocuments":
    """Returns different documents, each a sequence of sentences of ids."""
    sentences = [sentence for document in documents for sentence in document]
    return cls(
      np.concatenate([np.zeros(0, np.int32), *sentences], dtype=np.int32),
      np.cumsum([0, *map(len, sentences)]),
      np.cumsum([0, *map(len, documents)]),
      np.arange(len(documents) + 1),
    )

  def __len__(self) -> int:
    """The number of documents."""
    return len(self.document_ends) - 1


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Where the segments of B pairs stand in the tokens of the documents.

  `is_random_next` says that the two segments do not belong together.
  """

  first_start: np.ndarray  # [B]
  first_end: np.ndarray  # [B]
  second_start: np.ndarray  # [B]
  second_end: np.ndarray  # [B]
  is_random_next: np.ndarray  # [B] booleans

  @classmethod
  def concatenate(cls, parts: Sequence["Pairs"]) -> "Pairs":
    return cls(
      *(
        np.concatenate([getattr(part, field.name) for part in parts])
        for field in dataclasses.fields(cls)
      )
    )

  def __len__(self) -> int:
    return len(self.first_start)

  def __getitem__(self, index: np.ndarray | slice) -> "Pairs":
    return Pairs(
      *(getattr(self, field.name)[index] for field in dataclasses.fields(self))
    )


@dataclasses.dataclass(frozen=True)
class Rows:
  """B times `[CLS] first [SEP] second [SEP]`, padded with zeros."""

  input_ids: np.ndarray  # [B, S], int32
  num_tokens: np.ndarray  # [B], special tokens included
  second_start: np.ndarray  # [B], the place of the first token of `second`


def plan(
  documents: TokenizedDocuments,
  *,
  sequence_length: int,
  short_sequence_prob: float,
  rng: np.random.Generator,
) -> Pairs:
  """Cuts every document into pairs; returns them in the order of the text.

  Sentences are gathered until they fill the target length, which is the room
  in a sequence or, with `short_sequence_prob`, a random shorter one drawn once
  for the document. A random split makes the first segment; the second is the
  rest or, half of the time (always where there is no rest), text from a random
  place of a document of another text. The rest not used is then gathered again.

  Args:
    documents: what to cut; where a random next segment comes from, too.
    sequence_length: tokens of an example, special tokens included.
    short_sequence_prob: share of documents with a shorter target length.
    rng: the source of every choice.

  Raises:
    errors.InputError: fewer than two different documents; no random next is
      possible.
  """
  num_texts = len(documents.text_ends) - 1
  if num_texts < 2:
    raise errors.InputError(
      f"{num_texts} different document is too few: a random next segment comes"
      " from another one, so at least 2 are needed."
    )
  max_tokens = sequence_length - NUM_SPECIAL_TOKENS
  targets = _target_lengths(
    len(documents), max_tokens, short_sequence_prob, rng
  )
  document = np.repeat(
    np.arange(len(documents)), np.diff(documents.document_ends)
  )

  # The pair that would start at each sentence. A sentence starts at most one,
  # so these draws are as good as draws made pair by pair.
  start = np.arange(len(document))
  end = _ends_of_runs(documents, start, document, targets[document])
  num_sentences = end - start
  split = start + rng.integers(1, np.maximum(num_sentences, 2))
  is_random_next = (num_sentences == 1) | (rng.random(len(start)) < 0.5)
  # Those that do start: each where the one before it ends.
  start = _chain(np.where(is_random_next, split, end))

  document, split, end = document[start], split[start], end[start]
  is_random_next = is_random_next[start]
  first_start = documents.sentence_ends[start]
  first_end = documents.sentence_ends[split]
  second_start = documents.sentence_ends[split]
  second_end = documents.sentence_ends[end]
  second_start[is_random_next], second_end[is_random_next] = _random_segments(
    documents,
    document[is_random_next],
    (targets[document] - (first_end - first_start))[is_random_next],
    rng,
  )
  return _truncate(
    Pairs(first_start, first_end, second_start, second_end, is_random_next),
    max_tokens=max_tokens,
    rng=rng,
  )


def join(
  documents: TokenizedDocuments,
  pairs: Pairs,
  *,
  sequence_length: int,
  cls_id: int,
  sep_id: int,
) -> Rows:
  """Returns the pairs as the model reads them."""
  column = np.arange(sequence_length)
  first_length = pairs.first_end - pairs.first_start
  second_start = first_length + 2
  num_tokens = second_start + pairs.second_end - pairs.second_start + 1
  offset = np.where(
    column < second_start[:, np.newaxis],
    (pairs.first_start - 1)[:, np.newaxis],
    (pairs.second_start - second_start)[:, np.newaxis],
  )  # [B, S]
  # What is taken for special tokens and padding is overwritten.
  input_ids = documents.tokens.take(column + offset, mode="clip")
  input_ids *= column < num_tokens[:, np.newaxis]
  row = np.arange(len(pairs))
  input_ids[:, 0] = cls_id
  input_ids[row, second_start - 1] = sep_id
  input_ids[row, num_tokens - 1] = sep_id
  return Rows(input_ids, num_tokens, second_start)


def _target_lengths(
  num_documents: int,
  max_tokens: int,
  short_sequence_prob: float,
  rng: np.random.Generator,
) -> np.ndarray:
  """Returns the length that pairs are gathered to, for each document."""
  is_short = rng.random(num_documents) < short_sequence_prob
  short = rng.integers(2, max_tokens, size=num_documents, endpoint=True)
  return np.where(is_short, short, max_tokens)


def _ends_of_runs(
  documents: TokenizedDocuments,
  start: np.ndarray,
  document: np.ndarray,
  num_tokens: np.ndarray,
) -> np.ndarray:
  """Returns the ends of the sentences from `start` that reach `num_tokens`.

  At least one sentence, whatever `num_tokens`, and none of another document.
  """
  end = np.searchsorted(
    documents.sentence_ends, documents.sentence_ends[start] + num_tokens
  )
  return np.clip(end, start + 1, documents.document_ends[document + 1])


def _chain(following: np.ndarray) -> np.ndarray:
  """Returns 0, `following[0]`, `following[following[0]]` ... within it."""
  following_list = following.tolist()  # Python reads lists faster.
  places = []
  place = 0
  while place < len(following_list):
    places.append(place)
    place = following_list[place]
  return np.array(places)


def _random_segments(
  documents: TokenizedDocuments,
  document: np.ndarray,
  num_tokens: np.ndarray,
  rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns starts and ends in documents of other texts than `document`'s."""
  text = np.searchsorted(documents.text_ends, document, side="right")
  first, end = documents.text_ends[text - 1], documents.text_ends[text]
  other = rng.integers(len(documents) - 1, size=len(document))
  other += other >= document
  # Again where that is a copy of the document.
  is_copy = (first <= other) & (other < end)
  first, num_copies = first[is_copy], (end - first)[is_copy]
  drawn = rng.integers(len(documents) - num_copies)
  other[is_copy] = drawn + np.where(drawn >= first, num_copies, 0)
  start = rng.integers(
    documents.document_ends[other], documents.document_ends[other + 1]
  )
  end = _ends_of_runs(documents, start, other, num_tokens)
  return documents.sentence_ends[start], documents.sentence_ends[end]


def _truncate(
  pairs: Pairs, *, max_tokens: int, rng: np.random.Generator
) -> Pairs:
  """Takes tokens from the longer segment, each from its front or back.

  BERT drops one token at a time off the longer segment, off the second where
  both are equally long, and tosses a coin for the side; this is the same in
  closed form.
  """
  first = pairs.first_end - pairs.first_start
  second = pairs.second_end - pairs.second_start
  keep_first = np.where(
    first > second,
    max_tokens - np.minimum(second, max_tokens // 2),
    np.minimum(first, (max_tokens + 1) // 2),
  )
  is_too_long = first + second > max_tokens
  first_start, first_end = _drop(
    pairs.first_start,
    pairs.first_end,
    np.where(is_too_long, first - keep_first, 0),
    rng,
  )
  second_start, second_end = _drop(
    pairs.second_start,
    pairs.second_end,
    np.where(is_too_long, second - (max_tokens - keep_first), 0),
    rng,
  )
  return Pairs(
    first_start, first_end, second_start, second_end, pairs.is_random_next
  )


def _drop(
  start: np.ndarray,
  end: np.ndarray,
  num_dropped: np.ndarray,
  rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
  num_front = rng.binomial(num_dropped, 0.5)
  return start + num_front, end - (num_dropped - num_front)
