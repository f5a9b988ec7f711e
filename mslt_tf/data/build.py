"""Text files -> a data set: corpus, examples, shards and, last, the manifest.

The same input, settings and seed give the same bytes. This version runs in one
process and holds the corpus in memory, but not its examples.
"""

import contextlib
import dataclasses
import itertools
import os
import resource
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from mslt_tf import errors
from mslt_tf.data import corpus
from mslt_tf.data import documents
from mslt_tf.data import examples
from mslt_tf.data import features
from mslt_tf.data import manifest
from mslt_tf.data import progress
from mslt_tf.data import record_index
from mslt_tf.data import shards
from mslt_tf.data import vocabulary

VOCAB_FILE = "vocab.txt"

MOST_TOKENS = 1_000_000  # Of a learnt vocabulary.
_SCRATCH_DIRECTORY = "unfinished"
_BATCH_SIZE = 256  # of reading
_EXAMPLES = 0  # What a random generator is for; `shards` has 1 and 2.


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a data set is to be like; checked by `build`."""

  # A vocabulary file, or the size of a vocabulary to learn from the training
  # documents: exactly one of the two is given.
  vocab_path: str | None = None
  vocab_size: int | None = None
  input_format: str = "auto"  # one of `documents.FORMATS`
  lower_case: bool = True  # and without accents
  sequence_length: int = 128  # tokens of an example
  max_predictions: int = 20  # the most masked tokens of an example
  masked_lm_prob: float = 0.15  # share of the tokens to mask
  short_sequence_prob: float = 0.1  # see `sentence_pairs.pairs_of_document`
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
  input_patterns: Sequence[str], output_directory: str, settings: Settings
) -> Result:
  """Builds a data set, unless it is there already.

  Args:
    input_patterns: globs of text files.
    output_directory: where the data set goes; made if it is not there.
    settings: what it is to be like.

  Raises:
    errors.InputError: a setting out of range, input that cannot be used, or
      another data set in `output_directory`.
  """
  _check(settings)
  given_vocabulary = (
    vocabulary.load(settings.vocab_path) if settings.vocab_path else None
  )
  files = documents.find_files(input_patterns)
  logging.info("Input files: %d; hashing them ...", len(files))
  # The contents of the files count, not their places.
  arguments = dataclasses.asdict(settings)
  del arguments["vocab_path"]
  arguments["vocab_sha256"] = given_vocabulary and given_vocabulary.sha256
  arguments["input_sha256"] = documents.fingerprint(files)
  existing = _existing_manifest(output_directory, arguments)
  if existing is not None:
    return Result(existing, is_new=False)
  with _scratch_directory(output_directory) as scratch:
    text = corpus.read(
      files,
      given_vocabulary,
      vocab_size=settings.vocab_size,
      input_format=settings.input_format,
      lower_case=settings.lower_case,
      heldout_fraction=settings.heldout_fraction,
    )
    description = {
      **_write(text, settings, scratch),
      "num_unknown_tokens": text.num_unknown,
      "dropped": text.dropped,
      "arguments": arguments,
    }
    manifest.save(description, scratch)
    _publish(description, scratch, output_directory)
  return Result(description, is_new=True)


def _write(text: corpus.Corpus, settings: Settings, directory: str) -> dict:
  """Writes vocabulary and shards; returns their part of the manifest."""
  vocabulary.save(text.vocabulary, os.path.join(directory, VOCAB_FILE))
  recipe = examples.Recipe(
    vocabulary=text.vocabulary,
    sequence_length=settings.sequence_length,
    max_predictions=settings.max_predictions,
    masked_lm_prob=settings.masked_lm_prob,
    short_sequence_prob=settings.short_sequence_prob,
    whole_word_masking=settings.whole_word_masking,
  )
  splits = {}
  for index, (name, split_documents, num_shards, num_dupes) in enumerate(
    (
      ("train", text.train, settings.num_shards, settings.dupe_factor),
      ("heldout", text.heldout, 1, 1),
    )
  ):
    seed = (settings.seed, index)
    written = shards.write(
      name,
      _examples(name, split_documents, recipe, num_dupes=num_dupes, seed=seed),
      directory=directory,
      num_shards=num_shards,
      seed=seed,
    )
    splits[name] = {
      "num_documents": len(split_documents),
      "num_sentences": split_documents.num_sentences,
      "num_tokens": len(split_documents.tokens),
      "num_examples": sum(shard["num_examples"] for shard in written),
      "shards": written,
    }
  return {
    "format_version": manifest.FORMAT_VERSION,
    "sequence_length": settings.sequence_length,
    "max_predictions": settings.max_predictions,
    "lower_case": settings.lower_case,
    "vocab": {
      "file": VOCAB_FILE,
      "size": len(text.vocabulary),
      "sha256": text.vocabulary.sha256,
    },
    "records_per_block": record_index.RECORDS_PER_BLOCK,
    "unigram_mlm_loss": _unigram_mlm_loss(
      [
        os.path.join(directory, shard["file"])
        for shard in splits["heldout"]["shards"]
      ],
      training_tokens=text.train.tokens,
      recipe=recipe,
    ),
    "splits": splits,
  }


def _examples(
  name: str,
  tokenized: corpus.TokenizedDocuments,
  recipe: examples.Recipe,
  *,
  num_dupes: int,
  seed: tuple[int, ...],
) -> Iterator[bytes]:
  places = itertools.product(range(num_dupes), range(len(tokenized)))
  for dupe, index in progress.logged(
    places,
    f"Making {name} examples, document by document",
    total=num_dupes * len(tokenized),
  ):
    # A generator for each document, so that documents can be worked on in any
    # order or process.
    rng = np.random.default_rng([*seed, _EXAMPLES, dupe, index])
    yield from examples.of_document(tokenized, index, recipe, rng=rng)


def _unigram_mlm_loss(
  shard_paths: Sequence[str],
  *,
  training_tokens: np.ndarray,
  recipe: examples.Recipe,
) -> float:
  """Returns the loss of a model that knows the token frequencies and no more.

  They are those of the training text, with one added to each, so that no token
  is impossible. Mean over the predictions of the shards, in nats.
  """
  counts = np.bincount(training_tokens, minlength=len(recipe.vocabulary)) + 1
  losses = -np.log(counts / counts.sum())  # [V]
  loss_sum = 0.0
  num_predictions = 0
  dataset = tf.data.TFRecordDataset(shard_paths)
  for serialized in dataset.batch(_BATCH_SIZE):
    batch = features.parse_batch(
      serialized,
      sequence_length=recipe.sequence_length,
      max_predictions=recipe.max_predictions,
    )
    is_prediction = batch[features.MASKED_LM_WEIGHTS].numpy() > 0
    ids = batch[features.MASKED_LM_IDS].numpy()[is_prediction]
    loss_sum += losses[ids].sum()
    num_predictions += len(ids)
  return float(loss_sum / num_predictions)


@contextlib.contextmanager
def _scratch_directory(output_directory: str) -> Iterator[str]:
  """Makes a directory for what is unfinished; a failure leaves none."""
  scratch = os.path.join(output_directory, _SCRATCH_DIRECTORY)
  try:
    if tf.io.gfile.exists(scratch):
      tf.io.gfile.rmtree(scratch)
    tf.io.gfile.makedirs(scratch)
  except tf.errors.OpError as error:
    raise errors.InputError(
      f"output_dir={output_directory!r} cannot be written: {error.message}"
    ) from error
  try:
    yield scratch
  except BaseException as error:
    tf.io.gfile.rmtree(scratch)
    if isinstance(error, tf.errors.OpError | OSError):
      reason = str(error).splitlines()[0]
      raise errors.InputError(
        f"output_dir={output_directory!r} cannot be written: {reason}"
      ) from error
    raise


def _existing_manifest(output_directory: str, arguments: dict) -> dict | None:
  """Returns the manifest that is there, which must be of these arguments."""
  if not manifest.exists(output_directory):
    return None
  manifest.open_data(output_directory)
  description = manifest.load(output_directory)
  existing = description.get("arguments")
  existing = existing if isinstance(existing, dict) else {}
  for name, value in arguments.items():
    if existing.get(name) != value:
      raise errors.InputError(
        f"{name}={value}, but {output_directory!r} already holds data built"
        f" with {name}={existing.get(name)}; choose another directory."
      )
  return description


def _publish(description: dict, scratch: str, output_directory: str) -> None:
  """Moves the files of a data set out of `scratch`, the manifest last."""
  shard_files = [
    shard["file"]
    for split in description["splits"].values()
    for shard in split["shards"]
  ]
  index_files = map(record_index.path_of, shard_files)
  for name in (*shard_files, *index_files, VOCAB_FILE, manifest.FILE):
    tf.io.gfile.rename(
      os.path.join(scratch, name),
      os.path.join(output_directory, name),
      overwrite=True,
    )
  tf.io.gfile.rmtree(scratch)


def _check(settings: Settings) -> None:
  # TensorFlow and Python have files of their own open.
  open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
  most_shards = max(open_files - 100, 1)
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
      f"between 1 and {most_shards}, for files that may be open at once",
      1 <= settings.num_shards <= most_shards,
    ),
    (
      "vocab_size",
      f"at most {MOST_TOKENS}",
      settings.vocab_size is None or settings.vocab_size <= MOST_TOKENS,
    ),
    ("seed", "0 to 2**63 - 1", 0 <= settings.seed < 2**63),
  ):
    if not is_right:
      raise errors.InputError(
        f"{name}={getattr(settings, name)} must be {rule}."
      )
