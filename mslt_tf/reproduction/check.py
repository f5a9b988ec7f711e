"""Repeats the beginning of two recorded runs and compares their losses."""

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence

from mslt_tf import errors
from mslt_tf.analysis import comparison
from mslt_tf.analysis import recorded_run
from mslt_tf.analysis import workdirs
from mslt_tf.glue import tables
from mslt_tf.reproduction import experiments
from mslt_tf.reproduction import jobs as jobs_lib
from mslt_tf.reproduction import queue
from mslt_tf.reproduction import result_tables

# Which step's evaluation is compared. MSLT is in its second stage there: it has
# grown, and trains its upper half.
_CHECKED = ((experiments.BASELINE, 500), (experiments.MSLT, 750))
_SECONDS_BETWEEN_LOOKS = 2.0


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a repeated run reached beside what was recorded.

  Attributes:
    name: The experiment.
    step: Where.
    recorded: Held-out MLM losses of the seeds at that step.
    repeated: The loss now, with the first seed.
  """

  name: str
  step: int
  recorded: tuple[float, ...]
  repeated: float

  @property
  def is_repeated(self) -> bool:
    low, high = result_tables.seeds_spread(self.recorded)
    return low <= self.repeated <= high


def recorded_losses(
  runs: Mapping[str, recorded_run.RecordedRun],
) -> dict[str, tuple[float, ...]]:
  """Returns the losses of the seeds of each experiment to check.

  Raises:
    errors.InputError: There are too few to know how seeds differ.
  """
  found = {}
  for experiment, step in _CHECKED:
    names = [experiments.Run(experiment, s).name for s in experiment.seeds]
    losses = [
      comparison.value_at(runs[name], "mlm_loss", step, along="step")
      for name in names
      if name in runs
    ]
    known = tuple(loss for loss in losses if loss is not None)
    if len(known) < 2:
      raise errors.InputError(
        f"--check needs two recorded seeds of {experiment.name} to know their"
        f" spread; there are {len(known)}."
      )
    found[experiment.name] = known
  return found


def run(
  places: jobs_lib.Places,
  recorded: Mapping[str, tuple[float, ...]],
  *,
  log_dir: str,
  lock: int,
) -> list[Outcome]:
  """Trains baseline and MSLT up to the steps that are compared.

  Args:
    places: A fresh workdir, with the data set.
    recorded: What `recorded_losses` returns.
    log_dir: Where the runs write what they say.
    lock: What `queue.alone` yields.

  Raises:
    errors.InputError: A run fails.
  """
  return [
    Outcome(
      experiment.name,
      step,
      recorded[experiment.name],
      _repeat(
        places,
        experiments.Run(experiment, experiment.seeds[0]),
        step,
        log_dir=log_dir,
        lock=lock,
      ),
    )
    for experiment, step in _CHECKED
  ]


def as_table(outcomes: Sequence[Outcome]) -> tables.Table:
  return tables.Table(
    "Held-out MLM loss",
    ("run", "step", "recorded, by seed", "allowed", "now", ""),
    tuple(
      (
        each.name,
        f"{each.step:,}",
        " ".join(f"{loss:.3f}" for loss in each.recorded),
        "{:.3f} to {:.3f}".format(*result_tables.seeds_spread(each.recorded)),
        f"{each.repeated:.3f}",
        "repeated" if each.is_repeated else "DIFFERS",
      )
      for each in outcomes
    ),
    (f"Allowed is {result_tables.SPREAD}.",),
  )


def _repeat(
  places: jobs_lib.Places,
  run: experiments.Run,
  step: int,
  *,
  log_dir: str,
  lock: int,
) -> float:
  """Returns the held-out MLM loss at the step; the run is stopped there."""
  log_path = os.path.join(log_dir, f"check_{run.name}.log")
  workdir = places.run(run)
  job = jobs_lib.pretraining_job(places, run)
  with queue.running(job, log_path, lock) as process:
    while (loss := _loss_at(workdir, step)) is None:
      if process.poll() is not None:
        raise errors.InputError(
          f"{run.name} ended with status {process.returncode} before step"
          f" {step}; {log_path} says why."
        )
      time.sleep(_SECONDS_BETWEEN_LOOKS)
  return loss


def _loss_at(workdir: str, step: int) -> float | None:
  # What is just being written is one of the run's problems, and no error.
  run = workdirs.read(workdir, name=workdir)
  return comparison.value_at(run, "mlm_loss", step, along="step")
