"""A comparison as tables, in the form of the paper's Tables 2 and 3. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from mslt_tf import written_numbers
from mslt_tf.analysis import recorded_run
from mslt_tf.glue import tables

_MACHINE = ("processor", "cores", "devices", "strategy", "workers", "replicas")


def pre_training(compared: Mapping[str, Any]) -> list[tables.Table]:
  """Returns the tables of `comparison.compare`, the main one first."""
  runs = compared["runs"]
  if not runs:
    return []
  return [
    _equal_steps(compared),
    _equal_time(compared),
    _to_baseline_loss(compared),
    _whole_runs(runs),
  ]


def stages(runs: Sequence[recorded_run.RecordedRun]) -> tables.Table:
  """Returns a row a stage: what it trains, and how fast it was.

  Args:
    runs: Those to show; the first is the one whose last stage is speed 1.
  """
  with_cost = [run for run in runs if run.cost is not None]
  reference = None
  if runs and runs[0].schedule is not None:
    reference = runs[0].examples_per_second.get(len(runs[0].schedule.stages))
  rows = [row for run in with_cost for row in _stage_rows(run, reference)]
  first = f" of {runs[0].name}" if runs else ""
  return tables.Table(
    "Stages",
    (
      "run",
      "stage",
      "steps",
      "layers",
      "frozen",
      "embeddings",
      "MLM loss at its end",
      "examples/s",
      "speed of a step",
      "predicted",
    ),
    tuple(rows),
    (
      f"Speed of a step: over the last stage{first}, measured. Predicted: over"
      " a step of the whole model, by FLOPs.",
    ),
  )


def machines(runs: Sequence[recorded_run.RecordedRun]) -> tables.Table:
  """Returns a row a run: what it ran on, and with which versions."""
  versions = list(dict.fromkeys(name for run in runs for name in run.versions))
  rows = [
    (
      run.name,
      run.status,
      *(written_numbers.plain(run.machine.get(name)) for name in _MACHINE),
      *(written_numbers.plain(run.versions.get(name)) for name in versions),
    )
    for run in runs
  ]
  return tables.Table(
    "Machine and versions",
    ("run", "status", *_MACHINE, *versions),
    tuple(rows),
  )


def differences(runs: Sequence[recorded_run.RecordedRun]) -> tables.Table:
  """Returns the config fields in which runs differ, the schedule apart."""
  known = [run for run in runs if run.identity]
  names = dict.fromkeys(name for run in known for name in run.identity)
  rows = []
  for name in names:
    cells = [written_numbers.plain(run.identity.get(name)) for run in known]
    if len(set(cells)) > 1:
      rows.append((name, *cells))
  note = "" if rows else "The configs differ in nothing but the schedule."
  return tables.Table(
    "Where the configs differ",
    ("field", *(run.name for run in known)),
    tuple(rows),
    (note,) if note else (),
  )


def _equal_steps(compared: Mapping[str, Any]) -> tables.Table:
  rows = []
  for name, figures in compared["runs"].items():
    pair = figures["against_baseline"]["equal_steps"]
    rows.append(
      (
        name,
        written_numbers.count(pair["steps"]),
        written_numbers.duration(pair["wall_seconds"]),
        written_numbers.ratio(pair["speedup_wall"]),
        written_numbers.duration(pair["train_seconds"]),
        written_numbers.ratio(pair["speedup_train"]),
        written_numbers.ratio(figures["predicted_speedup"]),
        written_numbers.loss(pair["mlm_loss"]),
        written_numbers.percent(pair["mlm_accuracy"]),
        written_numbers.percent(pair["nsp_accuracy"]),
      )
    )
  return tables.Table(
    "Equal steps, as in the paper's Table 2",
    (
      "run",
      "steps",
      "wall",
      "speedup",
      "training",
      "speedup",
      "predicted",
      "MLM loss",
      "MLM accuracy",
      "NSP accuracy",
    ),
    tuple(rows),
    (
      f"Speedups are over {compared['baseline']} at the same step. Training"
      " leaves out tracing, the first step of each stage, evaluation and"
      " saving; wall leaves out nothing. Predicted: of the whole run, by FLOPs,"
      " over a baseline with as many steps.",
    ),
  )


def _equal_time(compared: Mapping[str, Any]) -> tables.Table:
  rows = []
  for name, figures in compared["runs"].items():
    if name == compared["baseline"]:
      continue
    for kind, label in (("wall", "wall"), ("train", "training")):
      pair = figures["against_baseline"]["equal_time"][kind]
      rows.append(
        (
          name,
          label,
          written_numbers.duration(pair["seconds"]),
          written_numbers.count(pair["steps"]),
          written_numbers.loss(pair["mlm_loss"]),
          written_numbers.count(pair["baseline_steps"]),
          written_numbers.loss(pair["baseline_mlm_loss"]),
          written_numbers.difference(
            pair["mlm_loss"], pair["baseline_mlm_loss"]
          ),
        )
      )
  return tables.Table(
    "Equal time, as in the paper's Table 3",
    (
      "run",
      "kind of time",
      "time",
      "steps",
      "MLM loss",
      "baseline's steps",
      "baseline's loss",
      "difference",
    ),
    tuple(rows),
    (
      f"The baseline is {compared['baseline']}. The longer of two runs is cut"
      " off, before its learning rate has come down; a baseline made for this"
      " time would do better.",
    ),
  )


def _to_baseline_loss(compared: Mapping[str, Any]) -> tables.Table:
  rows = []
  for name, figures in compared["runs"].items():
    pair = figures["against_baseline"]["baseline_loss"]
    is_reached = pair["steps"] is not None
    missing = f"not reached; lowest {pair['lowest_mlm_loss']:.3f}"
    rows.append(
      (
        name,
        written_numbers.loss(pair["mlm_loss"]),
        written_numbers.count(pair["steps"]) if is_reached else missing,
        written_numbers.duration(pair["wall_seconds"]),
        written_numbers.ratio(pair["speedup_wall"]),
        written_numbers.duration(pair["train_seconds"]),
        written_numbers.ratio(pair["speedup_train"]),
      )
    )
  return tables.Table(
    f"Time to the last MLM loss of {compared['baseline']}",
    (
      "run",
      "loss to reach",
      "steps",
      "wall",
      "speedup",
      "training",
      "speedup",
    ),
    tuple(rows),
  )


def _whole_runs(runs: Mapping[str, Mapping[str, Any]]) -> tables.Table:
  rows = [
    (
      name,
      figures["status"],
      written_numbers.count(figures["steps"]),
      written_numbers.count(figures["examples"]),
      written_numbers.scientific(figures["flops"]),
      written_numbers.duration(figures["wall_seconds"]),
      written_numbers.duration(figures["train_seconds"]),
      written_numbers.loss(figures["eval_mlm_loss"]),
      written_numbers.loss(figures["eval_nsp_loss"]),
    )
    for name, figures in runs.items()
  ]
  return tables.Table(
    "Runs as they stand",
    (
      "run",
      "status",
      "steps",
      "examples",
      "FLOPs",
      "wall",
      "training",
      "MLM loss",
      "NSP loss",
    ),
    tuple(rows),
  )


def _stage_rows(
  run: recorded_run.RecordedRun, reference: float | None
) -> list[tuple[str, ...]]:
  assert run.schedule is not None and run.cost is not None
  rows: list[tuple[str, ...]] = []
  for number, (stage, start, end, cost) in enumerate(
    zip(
      run.schedule.stages,
      run.schedule.stage_starts,
      run.schedule.stage_ends,
      run.cost.stages,
      strict=True,
    ),
    start=1,
  ):
    at_end = [
      each["mlm_loss"] for each in run.evaluations if each["step"] == end
    ]
    speed = run.examples_per_second.get(number)
    rows.append(
      (
        run.name,
        str(number),
        f"{start:,} to {end:,}",
        str(stage.num_layers),
        str(stage.num_frozen_layers),
        stage.embeddings,
        written_numbers.loss(at_end[-1] if at_end else None),
        written_numbers.count(speed),
        written_numbers.ratio(
          speed / reference if speed and reference else None
        ),
        written_numbers.ratio(cost.speedup),
      )
    )
  return rows
