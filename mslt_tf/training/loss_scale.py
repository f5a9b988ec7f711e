"""Dynamic loss scaling for float16 (Micikevicius et al. 2018, section 3.2).

Gradients below 2^-24 are zero in float16, so the loss is multiplied by a scale
before the backward pass and the gradients are divided by it after. A scale that
is too large makes them overflow; such a step is skipped.
"""

import tensorflow as tf

INITIAL_SCALE = 2.0**15
STEPS_UNTIL_GROWTH = 2000
_SMALLEST, _LARGEST = 1.0, 2.0**24


class DynamicLossScale(tf.Module):
  """Halves when gradients overflow, doubles after many that did not.

  Attributes:
    scale: What the loss is multiplied by.
    num_skipped: Steps skipped so far, counted over the stage.
  """

  def __init__(self, steps_until_growth: int = STEPS_UNTIL_GROWTH):
    super().__init__()
    self.scale = tf.Variable(INITIAL_SCALE, trainable=False)
    self.num_skipped = tf.Variable(0, dtype=tf.int64, trainable=False)
    self._steps_until_growth = steps_until_growth
    self._good_steps = tf.Variable(0, dtype=tf.int64, trainable=False)

  def is_exhausted(self, is_finite: tf.Tensor) -> tf.Tensor:
    """Whether gradients overflow although the scale is as low as it gets."""
    return ~is_finite & (self.scale <= _SMALLEST)

  def update(self, is_finite: tf.Tensor) -> None:
    """Moves the scale after a step; outside of replicas.

    Args:
      is_finite: Scalar; whether all gradients were.
    """
    zero = tf.zeros([], tf.int64)
    good_steps = tf.where(is_finite, self._good_steps + 1, zero)
    is_due = good_steps >= self._steps_until_growth
    grown = tf.where(is_due, self.scale * 2.0, self.scale + 0.0)
    scale = tf.where(is_finite, grown, self.scale / 2.0)
    self.num_skipped.assign_add(tf.cast(~is_finite, tf.int64))
    self.scale.assign(tf.clip_by_value(scale, _SMALLEST, _LARGEST))
    self._good_steps.assign(tf.where(is_due, zero, good_steps))
