"""Dropout whose masks are a function of a key alone.

A key is (seed, batch index, replica, micro-batch, site). No state is kept, so a
resumed run draws the masks it would have drawn. XLA draws from another
generator: its masks are others, of the same properties.
"""

import dataclasses
import zlib

import tensorflow as tf

# Bounds of the parts of a key, whose seed is below 2^31 and micro-batch below
# 2^12. A run has fewer batches than 2^24; where no share of a batch is in more
# than 16 micro-batches, it may have 2^32.
_NUM_SITES = 2**12
_NUM_REPLICAS = 2**16
_NUM_BATCHES = 2**24


@dataclasses.dataclass(frozen=True)
class Dropout:
  """The source of the dropout masks of one forward pass.

  Attributes:
    seed: The run's seed.
    batch_index: Scalar; which batch of the run.
    replica: Scalar; which device's share of the batch.
    micro_batch: Scalar; which part of that share, where gradients are
      accumulated over several.
  """

  seed: int
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
    # In half precision the random numbers would be too coarse to tell the rate
    # from its neighbours, and 1 / (1 - rate) would be rounded.
    dropped = tf.nn.experimental.stateless_dropout(
      tf.cast(tensor, tf.float32), rate, self.key(site)
    )
    return tf.cast(dropped, tensor.dtype)

  def key(self, site: int) -> tf.Tensor:
    """Returns the two numbers, int64 [2], that a site's masks depend on.

    Within the bounds above no two keys are equal. XLA reads the lower 32 bits
    of either number only, and those of no two keys of one run are equal: site,
    replica and micro-batch have 40 bits together, of which 32 show in the first
    number and 8 above the batch index.
    """
    share = tf.cast(self.micro_batch, tf.int64) * _NUM_REPLICAS + tf.cast(
      self.replica, tf.int64
    )
    stream = share * _NUM_SITES + site
    # Two seeds have to differ in the lower bits as well.
    start = zlib.crc32(str(self.seed).encode()) & 0x7FFFFFFF
    return tf.stack(
      [
        self.seed * 2**32 + (start + stream) % 2**32,
        tf.cast(self.batch_index, tf.int64) + stream // 2**32 * _NUM_BATCHES,
      ]
    )
