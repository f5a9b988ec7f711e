"""The description of a data set on disk, and what it says.

A data set is a directory of shards (TFRecord files of the examples that
`features` describes) with their indexes, a vocabulary and `manifest.json`. The
manifest is written last: where there is one, the data set is complete.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from typing import TypeGuard

import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import whole_files
from mslt_tf.data.examples import features
from mslt_tf.data.reading import record_index

FILE = "manifest.json"
FORMAT_VERSION = 2

_MAX_BYTES = 1 << 27
_NUM_THREADS = 16  # Buckets take their time to answer.


@dataclasses.dataclass(frozen=True)
class Shard:
  """A TFRecord file of examples."""

  path: str
  num_examples: int
  index: record_index.RecordIndex = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class Split:
  """The training or the held-out examples, and the text they are made of."""

  num_examples: int
  shards: tuple[Shard, ...]
  # Of shards made elsewhere these are not known.
  num_documents: int | None = None
  num_sentences: int | None = None
  num_tokens: int | None = None


@dataclasses.dataclass(frozen=True)
class Data:
  """A data set; made by `open_data` or, without a manifest, `existing_shards`.

  What only a manifest tells is None without one.
  """

  source: str  # where it is, for errors
  fingerprint: str  # for the identity of a run; the sha256 of a manifest
  sequence_length: int
  max_predictions: int
  vocab_size: int
  records_per_block: int
  train: Split
  heldout: Split
  naming: features.Naming = features.Naming.BERT
  lower_case: bool | None = None
  vocab_file: str | None = None
  vocab_sha256: str | None = None
  unigram_mlm_loss: float | None = None  # of the held-out predictions, in nats


def exists(directory: str) -> bool:
  """Says whether there is a data set, built to its end."""
  return tf.io.gfile.exists(os.path.join(directory, FILE))


def load(directory: str) -> dict:
  """Returns the manifest as it is written, its fields not checked.

  Raises:
    errors.InputError: there is none, or it is no JSON object.
  """
  return _parse(_read(directory), os.path.join(directory, FILE))


def save(manifest: dict, directory: str) -> None:
  """Writes `manifest.json`, whole or not at all."""
  path = os.path.join(directory, FILE)
  whole_files.write(path, (json.dumps(manifest, indent=1) + "\n").encode())


def open_data(directory: str) -> Data:
  """Reads and checks the manifest of a data set and the indexes of its shards.

  Raises:
    errors.InputError: there is no complete data set in `directory`, its
      manifest is malformed, or a file is missing or is not what it says.
    errors.UnavailableError: a file cannot be read.
  """
  with reported(directory):
    return _open_data(directory)


@contextlib.contextmanager
def reported(directory: str) -> Iterator[None]:
  """Turns a failure to read a data set into an `errors.UnavailableError`."""
  try:
    yield
  except tf.errors.OpError as error:
    raise errors.UnavailableError(
      f"data directory {directory!r} cannot be read: {errors.first_line(error)}"
    ) from error


def _open_data(directory: str) -> Data:
  path = os.path.join(directory, FILE)
  content = _read(directory)
  fields = _Fields(_parse(content, path), path, "")
  version = fields.integer("format_version")
  if version != FORMAT_VERSION:
    raise errors.InputError(
      f"{path!r}: format_version={version}, but this program reads"
      f" {FORMAT_VERSION}: build the data again, into an empty directory."
    )
  records_per_block = fields.integer("records_per_block", least=1)
  vocab = fields.mapping("vocab")
  vocab_file = os.path.join(directory, vocab.file_name("file"))
  _check_vocabulary(vocab_file, sha256=vocab.string("sha256"))
  splits = fields.mapping("splits")
  return Data(
    source=directory,
    fingerprint=hashlib.sha256(content).hexdigest(),
    sequence_length=fields.integer("sequence_length", least=1),
    max_predictions=fields.integer("max_predictions", least=1),
    lower_case=fields.boolean("lower_case"),
    vocab_file=vocab_file,
    vocab_size=vocab.integer("size", least=1),
    vocab_sha256=vocab.string("sha256"),
    unigram_mlm_loss=fields.number("unigram_mlm_loss"),
    records_per_block=records_per_block,
    train=_split(splits.mapping("train"), directory, records_per_block),
    heldout=_split(splits.mapping("heldout"), directory, records_per_block),
  )


def _check_vocabulary(path: str, *, sha256: str) -> None:
  if not tf.io.gfile.exists(path):
    raise errors.InputError(f"vocabulary {path!r} is missing.")
  num_bytes = tf.io.gfile.stat(path).length
  if num_bytes > _MAX_BYTES:
    raise errors.InputError(
      f"vocabulary {path!r} has {num_bytes} bytes; at most {_MAX_BYTES} are"
      " read."
    )
  with tf.io.gfile.GFile(path, "rb") as file:
    found = hashlib.sha256(file.read()).hexdigest()
  if found != sha256:
    raise errors.InputError(
      f"vocabulary {path!r} is not the one of the data: its sha256 is {found},"
      f" the manifest has {sha256}."
    )


def check(
  data: Data,
  *,
  vocab_size: int,
  sequence_length: int,
  max_predictions: int,
  lower_case: bool,
  vocab_sha256: str | None = None,
) -> None:
  """Compares the data with what a model expects, the vocabulary if it is given.

  Raises:
    errors.InputError: they differ.
  """
  expected = {
    "vocab_size": vocab_size,
    "sequence_length": sequence_length,
    "max_predictions": max_predictions,
    "lower_case": lower_case,
    "vocab_sha256": vocab_sha256,
  }
  for name, value in expected.items():
    found = getattr(data, name)
    if value is not None and value != found:
      raise errors.InputError(
        f"{name}={value}, but the data in {data.source!r} has {name}={found}."
      )


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


def _read(directory: str) -> bytes:
  if not tf.io.gfile.isdir(directory):
    raise errors.InputError(f"data directory {directory!r} does not exist.")
  if not exists(directory):
    raise errors.InputError(
      f"data directory {directory!r} has no {FILE}: the data set is not there"
      " or was not built to its end."
    )
  path = os.path.join(directory, FILE)
  num_bytes = tf.io.gfile.stat(path).length
  if num_bytes > _MAX_BYTES:
    raise errors.InputError(
      f"{path!r} has {num_bytes} bytes; a manifest has at most {_MAX_BYTES}."
    )
  with tf.io.gfile.GFile(path, "rb") as file:
    return file.read()


def _parse(content: bytes, path: str) -> dict:
  try:
    manifest = json.loads(content)
  except ValueError as error:
    raise errors.InputError(f"{path!r} is not JSON: {error}.") from error
  if not isinstance(manifest, dict):
    raise errors.InputError(f"{path!r} is not a JSON object.")
  return manifest


def _split(fields: "_Fields", directory: str, records_per_block: int) -> Split:
  with concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as threads:
    shards = tuple(
      threads.map(
        lambda shard: _shard(shard, directory, records_per_block),
        fields.mappings("shards"),
      )
    )
  num_examples = fields.integer("num_examples", least=1)
  if num_examples != sum(shard.num_examples for shard in shards):
    raise fields.error("num_examples", "is not the sum over the shards")
  return Split(
    num_documents=fields.integer("num_documents"),
    num_sentences=fields.integer("num_sentences"),
    num_tokens=fields.integer("num_tokens"),
    num_examples=num_examples,
    shards=shards,
  )


def _shard(fields: "_Fields", directory: str, records_per_block: int) -> Shard:
  path = os.path.join(directory, fields.file_name("file"))
  num_bytes = fields.integer("bytes")
  try:
    found = tf.io.gfile.stat(path).length
  except tf.errors.NotFoundError as error:
    raise errors.InputError(f"shard {path!r} is missing.") from error
  if found != num_bytes:
    raise errors.InputError(
      f"shard {path!r} has {found} bytes instead of {num_bytes}: it was cut"
      " off or changed."
    )
  num_examples = fields.integer("num_examples")
  index = record_index.of_shard(path, records_per_block=records_per_block)
  if index.num_records != num_examples:
    raise fields.error(
      "num_examples", f"is not the {index.num_records} records of {path!r}"
    )
  return Shard(path, num_examples, index)


class _Fields:
  """Typed access to a JSON object; errors name the file and the field."""

  def __init__(self, value: dict, path: str, place: str):
    self._value = value
    self._path = path
    self._place = place

  def error(self, name: str, rule: str) -> errors.InputError:
    value = str(self._value.get(name, "nothing"))[:40]
    return errors.InputError(
      f"{self._path!r}: {self._place}{name}={value} {rule}."
    )

  def integer(self, name: str, *, least: int = 0) -> int:
    value = self._value.get(name)
    if not _is_integer(value) or value < least:
      raise self.error(name, f"is not a whole number of at least {least}")
    return value

  def number(self, name: str) -> float:
    value = self._value.get(name)
    if not _is_integer(value) and not isinstance(value, float):
      raise self.error(name, "is not a number")
    return float(value)

  def boolean(self, name: str) -> bool:
    value = self._value.get(name)
    if not isinstance(value, bool):
      raise self.error(name, "is not true or false")
    return value

  def string(self, name: str) -> str:
    value = self._value.get(name)
    if not isinstance(value, str) or not value:
      raise self.error(name, "is not a string")
    return value

  def file_name(self, name: str) -> str:
    value = self.string(name)
    if os.path.basename(value) != value:
      raise self.error(name, "is not the name of a file beside the manifest")
    return value

  def mapping(self, name: str) -> "_Fields":
    value = self._value.get(name)
    if not isinstance(value, dict):
      raise self.error(name, "is not an object")
    return _Fields(value, self._path, f"{self._place}{name}.")

  def mappings(self, name: str) -> list["_Fields"]:
    values = self._value.get(name)
    if (
      not isinstance(values, list)
      or not values
      or not all(isinstance(value, dict) for value in values)
    ):
      raise self.error(name, "is not a list of at least one object")
    return [
      _Fields(value, self._path, f"{self._place}{name}[{index}].")
      for index, value in enumerate(values)
    ]


def _is_integer(value: object) -> TypeGuard[int]:
  return isinstance(value, int) and not isinstance(value, bool)
