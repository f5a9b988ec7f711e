"""Shards -> batches of features.

The order of the training data is a function of (seed, batch index) alone. An
epoch is a permutation of the blocks (`records_per_block` consecutive records of
a shard) by (seed, epoch); 16 blocks in this order make a window, whose records
are permuted by (seed, epoch, window). Shards are shuffled when they are
written, so this is as good as a full shuffle. Epochs follow each other without
a border: a batch may hold the end of one and the beginning of the next.

A stream is entered anywhere at constant cost: the block offsets in the manifest
say where in its shard a block begins, so only one window is read in part.

B batch.
"""

import dataclasses
import hashlib
import json
import os
from typing import TypeGuard

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import features

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 1

_BLOCKS_PER_WINDOW = 16
_READ_BUFFER_BYTES = 1 << 18  # About one block.
# The generator whose numbers TensorFlow promises not to change.
_ALGORITHM = "philox"


@dataclasses.dataclass(frozen=True)
class Shard:
  path: str
  num_examples: int
  block_offsets: tuple[int, ...]  # in bytes


@dataclasses.dataclass(frozen=True)
class Split:
  num_documents: int
  num_sentences: int
  num_tokens: int
  num_examples: int
  shards: tuple[Shard, ...]


@dataclasses.dataclass(frozen=True)
class Data:
  """A data set as its manifest describes it; made by `open_data`."""

  directory: str
  fingerprint: str  # sha256 of the manifest, for the identity of a run
  sequence_length: int
  max_predictions: int
  lower_case: bool
  vocab_file: str
  vocab_size: int
  vocab_sha256: str
  unigram_mlm_loss: float  # of the held-out predictions, in nats
  records_per_block: int
  train: Split
  heldout: Split


def open_data(directory: str) -> Data:
  """Reads and checks the manifest of a data set.

  Raises:
    errors.InputError: there is no complete data set in `directory`, its
      manifest is malformed, or a file is missing or has another size.
  """
  path = os.path.join(directory, MANIFEST_FILE)
  if not tf.io.gfile.isdir(directory):
    raise errors.InputError(f"data directory {directory!r} does not exist.")
  if not tf.io.gfile.exists(path):
    raise errors.InputError(
      f"data directory {directory!r} has no {MANIFEST_FILE}: the data set is"
      " not there or was not built to its end."
    )
  with tf.io.gfile.GFile(path, "rb") as file:
    content = file.read()
  try:
    manifest = json.loads(content)
  except ValueError as error:
    raise errors.InputError(f"{path!r} is not JSON: {error}") from error
  fields = _Fields(manifest, path, "")
  version = fields.integer("format_version")
  if version != FORMAT_VERSION:
    raise errors.InputError(
      f"{path!r}: format_version={version}, but this program reads"
      f" {FORMAT_VERSION}."
    )
  records_per_block = fields.integer("records_per_block", least=1)
  vocab = fields.mapping("vocab")
  vocab_file = os.path.join(directory, vocab.file_name("file"))
  if not tf.io.gfile.exists(vocab_file):
    raise errors.InputError(f"vocabulary {vocab_file!r} is missing.")
  splits = fields.mapping("splits")
  return Data(
    directory=directory,
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


def check(
  data: Data,
  *,
  vocab_size: int | None = None,
  sequence_length: int | None = None,
  max_predictions: int | None = None,
  lower_case: bool | None = None,
) -> None:
  """Compares the data with what a model expects; None expects nothing.

  Raises:
    errors.InputError: they differ.
  """
  expected = {
    "vocab_size": vocab_size,
    "sequence_length": sequence_length,
    "max_predictions": max_predictions,
    "lower_case": lower_case,
  }
  for name, value in expected.items():
    found = getattr(data, name)
    if value is not None and value != found:
      raise errors.InputError(
        f"{name}={value}, but the data in {data.directory!r} has"
        f" {name}={found}."
      )


def train_batches(
  data: Data, *, batch_size: int, seed: int, first_batch: int = 0
) -> tf.data.Dataset:
  """Returns the endless stream of training batches from `first_batch` on.

  Args:
    data: what `open_data` returned.
    batch_size: B.
    seed: of the order.
    first_batch: index of the first batch, 0 at the beginning of training.

  Returns:
    Batches as `features.parse_batch` gives them. A damaged record raises
    `tf.errors.DataLossError`, which does not say in which file:
    `find_damage` does.
  """
  _check_batch_size(batch_size)
  if first_batch < 0:
    raise errors.InputError(f"first_batch={first_batch} is below 0.")
  # Beside an accelerator these small ops would run on it.
  with tf.device("CPU"):
    blocks = _Blocks.of(data.train, data.records_per_block)
    first_record = first_batch * batch_size
    first_epoch, record = divmod(first_record, data.train.num_examples)
    order = _block_order(blocks, seed, first_epoch).numpy()
    window_sizes = np.append(blocks.counts, 0)[order].sum(axis=1)
    ends = np.cumsum(window_sizes)
    first_window = int(np.searchsorted(ends, record, side="right"))
    num_skipped = record - int(ends[first_window] - window_sizes[first_window])
    num_windows = len(ends)

  def windows_of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
    windows = tf.range(num_windows, dtype=tf.int64)
    order = _block_order(blocks, seed, epoch)
    dataset = tf.data.Dataset.from_tensor_slices((windows, order))
    dataset = dataset.map(lambda window, blocks: (epoch, window, blocks))
    is_first = tf.cast(tf.equal(epoch, first_epoch), tf.int64)
    return dataset.skip(first_window * is_first)

  def read_window(
    epoch: tf.Tensor, window: tf.Tensor, order: tf.Tensor
  ) -> tf.Tensor:
    records = _read_blocks(blocks, order, data.records_per_block)
    window_seed = _fold(_fold(_seed(seed, 1), epoch), window)
    return tf.gather(records, _permutation(tf.size(records), window_seed))

  dataset = tf.data.Dataset.counter(first_epoch)
  dataset = dataset.flat_map(windows_of_epoch)
  # Two: one window is used up while the next is read.
  dataset = dataset.map(read_window, num_parallel_calls=2, deterministic=True)
  dataset = dataset.unbatch().skip(num_skipped)
  dataset = dataset.batch(batch_size, drop_remainder=True)
  return _parsed(dataset, data)


def heldout_batches(
  data: Data, *, batch_size: int, max_examples: int | None = None
) -> tf.data.Dataset:
  """Returns the held-out batches, in file order.

  Args:
    data: what `open_data` returned.
    batch_size: B; the last batch may be shorter.
    max_examples: how many examples there are at most.

  Returns:
    Batches as those of `train_batches`, but finite.
  """
  _check_batch_size(batch_size)
  if max_examples is not None and max_examples < 1:
    raise errors.InputError(f"max_examples={max_examples} is below 1.")
  paths = [shard.path for shard in data.heldout.shards]
  dataset = tf.data.TFRecordDataset(paths)
  if max_examples is not None:
    dataset = dataset.take(max_examples)
  return _parsed(dataset.batch(batch_size), data)


def find_damage(data: Data) -> str | None:
  """Reads every record; returns the first damaged shard, or None."""
  for split in (data.train, data.heldout):
    for shard in split.shards:
      try:
        num_read = sum(1 for _ in tf.data.TFRecordDataset(shard.path))
      except tf.errors.DataLossError:
        return shard.path
      if num_read != shard.num_examples:
        return shard.path
  return None


@dataclasses.dataclass(frozen=True)
class _Blocks:
  """The blocks of all shards, one entry a block."""

  paths: np.ndarray
  offsets: np.ndarray
  counts: np.ndarray

  @classmethod
  def of(cls, split: Split, records_per_block: int) -> "_Blocks":
    paths, offsets, counts = [], [], []
    for shard in split.shards:
      for index, offset in enumerate(shard.block_offsets):
        paths.append(shard.path)
        offsets.append(offset)
        left = shard.num_examples - index * records_per_block
        counts.append(min(left, records_per_block))
    return cls(
      np.array(paths, dtype=np.bytes_),
      np.array(offsets, dtype=np.int64),
      np.array(counts, dtype=np.int64),
    )


def _block_order(
  blocks: _Blocks, seed: int, epoch: tf.Tensor | int
) -> tf.Tensor:
  """Returns [windows, blocks of a window] indices; past the last, a filler."""
  num_blocks = len(blocks.counts)
  order = _permutation(num_blocks, _fold(_seed(seed, 0), epoch))
  num_fillers = -num_blocks % _BLOCKS_PER_WINDOW
  order = tf.pad(order, [[0, num_fillers]], constant_values=num_blocks)
  return tf.reshape(order, [-1, _BLOCKS_PER_WINDOW])


def _read_blocks(
  blocks: _Blocks, order: tf.Tensor, records_per_block: int
) -> tf.Tensor:
  """Returns the serialized records of the blocks `order`, one after another."""
  order = tf.boolean_mask(order, order < len(blocks.counts))

  def read(path, offset, count):
    # `tf.data.TFRecordDataset` takes no offsets. The op does, but in
    # TensorFlow 2.15 it cannot be serialized with its offsets, as tf.data does
    # with the outermost pipeline: inside a mapped function it works.
    variant = tf.raw_ops.TFRecordDatasetV2(
      filenames=[path],
      compression_type="",
      buffer_size=_READ_BUFFER_BYTES,
      byte_offsets=[offset],
    )
    records = tf.data.experimental.from_variant(
      variant, tf.TensorSpec([], tf.string)
    )
    return records.take(count)

  dataset = tf.data.Dataset.from_tensor_slices(
    (
      tf.gather(tf.constant(blocks.paths), order),
      tf.gather(tf.constant(blocks.offsets), order),
      tf.gather(tf.constant(blocks.counts), order),
    )
  )
  dataset = dataset.flat_map(read)
  dataset = dataset.batch(_BLOCKS_PER_WINDOW * records_per_block)
  return dataset.get_single_element()


def _parsed(dataset: tf.data.Dataset, data: Data) -> tf.data.Dataset:
  dataset = dataset.map(
    lambda serialized: features.parse_batch(
      serialized,
      sequence_length=data.sequence_length,
      max_predictions=data.max_predictions,
    ),
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )
  options = tf.data.Options()
  options.deterministic = True
  # The workers of a distributed run share the batches out, not the files:
  # whose turn a file is would depend on how many workers there are.
  options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.DATA
  )
  return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)


def _permutation(size: tf.Tensor | int, seed: tf.Tensor) -> tf.Tensor:
  keys = tf.random.stateless_uniform(
    [size], seed, minval=None, maxval=None, dtype=tf.int64, alg=_ALGORITHM
  )
  return tf.argsort(keys, stable=True)


def _seed(seed: int, purpose: int) -> tf.Tensor:
  return tf.constant([seed, purpose], tf.int64)


def _fold(seed: tf.Tensor, value: tf.Tensor | int) -> tf.Tensor:
  # The type of `value` decides the type of the seed, hence its value.
  value = tf.cast(value, tf.int64)
  return tf.random.experimental.stateless_fold_in(seed, value, _ALGORITHM)


def _check_batch_size(batch_size: int) -> None:
  if batch_size < 1:
    raise errors.InputError(f"batch_size={batch_size} is below 1.")


def _split(fields: "_Fields", directory: str, records_per_block: int) -> Split:
  shards = tuple(
    _shard(shard, directory, records_per_block)
    for shard in fields.mappings("shards")
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
  offsets = fields.integers("block_offsets")
  if len(offsets) != -(-num_examples // records_per_block):
    raise fields.error("block_offsets", "is not one for each block")
  if list(offsets) != sorted(set(offsets)) or any(
    not 0 <= offset < num_bytes for offset in offsets
  ):
    raise fields.error("block_offsets", "is not increasing within the shard")
  return Shard(path, num_examples, offsets)


class _Fields:
  """Typed access to a JSON object; errors name the file and the field."""

  def __init__(self, value: object, path: str, place: str):
    if not isinstance(value, dict):
      raise errors.InputError(
        f"{path!r}: {place or 'the manifest'} is not an object."
      )
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

  def integers(self, name: str) -> tuple[int, ...]:
    values = self._value.get(name)
    if not isinstance(values, list) or not all(map(_is_integer, values)):
      raise self.error(name, "is not a list of whole numbers")
    return tuple(values)

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
    return _Fields(self._value.get(name), self._path, f"{self._place}{name}.")

  def mappings(self, name: str) -> list["_Fields"]:
    values = self._value.get(name)
    if not isinstance(values, list) or not values:
      raise self.error(name, "is not a list")
    return [
      _Fields(value, self._path, f"{self._place}{name}[{index}].")
      for index, value in enumerate(values)
    ]


def _is_integer(value: object) -> TypeGuard[int]:
  return isinstance(value, int) and not isinstance(value, bool)
