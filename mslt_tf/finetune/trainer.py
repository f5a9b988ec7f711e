"""Fine-tuning runs, one after another, through one compiled step.

Runs that differ in task, checkpoint, rate and seed need the same computation if
their models have the same shape. What differs is in variables: a run fills
them, and neither model nor optimizer nor step is made again.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.glue import batches as batches_lib
from mslt_tf.glue import inputs as inputs_lib
from mslt_tf.glue import protocol as protocol_lib
from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import classifier as classifier_lib
from mslt_tf.models import dropout as dropout_lib
from mslt_tf.models import weights as weights_lib
from mslt_tf.optimization import adamw
from mslt_tf.optimization import learning_rates
from mslt_tf.training import loop

_STEPS_PER_LOOP = 50
_BATCHES_AHEAD = 4


class DivergedError(errors.InputError):
  """A run whose rate is too high; another rate may do."""


class Trainer:
  """A model that is filled, trained and asked, again and again."""

  def __init__(
    self,
    architecture: architecture_lib.Architecture,
    protocol: protocol_lib.Protocol,
    *,
    num_outputs: int,
    is_regression: bool,
  ):
    """Makes model and optimizer; the first run compiles.

    Args:
      architecture: Of the pre-trained model; its dropouts are not used.
      protocol: What all runs have in common.
      num_outputs: Classes, or 1.
      is_regression: Whether labels are values.
    """
    self._protocol = protocol
    self._is_regression = is_regression
    self._architecture = dataclasses.replace(
      architecture,
      hidden_dropout=protocol.dropout,
      attention_dropout=protocol.dropout,
    )
    self._num_outputs = num_outputs
    self._model = classifier_lib.Classifier(
      self._architecture, num_outputs=num_outputs, precision=protocol.precision
    )
    self._seed = _variable(0, tf.int64)
    self._peak, self._warmup_steps, self._num_steps = (
      _variable(0.0, tf.float32) for _ in range(3)
    )
    step, batch_index = (_variable(0, tf.int64) for _ in range(2))
    self.learning_rate = learning_rates.over_run(
      peak=self._peak,
      warmup_steps=self._warmup_steps,
      num_steps=self._num_steps,
    )
    self._optimizer = adamw.make(
      lambda: self.learning_rate(step),
      weight_decay=protocol.weight_decay,
      beta_1=protocol.beta_1,
      beta_2=protocol.beta_2,
      epsilon=protocol.epsilon,
    )
    variables = self._model.trainable_variables
    self._optimizer.prepare(variables)
    # XLA compiles for each length of a batch anew. On a CPU that takes longer
    # than it saves; see `training.xla` of pre-training.
    use_xla = bool(tf.config.list_logical_devices("GPU"))
    self._steps = loop.TrainingSteps(
      strategy=tf.distribute.get_strategy(),
      compute_sums=self._sums_in_training,
      compute_counts=classifier_lib.counts,
      metrics=("loss",) if is_regression else ("loss", "accuracy"),
      variables=variables,
      optimizer=self._optimizer,
      clip_norm=protocol.clip_norm,
      step=step,
      batch_index=batch_index,
      is_asked_to_stop=_variable(False, tf.bool),
      use_xla=use_xla,
    )
    self._forward = tf.function(
      self._model, jit_compile=use_xla or None, autograph=False
    )

  def train(
    self,
    run: protocol_lib.Run,
    pretrained: Mapping[str, np.ndarray],
    inputs: inputs_lib.Inputs,
    log: Callable[[int, dict[str, float]], None],
  ) -> None:
    """Fine-tunes from pre-trained weights; nothing of earlier runs is left.

    Args:
      run: Rate, seed and epochs.
      pretrained: Weights of encoder and pooler by name.
      inputs: Of the training set.
      log: Told a step and what the metrics came to since the last time.

    Raises:
      DivergedError: the loss or the gradient is not finite.
    """
    self._start(run, pretrained, len(inputs))
    num_steps = run.num_steps(len(inputs))
    iterator = iter(self._dataset(self._training_batches(run, inputs)))
    step = 0
    while step < num_steps:
      stretch = self._steps(iterator, min(_STEPS_PER_LOOP, num_steps - step))
      step += stretch.num_steps
      if stretch.is_bad:
        raise DivergedError(
          f"{run.name}, step {step}: loss {stretch.loss:g} or its gradient is"
          " not finite; a lower rate in learning_rates may help."
        )
      log(
        step,
        {
          **stretch.means,
          "learning_rate": float(self.learning_rate(step - 1)),
        },
      )

  def fill(self, arrays: Mapping[str, np.ndarray]) -> None:
    """Sets all weights, the classifier's too."""
    weights_lib.fill(self._model, arrays)

  def weights(self) -> dict[str, np.ndarray]:
    """Returns all weights, the classifier's too, by name."""
    return weights_lib.to_arrays(self._model)

  def outputs(self, inputs: inputs_lib.Inputs) -> np.ndarray:
    """Returns logits or values [N, C] in the order of the examples."""
    outputs = np.zeros([len(inputs), self._num_outputs], np.float32)
    batches = batches_lib.in_order(
      inputs.lengths,
      batch_size=self._protocol.batch_size,
      max_length=self._protocol.max_sequence_length,
    )
    features = self._dataset(lambda: self._features(inputs, iter(batches)))
    for batch, each in zip(batches, features, strict=True):
      outputs[batch.indices] = self._forward(each)[: len(batch.indices)]
    return outputs

  def _start(
    self,
    run: protocol_lib.Run,
    pretrained: Mapping[str, np.ndarray],
    num_examples: int,
  ) -> None:
    fresh = classifier_lib.fresh_output(
      self._architecture, num_outputs=self._num_outputs, seed=run.seed
    )
    self.fill({**pretrained, **fresh})
    for variable in self._optimizer.variables():
      variable.assign(tf.zeros_like(variable))
    self._steps.step.assign(0)
    self._steps.batch_index.assign(0)
    self._seed.assign(run.seed)
    self._peak.assign(run.learning_rate)
    self._warmup_steps.assign(run.num_warmup_steps(num_examples))
    self._num_steps.assign(run.num_steps(num_examples))

  def _sums_in_training(
    self, features: loop.Features, place: loop.Place
  ) -> loop.Sums:
    dropout = dropout_lib.Dropout(
      self._seed.read_value(),
      place.batch_index,
      place.replica,
      place.micro_batch,
    )
    return classifier_lib.sums(
      self._model(features, dropout),
      features,
      is_regression=self._is_regression,
    )

  def _training_batches(
    self, run: protocol_lib.Run, inputs: inputs_lib.Inputs
  ) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    return lambda: self._features(
      inputs,
      batches_lib.shuffled(
        inputs.lengths,
        batch_size=run.batch_size,
        max_length=self._protocol.max_sequence_length,
        seed=run.seed,
        num_epochs=run.num_epochs,
      ),
    )

  def _features(
    self, inputs: inputs_lib.Inputs, batches: Iterator[batches_lib.Batch]
  ) -> Iterator[dict[str, np.ndarray]]:
    for batch in batches:
      features = inputs.features(
        batch.indices,
        length=batch.length,
        num_rows=self._protocol.batch_size,
      )
      if self._is_regression:
        features["labels"] = features["labels"].astype(np.float32)
      yield features

  def _dataset(
    self, features: Callable[[], Iterator[dict[str, np.ndarray]]]
  ) -> tf.data.Dataset:
    batch_size = self._protocol.batch_size
    matrix = tf.TensorSpec([batch_size, None], tf.int32)
    label_type = tf.float32 if self._is_regression else tf.int32
    return tf.data.Dataset.from_generator(
      features,
      output_signature={
        "input_ids": matrix,
        "input_mask": matrix,
        "segment_ids": matrix,
        "labels": tf.TensorSpec([batch_size], label_type),
        "weights": tf.TensorSpec([batch_size], tf.float32),
      },
    ).prefetch(_BATCHES_AHEAD)


def predictions(outputs: np.ndarray, *, is_regression: bool) -> np.ndarray:
  """Returns predictions [N], class ids or values, of outputs [N, C]."""
  return outputs[:, 0] if is_regression else outputs.argmax(1)


def probabilities(logits: np.ndarray) -> np.ndarray:
  """Returns the softmax [N, C] of logits [N, C]."""
  exponents = np.exp(logits - logits.max(1, keepdims=True))
  return exponents / exponents.sum(1, keepdims=True)


def _variable(value, dtype: tf.DType) -> tf.Variable:
  return tf.Variable(value, trainable=False, dtype=dtype)
