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

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import features
from mslt_tf.data import manifest

_BLOCKS_PER_WINDOW = 16
_READ_BUFFER_BYTES = 1 << 18  # About one block.
# The generator whose numbers TensorFlow promises not to change.
_ALGORITHM = "philox"


def train_batches(
  data: manifest.Data, *, batch_size: int, seed: int, first_batch: int = 0
) -> tf.data.Dataset:
  """Returns the endless stream of training batches from `first_batch` on.

  Args:
    data: what `manifest.open_data` returned.
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
  data: manifest.Data, *, batch_size: int, max_examples: int | None = None
) -> tf.data.Dataset:
  """Returns the held-out batches, in file order.

  Args:
    data: what `manifest.open_data` returned.
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


def find_damage(data: manifest.Data) -> str | None:
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
  def of(cls, split: manifest.Split, records_per_block: int) -> "_Blocks":
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


def _parsed(dataset: tf.data.Dataset, data: manifest.Data) -> tf.data.Dataset:
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
