"""Dropout whose masks are a function of (seed, batch index, replica, site).

No state is kept, so a resumed run draws the masks it would have drawn. XLA
draws from another generator: its masks are others, of the same properties.
"""

import dataclasses
import zlib

import tensorflow as tf

# A run's seeds are below 2^31, a model has fewer sites than 2^12 and a run
# fewer replicas than 2^16, so no two streams of random numbers share a key.
_SITES_PER_REPLICA = 2**12
_KEYS_PER_SEED = 2**32


@dataclasses.dataclass(frozen=True)
class Dropout:
  """The source of the dropout masks of one forward pass.

  Attributes:
    seed: The run's seed.
    batch_index: Scalar; which batch of the run, or which part of one.
    replica: Scalar; which device's share of the batch.
  """

  seed: int
  batch_index: tf.Tensor
  replica: tf.Tensor | int = 0

  def __call__(self, tensor: tf.Tensor, rate: float, site: int) -> tf.Tensor:
    """Returns `tensor` with a share `rate` zeroed, the rest scaled up.

    Args:
      tensor: Of any shape.
      rate: Probability that an entry is zeroed.
      site: Which of the model's dropouts this is, unique within the model.
    """
    if not rate:
      return tensor
    # XLA reads the lower 32 bits of either number only, so the seed has to
    # show there too: up to 2^31, where 2^28 are left to replicas and sites.
    start = zlib.crc32(str(self.seed).encode()) & 0x7FFFFFFF
    stream = tf.cast(self.replica, tf.int64) * _SITES_PER_REPLICA + site
    key = tf.stack(
      [
        self.seed * _KEYS_PER_SEED + start + stream,
        tf.cast(self.batch_index, tf.int64),
      ]
    )
    return tf.nn.experimental.stateless_dropout(tensor, rate, key)
