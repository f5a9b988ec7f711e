"""Runs beside each other: what each cost and what loss it reached. Pure.

The first run is the baseline that the others are measured against. Between two
evaluations held-out losses and times are interpolated linearly.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mslt_tf.analysis import recorded_run

_TIMES = {"wall": "wall_seconds", "train": "train_seconds"}


def comparable(
  runs: Sequence[recorded_run.RecordedRun],
) -> list[recorded_run.RecordedRun]:
  """Returns the runs that have losses to compare, the baseline first.

  Those on other data than the baseline are left out, whether trained or
  evaluated on them, and those without an evaluation; `problems` says which.
  """
  evaluated = [run for run in runs if run.evaluations]
  return [run for run in evaluated if not _difference(run, evaluated[0])]


def problems(runs: Sequence[recorded_run.RecordedRun]) -> list[str]:
  """Returns what keeps the comparison from being whole, a line each."""
  lines = [
    f"{run.name}: {problem}." for run in runs for problem in run.problems
  ]
  evaluated = [run for run in runs if run.evaluations]
  for run in evaluated:
    if difference := _difference(run, evaluated[0]):
      lines.append(
        f"{run.name}: {difference} than {evaluated[0].name}; its losses are"
        " left out."
      )
  return lines


def compare(runs: Sequence[recorded_run.RecordedRun]) -> dict[str, Any]:
  """Returns every figure of the comparison, for JSON.

  Args:
    runs: As read; those that cannot be compared are told in `problems`.

  Returns:
    `baseline`, the name of the first comparable run; `unigram_mlm_loss` in
    nats, or None; `problems`; and `runs`: by name, what a run has reached and,
    under `against_baseline`, the speedup at equal steps, the loss at equal time
    and the time to the baseline's final loss.
  """
  compared = comparable(runs)
  known = [run.unigram_mlm_loss for run in compared]
  return {
    "baseline": compared[0].name if compared else None,
    "unigram_mlm_loss": next((each for each in known if each), None),
    "problems": problems(runs),
    "runs": {
      run.name: {
        **_reached(run),
        "against_baseline": _against(run, compared[0]),
      }
      for run in compared
    },
  }


def value_at(
  run: recorded_run.RecordedRun, key: str, place: float | None, *, along: str
) -> float | None:
  """Returns a figure of the held-out evaluations where `along` is `place`.

  Returns:
    None before the first and after the last evaluation, where both have not
    been recorded, and across a stage that is missing.
  """
  points = [
    (each[along], each[key], each["stage"])
    for each in run.evaluations
    if along in each and key in each
  ]
  if place is None:
    return None
  for x, y, _ in points:
    if x == place:
      return y
  for (x, y, stage), (next_x, next_y, next_stage) in itertools.pairwise(points):
    if x < place < next_x and next_stage - stage <= 1:
      return y + (next_y - y) * (place - x) / (next_x - x)
  return None


def first_below(
  run: recorded_run.RecordedRun, loss: float, *, along: str
) -> float | None:
  """Returns where along the run its held-out MLM loss first is `loss` or less.

  None where it never is.
  """
  points = [
    (each[along], each["mlm_loss"]) for each in run.evaluations if along in each
  ]
  before: tuple[float, float] | None = None
  for x, y in points:
    if y <= loss:
      if before is None:
        return x
      before_x, before_y = before
      return before_x + (x - before_x) * (before_y - loss) / (before_y - y)
    before = (x, y)
  return None


def _difference(
  run: recorded_run.RecordedRun, first: recorded_run.RecordedRun
) -> str:
  """Returns why losses cannot be compared with the first run's, if so."""
  if run.data_fingerprint != first.data_fingerprint:
    return "trained on other data"
  if (
    None not in (run.eval_examples, first.eval_examples)
    and run.eval_examples != first.eval_examples
  ):
    return "evaluated on other examples (training.eval_examples)"
  return ""


def _reached(run: recorded_run.RecordedRun) -> dict[str, Any]:
  last = run.evaluations[-1]
  batch_size = run.batch_size
  cost = run.cost
  return {
    "is_finished": run.is_finished,
    "status": run.status,
    "steps": run.step,
    "planned_steps": run.num_steps,
    "examples": None if batch_size is None else run.step * batch_size,
    "flops": run.flops_at(run.step),
    "wall_seconds": run.wall_seconds,
    "train_seconds": run.train_seconds,
    "evaluated_at": last["step"],
    **{
      f"eval_{name}": last.get(name)
      for name in ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")
    },
    "predicted_speedup": None if cost is None else cost.speedup,
    "problems": list(run.problems),
  }


def _against(
  run: recorded_run.RecordedRun, baseline: recorded_run.RecordedRun
) -> dict[str, Any]:
  return {
    "equal_steps": _equal_steps(run, baseline),
    "equal_time": {
      name: _equal_time(run, baseline, along=key)
      for name, key in _TIMES.items()
    },
    "baseline_loss": _to_baseline_loss(run, baseline),
  }


def _equal_steps(
  run: recorded_run.RecordedRun, baseline: recorded_run.RecordedRun
) -> dict[str, Any]:
  """Compares after as many steps as both have made."""
  step = _last_of_both(run, baseline, "step")
  found: dict[str, Any] = {"steps": step}
  for name, key in _TIMES.items():
    ours = value_at(run, key, step, along="step")
    theirs = value_at(baseline, key, step, along="step")
    found[key] = ours
    found[f"speedup_{name}"] = _ratio(theirs, ours)
  for key in ("mlm_loss", "mlm_accuracy", "nsp_accuracy"):
    found[key] = value_at(run, key, step, along="step")
  found["baseline_mlm_loss"] = value_at(
    baseline, "mlm_loss", step, along="step"
  )
  found["flops"] = None if step is None else run.flops_at(step)
  return found


def _equal_time(
  run: recorded_run.RecordedRun,
  baseline: recorded_run.RecordedRun,
  *,
  along: str,
) -> dict[str, Any]:
  """Compares after as much time as both have taken."""
  seconds = _last_of_both(run, baseline, along)
  return {
    "seconds": seconds,
    **{
      f"{prefix}{name}": value_at(each, key, seconds, along=along)
      for prefix, each in (("", run), ("baseline_", baseline))
      for name, key in (("steps", "step"), ("mlm_loss", "mlm_loss"))
    },
  }


def _to_baseline_loss(
  run: recorded_run.RecordedRun, baseline: recorded_run.RecordedRun
) -> dict[str, Any]:
  """Tells when a run gets as low as the baseline is at its end."""
  last = baseline.evaluations[-1]
  found: dict[str, Any] = {
    "mlm_loss": last["mlm_loss"],
    "steps": first_below(run, last["mlm_loss"], along="step"),
    "lowest_mlm_loss": min(each["mlm_loss"] for each in run.evaluations),
  }
  for name, key in _TIMES.items():
    found[key] = first_below(run, last["mlm_loss"], along=key)
    found[f"speedup_{name}"] = _ratio(last.get(key), found[key])
  return found


def _last_of_both(
  run: recorded_run.RecordedRun, baseline: recorded_run.RecordedRun, key: str
) -> float | None:
  ours, theirs = run.evaluations[-1].get(key), baseline.evaluations[-1].get(key)
  return None if ours is None or theirs is None else min(ours, theirs)


def _ratio(of: float | None, over: float | None) -> float | None:
  if not of or not over or not math.isfinite(of / over):
    return None
  return of / over


def learnt(compared: Mapping[str, Any]) -> str:
  """Returns who got below the loss of token frequencies; "" if that is unknown.

  Above it, a model has learnt nothing yet but how frequent tokens are.
  """
  unigram = compared["unigram_mlm_loss"]
  if unigram is None:
    return ""
  names = [
    name
    for name, figures in compared["runs"].items()
    if figures["eval_mlm_loss"] < unigram
  ]
  return (
    f"Token frequencies alone give a held-out MLM loss of {unigram:.3f}; below"
    f" it: {', '.join(names) or 'none'}."
  )
