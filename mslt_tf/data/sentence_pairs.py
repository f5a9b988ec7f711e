"""Pairs of segments for next sentence prediction, as in the original BERT.

Follows `create_instances_from_document` of google-research/bert. Pure NumPy.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from mslt_tf import errors

NUM_SPECIAL_TOKENS = 3  # [CLS] first [SEP] second [SEP]

# A document is a sequence of sentences, a sentence an array of ids.
TokenizedDocument = Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two segments; `is_random_next` says that they do not belong together."""

  first: np.ndarray
  second: np.ndarray
  is_random_next: bool


def pairs_of_document(
  documents: Sequence[TokenizedDocument],
  document_index: int,
  *,
  sequence_length: int,
  short_sequence_prob: float,
  rng: np.random.Generator,
) -> Iterator[Pair]:
  """Yields the pairs that start in one document, in its order.

  Sentences are gathered until they fill the target length, which is the room
  in a sequence or, with `short_sequence_prob`, a random shorter one drawn once
  for the document. A random split makes the first segment; the second is the
  rest or, half of the time (always where there is no rest), text from a random
  place of another document. The rest not used is then gathered again.

  Args:
    documents: sentences without empty ones, documents without empty ones.
    document_index: which of `documents` to cut into pairs.
    sequence_length: tokens of an example, special tokens included.
    short_sequence_prob: share of documents with a shorter target length.
    rng: the source of every choice.

  Raises:
    errors.InputError: fewer than two documents; no random next is possible.
  """
  if len(documents) < 2:
    raise errors.InputError(
      f"{len(documents)} document is too few: a random next segment comes"
      " from another document, so at least 2 are needed."
    )
  document = documents[document_index]
  max_tokens = sequence_length - NUM_SPECIAL_TOKENS
  target = max_tokens
  if rng.random() < short_sequence_prob:
    target = int(rng.integers(2, max_tokens, endpoint=True))

  start = 0
  while start < len(document):
    end = _end_of_run(document, start, target)
    num_sentences = end - start
    split = start + 1
    if num_sentences > 1:
      split = start + int(rng.integers(1, num_sentences))
    first = np.concatenate(document[start:split])
    is_random_next = num_sentences == 1 or rng.random() < 0.5
    if is_random_next:
      second = _random_segment(
        documents,
        document_index,
        num_tokens=target - len(first),
        rng=rng,
      )
      end = split
    else:
      second = np.concatenate(document[split:end])
    first, second = _truncate(first, second, max_tokens=max_tokens, rng=rng)
    yield Pair(first, second, is_random_next)
    start = end


def join(
  pair: Pair, *, cls_id: int, sep_id: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns `[CLS] first [SEP] second [SEP]` and its segment ids, both [S]."""
  input_ids = np.concatenate(
    [[cls_id], pair.first, [sep_id], pair.second, [sep_id]]
  ).astype(np.int32)
  segment_ids = np.zeros_like(input_ids)
  segment_ids[len(pair.first) + 2 :] = 1
  return input_ids, segment_ids


def _end_of_run(document: TokenizedDocument, start: int, target: int) -> int:
  """Returns the end of the sentences from `start` that reach `target`."""
  num_tokens = 0
  end = start
  # At least one sentence, whatever the target.
  while end == start or (end < len(document) and num_tokens < target):
    num_tokens += len(document[end])
    end += 1
  return end


def _random_segment(
  documents: Sequence[TokenizedDocument],
  document_index: int,
  *,
  num_tokens: int,
  rng: np.random.Generator,
) -> np.ndarray:
  other = int(rng.integers(len(documents) - 1))
  if other >= document_index:
    other += 1
  document = documents[other]
  start = int(rng.integers(len(document)))
  end = _end_of_run(document, start, num_tokens)
  return np.concatenate(document[start:end])


def _truncate(
  first: np.ndarray,
  second: np.ndarray,
  *,
  max_tokens: int,
  rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
  """Takes tokens from the longer segment, each from its front or back.

  BERT drops one token at a time off the longer segment, off the second where
  both are equally long, and tosses a coin for the side; this is the same in
  closed form.
  """
  if len(first) + len(second) <= max_tokens:
    return first, second
  if len(first) > len(second):
    keep_second = min(len(second), max_tokens // 2)
    keep_first = max_tokens - keep_second
  else:
    keep_first = min(len(first), (max_tokens + 1) // 2)
    keep_second = max_tokens - keep_first
  return (
    _drop(first, len(first) - keep_first, rng),
    _drop(second, len(second) - keep_second, rng),
  )


def _drop(
  segment: np.ndarray, num_dropped: int, rng: np.random.Generator
) -> np.ndarray:
  if not num_dropped:
    return segment
  num_front = int(rng.binomial(num_dropped, 0.5))
  return segment[num_front : len(segment) - (num_dropped - num_front)]
