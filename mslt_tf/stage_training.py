"""One stage of pre-training, from the file of the stage before to its own."""

import contextlib
import functools
import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from mslt_tf import assembly
from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import frozen_states
from mslt_tf import growth
from mslt_tf import outline
from mslt_tf import written_numbers
from mslt_tf.data.reading import input_pipeline
from mslt_tf.data.reading import manifest
from mslt_tf.data.reading import stored_states
from mslt_tf.models import bert
from mslt_tf.models import dropout as dropout_lib
from mslt_tf.models import weights
from mslt_tf.training import checkpoints
from mslt_tf.training import cluster as cluster_lib
from mslt_tf.training import loop
from mslt_tf.training import loss_scale
from mslt_tf.training import metrics
from mslt_tf.training import run_directory
from mslt_tf.training import step_profile

LOSSES = ("mlm_loss", "nsp_loss")
METRICS = ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")
# A fresh model guesses: MLM loss near ln V, NSP loss near ln 2. Farther off
# than this, in nats, and something is wrong with the data or the weights.
FRESH_LOSS_TOLERANCE = {"mlm_loss": 1.0, "nsp_loss": 0.5}
# What TensorFlow's and XLA's allocators say, somewhere in a long message.
_OUT_OF_MEMORY = re.compile(r"(OOM when|[Oo]ut of memory|failed to alloc).*")


class _DivergedError(Exception):
  """A step was bad; the weights are not to be used any more."""


class StageTraining:
  """Trains one stage on all devices, from its latest checkpoint on.

  Every worker of the cluster makes one and calls it; only the chief writes.
  """

  def __init__(
    self,
    *,
    config: config_lib.Config,
    data: manifest.Data,
    cluster: cluster_lib.Cluster,
    directory: run_directory.RunDirectory,
    stage: outline.PlacedStage,
    clock: metrics.Clock,
    deadline: loop.Deadline,
    is_asked_to_stop: tf.Variable,
  ):
    self._config = config
    self._data = data
    self._cluster = cluster
    self._directory = directory
    self._stage = stage
    self._clock = clock
    self._deadline = deadline
    self._starts_from_checkpoint = config.schedule.initial_layers is not None
    self._seconds_per_step = math.nan
    self._eval_results: dict[str, float] = {}

    before = directory.read_results(stage.number - 1) if stage.start else {}
    with cluster.strategy.scope():
      self._step = tf.Variable(stage.start, dtype=tf.int64)
      self._batch_index = tf.Variable(
        before.get("batch_index", 0), dtype=tf.int64
      )
      self._num_recoveries = tf.Variable(0, dtype=tf.int64)
      self._model = assembly.make_model(config, stage)
      self._variables = self._model.trainable_variables
      self._learning_rate = assembly.make_learning_rate(config, stage)
      self._optimizer = assembly.make_optimizer(
        config, lambda: self._learning_rate(self._step)
      )
      self._state_before = self._fill()
      self._loss_scale = None
      if config.training.precision == "mixed_float16":
        self._loss_scale = loss_scale.DynamicLossScale()
    self._checkpoints = checkpoints.Checkpoints(
      directory.checkpoints(stage.number),
      tf.train.Checkpoint(
        model=self._model,
        optimizer=self._optimizer,
        step=self._step,
        batch_index=self._batch_index,
        num_recoveries=self._num_recoveries,
        loss_scale=self._loss_scale or tf.Module(),
        clock=clock,
      ),
      keep=config.training.keep_checkpoints,
    )
    self._restore()
    self._count_lost_time()
    self._steps = loop.TrainingSteps(
      strategy=cluster.strategy,
      compute_sums=functools.partial(
        sums_in_training, self._model, seed=config.training.seed
      ),
      compute_counts=bert.pretraining_counts,
      compute_shared=lambda: (self._model.frozen_kernels(),),
      metrics=METRICS,
      variables=self._variables,
      optimizer=self._optimizer,
      clip_norm=config.optimizer.clip_norm,
      step=self._step,
      batch_index=self._batch_index,
      is_asked_to_stop=is_asked_to_stop,
      use_xla=use_xla(config),
      num_micro_batches=config.training.num_micro_batches,
      loss_scale=self._loss_scale,
      largest_loss=config.training.largest_loss or math.inf,
    )
    self._evaluation = self._make_evaluation()
    self._profile = step_profile.StepProfile(
      config.training.profile_steps,
      directory.tensorboard,
      is_written=cluster.is_chief,
    )
    with self._naming_bad_examples():
      self._frozen_states = self._store_frozen_states(is_asked_to_stop)
    self._start_from_here()

  def run(self) -> bool:
    """Trains to the stage's end; returns whether that was reached."""
    training = self._config.training
    stage = self._stage
    step = int(self._step.numpy())
    if self._cluster.is_chief:
      logging.info(
        "%s%s",
        outline.describe_stage(stage, len(self._config.schedule.stages)),
        f"; resuming at step {step:,}" if step > stage.start else "",
      )
    if training.max_recoveries and step == stage.start:
      self._save()  # So that there is something to go back to.
    while True:
      try:
        with self._naming_bad_examples():
          is_finished = loop.run(
            step=int(self._step.numpy()),
            last_step=stage.end,
            intervals=loop.Intervals(
              steps_per_loop=training.steps_per_loop,
              evaluate=training.eval_interval,
              save=training.checkpoint_interval,
              others=self._profile.borders,
            ),
            train=self._train,
            evaluate=self._evaluate,
            save=self._save,
            should_stop=self._should_stop,
          )
        break
      except _DivergedError as error:
        self._recover(error)
    if is_finished:
      self._finish()
    if self._log:
      self._log.close()
    return is_finished

  @contextlib.contextmanager
  def _naming_bad_examples(self) -> Iterator[None]:
    """Turns what a bad record raises into an `InputError` that names it."""
    try:
      yield
    except tf.errors.DataLossError as error:
      logging.info("a record is damaged; looking for its shard")
      damaged = input_pipeline.find_damage(self._data)
      raise errors.InputError(
        f"{damaged or self._data.source}: a record is damaged or cut off."
      ) from error
    except input_pipeline.MALFORMED as error:
      # The whole message: where it is none of the data's, that takes long.
      logging.info(
        "an example may be malformed; looking for it in all of the data: %s",
        error,
      )
      malformed = input_pipeline.find_malformed(self._data)
      if malformed is None:
        raise
      raise errors.InputError(malformed) from error
    except tf.errors.ResourceExhaustedError as error:
      found = _OUT_OF_MEMORY.search(str(error))
      if not found:
        raise
      training = self._config.training
      raise errors.InputError(
        f"stage {self._stage.number}: memory is too small for"
        f" data.batch_size={self._config.data.batch_size} in"
        f" training.num_micro_batches={training.num_micro_batches} parts on"
        f" {self._cluster.num_replicas} device(s), or for"
        f" training.eval_batch_size={training.eval_batch_size}; more parts or"
        " a smaller eval_batch_size may help, and the run goes on with them"
        f" from the last checkpoint. ({found[0]})"
      ) from error

  def _store_frozen_states(
    self, is_asked_to_stop: tf.Variable
  ) -> stored_states.StoredStates | None:
    """Returns the frozen states of all examples, if they are to be reused."""
    start = time.monotonic()
    states = frozen_states.prepare(
      self._model,
      config=self._config,
      data=self._data,
      strategy=self._cluster.strategy,
      directory=self._directory.frozen_states(self._stage.number),
      num_steps=self._stage.end - int(self._step.numpy()),
      use_xla=use_xla(self._config),
      # There is one worker, whose clock is the run's.
      should_stop=lambda: (
        bool(is_asked_to_stop.numpy()) or self._deadline.is_near()
      ),
    )
    if states is not None:
      # What they spare the steps, they cost here.
      self._clock.add_train_seconds(time.monotonic() - start)
    return states

  def _should_stop(self) -> bool:
    # The workers' clocks differ, and they must agree.
    return bool(self._cluster.broadcast(self._deadline.is_near()))

  def _fill(self) -> dict[str, np.ndarray]:
    """Grows the weights of the stage before into the model.

    Returns:
      The optimizer's state as it comes from there; empty where it starts fresh.
    """
    before = {}
    if self._stage.number > 1 or self._starts_from_checkpoint:
      before = self._directory.read_stage(self._stage.number - 1)
    fresh = weights.to_arrays(self._model)
    arrays = growth.grow(before, self._stage.stage.source_layers, fresh=fresh)
    weights.fill(self._model, arrays)
    state = {name: array for name, array in arrays.items() if name not in fresh}
    self._optimizer.prepare(self._variables, state)
    return state

  def _restore(self) -> None:
    """Restores the newest good checkpoint, if there is one."""
    newest = None
    if self._cluster.is_chief:
      newest = self._checkpoints.newest_good()
    number = self._cluster.broadcast(-1 if newest is None else newest)
    if number >= 0:
      self._checkpoints.restore(number)

  def _count_lost_time(self) -> None:
    """A kill throws steps away, but the time they took was spent."""
    if not self._cluster.is_chief:
      return  # Its clock is the run's.
    path = self._directory.metrics(self._stage.number)
    if tf.io.gfile.exists(path):
      records = metrics.read(path)
      if records:
        self._clock.count_up_to(records[-1]["wall_seconds"])

  def _save(self) -> None:
    """Saves under the number of batches consumed."""
    self._clock.tick()
    if self._cluster.is_chief:
      self._checkpoints.save(int(self._batch_index.numpy()))

  def _start_from_here(self) -> None:
    """Opens the data and the log at the step and batch of the variables."""
    self._log = None
    if self._cluster.is_chief:
      self._log = metrics.MetricsLog(
        jsonl_path=self._directory.metrics(self._stage.number),
        event_dir=self._directory.tensorboard,
        step=int(self._step.numpy()),
        stage_event_dir=self._directory.stage_tensorboard(self._stage.number),
        stage_start=self._stage.start,
      )
    first_batch = int(self._batch_index.numpy())

    def share_of_worker(context: tf.distribute.InputContext):
      return input_pipeline.train_batches(
        self._data,
        batch_size=self._config.data.batch_size,
        seed=self._config.training.seed,
        first_batch=first_batch,
        states=self._frozen_states,
        **_place_of(context),
      )

    self._iterator = iter(
      self._cluster.strategy.distribute_datasets_from_function(share_of_worker)
    )

  def _make_evaluation(self) -> loop.Evaluation:
    batch_size = self._config.training.eval_batch_size
    max_examples = self._config.training.eval_examples

    def share_of_worker(context: tf.distribute.InputContext):
      return input_pipeline.heldout_batches(
        self._data,
        batch_size=batch_size,
        max_examples=max_examples,
        **_place_of(context),
      )

    num_examples = self._data.heldout.num_examples
    if max_examples is not None:
      num_examples = min(num_examples, max_examples)
    return loop.Evaluation(
      self._cluster.strategy,
      lambda features: bert.pretraining_sums(self._model(features), features),
      self._cluster.strategy.distribute_datasets_from_function(share_of_worker),
      metrics=METRICS,
      num_batches=-(-num_examples // batch_size),
    )

  def _recover(self, error: _DivergedError) -> None:
    """Goes back to the last checkpoint and on behind the bad batch.

    Raises:
      InputError: That was not wanted, or has been done often enough.
    """
    most = self._config.training.max_recoveries
    num_recoveries = int(self._num_recoveries.numpy()) + 1
    if num_recoveries > most:
      done = f", after {most} recoveries" if most else ""
      raise errors.InputError(
        f"{error}{done}; the last checkpoint is kept. A new --workdir with a"
        " lower optimizer.peak_learning_rate may help, or"
        " training.max_recoveries to leave the batches out."
      )
    next_batch = int(self._batch_index.numpy())
    self._restore()
    # The chief's next checkpoint may replace the one that others still read.
    self._cluster.barrier()
    if self._cluster.is_chief:
      logging.warning(
        "%s; back to step %s, leaving out batches %s to %s (recovery %d of %d)",
        error,
        f"{int(self._step.numpy()):,}",
        f"{int(self._batch_index.numpy()):,}",
        f"{next_batch - 1:,}",
        num_recoveries,
        most,
      )
    self._batch_index.assign(next_batch)
    self._num_recoveries.assign(num_recoveries)
    # From now on a restart comes here too.
    self._save()
    self._cluster.barrier()
    if self._log:
      self._log.close()
    self._start_from_here()

  def _train(self, num_steps: int) -> loop.Stretch:
    start = time.monotonic()
    with self._profile.around(int(self._step.numpy())):
      stretch = self._steps(self._iterator, num_steps)
    seconds = time.monotonic() - start
    step = int(self._step.numpy())
    if stretch.is_bad:
      raise _DivergedError(
        f"stage {self._stage.number}, step {step:,}, batch"
        f" {int(self._batch_index.numpy()) - 1:,}: {self._describe(stretch)}"
      )
    if not stretch.num_steps:
      return stretch  # Asked to stop in a step that was skipped.
    record = {
      "step": step,
      "batch_index": int(self._batch_index.numpy()),
      "stage": self._stage.number,
      "num_layers": self._stage.stage.num_layers,
      **stretch.means,
      # Of the last update, which took the run from step - 1 to step.
      "learning_rate": float(self._learning_rate(step - 1)),
      "trust_ratio": float(self._optimizer.mean_trust_ratio(self._variables)),
    }
    if self._loss_scale is not None:
      record["loss_scale"] = float(self._loss_scale.scale.numpy())
      record["skipped_steps"] = int(self._loss_scale.num_skipped.numpy())
    if self._num_recoveries.numpy():
      record["recoveries"] = int(self._num_recoveries.numpy())
    if self._steps.num_calls == 1:
      record["compile_seconds"] = seconds
    else:
      self._clock.add_train_seconds(seconds)
      self._seconds_per_step = seconds / stretch.num_steps
      record["examples_per_second"] = (
        self._config.data.batch_size * stretch.num_steps / seconds
      )
    record["train_seconds"] = self._clock.train_seconds
    record["wall_seconds"] = self._clock.wall_seconds
    if self._log:
      self._log.write("train", record)
      self._warn_if_not_fresh(step, stretch.means)
      logging.info("%s", self._progress_line(record))
    return stretch

  def _describe(self, stretch: loop.Stretch) -> str:
    largest = self._config.training.largest_loss
    if not math.isfinite(stretch.loss):
      return f"the loss is {stretch.loss}"
    if largest is not None and stretch.loss > largest:
      return (
        f"the loss is {stretch.loss:.3f}, above training.largest_loss={largest}"
      )
    return f"the loss is {stretch.loss:.3f}, but the gradient is not finite"

  def _evaluate(self) -> None:
    means = self._evaluation()
    step = int(self._step.numpy())
    # The last update's weights are seen by no training step of this stage.
    for name in LOSSES:
      if not math.isfinite(means[name]):
        raise _DivergedError(
          f"stage {self._stage.number}, step {step:,}: the held-out {name} is"
          f" {means[name]}"
        )
    self._eval_results = {f"eval_{name}": mean for name, mean in means.items()}
    if not self._log:
      return
    record = {
      "step": step,
      "stage": self._stage.number,
      "num_layers": self._stage.stage.num_layers,
      **means,
      "train_seconds": self._clock.train_seconds,
      "wall_seconds": self._clock.wall_seconds,
    }
    self._log.write("eval", record)
    logging.info(
      "step %s  held-out: mlm loss %.3f (accuracy %.3f)  nsp loss %.3f"
      " (accuracy %.3f)",
      f"{step:,}",
      means["mlm_loss"],
      means["mlm_accuracy"],
      means["nsp_loss"],
      means["nsp_accuracy"],
    )

  def _finish(self) -> None:
    """Writes the stage's file, which every worker then goes on from."""
    # What is mapped into memory cannot be removed everywhere.
    self._iterator = self._frozen_states = None
    if self._cluster.is_chief:
      self._write_stage()
    self._cluster.barrier()

  def _write_stage(self) -> None:
    arrays = weights.to_arrays(self._model)
    if self._config.optimizer.state_at_growth == "carried":
      arrays |= self._state_before
      arrays |= self._optimizer.state(self._variables)
    self._directory.finish_stage(
      self._stage.number,
      arrays=arrays,
      results={
        "step": self._stage.end,
        "batch_index": int(self._batch_index.numpy()),
        **self._eval_results,
        "train_seconds": self._clock.train_seconds,
        "wall_seconds": self._clock.wall_seconds,
      },
    )

  def _warn_if_not_fresh(self, step: int, means: dict[str, float]) -> None:
    if step != 1 or self._starts_from_checkpoint:
      return
    expected = {
      "mlm_loss": math.log(self._config.model.vocab_size),
      "nsp_loss": math.log(2),
    }
    for name, value in expected.items():
      if abs(means[name] - value) > FRESH_LOSS_TOLERANCE[name]:
        logging.warning(
          "%s of the first batch is %.2f; a fresh model's is near %.2f. Check"
          " the data and model.initializer_range.",
          name,
          means[name],
          value,
        )

  def _progress_line(self, record: dict[str, Any]) -> str:
    stages = self._config.schedule.stages
    if "compile_seconds" in record:
      pace = f"compiled in {record['compile_seconds']:.1f} s"
    else:
      remaining = outline.remaining_steps(self._config, record["step"])
      eta = written_numbers.duration(remaining * self._seconds_per_step)
      pace = f"{record['examples_per_second']:.0f} examples/s  ETA {eta}"
    return (
      f"step {record['step']:,}/{self._config.schedule.num_steps:,}"
      f"  stage {self._stage.number}/{len(stages)}"
      f"  mlm {record['mlm_loss']:.3f} ({record['mlm_accuracy']:.3f})"
      f"  nsp {record['nsp_loss']:.3f} ({record['nsp_accuracy']:.3f})"
      f"  lr {record['learning_rate']:.2e}"
      f"  {pace}"
    )


def _place_of(context: tf.distribute.InputContext) -> dict[str, int]:
  """Returns which worker this is of how many, and how often it splits."""
  num_workers = context.num_input_pipelines
  return {
    "num_workers": num_workers,
    "worker": context.input_pipeline_id,
    "num_parts": context.num_replicas_in_sync // num_workers,
  }


def sums_in_training(
  model: bert.Bert,
  features: loop.Features,
  place: loop.Place,
  frozen_kernels: Mapping[str, Any] | None = None,
  *,
  seed: int,
) -> loop.Sums:
  """Returns the sums of a forward pass with the dropout of its place."""
  dropout = dropout_lib.Dropout(
    seed, place.batch_index, place.replica, place.micro_batch
  )
  return bert.pretraining_sums(
    model(features, dropout, frozen_kernels), features
  )


def use_xla(config: config_lib.Config) -> bool:
  if config.training.xla == "auto":
    return bool(
      tf.config.list_logical_devices("GPU")
      or tf.config.list_logical_devices("TPU")
    )
  return config.training.xla == "on"
