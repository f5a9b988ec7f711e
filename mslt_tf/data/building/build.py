"""Text -> a data set, in four steps, each of many tasks.

1. Text is read into files of documents, sorted by their keys (`corpus`).
2. A vocabulary is learnt from a sample of them, unless one is given.
3. Groups of documents are made into examples in a random order
   (`example_groups`).
4. Ranges of these are the shards.

A task leaves one file, which appears under its name when it is whole. So a
killed build continues, and any number of processes make the same data set: the
same input, settings and seed give the same bytes. The manifest is written last.
"""

import collections
import dataclasses
import decimal
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from mslt_tf import errors
from mslt_tf.data import progress
from mslt_tf.data.building import corpus
from mslt_tf.data.building import data_directory
from mslt_tf.data.building import example_groups
from mslt_tf.data.building import external_sort
from mslt_tf.data.building import partition
from mslt_tf.data.building import processes as processes_lib
from mslt_tf.data.building import shards
from mslt_tf.data.examples import vocabulary
from mslt_tf.data.reading import manifest
from mslt_tf.data.reading import record_index
from mslt_tf.data.text import documents

MOST_TOKENS = 1_000_000  # Of a learnt vocabulary.
# A character, at the start of a word and further on.
_LEAST_TOKENS = len(vocabulary.SPECIAL_TOKENS) + 2
_TEXT_FILE = "text.json"  # Says that step 1 is done, and what it left.
_EXAMPLES_FILE = "examples.json"  # Says that step 3 is.
# Of text, counted as often as it is worked on, for each process: to start one
# takes as long as that.
_BYTES_PER_PROCESS = 1 << 26
SPLITS = ("train", "heldout")


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a data set is to be like; checked by `build`."""

  # A vocabulary file, or the size of a vocabulary to learn from the training
  # documents: exactly one of the two is given.
  vocab_path: str | None = None
  vocab_size: int | None = None
  vocab_sample_bytes: int = 1 << 28  # of text to learn a vocabulary from
  input_format: str = "auto"  # one of `documents.FORMATS`
  text_field: str = "text"  # of JSON lines
  min_words: int = 0  # documents with fewer are dropped
  remove_duplicates: bool = False  # keep one of documents with the same text
  lower_case: bool = True  # and without accents
  sequence_length: int = 128  # tokens of an example
  max_predictions: int = 20  # the most masked tokens of an example
  masked_lm_prob: float = 0.15  # share of the tokens to mask
  short_sequence_prob: float = 0.1  # see `sentence_pairs.plan`
  # How often the training documents are cut into pairs and masked, each time
  # in another way. Held-out ones are once.
  dupe_factor: int = 1
  whole_word_masking: bool = False  # all pieces of a word together
  heldout_fraction: float = 0.04  # expected share of documents
  num_shards: int = 8  # of the training examples
  seed: int = 0  # of every random choice


@dataclasses.dataclass(frozen=True)
class Result:
  """What `build` left in the output directory."""

  manifest: dict
  is_new: bool  # False if the data set was there already


def build(
  input_patterns: Sequence[str],
  output_directory: str,
  settings: Settings,
  *,
  tfds_data_dir: str | None = None,
  num_processes: int = 1,
) -> Result:
  """Builds a data set, or what is left of it, unless it is there already.

  Args:
    input_patterns: as `documents.find` takes them.
    output_directory: where the data set goes; made if it is not there.
    settings: what it is to be like.
    tfds_data_dir: where TensorFlow Datasets has its data sets.
    num_processes: the most processes that work at once.

  Raises:
    errors.InputError: a setting out of range, input that cannot be used, or
      another data set in `output_directory`.
    errors.LostWorkerError: a process died.
  """
  check(settings)
  if num_processes < 1:
    raise errors.InputError(
      f"num_processes={num_processes} must be at least 1."
    )
  given_vocabulary = (
    vocabulary.load(settings.vocab_path) if settings.vocab_path else None
  )
  sources = documents.find(
    input_patterns,
    tfds_data_dir=tfds_data_dir,
    output_directory=output_directory,
  )
  arguments = arguments_of(settings, given_vocabulary)
  with data_directory.locked(output_directory):
    data_directory.check_arguments(output_directory, arguments)
    logging.info("Inputs: %d; hashing them ...", len(sources))
    documents.check_beginnings(
      sources,
      input_format=settings.input_format,
      text_field=settings.text_field,
    )
    # What is done is known by its number, when a killed build continues.
    sources, arguments["input_sha256"] = documents.sorted_by_contents(sources)
    existing = data_directory.existing_manifest(output_directory, arguments)
    if existing is not None:
      return Result(existing, is_new=False)
    total = sum(map(documents.num_bytes, sources))
    # It is read once, and made into examples so often.
    total *= 1 + settings.dupe_factor
    most_processes = max(1, total // _BYTES_PER_PROCESS)
    with (
      data_directory.scratch_directory(output_directory, arguments) as scratch,
      processes_lib.start(min(num_processes, most_processes)) as processes,
    ):
      if not manifest.exists(scratch):
        description = _Build(settings, scratch, processes).run(
          sources, given_vocabulary, arguments
        )
        manifest.save(description, scratch)
      data_directory.publish(scratch, output_directory)
    return Result(manifest.load(output_directory), is_new=True)


def arguments_of(
  settings: Settings, given_vocabulary: vocabulary.Vocabulary | None
) -> dict:
  """Returns what a data set is a function of, as the manifest has it.

  But for `input_sha256`, which comes last and takes long.
  """
  arguments = dataclasses.asdict(settings)
  # The contents of the files count, not their places.
  del arguments["vocab_path"]
  arguments["vocab_sha256"] = given_vocabulary and given_vocabulary.sha256
  return arguments


class _Build:
  """The steps of a build, each of which continues where it was left."""

  def __init__(
    self,
    settings: Settings,
    scratch: str,
    processes: processes_lib.Processes,
  ):
    self._settings = settings
    self._scratch = scratch
    self._processes = processes
    self._vocab_path = os.path.join(scratch, data_directory.VOCAB_FILE)

  def run(
    self,
    sources: Sequence[documents.Source],
    given_vocabulary: vocabulary.Vocabulary | None,
    arguments: dict,
  ) -> dict:
    """Makes all files of the data set but the manifest, which it returns."""
    path = os.path.join(self._scratch, _EXAMPLES_FILE)
    if tf.io.gfile.exists(path):
      done = _read_json(path)
    else:
      done = self._examples(sources, given_vocabulary)
      data_directory.write_json(done, path)
    # They take as much room as the shards that will be written.
    for path in tf.io.gfile.glob(os.path.join(self._scratch, "text-*")):
      tf.io.gfile.remove(path)
    paths = {
      split: [os.path.join(self._scratch, name) for name in done[split]]
      for split in SPLITS
    }
    for split in SPLITS:
      files = external_sort.open_all(paths[split])
      check_num_shards(
        self._settings, split, sum(file.num_records for file in files)
      )
    return describe(
      self._settings,
      arguments,
      vocabulary.load(self._vocab_path),
      {split: self._shards(split, paths[split]) for split in SPLITS},
      {
        split: example_groups.total(
          external_sort.SortedFile(path).facts() for path in paths[split]
        )
        for split in SPLITS
      },
      done["dropped"],
    )

  def _examples(
    self,
    sources: Sequence[documents.Source],
    given_vocabulary: vocabulary.Vocabulary | None,
  ) -> dict:
    """Reads text and makes examples of it.

    Returns:
      The names of the files of each split, and what was `dropped`.
    """
    text, dropped = self._text(sources)
    split_keys = partition.split(text.keys, self._settings.heldout_fraction)
    groups = {
      split: partition.groups(text, split_keys[split]) for split in SPLITS
    }
    if tf.io.gfile.exists(self._vocab_path):
      used_vocabulary = vocabulary.load(self._vocab_path)
    else:
      used_vocabulary = given_vocabulary or self._learn(text, groups["train"])
      vocabulary.save(used_vocabulary, self._vocab_path)
    names: dict[str, Any] = {
      split: example_groups.write(
        split,
        text,
        groups[split],
        example_settings(
          self._settings,
          split,
          vocab_path=self._vocab_path,
          vocab_sha256=used_vocabulary.sha256,
        ),
        directory=self._scratch,
        processes=self._processes,
      )
      for split in SPLITS
    }
    return {**names, "dropped": dropped}

  def _text(
    self, sources: Sequence[documents.Source]
  ) -> tuple[corpus.Corpus, collections.Counter[str]]:
    """Reads the documents; returns them and what was dropped."""
    path = os.path.join(self._scratch, _TEXT_FILE)
    if tf.io.gfile.exists(path):
      done = _read_json(path)
    else:
      paths, dropped = corpus.read(
        sources,
        self._scratch,
        processes=self._processes,
        input_format=self._settings.input_format,
        text_field=self._settings.text_field,
        min_words=self._settings.min_words,
      )
      # Not where they are: the directory may move.
      done = {"files": list(map(os.path.basename, paths)), "dropped": dropped}
      data_directory.write_json(done, path)
    text = corpus.of_files(
      [os.path.join(self._scratch, name) for name in done["files"]]
    )
    check_text(text, sources)
    return text, collections.Counter(done["dropped"])

  def _learn(
    self,
    text: corpus.Corpus,
    groups: Sequence[external_sort.KeyRange],
  ) -> vocabulary.Vocabulary:
    """Learns a vocabulary from a sample of the training documents."""
    assert self._settings.vocab_size is not None  # No vocabulary was given.
    sample = partition.sample(text, groups, self._settings.vocab_sample_bytes)
    counts: collections.Counter[str] = collections.Counter()
    tasks = [
      corpus.Words(
        text.paths,
        keys,
        lower_case=self._settings.lower_case,
        remove_duplicates=self._settings.remove_duplicates,
      )
      for keys in sample
    ]
    for counted in progress.logged(
      self._processes.map(corpus.count_words, tasks),
      "Counting words of training documents, a group after another",
      total=len(tasks),
    ):
      counts.update(counted)
    logging.info(
      "Learning a vocabulary of %s tokens from %s different words ...",
      f"{self._settings.vocab_size:,}",
      f"{len(counts):,}",
    )
    return vocabulary.learn(counts, vocab_size=self._settings.vocab_size)

  def _shards(self, split: str, example_paths: Sequence[str]) -> list[dict]:
    """Writes the shards of a split; returns their entries in the manifest."""
    return shards.write(
      split,
      example_paths,
      num_shards(self._settings, split),
      directory=self._scratch,
      processes=self._processes,
    )


def _read_json(path: str) -> dict:
  with tf.io.gfile.GFile(path) as file:
    return json.load(file)


def check_text(
  text: corpus.Corpus, sources: Sequence[documents.Source]
) -> None:
  """Raises `errors.InputError` if there is none."""
  if not len(text.keys):
    names = sources[0].name + (
      f" and {len(sources) - 1} more" if sources[1:] else ""
    )
    raise errors.InputError(f"input {names} holds no text.")


def num_shards(settings: Settings, split: str) -> int:
  """Returns how many shards a split has, of about the same size in both."""
  if split == "train":
    return settings.num_shards
  return max(1, round(settings.num_shards * settings.heldout_fraction))


def check_num_shards(settings: Settings, split: str, num_examples: int) -> None:
  """Raises `errors.InputError` if there are fewer examples than shards."""
  number = num_shards(settings, split)
  if num_examples >= number:
    return
  given = f"num_shards={settings.num_shards}"
  if split != "train":
    given += (
      f" and heldout_fraction={settings.heldout_fraction} make {number} shards"
      " of held-out data, which"
    )
  raise errors.InputError(
    f"{given} is more than the {num_examples} {split} examples that the input"
    " gives."
  )


def example_settings(
  settings: Settings, split: str, *, vocab_path: str, vocab_sha256: str
) -> example_groups.Settings:
  """Returns how the examples of a split are made."""
  return example_groups.Settings(
    vocab_path=vocab_path,
    vocab_sha256=vocab_sha256,
    lower_case=settings.lower_case,
    sequence_length=settings.sequence_length,
    max_predictions=settings.max_predictions,
    masked_lm_prob=settings.masked_lm_prob,
    short_sequence_prob=settings.short_sequence_prob,
    whole_word_masking=settings.whole_word_masking,
    remove_duplicates=settings.remove_duplicates,
    num_dupes=settings.dupe_factor if split == "train" else 1,
    seed=(settings.seed, SPLITS.index(split)),
  )


def describe(
  settings: Settings,
  arguments: dict,
  used_vocabulary: vocabulary.Vocabulary,
  splits: dict[str, list[dict]],
  facts: dict[str, dict[str, Any]],
  dropped: Mapping[str, int],
) -> dict:
  """Returns the manifest of a data set.

  Args:
    settings: what it is like.
    arguments: what it is a function of.
    used_vocabulary: its vocabulary.
    splits: the entries of the shards of each split.
    facts: of each split, as `example_groups.total` returns them.
    dropped: what reading has dropped.
  """
  dropped = collections.Counter(dropped)
  for name in ("duplicate_documents", "empty_documents", "empty_sentences"):
    dropped[name] += sum(int(facts[split][name]) for split in SPLITS)
  unknown_id = used_vocabulary.ids[vocabulary.UNKNOWN]
  return {
    "format_version": manifest.FORMAT_VERSION,
    "sequence_length": settings.sequence_length,
    "max_predictions": settings.max_predictions,
    "lower_case": settings.lower_case,
    "vocab": {
      "file": data_directory.VOCAB_FILE,
      "size": len(used_vocabulary),
      "sha256": used_vocabulary.sha256,
    },
    "records_per_block": record_index.RECORDS_PER_BLOCK,
    "unigram_mlm_loss": _unigram_mlm_loss(
      facts["train"]["token_counts"], facts["heldout"]["prediction_counts"]
    ),
    "splits": {
      name: {
        **{
          field: int(facts[name][field])
          for field in (
            "num_documents",
            "num_sentences",
            "num_tokens",
            "num_groups",
          )
        },
        "num_examples": sum(each["num_examples"] for each in splits[name]),
        "shards": splits[name],
      }
      for name in SPLITS
    },
    "num_unknown_tokens": sum(
      int(facts[name]["token_counts"][unknown_id]) for name in SPLITS
    ),
    "dropped": dict(sorted(dropped.items())),
    "arguments": arguments,
  }


def _unigram_mlm_loss(
  training_tokens: np.ndarray, heldout_predictions: np.ndarray
) -> float:
  """Returns the loss of a model that knows the token frequencies and no more.

  They are those of the training text, with one added to each, so that no token
  is impossible. Mean over the held-out predictions, in nats.

  Args:
    training_tokens: [V] how often each token occurs in the text.
    heldout_predictions: [V] how often each token is to be predicted.
  """
  # NumPy's logarithms and sums differ from processor to processor in the last
  # bit. The manifest tells data sets apart, and must not.
  with decimal.localcontext() as context:
    context.prec = 30
    counts = [decimal.Decimal(int(count) + 1) for count in training_tokens]
    log_total = decimal.Decimal(sum(counts)).ln()
    losses = sum(
      int(times) * (log_total - count.ln())
      for times, count in zip(heldout_predictions, counts, strict=True)
      if times
    )
    return float(losses / int(heldout_predictions.sum()))


def check(settings: Settings) -> None:
  """Checks settings.

  Raises:
    errors.InputError: one is out of range.
  """
  if (settings.vocab_path is None) == (settings.vocab_size is None):
    raise errors.InputError(
      f"vocab={settings.vocab_path} and vocab_size={settings.vocab_size}:"
      " exactly one of them must be given."
    )
  for name, rule, is_right in (
    ("sequence_length", "at least 8", settings.sequence_length >= 8),
    (
      "max_predictions",
      "at least 1 and less than sequence_length",
      1 <= settings.max_predictions < settings.sequence_length,
    ),
    ("masked_lm_prob", "above 0 and below 1", 0 < settings.masked_lm_prob < 1),
    (
      "short_sequence_prob",
      "between 0 and 1",
      0 <= settings.short_sequence_prob <= 1,
    ),
    (
      "heldout_fraction",
      "above 0 and below 1",
      0 < settings.heldout_fraction < 1,
    ),
    ("dupe_factor", "at least 1", settings.dupe_factor >= 1),
    (
      "num_shards",
      "between 1 and 99999",
      1 <= settings.num_shards <= 99999,
    ),
    (
      "vocab_size",
      f"between {_LEAST_TOKENS} and {MOST_TOKENS}",
      settings.vocab_size is None
      or _LEAST_TOKENS <= settings.vocab_size <= MOST_TOKENS,
    ),
    ("min_words", "at least 0", settings.min_words >= 0),
    (
      "vocab_sample_bytes",
      "at least 1",
      settings.vocab_sample_bytes >= 1,
    ),
    ("seed", "0 to 2**63 - 1", 0 <= settings.seed < 2**63),
  ):
    if not is_right:
      raise errors.InputError(
        f"{name}={getattr(settings, name)} must be {rule}."
      )
