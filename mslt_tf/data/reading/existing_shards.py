"""Shards made elsewhere, of which there is no manifest.

They are what google-research/bert's create_pretraining_data.py writes, or Model
Garden's with either naming of the features: TFRecord files, not compressed,
whose examples all have one length. The first time a shard is opened it is gone
through for its index.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from mslt_tf import errors
from mslt_tf.data.examples import features
from mslt_tf.data.reading import example_checks
from mslt_tf.data.reading import manifest
from mslt_tf.data.reading import record_index

_NUM_THREADS = 16  # Buckets take their time to answer.
# `record_index.write` makes these two beside a shard.
_INDEX = re.compile(r"(.*)\.index(\.[0-9a-f]{32})?", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class _Opened:
  """A shard and its first record."""

  shard: manifest.Shard
  record: bytes
  naming: features.Naming

  @property
  def content(self) -> tuple[int, int, str, str]:
    """What tells it from others, without reading it.

    Examples differ in how many bytes they take, so that where a shard's blocks
    begin depends on all of its content.
    """
    return (
      self.shard.index.num_bytes,
      self.shard.num_examples,
      _sha256(self.shard.index.offsets.astype("<i8").tobytes()),
      _sha256(self.record),
    )


def open_files(
  *,
  train_files: str,
  heldout_files: str,
  sequence_length: int,
  max_predictions: int,
  vocab_size: int,
) -> manifest.Data:
  """Opens shards and checks the first example of each.

  Args:
    train_files: globs, separated by commas, of the training examples.
    heldout_files: globs of the held-out ones; a shard that both match is held
      out.
    sequence_length: S of all examples.
    max_predictions: P of all examples.
    vocab_size: V, which all ids are below.

  Raises:
    errors.InputError: a glob matches no file, a file is no such shard, or one
      to train on is a copy of one that is held out.
  """
  heldout_paths = _match(heldout_files, argument="heldout_files")
  matched = _match(train_files, argument="train_files")
  held_out = {_file_of(path) for path in heldout_paths}
  train_paths = [path for path in matched if _file_of(path) not in held_out]
  if not train_paths:
    raise errors.InputError(
      f"train_files={train_files!r} matches no file that"
      f" heldout_files={heldout_files!r} does not match too: nothing is left to"
      " train on."
    )
  logging.info(
    "opening %d shards to train on, %d held out",
    len(train_paths),
    len(heldout_paths),
  )
  with concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as threads:
    opened = list(threads.map(_open, [*train_paths, *heldout_paths]))
  naming = _common_naming(opened)
  for each in opened:
    try:
      example_checks.check(
        each.record,
        sequence_length=sequence_length,
        max_predictions=max_predictions,
        vocab_size=vocab_size,
        naming=naming,
      )
    except errors.InputError as error:
      raise _malformed(each.shard.path, error) from error
  train, heldout = opened[: len(train_paths)], opened[len(train_paths) :]
  _check_copies(train, heldout)
  return manifest.Data(
    source=f"{train_files},{heldout_files}",
    fingerprint=_fingerprint(train, heldout),
    sequence_length=sequence_length,
    max_predictions=max_predictions,
    vocab_size=vocab_size,
    records_per_block=record_index.RECORDS_PER_BLOCK,
    train=_split(train),
    heldout=_split(heldout),
    naming=naming,
  )


def _match(globs: str, *, argument: str) -> list[str]:
  """Returns the files that comma-separated globs match, without indexes."""
  found: set[str] = set()
  for glob in filter(None, map(str.strip, globs.split(","))):
    try:
      paths = tf.io.gfile.glob(glob)
    except tf.errors.OpError as error:
      raise errors.InputError(
        f"{argument}={glob!r} cannot be read: {_first_line(error)}"
      ) from error
    if not paths:
      raise errors.InputError(f"{argument}={glob!r} matches no file.")
    found.update(paths)
  if not found:
    raise errors.InputError(f"{argument}={globs!r} names no file.")
  return sorted(path for path in found if not _is_index(path, found))


def _file_of(path: str) -> str:
  """Returns the same for all paths of a file."""
  return path if "://" in path else os.path.realpath(path)


def _check_copies(train: Sequence[_Opened], heldout: Sequence[_Opened]) -> None:
  paths = {each.content: each.shard.path for each in heldout}
  for each in train:
    if copied := paths.get(each.content):
      raise errors.InputError(
        f"train_files: {each.shard.path!r} is a copy of {copied!r} of"
        " heldout_files; what is trained on must not be held out."
      )


def _is_index(path: str, found: set[str]) -> bool:
  match = _INDEX.fullmatch(path)
  return match is not None and match[1] in found


def _open(path: str) -> _Opened:
  """Returns a shard with its index; its first record is not yet checked."""
  try:
    index = record_index.of_shard(
      path, records_per_block=record_index.RECORDS_PER_BLOCK
    )
    if not index.num_records:
      raise errors.InputError(f"{path!r} has no records.")
    # Beside an accelerator the record would lie on it.
    with tf.device("CPU"):
      (record,) = tf.data.TFRecordDataset(path).take(1).as_numpy_iterator()
  except tf.errors.OpError as error:
    raise errors.InputError(
      f"{path!r} cannot be read: {_first_line(error)}"
    ) from error
  try:
    naming = example_checks.naming_of(record)
  except errors.InputError as error:
    raise _malformed(path, error) from error
  return _Opened(manifest.Shard(path, index.num_records, index), record, naming)


def _common_naming(opened: Sequence[_Opened]) -> features.Naming:
  first = opened[0]
  for other in opened:
    if other.naming is not first.naming:
      raise errors.InputError(
        f"{other.shard.path!r} has the feature names of {other.naming.value},"
        f" but {first.shard.path!r} those of {first.naming.value}."
      )
  return first.naming


def _malformed(path: str, error: errors.InputError) -> errors.InputError:
  return errors.InputError(f"{path!r}, record 1: {error}")


def _split(opened: Sequence[_Opened]) -> manifest.Split:
  shards = tuple(each.shard for each in opened)
  num_examples = sum(shard.num_examples for shard in shards)
  return manifest.Split(num_examples=num_examples, shards=shards)


def _fingerprint(train: Sequence[_Opened], heldout: Sequence[_Opened]) -> str:
  """Returns what tells the shards from others, wherever they lie."""
  described = [
    [[os.path.basename(each.shard.path), *each.content] for each in split]
    for split in (train, heldout)
  ]
  return _sha256(json.dumps(described).encode())


def _first_line(error: tf.errors.OpError) -> str:
  return f"{errors.first_line(error).rstrip('.')}."


def _sha256(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()
