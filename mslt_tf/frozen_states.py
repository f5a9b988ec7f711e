"""What a stage's frozen part makes of the training examples, computed once.

In a stage of MSLT the lower layers and the embeddings are frozen and run as at
inference, and an example is the same whenever it is read. So what they hand to
the first trained layer is the same in every pass over the data: where there is
more than one pass, it can be computed once and read from then on.

N training examples, B batch, S sequence, D hidden.
"""

import functools
import hashlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from absl import logging

from mslt_tf import config as config_lib
from mslt_tf.data.reading import input_pipeline
from mslt_tf.data.reading import manifest
from mslt_tf.data.reading import stored_states
from mslt_tf.models import bert
from mslt_tf.models import weights


class _StoppedError(Exception):
  """The program was asked to stop before all states were computed."""


def prepare(
  model: bert.Bert,
  *,
  config: config_lib.Config,
  data: manifest.Data,
  strategy: tf.distribute.Strategy,
  directory: str,
  num_steps: int,
  use_xla: bool,
  should_stop: Callable[[], bool],
) -> stored_states.StoredStates | None:
  """Returns the frozen states of all training examples, on disk.

  Those that are there already are taken, where they are of these data and
  weights. Otherwise they are computed, in parts as large as those of training,
  so that products have the same shapes.

  Args:
    model: Of the stage, its weights filled.
    config: The run.
    data: The data of the run.
    strategy: Whose replicas compute.
    directory: For the states alone.
    num_steps: Left of the stage.
    use_xla: Whether XLA compiles the frozen part.
    should_stop: Asked after every batch.

  Returns:
    None where the config or the stage wants none, where they are more than the
    config allows, where what is left of the stage is no more than a pass over
    the data, and where `should_stop`.

  Raises:
    errors.InputError: The directory cannot be written.
  """
  limit = config.training.reuse_frozen_states_gb
  if not limit or not model.num_frozen_layers:
    return None
  num_examples = data.train.num_examples
  description = _describe(model, config, data)
  if description.num_bytes > limit * 1e9:
    logging.info(
      "the frozen states of %s examples take %.3g GB, more than"
      " training.reuse_frozen_states_gb=%s: they are computed in every pass",
      f"{num_examples:,}",
      description.num_bytes / 1e9,
      limit,
    )
    return None
  states = stored_states.find(directory, description)
  if states is not None:
    logging.info("frozen states are read from %s", directory)
    return states
  num_left = num_steps * config.data.batch_size
  if num_left <= num_examples:
    logging.info(
      "frozen states are not stored: the %s examples left of the stage are no"
      " more than one pass over %s",
      f"{num_left:,}",
      f"{num_examples:,}",
    )
    return None
  start = time.monotonic()
  parts = _compute(model, config, data, strategy, use_xla, should_stop)
  try:
    states = stored_states.write(directory, description, parts)
  except _StoppedError:
    return None
  logging.info(
    "frozen states of %s examples, %.3g GB, computed in %.1f s; %.1f passes"
    " read them",
    f"{num_examples:,}",
    description.num_bytes / 1e9,
    time.monotonic() - start,
    num_left / num_examples,
  )
  return states


def _describe(
  model: bert.Bert, config: config_lib.Config, data: manifest.Data
) -> stored_states.Description:
  digest = hashlib.sha256()
  for layer in _frozen_layers(model):
    for weight in layer.weights:
      digest.update(weights.name_of(weight).encode())
      digest.update(weight.numpy().tobytes())
  return stored_states.Description(
    data_fingerprint=data.fingerprint,
    weights_sha256=digest.hexdigest(),
    dtype=model.embeddings.compute_dtype,
    num_examples=data.train.num_examples,
    sequence_length=data.sequence_length,
    hidden_size=config.model.hidden_size,
  )


def _frozen_layers(model: bert.Bert) -> list[tf.keras.layers.Layer]:
  return [
    model.embeddings,
    *model.encoder_layers[: model.num_frozen_layers],
  ]


def _compute(
  model: bert.Bert,
  config: config_lib.Config,
  data: manifest.Data,
  strategy: tf.distribute.Strategy,
  use_xla: bool,
  should_stop: Callable[[], bool],
) -> Iterator[np.ndarray]:
  """Yields the states of all examples in their order, [any, S, D] each."""
  batch_size = config.data.batch_size // config.training.num_micro_batches

  def batches(context: tf.distribute.InputContext):
    return input_pipeline.train_batches_in_file_order(
      data, batch_size=batch_size, num_parts=context.num_replicas_in_sync
    )

  on_replica: Callable = functools.partial(model.frozen_states)
  if use_xla:
    # A strategy of CPUs would keep it for ever, and the model with it.
    on_replica = tf.function(on_replica, jit_compile=True, autograph=False)
  compute = tf.function(
    lambda *args: strategy.run(on_replica, args=args), autograph=False
  )
  kernels = tf.function(
    functools.partial(strategy.run, model.frozen_kernels), autograph=False
  )()
  num_left = data.train.num_examples
  for features in strategy.distribute_datasets_from_function(batches):
    if should_stop():
      raise _StoppedError
    states = compute(features, kernels)
    for part in strategy.experimental_local_results(states):
      part = part.numpy()[:num_left]
      num_left -= len(part)
      yield part
