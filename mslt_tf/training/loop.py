"""The training loop: compiled steps, and when to log, evaluate and save.

It knows neither stages nor tasks: what is trained comes in as a function of a
batch, and what happens at the borders as functions of nothing.

A global batch is split over the replicas of a strategy, and the share of each
into micro-batches that go through the model one after another. Losses are sums
over all of them divided by counts over all of them, so the gradient, and what
clipping and LAMB make of it, is the same however the batch is split.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from mslt_tf.training import loss_scale as loss_scale_lib

Features = Mapping[str, tf.Tensor]
# Named (sum, count) pairs of scalars.
Sums = dict[str, tuple[tf.Tensor, tf.Tensor]]
_SUM = tf.distribute.ReduceOp.SUM


@dataclasses.dataclass(frozen=True)
class Place:
  """Which part of the run's data a forward pass sees; scalars.

  Attributes:
    batch_index: Which global batch.
    replica: Which replica's share of it.
    micro_batch: Which part of that share.
  """

  batch_index: tf.Tensor
  replica: tf.Tensor
  micro_batch: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Stretch:
  """What one call of the training steps came to.

  Attributes:
    num_steps: Updates made.
    means: Of the metrics over these steps, and of `gradient_norm`, the global
      norm before clipping.
    loss: Of the last step.
    is_bad: Whether the last step's loss or gradient was not finite, or its loss
      above the bound. The weights are then not to be used.
    is_asked_to_stop: Whether a worker was asked to stop.
  """

  num_steps: int
  means: dict[str, float]
  loss: float
  is_bad: bool
  is_asked_to_stop: bool


class Optimizer(Protocol):
  """What updates variables."""

  def apply_scaled_gradients(
    self,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
    scale: tf.Tensor,
  ) -> None:
    """Updates by gradients of all replicas together, times a scalar."""


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
    strategy: tf.distribute.Strategy,
    compute_sums: Callable[..., Sums],
    compute_counts: Callable[[Features], dict[str, tf.Tensor]],
    compute_shared: Callable[[], tuple] = tuple,
    metrics: Sequence[str],
    variables: Sequence[tf.Variable],
    optimizer: Optimizer,
    clip_norm: float,
    step: tf.Variable,
    batch_index: tf.Variable,
    is_asked_to_stop: tf.Variable,
    use_xla: bool,
    num_micro_batches: int = 1,
    loss_scale: loss_scale_lib.DynamicLossScale | None = None,
    largest_loss: float = math.inf,
  ):
    """Traces nothing yet.

    Args:
      compute_sums: The forward pass in training, of features and their `Place`.
      compute_counts: The counts of the sums that make up the loss, known
        without a forward pass. The loss is the sum of the quotients.
      compute_shared: More arguments of `compute_sums`, in any structure. They
        are computed once a call, since no update changes them.
      metrics: Names of all sums.
      variables: What is trained; everything else is a constant to the tape.
      clip_norm: Largest global norm of the gradients.
      is_asked_to_stop: Read before every step, which is then the last one.
      use_xla: Whether XLA compiles forward and backward; on a single replica it
        compiles the update too.
      num_micro_batches: Parts of a replica's share; divides its examples.
      loss_scale: For gradients in float16. A step whose gradients overflow
        makes no update, and another batch takes its place.
      largest_loss: A step with a higher loss is a bad one.
    """
    super().__init__()
    self.step = step
    self.batch_index = batch_index
    self.num_calls = 0
    self._strategy = strategy
    self._compute_sums = compute_sums
    self._compute_counts = compute_counts
    self._compute_shared = compute_shared
    self._metrics = tuple(metrics)
    self._variables = variables
    self._optimizer = optimizer
    self._clip_norm = clip_norm
    self._is_asked_to_stop = is_asked_to_stop
    self._num_micro_batches = num_micro_batches
    self._loss_scale = loss_scale
    self._largest_loss = largest_loss
    # A compiled update fails where it has to talk to other replicas, see
    # https://github.com/tensorflow/models/issues/10752.
    update_too = use_xla and strategy.num_replicas_in_sync == 1
    # AutoGraph would look through every layer for loops that are not there; it
    # doubles the time to trace.
    self._forward_backward = tf.function(
      self._forward_backward_python,
      jit_compile=use_xla or None,
      autograph=False,
    )
    self._unscale = tf.function(
      _unscale, jit_compile=update_too or None, autograph=False
    )
    self._update: Callable = self._update_python
    # A strategy of several replicas keeps what it runs for ever where that is a
    # tf.function, and with this one every stage's model.
    if strategy.num_replicas_in_sync == 1:
      self._update = tf.function(
        self._update_python, jit_compile=update_too or None, autograph=False
      )
    self._run = _traced_by_every_stage(self._run_python)

  def __call__(self, iterator, num_steps: int) -> Stretch:
    """Makes so many updates, fewer after a bad step or when asked to stop.

    Args:
      iterator: Gives every replica its share of a global batch.
    """
    self.num_calls += 1
    start = int(self.step.numpy())
    totals, loss, is_bad, is_asked = self._run(
      iterator, tf.constant(start + num_steps, self.step.dtype)
    )
    return Stretch(
      num_steps=int(self.step.numpy()) - start,
      means={
        name: float(tf.math.divide_no_nan(*pair))
        for name, pair in totals.items()
      },
      loss=float(loss),
      is_bad=bool(is_bad),
      is_asked_to_stop=bool(is_asked),
    )

  def gradients(
    self, features: Features, shared: tuple | None = None
  ) -> tuple[list[tf.Tensor], Sums]:
    """Returns the gradients and sums of one batch; changes nothing.

    Args:
      features: Of the global batch, or a distributed value that holds every
        replica's share of it.
      shared: What `compute_shared` returned, where that is at hand.
    """
    if shared is None:
      shared = self._strategy.run(self._compute_shared)
    gradients, sums, *_ = self._strategy.run(
      self._replica_gradients,
      args=(
        features,
        self.batch_index.read_value(),
        tf.constant(False),
        shared,
      ),
    )
    return [self._local(each) for each in gradients], self._named(
      self._local(sums)
    )

  def _run_python(self, iterator, last_step):
    zero = (tf.zeros([]), tf.zeros([]))
    totals = dict.fromkeys([*self._metrics, "gradient_norm"], zero)
    shared = self._strategy.run(self._compute_shared)
    _, *results = tf.while_loop(
      lambda step, totals, loss, is_bad, is_asked: (
        (step < last_step) & ~is_bad & ~is_asked
      ),
      lambda step, totals, *_: self._step(iterator.get_next(), totals, shared),
      (
        self.step.read_value(),
        totals,
        tf.zeros([]),
        tf.constant(False),
        tf.constant(False),
      ),
    )
    return results

  def _step(self, features, totals, shared):
    gradients, sums, loss, norm, is_asked = self._strategy.run(
      self._replica_gradients,
      args=(
        features,
        self.batch_index.read_value(),
        self._is_asked_to_stop.read_value(),
        shared,
      ),
    )
    sums, loss = self._local(sums), self._local(loss)
    is_finite = tf.math.is_finite(self._local(norm))
    is_bad = ~(loss <= self._largest_loss) | tf.math.is_inf(loss)

    def update():
      self._strategy.run(self._update, args=(gradients, norm))
      return tf.ones([], self.step.dtype)

    if self._loss_scale is None:
      is_bad |= ~is_finite
      num_updates = update()
    else:
      is_bad |= self._loss_scale.is_exhausted(is_finite)
      num_updates = tf.cond(
        is_finite, update, lambda: tf.zeros([], self.step.dtype)
      )
      self._loss_scale.update(is_finite)
    self.step.assign_add(num_updates)
    self.batch_index.assign_add(1)
    norm = tf.where(is_finite, self._local(norm), 0.0)
    sums = {
      **self._named(sums),
      "gradient_norm": (norm, tf.cast(is_finite, tf.float32)),
    }
    return (
      self.step.read_value(),
      tf.nest.map_structure(tf.add, totals, sums),
      loss,
      is_bad,
      self._local(is_asked),
    )

  def _replica_gradients(self, features, batch_index, is_asked, shared):
    """Returns what all replicas' shares together give, on each replica."""
    context = tf.distribute.get_replica_context()
    counts = self._compute_counts(features)
    # The other workers learn here whether this one was asked to stop.
    totals = context.all_reduce(
      _SUM, tf.stack([*counts.values(), tf.cast(is_asked, tf.float32)])
    )
    *divisors, num_asked = tf.unstack(totals)
    scale = None
    if self._loss_scale is not None:
      scale = self._loss_scale.scale.read_value()
    gradients, sums = self._accumulate(
      features,
      dict(zip(counts, divisors, strict=True)),
      batch_index,
      tf.convert_to_tensor(context.replica_id_in_sync_group),
      scale,
      shared,
    )
    *gradients, sums = context.all_reduce(_SUM, [*gradients, sums])
    gradients, norm = self._unscale(gradients, scale)
    named = self._named(sums)
    loss = tf.add_n([tf.math.divide_no_nan(*named[name]) for name in counts])
    return gradients, sums, loss, norm, num_asked > 0

  def _accumulate(
    self, features, divisors, batch_index, replica, scale, shared
  ):
    if self._num_micro_batches == 1:
      return self._forward_backward(
        features, divisors, batch_index, replica, tf.constant(0), scale, shared
      )
    parts = {
      name: tf.reshape(value, [self._num_micro_batches, -1, *value.shape[1:]])
      for name, value in features.items()
    }

    def add_micro_batch(micro_batch, gradients, sums):
      part = {name: value[micro_batch] for name, value in parts.items()}
      more = self._forward_backward(
        part, divisors, batch_index, replica, micro_batch, scale, shared
      )
      return (
        micro_batch + 1,
        *tf.nest.map_structure(tf.add, (gradients, sums), more),
      )

    zeros = [tf.zeros(each.shape) for each in self._variables]
    _, gradients, sums = tf.while_loop(
      lambda micro_batch, *_: micro_batch < self._num_micro_batches,
      add_micro_batch,
      (tf.constant(0), zeros, tf.zeros([2 * len(self._metrics)])),
      # One after another: that they do not lie in memory together is the point.
      parallel_iterations=1,
    )
    return gradients, sums

  def _forward_backward_python(
    self, features, divisors, batch_index, replica, micro_batch, scale, shared
  ):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(self._variables)
      sums = self._compute_sums(
        features, Place(batch_index, replica, micro_batch), *shared
      )
      loss = tf.add_n(
        [
          tf.math.divide_no_nan(sums[name][0], divisor)
          for name, divisor in divisors.items()
        ]
      )
      if scale is not None:
        loss *= scale
    gradients = tape.gradient(loss, self._variables)
    # The tables' gradients come as rows with their indices; LAMB's norms and
    # clipping want the whole.
    return [tf.convert_to_tensor(each) for each in gradients], tf.stack(
      [part for name in self._metrics for part in sums[name]]
    )

  def _update_python(self, gradients, norm):
    scale = self._clip_norm / tf.maximum(norm, self._clip_norm)
    self._optimizer.apply_scaled_gradients(gradients, self._variables, scale)

  def _named(self, sums: tf.Tensor) -> Sums:
    pairs = tf.unstack(tf.reshape(sums, [-1, 2]))
    return {
      name: (pair[0], pair[1])
      for name, pair in zip(self._metrics, pairs, strict=True)
    }

  def _local(self, value):
    """Returns the first replica's value, for what is the same on all."""
    return self._strategy.experimental_local_results(value)[0]


class Evaluation(tf.Module):
  """Means of a model's metrics over a data set."""

  def __init__(
    self,
    strategy: tf.distribute.Strategy,
    compute_sums: Callable[[Features], Sums],
    dataset: tf.data.Dataset | tf.distribute.DistributedDataset,
    *,
    metrics: Sequence[str],
    num_batches: int,
  ):
    """Traces nothing yet.

    Args:
      dataset: Gives every replica its share of a batch, for `num_batches`.
      metrics: Names of the sums.
    """
    super().__init__()
    self._strategy = strategy
    self._compute_sums = compute_sums
    self._dataset = dataset
    self._metrics = tuple(metrics)
    self._num_batches = num_batches
    self._run = _traced_by_every_stage(self._run_python)

  def __call__(self) -> dict[str, float]:
    totals = self._run(iter(self._dataset)).numpy()
    return {
      name: float(total / count) if count else math.nan
      for name, (total, count) in zip(self._metrics, totals, strict=True)
    }

  def _run_python(self, iterator):
    def replica_sums(features):
      sums = self._compute_sums(features)
      pairs = tf.stack([sums[name] for name in self._metrics])
      # In float32 the counts of a large data set would not stay whole.
      return tf.cast(pairs, tf.float64)

    def add_batch(count, totals):
      sums = self._strategy.run(replica_sums, args=(iterator.get_next(),))
      return count + 1, totals + self._strategy.reduce(_SUM, sums, axis=None)

    _, totals = tf.while_loop(
      lambda count, _: count < self._num_batches,
      add_batch,
      (0, tf.zeros([len(self._metrics), 2], tf.float64)),
    )
    return totals


def _traced_by_every_stage(function: Callable) -> Callable:
  # TensorFlow tells functions apart by their code and warns of one that is
  # traced again and again; of a partial function it sees no code.
  return tf.function(functools.partial(function), autograph=False)


def _unscale(gradients, scale):
  """Returns the gradients without the loss scale, and their global norm."""
  if scale is not None:
    gradients = [each / scale for each in gradients]
  return gradients, tf.linalg.global_norm(gradients)


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
  """Steps between two returns to Python, evaluations and checkpoints.

  Attributes:
    others: Further steps of the run at which to return to Python.
  """

  steps_per_loop: int
  evaluate: int
  save: int
  others: tuple[int, ...] = ()

  def next_border(self, step: int, last_step: int) -> int:
    """Returns the next step after `step` at which something is due."""
    due = [
      (step // interval + 1) * interval
      for interval in (self.steps_per_loop, self.evaluate, self.save)
    ]
    due += [other for other in self.others if other > step]
    return min(*due, last_step)


def run(
  *,
  step: int,
  last_step: int,
  intervals: Intervals,
  train: Callable[[int], Stretch],
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
    train: Makes so many steps, or fewer where it is asked to stop. The first
      call is for one only, so that tracing and compiling can be told apart
      from training.
    should_stop: Asked at every border; where true, saves and ends early.

  Returns:
    Whether `last_step` was reached.
  """
  num_steps = 1
  while step < last_step:
    if should_stop():
      save()
      return False
    stretch = train(num_steps)
    step += stretch.num_steps
    is_asked = stretch.is_asked_to_stop
    is_due = step % intervals.evaluate == 0 or step == last_step
    if is_due and stretch.num_steps:
      evaluate()
    if step < last_step and (is_asked or step % intervals.save == 0):
      save()
    if is_asked:
      return step == last_step
    num_steps = intervals.next_border(step, last_step) - step
  return True
