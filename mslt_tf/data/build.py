"""Documents -> shuffled shards of pre-training examples, and their manifest.

The same input, arguments and seed give the same bytes. The manifest is written
last: where there is one, the data set is complete.

This version runs in one process and holds the tokenized corpus in memory, as
flat int32 arrays (and its text, if a vocabulary is learned from it). Examples
are not held: they are dealt out to one scratch file for each shard, and the
scratch files are shuffled one by one.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from mslt_tf import errors
from mslt_tf.data import documents
from mslt_tf.data import features
from mslt_tf.data import input_pipeline
from mslt_tf.data import masking
from mslt_tf.data import sentence_pairs
from mslt_tf.data import vocabulary

VOCAB_FILE = "vocab.txt"
RECORDS_PER_BLOCK = 256
DEFAULT_HELDOUT_FRACTION = 0.04

_SCRATCH_DIRECTORY = "unfinished"
_RECORD_FRAMING_BYTES = 16  # Length, its checksum, and the data's checksum.
_MIN_DOCUMENTS = 2  # of a split: a random next comes from another document.
_HASH_BITS = 64
_LOG_EVERY_EXAMPLES = 100_000
# What a random generator is for; its seed is (seed, split, purpose, ...).
_PAIRS, _DEALING, _SHUFFLING = range(3)


@dataclasses.dataclass(frozen=True)
class Result:
  """What `build` left in the output directory."""

  manifest: dict
  is_new: bool  # False if the data set was there already


def build(
  input_patterns: Sequence[str],
  output_directory: str,
  *,
  vocab_path: str | None = None,
  vocab_size: int | None = None,
  input_format: str = "auto",
  lower_case: bool = True,
  sequence_length: int = 128,
  max_predictions: int = 20,
  masked_lm_prob: float = 0.15,
  short_sequence_prob: float = 0.1,
  dupe_factor: int = 1,
  whole_word_masking: bool = False,
  heldout_fraction: float = DEFAULT_HELDOUT_FRACTION,
  num_shards: int = 8,
  seed: int = 0,
) -> Result:
  """Builds a data set, unless it is there already.

  Args:
    input_patterns: globs of text files.
    output_directory: where the data set goes; made if it is not there.
    vocab_path: a vocabulary file, or None.
    vocab_size: size of a vocabulary to learn from the training documents, or
      None. Exactly one of `vocab_path` and `vocab_size` is given.
    input_format: one of `documents.FORMATS`.
    lower_case: whether the tokenizer lower-cases and strips accents.
    sequence_length: tokens of an example, at least 8.
    max_predictions: the most masked tokens of an example.
    masked_lm_prob: share of the tokens to mask.
    short_sequence_prob: see `sentence_pairs.pairs_of_document`.
    dupe_factor: how often the training documents are cut into pairs and
      masked, each time in another way. Held-out ones are once.
    whole_word_masking: whether all pieces of a word are masked together.
    heldout_fraction: expected share of documents that are held out. Which ones
      depends on their text alone.
    num_shards: of the training examples.
    seed: of every random choice.

  Raises:
    errors.InputError: an argument out of range, input that cannot be used, or
      another data set in `output_directory`.
  """
  arguments: dict[str, Any] = dict(
    vocab_size=vocab_size,
    input_format=input_format,
    lower_case=lower_case,
    sequence_length=sequence_length,
    max_predictions=max_predictions,
    masked_lm_prob=masked_lm_prob,
    short_sequence_prob=short_sequence_prob,
    dupe_factor=dupe_factor,
    whole_word_masking=whole_word_masking,
    heldout_fraction=heldout_fraction,
    num_shards=num_shards,
    seed=seed,
  )
  _check_arguments(vocab_path=vocab_path, **arguments)
  given_vocabulary = vocabulary.load(vocab_path) if vocab_path else None
  arguments["vocab_sha256"] = given_vocabulary and given_vocabulary.sha256
  files = documents.find_files(input_patterns)
  arguments["input_sha256"] = documents.fingerprint(files)
  existing = _existing_manifest(output_directory, arguments)
  if existing is not None:
    return Result(existing, is_new=False)

  with _scratch_directory(output_directory) as scratch:
    corpora = _read_corpora(
      files,
      given_vocabulary,
      vocab_size=vocab_size,
      input_format=input_format,
      lower_case=lower_case,
      heldout_fraction=heldout_fraction,
    )
    examples = _Examples(
      vocabulary=corpora.vocabulary,
      sequence_length=sequence_length,
      max_predictions=max_predictions,
      masked_lm_prob=masked_lm_prob,
      short_sequence_prob=short_sequence_prob,
      whole_word_masking=whole_word_masking,
      seed=seed,
    )
    splits = {}
    for index, (name, corpus, split_shards, num_dupes) in enumerate(
      (
        ("train", corpora.train, num_shards, dupe_factor),
        ("heldout", corpora.heldout, 1, 1),
      )
    ):
      with _logged_time(f"writing {name} examples"):
        shards = _write_split(
          name,
          examples.of_corpus(corpus, split=index, dupe_factor=num_dupes),
          scratch=scratch,
          num_shards=split_shards,
          seed=(seed, index),
        )
      splits[name] = {
        "num_documents": len(corpus),
        "num_sentences": corpus.num_sentences,
        "num_tokens": len(corpus.tokens),
        "num_examples": sum(shard["num_examples"] for shard in shards),
        "shards": shards,
      }
    vocabulary.save(corpora.vocabulary, os.path.join(scratch, VOCAB_FILE))
    manifest = {
      "format_version": input_pipeline.FORMAT_VERSION,
      "sequence_length": sequence_length,
      "max_predictions": max_predictions,
      "lower_case": lower_case,
      "vocab": {
        "file": VOCAB_FILE,
        "size": len(corpora.vocabulary),
        "sha256": corpora.vocabulary.sha256,
      },
      "records_per_block": RECORDS_PER_BLOCK,
      "unigram_mlm_loss": _unigram_mlm_loss(
        [
          os.path.join(scratch, shard["file"])
          for shard in splits["heldout"]["shards"]
        ],
        training_tokens=corpora.train.tokens,
        vocab_size=len(corpora.vocabulary),
        sequence_length=sequence_length,
        max_predictions=max_predictions,
      ),
      "splits": splits,
      "num_unknown_tokens": corpora.num_unknown,
      "dropped": corpora.dropped,
      "arguments": arguments,
    }
    _finish(output_directory, scratch, manifest)
  return Result(manifest, is_new=True)


def summary(manifest: dict) -> str:
  """Returns a few lines about a data set, for a person."""
  lines = [
    f"{'split':9}{'documents':>11}{'sentences':>11}{'tokens':>13}"
    f"{'examples':>11}"
  ]
  num_tokens = 0
  for name, split in manifest["splits"].items():
    num_tokens += split["num_tokens"]
    lines.append(
      f"{name:9}{split['num_documents']:>11,}{split['num_sentences']:>11,}"
      f"{split['num_tokens']:>13,}{split['num_examples']:>11,}"
    )
  unknown_share = manifest["num_unknown_tokens"] / num_tokens
  lines.append(
    f"vocabulary {manifest['vocab']['size']:,}; unknown tokens"
    f" {unknown_share:.3%}; unigram MLM loss"
    f" {manifest['unigram_mlm_loss']:.3f}"
  )
  dropped = [
    f"{count:,} {name.replace('_', ' ')}"
    for name, count in manifest["dropped"].items()
    if count
  ]
  if dropped:
    lines.append(f"dropped or replaced: {', '.join(dropped)}")
  return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Text:
  sentences: tuple[str, ...]
  digest: int  # of the sentences, uniform in 0 .. 2 ** _HASH_BITS - 1
  num_undecodable: int


class _Corpus(Sequence):
  """Tokenized documents as one flat array; an item is a `_Document`."""

  def __init__(self, tokenizer, texts: Iterable[Sequence[str]]):
    arrays = []
    lengths: list[int] = []
    document_ends = [0]
    self.num_empty = 0
    self.num_empty_sentences = 0
    for sentences in texts:
      tokenized = vocabulary.tokenize(tokenizer, sentences)
      kept = [ids for ids in tokenized if len(ids)]
      self.num_empty_sentences += len(tokenized) - len(kept)
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
    start, end = self._document_ends[index : index + 2]
    return _Document(self.tokens, self._sentence_ends[start : end + 1])


class _Document(Sequence):
  """A document of a `_Corpus`, whose sentences are cut out when asked for."""

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
class _Corpora:
  """The tokenized input."""

  vocabulary: vocabulary.Vocabulary
  train: _Corpus
  heldout: _Corpus
  num_undecodable: int

  @property
  def num_unknown(self) -> int:
    unknown_id = self.vocabulary.ids[vocabulary.UNKNOWN]
    return sum(
      int((corpus.tokens == unknown_id).sum())
      for corpus in (self.train, self.heldout)
    )

  @property
  def dropped(self) -> dict[str, int]:
    return {
      "empty_documents": self.train.num_empty + self.heldout.num_empty,
      "empty_sentences": (
        self.train.num_empty_sentences + self.heldout.num_empty_sentences
      ),
      "undecodable_places": self.num_undecodable,
    }


def _read_corpora(
  files: Sequence[str],
  given_vocabulary: vocabulary.Vocabulary | None,
  *,
  vocab_size: int | None,
  input_format: str,
  lower_case: bool,
  heldout_fraction: float,
) -> _Corpora:
  """Reads, splits and tokenizes; learns the vocabulary if none is given."""
  with _logged_time(f"reading {len(files)} files"):
    texts = _read(files, input_format)
    cut = _heldout_cut([text.digest for text in texts], heldout_fraction)
  used_vocabulary = given_vocabulary
  if used_vocabulary is None:
    assert vocab_size is not None  # Exactly one of the two is given.
    with _logged_time(f"learning a vocabulary of {vocab_size}"):
      counts = vocabulary.count_words(
        (
          sentence
          for text in texts
          if text.digest > cut
          for sentence in text.sentences
        ),
        lower_case=lower_case,
      )
      used_vocabulary = vocabulary.learn(counts, vocab_size=vocab_size)
  with _logged_time("tokenizing"):
    tokenizer = vocabulary.make_tokenizer(
      used_vocabulary, lower_case=lower_case
    )
    train = _Corpus(
      tokenizer, (text.sentences for text in texts if text.digest > cut)
    )
    heldout = _Corpus(
      tokenizer, (text.sentences for text in texts if text.digest <= cut)
    )
  for name, corpus in (("training", train), ("held-out", heldout)):
    if len(corpus) < _MIN_DOCUMENTS:
      raise errors.InputError(
        f"only {len(corpus)} {name} documents have tokens, and"
        f" {_MIN_DOCUMENTS} are needed; is the vocabulary one of this text?"
      )
  return _Corpora(
    used_vocabulary,
    train,
    heldout,
    num_undecodable=sum(text.num_undecodable for text in texts),
  )


@dataclasses.dataclass(frozen=True)
class _Examples:
  """How a corpus becomes examples."""

  vocabulary: vocabulary.Vocabulary
  sequence_length: int
  max_predictions: int
  masked_lm_prob: float
  short_sequence_prob: float
  whole_word_masking: bool
  seed: int

  def of_corpus(
    self, corpus: _Corpus, *, split: int, dupe_factor: int
  ) -> Iterator[bytes]:
    """Yields serialized examples."""
    for dupe in range(dupe_factor):
      for index in range(len(corpus)):
        # A generator for each document, so that documents can be worked on in
        # any order or process.
        rng = np.random.default_rng([self.seed, split, _PAIRS, dupe, index])
        pairs = sentence_pairs.pairs_of_document(
          corpus,
          index,
          sequence_length=self.sequence_length,
          short_sequence_prob=self.short_sequence_prob,
          rng=rng,
        )
        for pair in pairs:
          yield self._example(pair, rng)

  def _example(
    self, pair: sentence_pairs.Pair, rng: np.random.Generator
  ) -> bytes:
    ids = self.vocabulary.ids
    cls_id, sep_id = ids[vocabulary.CLS], ids[vocabulary.SEP]
    input_ids, segment_ids = sentence_pairs.join(
      pair, cls_id=cls_id, sep_id=sep_id
    )
    masked = masking.mask(
      input_ids,
      special_ids=(cls_id, sep_id),
      mask_id=ids[vocabulary.MASK],
      vocab_size=len(self.vocabulary),
      masked_lm_prob=self.masked_lm_prob,
      max_predictions=self.max_predictions,
      rng=rng,
      is_continuation=(
        self.vocabulary.is_continuation if self.whole_word_masking else None
      ),
    )
    return features.to_example(
      masked.input_ids,
      segment_ids,
      masked_lm_positions=masked.positions,
      masked_lm_ids=masked.ids,
      is_random_next=pair.is_random_next,
      sequence_length=self.sequence_length,
      max_predictions=self.max_predictions,
    )


def _read(files: Sequence[str], input_format: str) -> list[_Text]:
  texts = []
  for document in documents.read(files, input_format=input_format):
    content = "\n".join(document.sentences).encode()
    digest = hashlib.sha256(content).digest()[: _HASH_BITS // 8]
    texts.append(
      _Text(
        document.sentences,
        int.from_bytes(digest, "big"),
        document.num_undecodable,
      )
    )
  if not texts:
    names = files[0] + (f" and {len(files) - 1} more" if files[1:] else "")
    raise errors.InputError(f"input {names} holds no text.")
  return texts


def _heldout_cut(digests: Sequence[int], heldout_fraction: float) -> int:
  """Returns the digest up to which documents are held out.

  Equal documents have equal digests, so a copy never stands on both sides.
  """
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
  return distinct[num_heldout - 1]


def _unigram_mlm_loss(
  shard_paths: Sequence[str],
  *,
  training_tokens: np.ndarray,
  vocab_size: int,
  sequence_length: int,
  max_predictions: int,
) -> float:
  """Returns the loss of a model that knows the token frequencies and no more.

  They are those of the training text, with one added to each, so that no token
  is impossible. Mean over the predictions of the shards, in nats.
  """
  counts = np.bincount(training_tokens, minlength=vocab_size) + 1
  losses = -np.log(counts / counts.sum())  # [V]
  loss_sum = 0.0
  num_predictions = 0
  dataset = tf.data.TFRecordDataset(shard_paths).batch(RECORDS_PER_BLOCK)
  for serialized in dataset:
    batch = features.parse_batch(
      serialized,
      sequence_length=sequence_length,
      max_predictions=max_predictions,
    )
    is_prediction = batch[features.MASKED_LM_WEIGHTS].numpy() > 0
    ids = batch[features.MASKED_LM_IDS].numpy()[is_prediction]
    loss_sum += losses[ids].sum()
    num_predictions += len(ids)
  return float(loss_sum / num_predictions)


def _write_split(
  name: str,
  examples: Iterable[bytes],
  *,
  scratch: str,
  num_shards: int,
  seed: tuple[int, ...],
) -> list[dict]:
  """Writes shuffled shards into `scratch`; returns them as in the manifest."""
  rng = np.random.default_rng([*seed, _DEALING])
  dealt = [
    os.path.join(scratch, f"{name}-{index}.dealt")
    for index in range(num_shards)
  ]
  num_examples = 0
  writers = [tf.io.TFRecordWriter(path) for path in dealt]
  try:
    for serialized in examples:
      # Every shard gets one of each `num_shards` examples in turn.
      turn = num_examples % num_shards
      if not turn:
        order = rng.permutation(num_shards)
      writers[order[turn]].write(serialized)
      num_examples += 1
      if not num_examples % _LOG_EVERY_EXAMPLES:
        logging.info("%s: %d examples", name, num_examples)
  finally:
    for writer in writers:
      writer.close()
  if num_examples < num_shards:
    raise errors.InputError(
      f"num_shards={num_shards} is more than the {num_examples} {name}"
      " examples that the input gives."
    )
  shards = []
  for index, path in enumerate(dealt):
    file_name = f"{name}-{index:05d}-of-{num_shards:05d}.tfrecord"
    batches = tf.data.TFRecordDataset(path).batch(RECORDS_PER_BLOCK)
    records = [
      record for batch in batches.as_numpy_iterator() for record in batch
    ]
    order = np.random.default_rng([*seed, _SHUFFLING, index]).permutation(
      len(records)
    )
    shard = _write_shard(
      os.path.join(scratch, file_name), [records[place] for place in order]
    )
    shards.append({"file": file_name, **shard})
    tf.io.gfile.remove(path)
  return shards


def _write_shard(path: str, records: list[bytes]) -> dict:
  offsets = []
  position = 0
  with tf.io.TFRecordWriter(path) as writer:
    for index, record in enumerate(records):
      if not index % RECORDS_PER_BLOCK:
        offsets.append(position)
      writer.write(record)
      position += len(record) + _RECORD_FRAMING_BYTES
  return {
    "num_examples": len(records),
    "bytes": position,
    "block_offsets": offsets,
  }


@contextlib.contextmanager
def _scratch_directory(output_directory: str) -> Iterator[str]:
  """Makes a directory for what is unfinished; wrong input leaves none."""
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
  except errors.InputError:
    tf.io.gfile.rmtree(scratch)
    raise


def _existing_manifest(output_directory: str, arguments: dict) -> dict | None:
  path = os.path.join(output_directory, input_pipeline.MANIFEST_FILE)
  if not tf.io.gfile.exists(path):
    return None
  input_pipeline.open_data(output_directory)
  with tf.io.gfile.GFile(path) as file:
    manifest = json.load(file)
  existing = manifest.get("arguments")
  existing = existing if isinstance(existing, dict) else {}
  for name, value in arguments.items():
    if existing.get(name) != value:
      raise errors.InputError(
        f"{name}={value}, but {output_directory!r} already holds data built"
        f" with {name}={existing.get(name)}; choose another directory."
      )
  return manifest


def _finish(output_directory: str, scratch: str, manifest: dict) -> None:
  """Moves everything out of `scratch`, the manifest last."""
  manifest_name = input_pipeline.MANIFEST_FILE
  with tf.io.gfile.GFile(os.path.join(scratch, manifest_name), "w") as file:
    file.write(json.dumps(manifest, indent=1) + "\n")
  shards = [
    shard["file"]
    for split in manifest["splits"].values()
    for shard in split["shards"]
  ]
  for name in (*shards, VOCAB_FILE, manifest_name):
    tf.io.gfile.rename(
      os.path.join(scratch, name),
      os.path.join(output_directory, name),
      overwrite=True,
    )
  tf.io.gfile.rmtree(scratch)


def _check_arguments(
  *,
  vocab_path: str | None,
  vocab_size: int | None,
  input_format: str,
  lower_case: bool,
  sequence_length: int,
  max_predictions: int,
  masked_lm_prob: float,
  short_sequence_prob: float,
  dupe_factor: int,
  whole_word_masking: bool,
  heldout_fraction: float,
  num_shards: int,
  seed: int,
) -> None:
  del lower_case, whole_word_masking  # Any value is right.
  if (vocab_path is None) == (vocab_size is None):
    raise errors.InputError(
      f"vocab={vocab_path} and vocab_size={vocab_size}: exactly one of them"
      " must be given."
    )
  if input_format not in documents.FORMATS:
    raise errors.InputError(
      f"input_format={input_format!r} is not one of"
      f" {', '.join(documents.FORMATS)}."
    )
  for name, value, rule, is_right in (
    ("sequence_length", sequence_length, "at least 8", sequence_length >= 8),
    (
      "max_predictions",
      max_predictions,
      "at least 1 and less than sequence_length",
      1 <= max_predictions < sequence_length,
    ),
    (
      "masked_lm_prob",
      masked_lm_prob,
      "above 0 and below 1",
      0 < masked_lm_prob < 1,
    ),
    (
      "short_sequence_prob",
      short_sequence_prob,
      "between 0 and 1",
      0 <= short_sequence_prob <= 1,
    ),
    (
      "heldout_fraction",
      heldout_fraction,
      "above 0 and below 1",
      0 < heldout_fraction < 1,
    ),
    ("dupe_factor", dupe_factor, "at least 1", dupe_factor >= 1),
    ("num_shards", num_shards, "at least 1", num_shards >= 1),
    ("seed", seed, "0 to 2**63 - 1", 0 <= seed < 2**63),
  ):
    if not is_right:
      raise errors.InputError(f"{name}={value} must be {rule}.")


@contextlib.contextmanager
def _logged_time(what: str) -> Iterator[None]:
  """Logs the beginning of a piece of work and the seconds it took."""
  logging.info("%s ...", what)
  start = time.monotonic()
  yield
  logging.info("%s: %.1f s", what, time.monotonic() - start)
