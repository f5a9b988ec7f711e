"""The build as a pipeline of Apache Beam, for more text than one machine takes.

Its steps are those of `build`, made of the same functions, and it makes the
same data set, byte for byte. Beam holds what is unfinished, so a pipeline that
is killed starts again. All workers must see the input and the output directory;
the examples of a shard must fit into the memory of one of them.
"""

import bisect
import collections
import contextlib
import dataclasses
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.options import pipeline_options

from mslt_tf import errors
from mslt_tf.data.building import build as build_lib
from mslt_tf.data.building import corpus
from mslt_tf.data.building import data_directory
from mslt_tf.data.building import example_groups
from mslt_tf.data.building import external_sort
from mslt_tf.data.building import partition
from mslt_tf.data.building import shards
from mslt_tf.data.examples import vocabulary
from mslt_tf.data.reading import manifest
from mslt_tf.data.reading import record_index
from mslt_tf.data.text import documents

# A group's examples travel in pieces: runners dislike elements of 100 MB.
_PIECES_PER_GROUP = 64
# As Beam shows it, with the step that it came from.
_ERROR = re.compile(
  r"(InputError|UnavailableError): (.*?)(?: \[while running .*)?$", re.M
)


def build(
  input_patterns: Sequence[str],
  output_directory: str,
  settings: build_lib.Settings,
  *,
  runner: str,
  runner_arguments: Sequence[str] = (),
  tfds_data_dir: str | None = None,
) -> build_lib.Result:
  """Builds a data set, unless it is there already.

  Args:
    input_patterns: as `documents.find` takes them.
    output_directory: where the data set goes; made if it is not there.
    settings: what it is to be like.
    runner: of Beam, such as DirectRunner, DataflowRunner or FlinkRunner.
    runner_arguments: its options, each `--name=value`.
    tfds_data_dir: where TensorFlow Datasets has its data sets.

  Raises:
    errors.InputError: a setting out of range, no such runner, input that cannot
      be used, or another data set in `output_directory`.
  """
  build_lib.check(settings)
  pipeline = _pipeline(runner, runner_arguments)
  given_vocabulary = (
    vocabulary.load(settings.vocab_path) if settings.vocab_path else None
  )
  sources = documents.find(
    input_patterns,
    tfds_data_dir=tfds_data_dir,
    output_directory=output_directory,
  )
  arguments = build_lib.arguments_of(settings, given_vocabulary)
  with data_directory.locked(output_directory):
    data_directory.check_arguments(output_directory, arguments)
    documents.check_beginnings(
      sources,
      input_format=settings.input_format,
      text_field=settings.text_field,
    )
    arguments["input_sha256"] = documents.fingerprint(sources)
    existing = data_directory.existing_manifest(output_directory, arguments)
    if existing is not None:
      return build_lib.Result(existing, is_new=False)
    with data_directory.scratch_directory(
      output_directory, arguments
    ) as scratch:
      with _reported(), pipeline:
        _add_steps(
          pipeline, sources, settings, arguments, given_vocabulary, scratch
        )
      data_directory.publish(scratch, output_directory)
    return build_lib.Result(manifest.load(output_directory), is_new=True)


def _pipeline(runner: str, arguments: Sequence[str]) -> beam.Pipeline:
  """Returns a pipeline without steps."""
  given = f"runner={runner}"
  if runner == "DirectRunner":
    # What it comes to; but first it would look for a program on the network.
    runner = "FnApiRunner"
  try:
    return beam.Pipeline(
      options=pipeline_options.PipelineOptions(
        [f"--runner={runner}", *arguments]
      )
    )
  except (AttributeError, ImportError, ValueError) as error:
    reason = " ".join(str(error).split())
    raise errors.InputError(f"{given} cannot be had: {reason}") from error


@contextlib.contextmanager
def _reported() -> Iterator[None]:
  """Takes an `errors.InputError` of a step out of what Beam makes of it."""
  try:
    yield
  except Exception as error:
    found = _ERROR.findall(f"{type(error).__name__}: {error}")
    if not found:
      raise
    name, message = found[-1]
    raise getattr(errors, name)(message) from None


@dataclasses.dataclass(frozen=True)
class _Plan:
  """What is made of which documents."""

  groups: dict[str, list[external_sort.KeyRange]]  # of each split
  sample: list[external_sort.KeyRange]  # to learn a vocabulary from

  def group_of(self, key: int) -> tuple[str, int]:
    """Returns the split and the index of a document's group."""
    train, heldout = self.groups["train"], self.groups["heldout"]
    if key < train[0].start:
      return "heldout", _place(heldout, key)
    return "train", _place(train, key)

  def is_in_sample(self, key: int) -> bool:
    return self.sample[0].start <= key < self.sample[-1].end


def _place(ranges: Sequence[external_sort.KeyRange], key: int) -> int:
  """Returns which of consecutive ranges has a key."""
  return bisect.bisect_right(ranges, key, key=lambda keys: keys.start) - 1


class _Piece(NamedTuple):
  """Consecutive examples of a group."""

  split: str
  group: int
  keys: np.ndarray
  lengths: np.ndarray
  content: bytes


def _add_steps(
  pipeline: beam.Pipeline,
  sources: Sequence[documents.Source],
  settings: build_lib.Settings,
  arguments: dict,
  given_vocabulary: vocabulary.Vocabulary | None,
  scratch: str,
) -> None:
  vocab_path = os.path.join(scratch, data_directory.VOCAB_FILE)
  text = (
    pipeline
    | "Sources" >> beam.Create(list(sources))
    | "Cut" >> beam.FlatMap(_chunks, settings)
    | "Spread chunks" >> beam.Reshuffle()
    | "Parse"
    >> beam.FlatMap(_parse, settings.min_words).with_outputs(
      "index", "dropped", main="documents"
    )
  )
  plan = beam.pvalue.AsSingleton(
    text.index
    | "Join indexes" >> beam.CombineGlobally(_join_indexes)
    | "Plan" >> beam.Map(_plan, settings, sources)
  )
  if given_vocabulary is None:
    assert settings.vocab_size is not None  # One of the two is given.
    sample = text.documents | "Sample" >> beam.Filter(
      lambda item, plan: plan.is_in_sample(item[0]), plan
    )
    if settings.remove_duplicates:
      sample = sample | beam.Distinct()
    vocab_sha256 = (
      sample
      | "Sampled text" >> beam.Values()
      | beam.BatchElements(min_batch_size=100, max_batch_size=1000)
      | "Count words" >> beam.Map(corpus.words_of, settings.lower_case)
      | "Join words" >> beam.CombineGlobally(_join_counters)
      | "Learn" >> beam.Map(_learn, settings.vocab_size, vocab_path)
    )
  else:
    vocabulary.save(given_vocabulary, vocab_path)
    vocab_sha256 = pipeline | "Vocabulary" >> beam.Create(
      [given_vocabulary.sha256]
    )
  group_settings = {
    split: build_lib.example_settings(
      settings, split, vocab_path=vocab_path, vocab_sha256=""
    )
    for split in build_lib.SPLITS
  }
  made = (
    text.documents
    | "Group"
    >> beam.Map(lambda item, plan: (plan.group_of(item[0]), item), plan)
    | "Gather groups" >> beam.GroupByKey()
    | "Make examples"
    >> beam.FlatMap(
      _make_group, group_settings, beam.pvalue.AsSingleton(vocab_sha256)
    ).with_outputs("facts", "counts", main="pieces")
  )
  counts = beam.pvalue.AsDict(
    made.counts | "Count keys" >> beam.CombinePerKey(_sum)
  )
  num_shards = {
    split: build_lib.num_shards(settings, split) for split in build_lib.SPLITS
  }
  keys_at_cuts = beam.pvalue.AsDict(
    made.pieces
    | "Keys at cuts" >> beam.FlatMap(_keys_at_cuts, num_shards, counts)
    | "Join keys" >> beam.CombinePerKey(_concatenate)
  )
  ranges = beam.pvalue.AsSingleton(
    pipeline
    | "Once" >> beam.Create([settings])
    | "Cut keys" >> beam.Map(_cut, counts, keys_at_cuts)
  )
  entries = (
    made.pieces
    | "Deal out" >> beam.FlatMap(_deal, ranges)
    | "Gather shards" >> beam.GroupByKey()
    | "Write shards" >> beam.Map(_write_shard, num_shards, scratch)
  )
  _ = (
    pipeline
    | "At the end" >> beam.Create([vocab_path])
    | "Describe"
    >> beam.Map(
      _describe,
      settings,
      arguments,
      scratch,
      beam.pvalue.AsDict(
        made.facts | "Join facts" >> beam.CombinePerKey(example_groups.total)
      ),
      beam.pvalue.AsList(entries),
      beam.pvalue.AsSingleton(
        text.dropped | "Join dropped" >> beam.CombineGlobally(_join_counters)
      ),
    )
  )


def _chunks(
  source: documents.Source, settings: build_lib.Settings
) -> Iterator[documents.Chunk]:
  return documents.chunks(
    source,
    input_format=settings.input_format,
    text_field=settings.text_field,
    chunk_bytes=corpus.CHUNK_BYTES,
  )


def _parse(chunk: documents.Chunk, min_words: int) -> Iterator[Any]:
  """Yields keys and texts of documents, an index of them, what was dropped."""
  keys, texts, dropped = corpus.parse(chunk, min_words)
  lengths = np.array([len(text) for text in texts], np.int64)
  yield from zip(keys.tolist(), texts, strict=True)
  yield beam.pvalue.TaggedOutput(
    "index", (np.unique(keys), external_sort.bucket_counts(keys, lengths))
  )
  yield beam.pvalue.TaggedOutput("dropped", dropped)


def _join_indexes(
  indexes: Iterable[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
  keys = [np.zeros(0, np.uint64)]
  num_bytes = np.zeros(external_sort.NUM_BUCKETS, np.int64)
  for some_keys, some_bytes in indexes:
    keys.append(some_keys)
    num_bytes += some_bytes
  return np.unique(np.concatenate(keys)), num_bytes


def _plan(
  index: tuple[np.ndarray, np.ndarray],
  settings: build_lib.Settings,
  sources: Sequence[documents.Source],
) -> _Plan:
  text = corpus.Corpus((), *index)
  build_lib.check_text(text, sources)
  split_keys = partition.split(text.keys, settings.heldout_fraction)
  groups = {
    split: partition.groups(text, split_keys[split])
    for split in build_lib.SPLITS
  }
  return _Plan(
    groups,
    partition.sample(text, groups["train"], settings.vocab_sample_bytes),
  )


def _join_counters(
  counters: Iterable[Mapping[str, int]],
) -> collections.Counter[str]:
  joined: collections.Counter[str] = collections.Counter()
  for counter in counters:
    joined.update(counter)
  return joined


def _learn(word_counts: Mapping[str, int], vocab_size: int, path: str) -> str:
  """Writes the vocabulary; returns its hash."""
  learned = vocabulary.learn(
    collections.Counter(word_counts), vocab_size=vocab_size
  )
  vocabulary.save(learned, path)
  return learned.sha256


def _make_group(
  item: tuple[tuple[str, int], Iterable[tuple[int, bytes]]],
  settings: dict[str, example_groups.Settings],
  vocab_sha256: str,
) -> Iterator[Any]:
  """Yields the examples of a group in pieces, its facts, counts of the keys."""
  (split, index), texts = item
  contents: list[bytes] = []
  lengths: list[np.ndarray] = []

  def add(content: bytes, some_lengths: np.ndarray) -> None:
    contents.append(content)
    lengths.append(some_lengths)

  keys, facts = example_groups.make_group(
    [text for _, text in sorted(texts)],
    index,
    dataclasses.replace(settings[split], vocab_sha256=vocab_sha256),
    add,
  )
  whole = _Piece(
    split, index, keys, np.concatenate(lengths), b"".join(contents)
  )
  yield from _cut_piece(whole, external_sort.ALL_KEYS.split(_PIECES_PER_GROUP))
  yield beam.pvalue.TaggedOutput("facts", (split, facts))
  yield beam.pvalue.TaggedOutput(
    "counts", (split, external_sort.bucket_counts(keys))
  )


def _cut_piece(
  piece: _Piece, ranges: Sequence[external_sort.KeyRange]
) -> list[_Piece]:
  """Returns the parts of a piece in consecutive ranges of keys."""
  starts = np.array([keys.start for keys in ranges], np.uint64)
  places = [*np.searchsorted(piece.keys, starts).tolist(), len(piece.keys)]
  ends = [0, *np.cumsum(piece.lengths).tolist()]
  return [
    piece._replace(
      keys=piece.keys[start:end],
      lengths=piece.lengths[start:end],
      content=piece.content[ends[start] : ends[end]],
    )
    for start, end in itertools.pairwise(places)
  ]


def _keys_at_cuts(
  piece: _Piece, num_shards: dict[str, int], counts: dict[str, np.ndarray]
) -> Iterator[tuple[tuple[str, int], np.ndarray]]:
  """Yields those keys of a piece that are in buckets with a cut."""
  buckets = external_sort.buckets_of(piece.keys)
  for bucket in set(
    external_sort.cut_buckets(counts[piece.split], num_shards[piece.split])
  ):
    is_inside = buckets == bucket
    if is_inside.any():
      yield (piece.split, bucket), piece.keys[is_inside]


def _cut(
  settings: build_lib.Settings,
  counts: dict[str, np.ndarray],
  keys_at_cuts: dict[tuple[str, int], np.ndarray],
) -> dict[str, list[external_sort.KeyRange]]:
  """Returns the ranges of keys of the shards of each split."""
  ranges = {}
  for split in build_lib.SPLITS:
    build_lib.check_num_shards(settings, split, int(counts[split].sum()))
    inside = {
      bucket: keys
      for (split_of_keys, bucket), keys in keys_at_cuts.items()
      if split_of_keys == split
    }
    ranges[split] = external_sort.cut(
      counts[split], build_lib.num_shards(settings, split), inside
    )
  return ranges


def _deal(
  piece: _Piece, ranges: dict[str, list[external_sort.KeyRange]]
) -> Iterator[tuple[tuple[str, int], _Piece]]:
  """Yields the parts of a piece with their shards."""
  for index, part in enumerate(_cut_piece(piece, ranges[piece.split])):
    if len(part.keys):
      yield (piece.split, index), part


def _write_shard(
  item: tuple[tuple[str, int], Iterable[_Piece]],
  num_shards: dict[str, int],
  scratch: str,
) -> tuple[str, dict]:
  """Writes a shard; returns its split and its entry in the manifest."""
  (split, index), pieces = item
  # As `external_sort.read` has them: of equal keys, those of earlier groups.
  ordered = sorted(pieces, key=lambda piece: piece.group)
  records = [
    piece.content[start:end]
    for piece in ordered
    for start, end in itertools.pairwise([0, *np.cumsum(piece.lengths)])
  ]
  keys = np.concatenate([piece.keys for piece in ordered])
  path = os.path.join(scratch, shards.names(split, num_shards[split])[index])
  entry = shards.write_shard(
    path,
    (records[place] for place in np.argsort(keys, kind="stable")),
    records_per_block=record_index.RECORDS_PER_BLOCK,
  )
  return split, entry


def _describe(
  vocab_path: str,
  settings: build_lib.Settings,
  arguments: dict,
  scratch: str,
  facts: dict[str, dict[str, Any]],
  entries: list[tuple[str, dict]],
  dropped: Mapping[str, int],
) -> None:
  """Writes the manifest."""
  splits: dict[str, list[dict]] = {split: [] for split in build_lib.SPLITS}
  for split, entry in sorted(entries, key=lambda item: item[1]["file"]):
    splits[split].append(entry)
  description = build_lib.describe(
    settings, arguments, vocabulary.load(vocab_path), splits, facts, dropped
  )
  manifest.save(description, scratch)


def _sum(arrays: Iterable[np.ndarray]) -> np.ndarray:
  return np.sum(list(arrays), axis=0)


def _concatenate(arrays: Iterable[np.ndarray]) -> np.ndarray:
  return np.concatenate(list(arrays))
