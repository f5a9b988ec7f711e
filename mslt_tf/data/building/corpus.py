"""Text -> files of documents in a random order.

A document's key is a hash of its text. Documents are sorted by it
(`external_sort`), which is a random order, and everything that follows is a
function of the set of documents and a seed: not of the files, their order, or
how many processes read them.
"""

import collections
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from mslt_tf.data import progress
from mslt_tf.data.building import external_sort
from mslt_tf.data.building import processes as processes_lib
from mslt_tf.data.examples import vocabulary
from mslt_tf.data.text import documents

# Chunks are cut off a file one after another, and a task parses some of them.
CHUNK_BYTES = 1 << 23
_LEAST_CHUNK_BYTES = 1 << 20
_CHUNKS = 64  # wanted at least, so that all processes have some
# Every group reads every file that a task leaves: so there are not too many.
_TASKS = 1024
# The main process holds some five tasks for each of the others.
_MOST_TASK_BYTES = 1 << 24


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Documents on disk; made by `of_files`."""

  paths: tuple[str, ...]  # sorted files
  keys: np.ndarray  # uint64, ascending, each once: the index of documents
  num_bytes: np.ndarray  # [external_sort.NUM_BUCKETS] of text


@dataclasses.dataclass(frozen=True)
class _Task:
  chunks: tuple[documents.Chunk, ...]
  path: str
  min_words: int


def read(
  sources: Sequence[documents.Source],
  directory: str,
  *,
  processes: processes_lib.Processes,
  input_format: str,
  text_field: str,
  min_words: int,
) -> tuple[list[str], collections.Counter[str]]:
  """Reads documents into sorted files, those that are not there yet.

  Args:
    sources: what `documents.find` returned.
    directory: where the files go.
    processes: what parses the text.
    input_format: one of `documents.FORMATS`.
    text_field: of JSON lines.
    min_words: documents with fewer are dropped.

  Returns:
    The paths, and how much was dropped of what.

  Raises:
    errors.InputError: a source that cannot be read.
  """
  total = sum(map(documents.num_bytes, sources))
  chunk_bytes = min(max(total // _CHUNKS, _LEAST_CHUNK_BYTES), CHUNK_BYTES)
  task_bytes = min(max(total // _TASKS, chunk_bytes), _MOST_TASK_BYTES)
  paths = []
  formats: collections.Counter[str] = collections.Counter()

  def tasks_of(unit: tuple[int, list[documents.Source]]) -> Iterator[_Task]:
    unit_index, unit_sources = unit
    bundles = _bundles(
      unit_sources, chunk_bytes, task_bytes, input_format, text_field
    )
    for index, chunks in enumerate(bundles):
      path = os.path.join(directory, f"text-{unit_index:06d}-{index:06d}")
      yield _Task(tuple(chunks), path, min_words)

  def tasks_left() -> Iterator[_Task]:
    units = enumerate(_units(sources, task_bytes))
    for task in processes.read_ahead(tasks_of, units):
      paths.append(task.path)
      formats.update(
        {chunk.source: chunk.input_format for chunk in task.chunks}.values()
      )
      if not tf.io.gfile.exists(task.path):
        yield task

  for _ in progress.logged(
    processes.map(_read_chunks, tasks_left()), "Reading text, chunk by chunk"
  ):
    pass
  if input_format == "auto":
    # A wrong guess would spoil the sentence pairs without a sign.
    logging.info(
      "Chunks read as %s (--input_format).",
      ", ".join(
        f"{name}: {number}" for name, number in sorted(formats.items())
      ),
    )
  dropped: collections.Counter[str] = collections.Counter()
  for file in external_sort.open_all(sorted(paths)):
    dropped.update(file.facts())
  return sorted(paths), dropped


def _units(
  sources: Iterable[documents.Source], least_bytes: int
) -> Iterator[list[documents.Source]]:
  """Yields the sources, small ones together."""
  unit = []
  num_bytes = 0
  for source in sources:
    unit.append(source)
    num_bytes += documents.num_bytes(source)
    if num_bytes >= least_bytes:
      yield unit
      unit = []
      num_bytes = 0
  if unit:
    yield unit


def _bundles(
  sources: Iterable[documents.Source],
  chunk_bytes: int,
  task_bytes: int,
  input_format: str,
  text_field: str,
) -> Iterator[list[documents.Chunk]]:
  """Yields the chunks of sources, as many together as a task parses."""
  bundle = []
  num_bytes = 0
  for source in sources:
    for chunk in documents.chunks(
      source,
      input_format=input_format,
      text_field=text_field,
      chunk_bytes=chunk_bytes,
    ):
      bundle.append(chunk)
      # A range of a TensorFlow dataset has none, and is cut to chunk_bytes.
      num_bytes += len(chunk.content) or chunk_bytes
      if num_bytes >= task_bytes:
        yield bundle
        bundle = []
        num_bytes = 0
  if bundle:
    yield bundle


def _read_chunks(task: _Task) -> None:
  parsed: list[bytes] = []
  dropped: collections.Counter[str] = collections.Counter()
  all_keys = [np.zeros(0, np.uint64)]
  for chunk in task.chunks:
    some_keys, texts_of_chunk, dropped_there = parse(chunk, task.min_words)
    all_keys.append(some_keys)
    parsed += texts_of_chunk
    dropped.update(dropped_there)
  keys = np.concatenate(all_keys)
  order = np.argsort(keys, kind="stable")
  lengths = np.array([len(text) for text in parsed], np.int64)
  with external_sort.Writer(task.path) as writer:
    writer.add(b"".join(parsed[index] for index in order), lengths[order])
    writer.finish(keys[order], dropped)


def parse(
  chunk: documents.Chunk, min_words: int
) -> tuple[np.ndarray, list[bytes], collections.Counter[str]]:
  """Returns the keys and texts of documents, and how much of what was dropped.

  Args:
    chunk: of a source.
    min_words: documents with fewer are dropped.
  """
  parsed = documents.parse(chunk)
  dropped = collections.Counter(parsed.dropped)
  found = []
  for sentences in parsed.documents:
    if _num_words(sentences, min_words) >= min_words:
      found.append("\n".join(sentences).encode())
    else:
      dropped["short_documents"] += 1
  keys = np.array([key_of(text) for text in found], np.uint64)
  return keys, found, dropped


def key_of(text: bytes) -> int:
  """Returns the key of a document: 64 bits of the SHA-256 of its text."""
  return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def _num_words(sentences: Sequence[str], most: int) -> int:
  """Counts words, which have blanks between them, to `most` or a bit more."""
  number = 0
  for sentence in sentences:
    if number >= most:
      break
    number += len(sentence.split())
  return number


def of_files(paths: Sequence[str]) -> Corpus:
  """Returns the corpus that sorted files hold, with its index."""
  num_bytes = np.zeros(external_sort.NUM_BUCKETS, np.int64)
  keys = np.zeros(0, np.uint64)
  found = []
  for file in external_sort.open_all(paths):
    entries = file.entries()
    num_bytes += external_sort.bucket_counts(entries.keys, entries.lengths)
    found.append(np.unique(entries.keys))
  keys = np.unique(np.concatenate([keys, *found]))
  return Corpus(tuple(paths), keys, num_bytes)


def texts(
  files: Iterable[external_sort.SortedFile], keys: external_sort.KeyRange
) -> list[bytes]:
  """Returns a range of documents in their order, each a line a sentence."""
  return [bytes(record) for record in external_sort.read(files, keys)[1]]


def without_duplicates(sorted_texts: Sequence[bytes]) -> list[bytes]:
  """Returns each text once; equal ones follow each other."""
  return [text for text, _ in itertools.groupby(sorted_texts)]


@dataclasses.dataclass(frozen=True)
class Words:
  """A task: the words of a range of documents."""

  text_paths: tuple[str, ...]
  keys: external_sort.KeyRange
  lower_case: bool
  remove_duplicates: bool


def count_words(task: Words) -> collections.Counter[str]:
  """Returns how often each word occurs."""
  found = texts(external_sort.open_all(task.text_paths), task.keys)
  if task.remove_duplicates:
    found = without_duplicates(found)
  return words_of(found, task.lower_case)


def words_of(
  found: Iterable[bytes], lower_case: bool
) -> collections.Counter[str]:
  """Returns how often each word occurs in texts, a line a sentence."""
  return vocabulary.count_words(
    (sentence for text in found for sentence in text.split(b"\n")),
    lower_case=lower_case,
  )
