"""A config turned into objects: data, model, learning rate and optimizer."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from mslt_tf import config as config_lib
from mslt_tf import outline
from mslt_tf.data.reading import existing_shards
from mslt_tf.data.reading import manifest
from mslt_tf.models import architecture
from mslt_tf.models import bert
from mslt_tf.optimization import lamb
from mslt_tf.optimization import learning_rates


def open_data(config: config_lib.Config) -> manifest.Data:
  """Returns what a run reads, whose sizes are those of its config.

  Raises:
    errors.InputError: they are not, or there is none.
  """
  if config.data.directory is None:
    return existing_shards.open_files(
      train_files=config.data.train_files or "",
      heldout_files=config.data.heldout_files or "",
      sequence_length=config.data.sequence_length,
      max_predictions=config.data.max_predictions,
      vocab_size=config.model.vocab_size,
    )
  data = manifest.open_data(config.data.directory)
  manifest.check(
    data,
    vocab_size=config.model.vocab_size,
    lower_case=config.model.lower_case,
    sequence_length=config.data.sequence_length,
    max_predictions=config.data.max_predictions,
    vocab_sha256=config.data.vocab_sha256,
  )
  return data


def make_model(
  config: config_lib.Config, stage: outline.PlacedStage
) -> bert.Bert:
  """Returns a freshly initialised model of the stage's depth."""
  sizes = architecture.of(config.model, num_layers=stage.stage.num_layers)
  return bert.Bert(
    **dataclasses.asdict(sizes),
    num_frozen_layers=stage.stage.num_frozen_layers,
    freeze_embeddings=stage.stage.freeze_embeddings,
    dropout_when_frozen=config.model.dropout_when_frozen,
    precision=config.training.precision,
    seed=config.training.seed,
  )


def make_learning_rate(
  config: config_lib.Config, stage: outline.PlacedStage
) -> learning_rates.LearningRate:
  """Returns the learning rate as a function of the run's step."""
  peak = config.optimizer.peak_learning_rate
  warmup_steps = config.optimizer.warmup_steps
  num_steps = config.schedule.num_steps
  if config.optimizer.curve == "run":
    return learning_rates.over_run(
      peak=peak, warmup_steps=warmup_steps, num_steps=num_steps
    )
  return learning_rates.over_stage(
    peak=peak,
    warmup_steps=warmup_steps,
    stage_starts=config.schedule.stage_starts,
    num_steps=num_steps,
    stage_index=stage.number - 1,
  )


def make_optimizer(
  config: config_lib.Config, learning_rate: Callable[[], tf.Tensor]
) -> lamb.Lamb:
  """Returns an optimizer without state."""
  optimizer = config.optimizer
  return lamb.make(
    learning_rate,
    weight_decay=optimizer.weight_decay,
    beta_1=optimizer.beta_1,
    beta_2=optimizer.beta_2,
    epsilon=optimizer.epsilon,
    adapt_norms_and_biases=optimizer.adapt_norms_and_biases,
  )
