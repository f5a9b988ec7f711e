"""A stage's training step as a program that can be timed part by part.

Letters: B batch, S sequence, P predictions, D hidden, F intermediate, V
vocabulary.
"""

import functools
import time
from collections.abc import Callable

import tensorflow as tf

from mslt_tf import assembly
from mslt_tf import config as config_lib
from mslt_tf import outline
from mslt_tf import stage_training
from mslt_tf.benchmark import random_examples
from mslt_tf.models import bert
from mslt_tf.training import cluster as cluster_lib
from mslt_tf.training import loop

_CONNECT_SECONDS = 60.0
_MATMUL_SECONDS = 0.3  # For each shape, three times.


class StageProgram:
  """Forward, forward and backward, and the whole step of a stage."""

  def __init__(self, config: config_lib.Config, stage_number: int):
    self._config = config
    cluster = cluster_lib.connect(
      config.training.strategy, timeout=_CONNECT_SECONDS
    )
    self._strategy = cluster.strategy
    stage = outline.place_stages(config.schedule)[stage_number - 1]
    with self._strategy.scope():
      self._model = assembly.make_model(config, stage)
      step = tf.Variable(stage.start, dtype=tf.int64)
      batch_index = tf.Variable(0, dtype=tf.int64)
      learning_rate = assembly.make_learning_rate(config, stage)
      optimizer = assembly.make_optimizer(config, lambda: learning_rate(step))
      variables = self._model.trainable_variables
      optimizer.prepare(variables)
      never = tf.Variable(False)
    self._sums = functools.partial(
      stage_training.sums_in_training, self._model, seed=config.training.seed
    )
    self._steps = loop.TrainingSteps(
      strategy=self._strategy,
      compute_sums=self._sums,
      compute_counts=bert.pretraining_counts,
      compute_shared=lambda: (self._model.frozen_kernels(),),
      metrics=stage_training.METRICS,
      variables=variables,
      optimizer=optimizer,
      clip_norm=config.optimizer.clip_norm,
      step=step,
      batch_index=batch_index,
      is_asked_to_stop=never,
      use_xla=stage_training.use_xla(config),
      num_micro_batches=config.training.num_micro_batches,
    )
    self._iterator = iter(
      self._strategy.experimental_distribute_dataset(
        tf.data.Dataset.from_tensors(random_examples.features(config))
        .repeat()
        .unbatch()
        .batch(config.data.batch_size, drop_remainder=True)
        .prefetch(1)
      )
    )
    self._features = next(self._iterator)
    self._forward = tf.function(
      self._forward_python,
      jit_compile=stage_training.use_xla(config) or None,
      autograph=False,
    )
    self._gradients = tf.function(self._steps.gradients, autograph=False)
    # The parts leave out what a step has from the beginning of its call.
    self._frozen_kernels = self._strategy.run(
      tf.function(self._model.frozen_kernels, autograph=False)
    )

  @property
  def parts(self) -> dict[str, Callable[[int], None]]:
    return {
      "forward": self._run_forward,
      "gradients": self._run_gradients,
      "step": self._run_steps,
    }

  def _run_forward(self, num_steps: int) -> None:
    for _ in range(num_steps):
      loss = self._strategy.run(
        self._forward, args=(self._features, self._frozen_kernels)
      )
    self._strategy.experimental_local_results(loss)[0].numpy()

  def _run_gradients(self, num_steps: int) -> None:
    for _ in range(num_steps):
      gradients, _ = self._gradients(self._features, (self._frozen_kernels,))
    gradients[0].numpy()

  def _run_steps(self, num_steps: int) -> None:
    self._steps(self._iterator, num_steps)

  def _forward_python(self, features, frozen_kernels):
    zero = tf.constant(0)
    sums = self._sums(
      features,
      loop.Place(self._steps.batch_index.read_value(), zero, zero),
      frozen_kernels,
    )
    return tf.add_n([sums[name][0] for name in stage_training.LOSSES])

  def matmul_flops_per_second(self) -> float:
    """Returns the best rate of `tf.matmul` on products that the step makes."""
    config = self._config
    tokens = config.data.batch_size * config.data.sequence_length  # BS
    masked = config.data.batch_size * config.data.max_predictions  # BP
    hidden = config.model.hidden_size
    dtype = tf.keras.mixed_precision.Policy(
      config.training.precision
    ).compute_dtype
    rates = []
    for rows, inner, columns in (
      (tokens, hidden, 3 * hidden),
      (tokens, hidden, hidden),
      (tokens, hidden, config.model.intermediate_size),
      (tokens, config.model.intermediate_size, hidden),
      (masked, hidden, config.model.vocab_size),
    ):
      rates.append(_rate(rows, inner, columns, dtype))
    return max(rates)


def _rate(rows: int, inner: int, columns: int, dtype: str) -> float:
  """Returns FLOP/s of a product [rows, inner] by [inner, columns]."""
  left = tf.cast(tf.random.normal([rows, inner]), dtype)
  right = tf.cast(tf.random.normal([inner, columns]), dtype)
  product = tf.function(lambda: tf.matmul(left, right), autograph=False)
  product()
  best = 0.0
  for _ in range(3):
    number = 0
    start = time.perf_counter()
    while time.perf_counter() < start + _MATMUL_SECONDS:
      result = product()
      number += 1
    result.numpy()
    seconds = time.perf_counter() - start
    best = max(best, number * 2 * rows * inner * columns / seconds)
  return best
