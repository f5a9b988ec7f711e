"""Pre-training of BERT by a schedule of stages, from config to summary."""

import dataclasses
import math
import os
import platform
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from mslt_tf import assembly
from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import growth
from mslt_tf import plan
from mslt_tf.data import input_pipeline
from mslt_tf.data import manifest
from mslt_tf.models import bert
from mslt_tf.models import dropout as dropout_lib
from mslt_tf.models import weights
from mslt_tf.training import loop
from mslt_tf.training import metrics
from mslt_tf.training import run_directory

LOSSES = ("mlm_loss", "nsp_loss")
# Held-out results of a finished stage.
RESULTS = (
  "step",
  "eval_mlm_loss",
  "eval_mlm_accuracy",
  "eval_nsp_loss",
  "eval_nsp_accuracy",
)
# A fresh model guesses: MLM loss near ln V, NSP loss near ln 2. Farther off
# than this, in nats, and something is wrong with the data or the weights.
FRESH_LOSS_TOLERANCE = {"mlm_loss": 1.0, "nsp_loss": 0.5}


def run(
  config: config_lib.Config,
  workdir: str,
  *,
  max_seconds: float = math.inf,
  started: float | None = None,
) -> bool:
  """Pre-trains, from where `workdir` stands to the last step.

  Args:
    config: The run.
    workdir: Where it writes; a second call with the same config goes on there.
    max_seconds: Stops with a checkpoint after so much wall time.
    started: `time.monotonic()` at the start of the process; by default now.

  Returns:
    Whether the run is finished.

  Raises:
    InputError: For data or a workdir that do not fit the config.
  """
  started = time.monotonic() if started is None else started
  if config.training.deterministic:
    tf.config.experimental.enable_op_determinism()
  data = manifest.open_data(config.data.directory)
  manifest.check(
    data,
    vocab_size=config.model.vocab_size,
    lower_case=config.model.lower_case,
    sequence_length=config.data.sequence_length,
    max_predictions=config.data.max_predictions,
    vocab_sha256=config.data.vocab_sha256,
  )
  identity = config_lib.identity(config)
  identity["data"]["fingerprint"] = data.fingerprint
  directory = run_directory.claim(workdir, identity)
  directory.write_text("config.yaml", config_lib.to_yaml(config))
  stages = plan.place_stages(config.schedule)
  clock = metrics.Clock(started)
  deadline = loop.Deadline(started + max_seconds)
  for stage in stages:
    if directory.is_finished(stage.number):
      directory.remove_checkpoints(stage.number)
      results = directory.read_results(stage.number)
      clock.resume(
        wall_seconds=results["wall_seconds"],
        train_seconds=results["train_seconds"],
      )
      continue
    stage_run = _StageRun(
      config=config,
      data=data,
      directory=directory,
      stage=stage,
      clock=clock,
      deadline=deadline,
    )
    if not stage_run.run():
      _write_summary(config, data, directory, clock)
      return False
  _write_summary(config, data, directory, clock)
  return True


class _StageRun:
  """One stage, from the file of the stage before to its own."""

  def __init__(
    self,
    *,
    config: config_lib.Config,
    data: manifest.Data,
    directory: run_directory.RunDirectory,
    stage: plan.PlacedStage,
    clock: metrics.Clock,
    deadline: loop.Deadline,
  ):
    self._config = config
    self._data = data
    self._directory = directory
    self._stage = stage
    self._clock = clock
    self._deadline = deadline
    self._seconds_per_step = math.nan
    self._eval_results: dict[str, float] = {}

    before = directory.read_results(stage.number - 1) if stage.start else {}
    self._step = tf.Variable(stage.start, dtype=tf.int64)
    self._batch_index = tf.Variable(before.get("batch_index", 0), tf.int64)
    self._model = assembly.make_model(config, stage)
    self._variables = self._model.trainable_variables
    self._learning_rate = assembly.make_learning_rate(config, stage)
    self._optimizer = assembly.make_optimizer(
      config, lambda: self._learning_rate(self._step)
    )
    self._state_before = self._fill()
    self._checkpoints = tf.train.CheckpointManager(
      tf.train.Checkpoint(
        model=self._model,
        optimizer=self._optimizer,
        step=self._step,
        batch_index=self._batch_index,
        clock=clock,
      ),
      directory.checkpoints(stage.number),
      max_to_keep=config.training.keep_checkpoints,
      step_counter=self._step,
    )
    self._restore()
    self._count_lost_time()
    self._steps = loop.TrainingSteps(
      compute_sums=self._sums_in_training,
      losses=LOSSES,
      variables=self._variables,
      optimizer=self._optimizer,
      clip_norm=config.optimizer.clip_norm,
      step=self._step,
      batch_index=self._batch_index,
      use_xla=_use_xla(config),
    )
    self._evaluation = loop.Evaluation(
      lambda features: bert.pretraining_sums(self._model(features), features),
      input_pipeline.heldout_batches(
        data,
        batch_size=config.training.eval_batch_size,
        max_examples=config.training.eval_examples,
      ),
    )
    self._iterator = iter(
      input_pipeline.train_batches(
        data,
        batch_size=config.data.batch_size,
        seed=config.training.seed,
        first_batch=int(self._batch_index),
      )
    )
    self._log = metrics.MetricsLog(
      jsonl_path=directory.metrics(stage.number),
      event_dir=directory.tensorboard,
      step=int(self._step),
    )

  def run(self) -> bool:
    """Trains to the stage's end; returns whether that was reached."""
    training = self._config.training
    step, stage = int(self._step), self._stage
    logging.info(
      "%s%s",
      plan.describe_stage(stage, len(self._config.schedule.stages)),
      f"; resuming at step {step:,}" if step > stage.start else "",
    )
    try:
      is_finished = loop.run(
        step=step,
        last_step=stage.end,
        intervals=loop.Intervals(
          steps_per_loop=training.steps_per_loop,
          evaluate=training.eval_interval,
          save=training.checkpoint_interval,
        ),
        train=self._train,
        evaluate=self._evaluate,
        save=self._save,
        should_stop=self._deadline.is_near,
      )
    except tf.errors.DataLossError as error:
      damaged = input_pipeline.find_damage(self._data)
      raise errors.InputError(
        f"{damaged or self._data.directory}: a record is damaged or cut off."
      ) from error
    if is_finished:
      self._finish()
    self._log.close()
    return is_finished

  def _fill(self) -> dict[str, np.ndarray]:
    """Grows the weights of the stage before into the model.

    Returns:
      The optimizer's state as it comes from there; empty where it starts fresh.
    """
    before = {}
    if self._stage.number > 1:
      before = self._directory.read_stage(self._stage.number - 1)
    fresh = weights.to_arrays(self._model)
    arrays = growth.grow(before, self._stage.stage.source_layers, fresh=fresh)
    weights.fill(self._model, arrays)
    state = {name: array for name, array in arrays.items() if name not in fresh}
    self._optimizer.prepare(self._variables, state)
    return state

  def _restore(self) -> None:
    """Restores the stage's latest checkpoint, if there is one."""
    latest = self._checkpoints.latest_checkpoint
    if latest is None:
      return
    try:
      status = self._checkpoints.checkpoint.restore(latest)
      status.assert_existing_objects_matched()
    except (tf.errors.OpError, AssertionError, ValueError) as error:
      reason = str(error).splitlines()[0]
      raise errors.InputError(
        f"{latest}: the checkpoint cannot be restored: {reason}"
      ) from error

  def _count_lost_time(self) -> None:
    """A kill throws steps away, but the time they took was spent."""
    path = self._directory.metrics(self._stage.number)
    if tf.io.gfile.exists(path):
      records = metrics.read(path)
      if records:
        self._clock.count_up_to(records[-1]["wall_seconds"])

  def _save(self) -> None:
    self._clock.tick()
    with run_directory.writing(self._checkpoints.directory):
      self._checkpoints.save(checkpoint_number=self._step)

  def _sums_in_training(self, features, batch_index) -> loop.Sums:
    dropout = dropout_lib.Dropout(self._config.training.seed, batch_index)
    return bert.pretraining_sums(self._model(features, dropout), features)

  def _train(self, num_steps: int) -> None:
    start = time.monotonic()
    means = self._steps(self._iterator, num_steps)
    seconds = time.monotonic() - start
    step = int(self._step)
    self._check_finite(means, (*LOSSES, "gradient_norm"))
    record = {
      "step": step,
      "batch_index": int(self._batch_index),
      "stage": self._stage.number,
      "num_layers": self._stage.stage.num_layers,
      **means,
      # Of the last update, which took the run from step - 1 to step.
      "learning_rate": float(self._learning_rate(self._step - 1)),
      "trust_ratio": float(self._optimizer.mean_trust_ratio(self._variables)),
    }
    if self._steps.num_calls == 1:
      record["compile_seconds"] = seconds
    else:
      self._clock.add_train_seconds(seconds)
      self._seconds_per_step = seconds / num_steps
      batch_size = self._config.data.batch_size
      record["examples_per_second"] = batch_size * num_steps / seconds
    record["train_seconds"] = self._clock.train_seconds
    record["wall_seconds"] = self._clock.wall_seconds
    self._log.write("train", record)
    self._warn_if_not_fresh(step, means)
    logging.info("%s", self._progress_line(record))

  def _evaluate(self) -> None:
    means = self._evaluation()
    # The last update's weights are seen by no training step of this stage.
    self._check_finite(means, LOSSES)
    self._eval_results = {f"eval_{name}": mean for name, mean in means.items()}
    record = {
      "step": int(self._step),
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
      f"{int(self._step):,}",
      means["mlm_loss"],
      means["mlm_accuracy"],
      means["nsp_loss"],
      means["nsp_accuracy"],
    )

  def _check_finite(
    self, means: dict[str, float], names: Sequence[str]
  ) -> None:
    for name in names:
      if not math.isfinite(means[name]):
        raise errors.InputError(
          f"step {int(self._step)}: {name} is {means[name]}; a new --workdir"
          " with a lower optimizer.peak_learning_rate may help."
        )

  def _finish(self) -> None:
    """Writes the stage's file."""
    arrays = weights.to_arrays(self._model)
    if self._config.optimizer.state_at_growth == "carried":
      arrays |= self._state_before
      arrays |= self._optimizer.state(self._variables)
    self._directory.finish_stage(
      self._stage.number,
      arrays=arrays,
      results={
        "step": self._stage.end,
        "batch_index": int(self._batch_index),
        **self._eval_results,
        "train_seconds": self._clock.train_seconds,
        "wall_seconds": self._clock.wall_seconds,
      },
    )

  def _warn_if_not_fresh(self, step: int, means: dict[str, float]) -> None:
    if step != 1:
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
      remaining = plan.remaining_steps(self._config, record["step"])
      eta = metrics.format_duration(remaining * self._seconds_per_step)
      pace = f"{record['examples_per_second']:.0f} examples/s  ETA {eta}"
    return (
      f"step {record['step']:,}/{self._config.schedule.num_steps:,}"
      f"  stage {self._stage.number}/{len(stages)}"
      f"  mlm {record['mlm_loss']:.3f} ({record['mlm_accuracy']:.3f})"
      f"  nsp {record['nsp_loss']:.3f} ({record['nsp_accuracy']:.3f})"
      f"  lr {record['learning_rate']:.2e}"
      f"  {pace}"
    )


def _use_xla(config: config_lib.Config) -> bool:
  if config.training.xla == "auto":
    return bool(
      tf.config.list_logical_devices("GPU")
      or tf.config.list_logical_devices("TPU")
    )
  return config.training.xla == "on"


def _write_summary(
  config: config_lib.Config,
  data: manifest.Data,
  directory: run_directory.RunDirectory,
  clock: metrics.Clock,
) -> None:
  """Writes how the run stands after its last finished stage."""
  finished = [
    {
      "stage": stage.number,
      **dataclasses.asdict(stage.stage),
      **directory.read_results(stage.number),
    }
    for stage in plan.place_stages(config.schedule)
    if directory.is_finished(stage.number)
  ]
  is_finished = len(finished) == len(config.schedule.stages)
  last = {name: finished[-1][name] for name in RESULTS} if finished else {}
  # A finished run took what its last stage says, however often it is started.
  wall, train = clock.wall_seconds, clock.train_seconds
  if is_finished:
    wall, train = finished[-1]["wall_seconds"], finished[-1]["train_seconds"]
  directory.write_json(
    "summary.json",
    {
      "is_finished": is_finished,
      "num_steps": config.schedule.num_steps,
      **last,
      "wall_seconds": wall,
      "train_seconds": train,
      "data_fingerprint": data.fingerprint,
      "unigram_mlm_loss": data.unigram_mlm_loss,
      "stages": finished,
      "config": config_lib.to_dict(config),
      "versions": {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
      },
      "machine": {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "devices": [device.name for device in tf.config.list_logical_devices()],
      },
    },
  )
