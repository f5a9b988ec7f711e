"""The learning rate as a function of the run's step."""

from collections.abc import Callable, Sequence

import tensorflow as tf

LearningRate = Callable[[tf.Tensor], tf.Tensor]


def over_run(
  *,
  peak: float | tf.Variable,
  warmup_steps: int | tf.Variable,
  num_steps: int | tf.Variable,
) -> LearningRate:
  """Returns one curve for a whole run, whatever its stages.

  Of float32 variables it is their value at the time of a step: a compiled step
  then serves several runs.

  The rate of the update that takes the run from `step` to `step + 1`:
    1. below `warmup_steps`, it rises linearly from 0;
    2. from there to `num_steps`, it falls on the line that goes from `peak` at
       step 0 to 0 at `num_steps`, as in BERT's and LAMB's published code;
    3. from `num_steps` on it is 0.
  """

  def learning_rate(step):
    step = tf.cast(step, tf.float32)
    decayed = peak * tf.maximum(1.0 - step / num_steps, 0.0)
    risen = peak * step / tf.maximum(tf.cast(warmup_steps, tf.float32), 1.0)
    return tf.where(step < warmup_steps, risen, decayed)

  return learning_rate


def over_stage(
  *,
  peak: float,
  warmup_steps: int,
  stage_starts: Sequence[int],
  num_steps: int,
  stage_index: int,
) -> LearningRate:
  """Returns a warmup and a decay for one stage alone.

  Args:
    peak: The highest rate of every stage.
    warmup_steps: Of the run; a stage warms up for its share of them.
    stage_starts: The run's step at which each stage begins.
    num_steps: Steps of the run.
    stage_index: Which stage, from 0.
  """
  start, end = [*stage_starts, num_steps][stage_index : stage_index + 2]
  stage_steps = end - start
  curve = over_run(
    peak=peak,
    warmup_steps=round(warmup_steps * stage_steps / num_steps),
    num_steps=stage_steps,
  )
  return lambda step: curve(tf.cast(step, tf.int64) - start)
