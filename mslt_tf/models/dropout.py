"""Dropout whose masks are a function of a key alone.

A key is (seed, batch index, replica, micro-batch, site). No state is kept, so a
resumed run draws the masks it would have drawn. A mask is an integer hash of
the key and of each entry's place: a few operations that a compiler joins to
what is done with the mask, and that give the same in the backward pass, so no
mask need be kept. XLA or not, the masks are the same.
"""

import dataclasses

import tensorflow as tf

# Bounds of the parts of a key, whose seed is below 2^31 and micro-batch below
# 2^12. A run has fewer batches than 2^24; where no share of a batch is in more
# than 16 micro-batches, it may have 2^32.
_NUM_SITES = 2**12
_NUM_REPLICAS = 2**16
_NUM_BATCHES = 2**24

# Odd, and far from each other: parts of the golden ratio and of roots.
_ROUNDS = (0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F)


@dataclasses.dataclass(frozen=True)
class Dropout:
  """The source of the dropout masks of one forward pass.

  Attributes:
    seed: The run's seed; a scalar where a compiled step serves several runs.
    batch_index: Scalar; which batch of the run.
    replica: Scalar; which device's share of the batch.
    micro_batch: Scalar; which part of that share, where gradients are
      accumulated over several.
  """

  seed: int | tf.Tensor
  batch_index: tf.Tensor
  replica: tf.Tensor | int = 0
  micro_batch: tf.Tensor | int = 0

  def __call__(self, tensor: tf.Tensor, rate: float, site: int) -> tf.Tensor:
    """Returns `tensor` with a share `rate` zeroed, the rest scaled up.

    Args:
      tensor: Of any shape and floating type; the mask depends on its shape
        only.
      rate: Probability that an entry is zeroed.
      site: Which of the model's dropouts this is, unique within the model.
    """
    if not rate:
      return tensor
    # 1 / (1 - rate) would be rounded in half precision.
    dropped = tf.cast(tensor, tf.float32) * factors(
      self.key(site), tf.shape(tensor), rate
    )
    return tf.cast(dropped, tensor.dtype)

  def key(self, site: int) -> tf.Tensor:
    """Returns the three numbers, uint32 [3], that a site's masks depend on.

    Within the bounds above no two keys are equal: site, replica and micro-batch
    have 40 bits together, of which 32 are in the second number and 8 above the
    batch index in the third.
    """
    share = tf.cast(self.micro_batch, tf.int64) * _NUM_REPLICAS + tf.cast(
      self.replica, tf.int64
    )
    stream = share * _NUM_SITES + site
    batch = tf.cast(self.batch_index, tf.int64)
    numbers = [
      tf.cast(self.seed, tf.int64),
      stream % 2**32,
      (batch + stream // 2**32 * _NUM_BATCHES) % 2**32,
    ]
    return tf.cast(tf.stack(numbers), tf.uint32)


def factors(key: tf.Tensor, shape: tf.Tensor, rate: float) -> tf.Tensor:
  """Returns float32 factors: 0 for a share `rate`, 1 / (1 - rate) otherwise.

  Args:
    key: uint32 [3], what `Dropout.key` returns.
    shape: Of the result, of fewer than 2^31 entries.
    rate: Probability of a 0.
  """
  first, second = _words(key)
  places = tf.cast(tf.range(tf.reduce_prod(shape)), tf.uint32)
  hashed = _hash(_hash(places ^ first) + second)
  is_kept = hashed >= tf.constant(round(rate * 2**32), tf.uint32)
  return tf.reshape(tf.cast(is_kept, tf.float32), shape) / (1.0 - rate)


def _words(key: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns two numbers that are different for different keys of a seed.

  A Feistel network: each round can be undone, so no two keys meet.
  """
  seed, first, second = tf.unstack(key)
  for number in _ROUNDS:
    constant = tf.constant(number, tf.uint32)
    mixed = _hash(second + _hash(seed ^ constant))
    first, second = second, first ^ mixed
  return first, second


def _hash(numbers: tf.Tensor) -> tf.Tensor:
  """Returns uint32 hashes: C. Wellons's lowbias32, a permutation."""
  numbers ^= _shift(numbers, 16)
  numbers *= tf.constant(0x7FEB352D, tf.uint32)
  numbers ^= _shift(numbers, 15)
  numbers *= tf.constant(0x846CA68B, tf.uint32)
  return numbers ^ _shift(numbers, 16)


def _shift(numbers: tf.Tensor, places: int) -> tf.Tensor:
  return tf.bitwise.right_shift(numbers, tf.constant(places, tf.uint32))
