"""Repeats the beginning of two recorded runs and compares their losses."""

import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence

from mslt_tf import errors
from mslt_tf.analysis import comparison
from mslt_tf.analysis import recorded_run
from mslt_tf.glue import tables
from mslt_tf.reproduction import experiments
from mslt_tf.reproduction import jobs as jobs_lib
from mslt_tf.reproduction import queue

# An evaluation of the runs; MSLT is in its first stage there.
STEP = 500

_SECONDS_BETWEEN_LOOKS = 2.0


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a repeated run reached beside what was recorded.

  Attributes:
    name: The experiment.
    recorded: Held-out MLM losses of the seeds at that step.
    repeated: The loss now, with the first seed.
  """

  name: str
  recorded: tuple[float, ...]
  repeated: float

  @property
  def allowed(self) -> tuple[float, float]:
    """The seeds' range, widened by itself on both sides."""
    low, high = min(self.recorded), max(self.recorded)
    return low - (high - low), high + (high - low)

  @property
  def is_repeated(self) -> bool:
    low, high = self.allowed
    return low <= self.repeated <= high


def run(
  workdir: jobs_lib.Workdir,
  recorded: Mapping[str, recorded_run.RecordedRun],
  log_dir: str,
) -> list[Outcome]:
  """Trains baseline and MSLT for `STEP` steps each.

  Args:
    workdir: A fresh one, with the data set.
    recorded: Runs by name.
    log_dir: Where the runs write what they say.

  Raises:
    errors.InputError: There is nothing recorded to compare with, or a run
      fails.
  """
  outcomes = []
  for experiment in (experiments.BASELINE, experiments.MSLT):
    names = [experiments.Run(experiment, s).name for s in experiment.seeds]
    found = [recorded[name] for name in names if name in recorded]
    losses = [
      comparison.value_at(each, "mlm_loss", STEP, along="step")
      for each in found
    ]
    known = tuple(loss for loss in losses if loss is not None)
    if len(known) < 2:
      raise errors.InputError(
        f"--check needs two recorded seeds of {experiment.name} to know their"
        f" spread; there are {len(known)}."
      )
    outcomes.append(
      Outcome(experiment.name, known, _repeat(workdir, experiment, log_dir))
    )
  return outcomes


def as_table(outcomes: Sequence[Outcome]) -> tables.Table:
  return tables.Table(
    f"Held-out MLM loss after {STEP} steps",
    ("run", "recorded, by seed", "allowed", "now", ""),
    tuple(
      (
        each.name,
        " ".join(f"{loss:.3f}" for loss in each.recorded),
        "{:.3f} to {:.3f}".format(*each.allowed),
        f"{each.repeated:.3f}",
        "repeated" if each.is_repeated else "DIFFERS",
      )
      for each in outcomes
    ),
    ("Allowed is the range of the seeds, widened by itself on both sides.",),
  )


def _repeat(
  workdir: jobs_lib.Workdir,
  experiment: experiments.Experiment,
  log_dir: str,
) -> float:
  """Returns the held-out MLM loss at `STEP`; the run is stopped there."""
  one = experiments.Run(experiment, experiment.seeds[0])
  job = jobs_lib.pretraining_job(workdir, one)
  os.makedirs(log_dir, exist_ok=True)
  log_path = os.path.join(log_dir, f"{one.name}.log")
  metrics_path = os.path.join(workdir.run(one), "stage_1", "metrics.jsonl")
  with open(log_path, "a", encoding="utf-8") as log:
    process = subprocess.Popen(
      queue.command_line(job),
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
    )
    try:
      while (loss := _loss_at_step(metrics_path)) is None:
        if process.poll() is not None:
          raise errors.InputError(
            f"{one.name} ended with status {process.returncode} before step"
            f" {STEP}; {log_path} says why."
          )
        time.sleep(_SECONDS_BETWEEN_LOOKS)
      return loss
    finally:
      if process.poll() is None:
        process.terminate()
        process.wait()


def _loss_at_step(metrics_path: str) -> float | None:
  try:
    with open(metrics_path, encoding="utf-8") as file:
      lines = file.read().splitlines()
  except OSError:
    return None
  for line in lines:
    try:
      record = json.loads(line)
    except ValueError:
      continue  # Of a line that is being written.
    if record.get("kind") == "eval" and record.get("step") == STEP:
      return record["mlm_loss"]
  return None
