"""Groups of documents -> files of examples in a random order.

Each example has a random key, and a group's examples are written sorted by it
(`external_sort`).

V vocabulary.
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import progress
from mslt_tf.data.building import corpus
from mslt_tf.data.building import external_sort
from mslt_tf.data.building import partition
from mslt_tf.data.building import processes as processes_lib
from mslt_tf.data.examples import example_recipe
from mslt_tf.data.examples import features
from mslt_tf.data.examples import sentence_pairs
from mslt_tf.data.examples import vocabulary


@dataclasses.dataclass(frozen=True)
class Settings:
  """What examples are made with, most of it as in `build.Settings`."""

  vocab_path: str
  vocab_sha256: str
  lower_case: bool
  sequence_length: int
  max_predictions: int
  masked_lm_prob: float
  short_sequence_prob: float
  whole_word_masking: bool
  remove_duplicates: bool
  num_dupes: int  # how often each document is cut into pairs and masked
  seed: tuple[int, ...]  # of a split


@dataclasses.dataclass(frozen=True)
class _Group:
  """A task: the examples of a group of documents."""

  text_paths: tuple[str, ...]
  keys: external_sort.KeyRange
  index: int  # of the group in its split
  settings: Settings
  path: str  # where the examples go


def write(
  name: str,
  text: corpus.Corpus,
  groups: Sequence[external_sort.KeyRange],
  settings: Settings,
  *,
  directory: str,
  processes: processes_lib.Processes,
) -> list[str]:
  """Writes a file of examples for each group; returns the names."""
  tasks = [
    _Group(
      text.paths,
      keys,
      index,
      settings,
      os.path.join(directory, f"examples-{name}-{index:06d}"),
    )
    for index, keys in enumerate(groups)
  ]
  left = [task for task in tasks if not tf.io.gfile.exists(task.path)]
  for _ in progress.logged(
    processes.map(_write_group, left),
    f"Making {name} examples, a group of documents after another",
    total=len(left),
  ):
    pass
  return [os.path.basename(task.path) for task in tasks]


def _write_group(task: _Group) -> None:
  texts = corpus.texts(external_sort.open_all(task.text_paths), task.keys)
  with external_sort.Writer(task.path) as writer:
    keys, facts = make_group(texts, task.index, task.settings, writer.add)
    writer.finish(keys, facts)


def make_group(
  texts: Sequence[bytes],
  index: int,
  settings: Settings,
  add: Callable[[bytes, np.ndarray], None],
) -> tuple[np.ndarray, dict[str, Any]]:
  """Makes the examples of a group of documents.

  Args:
    texts: the documents in the order of their keys, a line a sentence.
    index: of the group in its split.
    settings: how.
    add: is given serialized examples, one after another, and their lengths.

  Returns:
    The keys [N] of all examples, ascending, and the group's facts.

  Raises:
    errors.InputError: fewer than two different documents have tokens.
  """
  used_vocabulary, tokenizer = _tokenizer(
    settings.vocab_path, settings.vocab_sha256, settings.lower_case
  )
  tokenized, facts = _tokenize(
    corpus.without_duplicates(texts) if settings.remove_duplicates else texts,
    tokenizer,
  )
  facts["duplicate_documents"] = len(texts) - (
    facts["num_documents"] + facts["empty_documents"]
  )
  num_texts = len(tokenized.text_ends) - 1
  if num_texts < partition.MIN_DOCUMENTS:
    raise errors.InputError(
      f"of a group of {len(texts)} documents {num_texts} have different text"
      f" and tokens, and {partition.MIN_DOCUMENTS} are needed; is the"
      " vocabulary one of this text?"
    )
  # A generator for each group, so that any process can work on it.
  rng = np.random.default_rng([*settings.seed, index])
  token_counts = np.bincount(tokenized.tokens, minlength=len(used_vocabulary))
  prediction_counts = np.zeros_like(token_counts)
  num_examples = 0
  for batch in example_recipe.of_documents(
    tokenized,
    example_recipe.Recipe(
      vocabulary=used_vocabulary,
      sequence_length=settings.sequence_length,
      max_predictions=settings.max_predictions,
      masked_lm_prob=settings.masked_lm_prob,
      short_sequence_prob=settings.short_sequence_prob,
      whole_word_masking=settings.whole_word_masking,
    ),
    num_dupes=settings.num_dupes,
    rng=rng,
  ):
    content, lengths = features.serialize(batch)
    add(content.tobytes(), lengths)
    num_examples += len(lengths)
    is_prediction = (
      np.arange(settings.max_predictions) < batch.num_predictions[:, np.newaxis]
    )
    prediction_counts += np.bincount(
      batch.masked_lm_ids[is_prediction], minlength=len(prediction_counts)
    )
  # The examples come in a random order; sorted keys keep it.
  keys = rng.integers(0, 2**64, size=num_examples, dtype=np.uint64)
  facts |= {
    "num_groups": 1,
    "token_counts": token_counts.tolist(),
    "prediction_counts": prediction_counts.tolist(),
  }
  return np.sort(keys), facts


def total(facts: Iterable[dict[str, Any]]) -> dict[str, Any]:
  """Returns the sums of facts about groups, or of such sums."""
  sums: dict[str, Any] = {}
  for each in facts:
    for name, value in each.items():
      sums[name] = sums.get(name, 0) + np.asarray(value)
  return sums


def _tokenize(
  texts: Sequence[bytes], tokenizer: vocabulary.Tokenizer
) -> tuple[sentence_pairs.TokenizedDocuments, dict[str, Any]]:
  """Returns the documents with tokens, and how many there are of what."""
  sentences = [text.split(b"\n") for text in texts]
  document_of_sentence = np.repeat(
    np.arange(len(sentences)), [len(each) for each in sentences]
  )
  tokens, lengths = vocabulary.tokenize(
    tokenizer, list(itertools.chain.from_iterable(sentences))
  )
  has_tokens = lengths > 0
  sentences_of_document = np.bincount(
    document_of_sentence[has_tokens], minlength=len(texts)
  )
  is_kept = sentences_of_document > 0
  kept = sentences_of_document[is_kept]
  copies = itertools.groupby(itertools.compress(texts, is_kept))
  tokenized = sentence_pairs.TokenizedDocuments(
    tokens=tokens,
    sentence_ends=np.append(0, np.cumsum(lengths[has_tokens])),
    document_ends=np.append(0, np.cumsum(kept)),
    text_ends=np.cumsum([0, *(len(list(same)) for _, same in copies)]),
  )
  return tokenized, {
    "num_documents": len(kept),
    "num_sentences": int(has_tokens.sum()),
    "num_tokens": len(tokens),
    "empty_documents": len(texts) - len(kept),
    "empty_sentences": int((~has_tokens).sum()),
  }


@functools.lru_cache(maxsize=1)
def _tokenizer(
  vocab_path: str, vocab_sha256: str, lower_case: bool
) -> tuple[vocabulary.Vocabulary, vocabulary.Tokenizer]:
  del vocab_sha256  # Another vocabulary may have come to stand at the path.
  used_vocabulary = vocabulary.load(vocab_path)
  return used_vocabulary, vocabulary.make_tokenizer(
    used_vocabulary, lower_case=lower_case
  )
