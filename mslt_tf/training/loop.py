"""The training loop: compiled steps, and when to log, evaluate and save.

It knows neither stages nor tasks: what is trained comes in as a function of a
batch, and what happens at the borders as functions of nothing.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

# Of a batch of features and its index: named (sum, count) pairs of scalars.
Sums = dict[str, tuple[tf.Tensor, tf.Tensor]]
ComputeSums = Callable[[Mapping[str, tf.Tensor], tf.Tensor], Sums]


class TrainingSteps(tf.Module):
  """Optimizer updates, many in one call of a compiled function.

  Attributes:
    step: Updates made, counted over the run.
    batch_index: Batches consumed, counted over the run.
    num_calls: Calls so far; the first one traces and compiles.
  """

  def __init__(
    self,
    *,
    compute_sums: ComputeSums,
    losses: Sequence[str],
    variables: Sequence[tf.Variable],
    optimizer: tf.keras.optimizers.legacy.Optimizer,
    clip_norm: float,
    step: tf.Variable,
    batch_index: tf.Variable,
    use_xla: bool,
  ):
    """Traces nothing yet.

    Args:
      compute_sums: The forward pass in training.
      losses: Names of the sums whose quotients add up to the loss.
      variables: What is trained; everything else is a constant to the tape.
      clip_norm: Largest global norm of the gradients.
      use_xla: Whether XLA compiles forward and backward.
    """
    super().__init__()
    self.step = step
    self.batch_index = batch_index
    self.num_calls = 0
    self._compute_sums = compute_sums
    self._losses = losses
    self._variables = variables
    self._optimizer = optimizer
    self._clip_norm = clip_norm
    # AutoGraph would look through every layer for loops that are not there; it
    # doubles the time to trace.
    self._forward_backward = tf.function(
      self._forward_backward_python,
      jit_compile=use_xla or None,
      autograph=False,
    )
    self._run = tf.function(self._run_python, autograph=False)

  def __call__(self, iterator, num_steps: int) -> dict[str, float]:
    """Makes updates and returns the means of their metrics.

    The means include `gradient_norm`, the global norm before clipping.
    """
    self.num_calls += 1
    means = self._run(iterator, tf.constant(num_steps))
    return {name: float(mean) for name, mean in means.items()}

  def gradients(
    self, features: Mapping[str, tf.Tensor]
  ) -> tuple[list[tf.Tensor], Sums]:
    """Returns the gradients and sums of one batch; changes nothing."""
    return self._forward_backward(features, self.batch_index.read_value())

  def _forward_backward_python(self, features, batch_index):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(self._variables)
      sums = self._compute_sums(features, batch_index)
      loss = tf.add_n(
        [tf.math.divide_no_nan(*sums[name]) for name in self._losses]
      )
    gradients = tape.gradient(loss, self._variables)
    # The tables' gradients come as rows with their indices; LAMB's norms and
    # clipping want the whole.
    return [tf.convert_to_tensor(each) for each in gradients], sums

  def _update(self, features) -> Sums:
    gradients, sums = self.gradients(features)
    clipped, norm = tf.clip_by_global_norm(gradients, self._clip_norm)
    self._optimizer.apply_gradients(zip(clipped, self._variables, strict=True))
    self.step.assign_add(1)
    self.batch_index.assign_add(1)
    return {**sums, "gradient_norm": (norm, tf.ones([]))}

  def _run_python(self, iterator, num_steps):
    # The names are known once forward and backward are traced.
    traced = self._forward_backward.get_concrete_function(
      iterator.element_spec, tf.TensorSpec([], self.batch_index.dtype)
    )
    names = [*traced.structured_outputs[1], "gradient_norm"]

    def add_step(count, totals):
      sums = self._update(iterator.get_next())
      return count + 1, tf.nest.map_structure(tf.add, totals, sums)

    zeros = {name: (tf.zeros([]), tf.zeros([])) for name in names}
    _, totals = tf.while_loop(
      lambda count, _: count < num_steps, add_step, (0, zeros)
    )
    return {name: tf.math.divide_no_nan(*pair) for name, pair in totals.items()}


class Evaluation(tf.Module):
  """Means of a model's metrics over a data set."""

  def __init__(
    self,
    compute_sums: Callable[[Mapping[str, tf.Tensor]], Sums],
    dataset: tf.data.Dataset,
  ):
    super().__init__()
    self._dataset = dataset
    # One trace serves the last, shorter batch too.
    self._sums = tf.function(
      compute_sums, input_signature=[dataset.element_spec], autograph=False
    )

  def __call__(self) -> dict[str, float]:
    totals: dict[str, list[float]] = {}
    for features in self._dataset:
      for name, pair in self._sums(features).items():
        total = totals.setdefault(name, [0.0, 0.0])
        for index in (0, 1):
          total[index] += float(pair[index])
    return {
      name: total / count if count else float("nan")
      for name, (total, count) in totals.items()
    }


class Deadline:
  """Tells whether the next stretch of work would run past a point in time.

  A stretch is all between two questions: steps, evaluating, saving, and at a
  stage border the next stage's start. The longest so far is what the next one
  is taken to need.
  """

  def __init__(self, at: float, now: Callable[[], float] = time.monotonic):
    self._at = at
    self._now = now
    self._asked = math.inf
    self._longest = 0.0

  def is_near(self) -> bool:
    now = self._now()
    self._longest = max(self._longest, now - self._asked)
    self._asked = now
    return now + self._longest > self._at


@dataclasses.dataclass(frozen=True)
class Intervals:
  """Steps between two returns to Python, evaluations and checkpoints."""

  steps_per_loop: int
  evaluate: int
  save: int

  def next_border(self, step: int, last_step: int) -> int:
    """Returns the next step after `step` at which something is due."""
    due = [
      (step // interval + 1) * interval
      for interval in (self.steps_per_loop, self.evaluate, self.save)
    ]
    return min(*due, last_step)


def run(
  *,
  step: int,
  last_step: int,
  intervals: Intervals,
  train: Callable[[int], Any],
  evaluate: Callable[[], Any],
  save: Callable[[], Any],
  should_stop: Callable[[], bool],
) -> bool:
  """Trains to `last_step`, evaluating and saving on the way.

  What is due at a border is done in the order train, evaluate, save, so that
  a checkpoint never lacks what was logged before it. At `last_step` nothing is
  saved: that is for the caller, who knows what the end of a stretch means.

  Args:
    step: Where training stands.
    train: Makes so many steps. The first call makes one only, so that tracing
      and compiling can be told apart from training.
    should_stop: Asked at every border; where true, saves and ends early.

  Returns:
    Whether `last_step` was reached.
  """
  num_steps = 1
  while step < last_step:
    if should_stop():
      save()
      return False
    train(num_steps)
    step += num_steps
    if step % intervals.evaluate == 0 or step == last_step:
      evaluate()
    if step % intervals.save == 0 and step < last_step:
      save()
    num_steps = intervals.next_border(step, last_step) - step
  return True
