"""Shards -> batches of features, for one worker or several.

The order of the training data is a function of (seed, batch index) alone; how
many workers and replicas there are, and how large a batch is, only cut it.

An endless stream has places 0, 1, 2, ..., of which batch b has those from b B
to (b + 1) B. Epoch e, of N records, has those from e N to (e + 1) N:

1. The blocks of all shards (`record_index`) are permuted by (seed, epoch).
2. Their records are cut into 64 consecutive ranges of N / 64, the lanes; where
   this leaves a remainder, the first lanes have one more.
3. The records of a window, 4 blocks' worth of a lane, are permuted by (seed,
   epoch, window, lane).
4. The lanes take turns: place e N + i has record i // 64 of lane i % 64.

Shards are shuffled when they are written, so this is as good as a full shuffle.

Lanes are there so that a worker reads only what it needs. With G the greatest
common divisor of B and 64, worker w of W has the places p with
(p % G) // (G / W) = w: its share of every batch, and in an epoch some of the
lanes as a whole. A stream is entered anywhere at constant cost, since only one
window of each lane is read in part.

B batch, R readers, L lanes of a reader, K records of a window of a lane.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.examples import features
from mslt_tf.data.reading import example_checks
from mslt_tf.data.reading import manifest
from mslt_tf.data.reading import record_index
from mslt_tf.data.reading import stored_states

# The order depends on these two.
NUM_LANES = 64
_BLOCKS_PER_WINDOW = 4

# What a malformed example raises. TensorFlow quotes one that is no message at
# all, whose bytes are no text.
MALFORMED = (tf.errors.InvalidArgumentError, UnicodeDecodeError)

# Reads under way at once: a bucket takes its time to answer. A power of 2.
_NUM_READERS = 16
# The generator whose numbers TensorFlow promises not to change.
_PHILOX = 1
_MOST_DRAWS = 1 << 40  # for the blocks of an epoch, or for a window


def train_batches(
  data: manifest.Data,
  *,
  batch_size: int,
  seed: int,
  first_batch: int = 0,
  num_workers: int = 1,
  worker: int = 0,
  num_parts: int = 1,
  states: stored_states.StoredStates | None = None,
) -> tf.data.Dataset:
  """Returns a worker's share of the training batches from `first_batch` on.

  Args:
    data: as `manifest.open_data` or `existing_shards.open_files` gave it.
    batch_size: B, of all workers together.
    seed: of the order.
    first_batch: index of the first batch, 0 at the beginning of training.
    num_workers: how many workers share each batch.
    worker: which of them this is.
    num_parts: how many elements a worker's share of a batch is cut into.
    states: of all training examples; each gets its own as `FROZEN_STATES`.

  Returns:
    An endless dataset of parts of B / (num_workers num_parts) examples, as
    `features.parse_batch` gives them. A damaged record raises
    `tf.errors.DataLossError`, which does not say in which file:
    `find_damage` does. A malformed example raises one of `MALFORMED`, and
    `find_malformed` finds it.

  Raises:
    errors.InputError: a number out of range, or a batch that cannot be shared
      out.
  """
  part_size = _part_size(batch_size, num_workers, worker, num_parts)
  if first_batch < 0:
    raise errors.InputError(f"first_batch={first_batch} is below 0.")
  cycle = math.gcd(batch_size, NUM_LANES)
  if cycle % num_workers:
    raise errors.InputError(
      f"num_workers={num_workers} does not divide {cycle}, the greatest common"
      f" divisor of batch_size={batch_size} and the {NUM_LANES} lanes of the"
      " data."
    )
  # Beside an accelerator these small tensors would lie on it.
  with tf.device("CPU"):
    stream = _Stream(
      blocks=_Blocks.of(data.train),
      num_records=data.train.num_examples,
      records_per_window=_BLOCKS_PER_WINDOW * data.records_per_block,
      seed=seed,
      num_workers=num_workers,
      worker=worker,
      cycle=cycle,
    )
    examples = stream.examples_from(first_batch * batch_size)

  def features_of(numbers, serialized):
    parsed = _parse(serialized, data)
    if states is not None:
      parsed[features.FROZEN_STATES] = states.of_examples(numbers)
    return parsed

  batches = _mapped(examples.batch(part_size, drop_remainder=True), features_of)
  # Unless they know, several workers ask each other before every batch whether
  # there is one.
  endless = tf.data.experimental.assert_cardinality(
    tf.data.INFINITE_CARDINALITY
  )
  return batches.apply(endless)


def heldout_batches(
  data: manifest.Data,
  *,
  batch_size: int,
  max_examples: int | None = None,
  num_workers: int = 1,
  worker: int = 0,
  num_parts: int = 1,
) -> tf.data.Dataset:
  """Returns a worker's share of the held-out examples, in file order.

  Args:
    data: as `manifest.open_data` or `existing_shards.open_files` gave it.
    batch_size: B, of all workers together.
    max_examples: how many examples there are at most.
    num_workers: how many workers share the examples.
    worker: which of them this is.
    num_parts: the number of elements is a multiple of it.

  Returns:
    A dataset of parts as `train_batches` gives them, as many for each worker.
    The last ones are filled up with empty examples: all features are 0, even
    `input_mask[:, 0]`.

  Raises:
    errors.InputError: a number out of range, or a batch that cannot be shared
      out.
  """
  if max_examples is not None and max_examples < 1:
    raise errors.InputError(f"max_examples={max_examples} is below 1.")
  num_examples = data.heldout.num_examples
  return _in_file_order(
    data,
    data.heldout,
    num_examples=min(max_examples or num_examples, num_examples),
    batch_size=batch_size,
    num_workers=num_workers,
    worker=worker,
    num_parts=num_parts,
  )


def train_batches_in_file_order(
  data: manifest.Data, *, batch_size: int, num_parts: int = 1
) -> tf.data.Dataset:
  """Returns every training example once: the n-th is the one of number n.

  Args:
    data: as `manifest.open_data` or `existing_shards.open_files` gave it.
    batch_size: B.
    num_parts: how many elements a batch is cut into.

  Returns:
    A dataset of parts as `train_batches` gives them. The last ones are filled
    up with empty examples, as those of `heldout_batches` are.

  Raises:
    errors.InputError: a number out of range, or a batch that cannot be shared
      out.
  """
  return _in_file_order(
    data,
    data.train,
    num_examples=data.train.num_examples,
    batch_size=batch_size,
    num_workers=1,
    worker=0,
    num_parts=num_parts,
  )


def _in_file_order(
  data: manifest.Data,
  split: manifest.Split,
  *,
  num_examples: int,
  batch_size: int,
  num_workers: int,
  worker: int,
  num_parts: int,
) -> tf.data.Dataset:
  """Returns a worker's share of the first examples of a split."""
  part_size = _part_size(batch_size, num_workers, worker, num_parts)
  begin, end = (
    num_examples * each // num_workers for each in (worker, worker + 1)
  )
  with tf.device("CPU"):
    blocks = _Blocks.of(split)
    order = tf.range(len(blocks))
    ends = tf.cumsum(blocks.counts)
    ranges = tf.constant([[begin], [end]], tf.int64)
    pieces = blocks.pieces(order, ends, ranges[0], ranges[1])
    records = tf.data.Dataset.from_tensor_slices(pieces).interleave(
      blocks.read,
      cycle_length=_NUM_READERS,
      block_length=data.records_per_block,
      num_parallel_calls=_NUM_READERS,
      deterministic=True,
    )
  empty = features.empty_example(
    data.sequence_length, data.max_predictions, naming=data.naming
  )
  share = part_size * num_parts * -(-num_examples // batch_size)
  padding = tf.data.Dataset.from_tensors(empty).repeat(share - (end - begin))
  records = records.concatenate(padding)
  return _mapped(
    records.batch(part_size, drop_remainder=True),
    lambda serialized: _parse(serialized, data),
  )


def find_damage(data: manifest.Data) -> str | None:
  """Reads every record; returns the first damaged shard or index, or None."""
  for split in (data.train, data.heldout):
    for shard in split.shards:
      try:
        num_read = sum(1 for _ in tf.data.TFRecordDataset(shard.path))
      except tf.errors.DataLossError:
        return shard.path
      if num_read != shard.num_examples:
        return shard.path
      index = record_index.scan(
        shard.path, records_per_block=data.records_per_block
      )
      if not np.array_equal(index.offsets, shard.index.offsets):
        return record_index.path_of(shard.path)
  return None


def find_malformed(data: manifest.Data) -> str | None:
  """Reads every example; says which is the first malformed one and why."""
  for split in (data.train, data.heldout):
    for shard in split.shards:
      records = tf.data.TFRecordDataset(shard.path).batch(
        data.records_per_block
      )
      for first, batch in records.enumerate():
        try:
          _parse(batch, data)
        except MALFORMED:
          for number, serialized in enumerate(
            batch.numpy(), start=int(first) * data.records_per_block + 1
          ):
            try:
              example_checks.check(
                serialized,
                sequence_length=data.sequence_length,
                max_predictions=data.max_predictions,
                vocab_size=data.vocab_size,
                naming=data.naming,
              )
            except errors.InputError as error:
              return f"{shard.path!r}, record {number}: {error}"
  return None


@dataclasses.dataclass(frozen=True)
class _Blocks:
  """The blocks of all shards: a path a shard, the others an entry a block."""

  paths: tf.Tensor
  shards: tf.Tensor
  offsets: tf.Tensor
  sizes: tf.Tensor  # in bytes
  counts: tf.Tensor

  @classmethod
  def of(cls, split: manifest.Split) -> "_Blocks":
    indexes = [shard.index for shard in split.shards]
    num_blocks = [len(index.offsets) for index in indexes]
    return cls(
      paths=tf.constant([shard.path for shard in split.shards]),
      shards=tf.constant(np.repeat(np.arange(len(indexes)), num_blocks)),
      offsets=tf.constant(np.concatenate([each.offsets for each in indexes])),
      sizes=tf.constant(np.concatenate([each.sizes for each in indexes])),
      counts=tf.constant(np.concatenate([each.counts for each in indexes])),
    )

  def __len__(self) -> int:
    return len(self.counts)

  def pieces(
    self, order: tf.Tensor, ends: tf.Tensor, starts: tf.Tensor, stops: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Cuts ranges of records at the borders of blocks.

    Args:
      order: [blocks] indices, the order in which the records are counted.
      ends: [blocks] how many records there are to the end of each.
      starts: [ranges] the first record of each range.
      stops: [ranges] the record after its last one.

    Returns:
      The arguments of `read`, one entry for each piece.
    """
    first = tf.searchsorted(ends, starts, side="right", out_type=tf.int64)
    last = tf.searchsorted(ends, stops, side="left", out_type=tf.int64)
    limits = tf.where(starts < stops, last + 1, first)
    places = tf.ragged.range(first, limits)
    ranges, places = places.value_rowids(), places.values
    blocks = tf.gather(order, places)
    block_stops = tf.gather(ends, places)
    block_starts = block_stops - tf.gather(self.counts, blocks)
    starts = tf.maximum(block_starts, tf.gather(starts, ranges))
    stops = tf.minimum(block_stops, tf.gather(stops, ranges))
    return blocks, starts - block_starts, stops - starts

  def numbers(
    self, blocks: tf.Tensor, nums_skipped: tf.Tensor, counts: tf.Tensor
  ) -> tf.Tensor:
    """Returns the numbers of the records that `read` gives for each piece."""
    firsts = tf.cumsum(self.counts, exclusive=True)
    starts = tf.gather(firsts, blocks) + nums_skipped
    return tf.ragged.range(starts, starts + counts).values

  def read(
    self, block: tf.Tensor, num_skipped: tf.Tensor, count: tf.Tensor
  ) -> tf.data.Dataset:
    """Returns `count` serialized records of a block."""
    # `tf.data.TFRecordDataset` takes no offsets. The op does, but in
    # TensorFlow 2.15 it cannot be serialized with its offsets, as tf.data does
    # with the outermost pipeline: inside a mapped function it works.
    variant = tf.raw_ops.TFRecordDatasetV2(
      filenames=[tf.gather(self.paths, tf.gather(self.shards, block))],
      compression_type="",
      # One request for the block, and nothing after it.
      buffer_size=tf.gather(self.sizes, block),
      byte_offsets=[tf.gather(self.offsets, block)],
    )
    records = tf.data.experimental.from_variant(
      variant, tf.TensorSpec([], tf.string)
    )
    return records.skip(num_skipped).take(count)


@dataclasses.dataclass(frozen=True)
class _Stream:
  """A worker's places of the endless stream."""

  blocks: _Blocks
  num_records: int  # of an epoch
  records_per_window: int  # of a lane
  seed: int
  num_workers: int
  worker: int
  cycle: int  # places, of which each worker has as many; G

  def examples_from(self, place: int) -> tf.data.Dataset:
    """Returns numbers and serialized records from `place` on, endlessly."""
    first_epoch, place_in_epoch = divmod(place, self.num_records)
    places_per_window = NUM_LANES * self.records_per_window
    num_windows = -(-self.num_records // places_per_window)
    first_window, num_entered = divmod(place_in_epoch, places_per_window)
    # Remainders first: the place of a far epoch is too large for an int64.
    entered = (place - num_entered) % self.cycle + np.arange(num_entered)
    num_skipped = np.count_nonzero(self._is_own(entered))
    own = np.flatnonzero(self._is_own(np.arange(NUM_LANES)))
    num_readers = min(_NUM_READERS, len(own))

    def reads_of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
      keys = _random_keys([len(self.blocks)], self.seed, epoch, 0)
      order = tf.argsort(keys, stable=True)
      ends = tf.cumsum(tf.gather(self.blocks.counts, order))
      # Lane 0 has an epoch's first place, which may be anyone's turn.
      first_place = (epoch % NUM_LANES) * (self.num_records % NUM_LANES)
      lanes = tf.sort((own - first_place) % NUM_LANES)
      lanes = tf.reshape(lanes, [num_readers, -1])  # [R, L]
      is_entered = tf.cast(tf.equal(epoch, first_epoch), tf.int64)
      windows = tf.data.Dataset.range(first_window * is_entered, num_windows)
      readers = tf.data.Dataset.from_tensor_slices(lanes)
      return windows.flat_map(
        lambda window: readers.map(
          lambda lanes: (epoch, window, lanes, order, ends)
        )
      )

    dataset = tf.data.Dataset.counter(first_epoch).flat_map(reads_of_epoch)
    dataset = dataset.map(
      self._read, num_parallel_calls=num_readers, deterministic=True
    )
    dataset = dataset.padded_batch(num_readers).map(self._take_turns)
    # One: a window is used up while the next is read.
    return dataset.prefetch(1).unbatch().skip(num_skipped)

  def _is_own(self, places: np.ndarray) -> np.ndarray:
    turns = places % self.cycle
    return turns // (self.cycle // self.num_workers) == self.worker

  def _read(
    self,
    epoch: tf.Tensor,
    window: tf.Tensor,
    lanes: tf.Tensor,
    order: tf.Tensor,
    ends: tf.Tensor,
  ) -> tuple[tf.Tensor, ...]:
    """Adds to a window of lanes [L] its records, one lane after another.

    The records come with the examples' numbers, counted in file order.
    """
    starts, counts = self._range(window, lanes)
    pieces = self.blocks.pieces(order, ends, starts, starts + counts)
    records = tf.data.Dataset.from_tensor_slices(pieces)
    records = records.flat_map(self.blocks.read)
    # One that is not used: there may be no other.
    records = records.concatenate(tf.data.Dataset.from_tensors(""))
    records = records.batch(tf.reduce_sum(counts) + 1).get_single_element()
    numbers = tf.concat([self.blocks.numbers(*pieces), [0]], 0)
    return epoch, window, lanes, numbers, records

  def _take_turns(
    self,
    epochs: tf.Tensor,
    windows: tf.Tensor,
    lanes: tf.Tensor,
    numbers: tf.Tensor,
    records: tf.Tensor,
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns numbers and records of a window in their order.

    Args:
      epochs: [R], all the same.
      windows: [R], all the same.
      lanes: [R, L] of each reader, ascending.
      numbers: [R, records of a reader] as `_read` gives them.
      records: [R, records of a reader] as `_read` gives them.
    """
    epoch, window = epochs[0], windows[0]
    _, counts = self._range(window, lanes)  # [R, L]
    # Those of all lanes are drawn, so that it does not matter whose they are.
    keys = _random_keys(
      [NUM_LANES, self.records_per_window],
      self.seed,
      epoch,
      (window + 1) * _MOST_DRAWS,
    )
    num_rows = tf.reduce_max(counts)  # K
    is_missing = tf.range(num_rows) >= tf.expand_dims(counts, -1)
    keys = tf.gather(keys, lanes)[..., :num_rows]  # [R, L, K]
    keys = tf.where(is_missing, tf.int64.max, keys)
    places = tf.cast(tf.argsort(keys, stable=True), tf.int64)
    places += tf.expand_dims(tf.cumsum(counts, axis=1, exclusive=True), -1)
    num_readers, num_places = tf.unstack(tf.shape(records, tf.int64))
    places += tf.reshape(tf.range(num_readers) * num_places, [-1, 1, 1])
    places = tf.reshape(tf.transpose(places, [2, 0, 1]), [-1])
    # What is missing is at the end: lanes that have one more come first.
    places = places[: tf.reduce_sum(counts)]
    return (
      tf.gather(tf.reshape(numbers, [-1]), places),
      tf.gather(tf.reshape(records, [-1]), places),
    )

  def _range(
    self, window: tf.Tensor, lanes: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns where in the epoch a window of lanes begins, and its size."""
    size, num_longer = divmod(self.num_records, NUM_LANES)
    start = window * self.records_per_window
    left = size - start + tf.cast(lanes < num_longer, tf.int64)
    starts = start + lanes * size + tf.minimum(lanes, num_longer)
    return starts, tf.clip_by_value(left, 0, self.records_per_window)


def _parse(serialized: tf.Tensor, data: manifest.Data) -> dict[str, tf.Tensor]:
  return features.parse_batch(
    serialized,
    sequence_length=data.sequence_length,
    max_predictions=data.max_predictions,
    vocab_size=data.vocab_size,
    naming=data.naming,
  )


def _mapped(
  dataset: tf.data.Dataset, function: Callable[..., dict[str, tf.Tensor]]
) -> tf.data.Dataset:
  dataset = dataset.map(
    function,
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )
  options = tf.data.Options()
  options.deterministic = True
  # Each worker has its share already.
  options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.OFF
  )
  return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)


def _random_keys(
  shape: list[int],
  seed: int,
  epoch: tf.Tensor,
  start: tf.Tensor | int,
) -> tf.Tensor:
  """Returns int64 draws of (seed, epoch) from the `start`th on."""
  # `tf.random.stateless_uniform` and `stateless_fold_in` are this op and some
  # forty others.
  return tf.raw_ops.StatelessRandomUniformFullIntV2(
    shape=shape,
    key=tf.constant([seed % 2**64], tf.uint64),
    counter=tf.cast(tf.stack([start, epoch]), tf.uint64),
    alg=_PHILOX,
    dtype=tf.int64,
  )


def _part_size(
  batch_size: int, num_workers: int, worker: int, num_parts: int
) -> int:
  """Checks how a batch is to be shared out; returns the size of a part."""
  for name, value in (
    ("batch_size", batch_size),
    ("num_workers", num_workers),
    ("num_parts", num_parts),
  ):
    if value < 1:
      raise errors.InputError(f"{name}={value} is below 1.")
  if not 0 <= worker < num_workers:
    raise errors.InputError(
      f"worker={worker} is not one of num_workers={num_workers}, from 0 on."
    )
  if batch_size % (num_workers * num_parts):
    raise errors.InputError(
      f"batch_size={batch_size} is not divisible by num_workers={num_workers}"
      f" times num_parts={num_parts}."
    )
  return batch_size // (num_workers * num_parts)
