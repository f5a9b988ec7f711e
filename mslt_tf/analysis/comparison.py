"""Runs beside each other: what each cost and what loss it reached."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from matplotlib import figure as figure_lib

from mslt_tf import errors
from mslt_tf.training import metrics
from mslt_tf.training import run_directory

_COMPARED = (
  "wall_seconds",
  "train_seconds",
  "eval_mlm_loss",
  "eval_mlm_accuracy",
  "eval_nsp_accuracy",
)


@dataclasses.dataclass(frozen=True)
class Run:
  """A run's summary and its held-out evaluations in the order of their steps.

  Attributes:
    name: The workdir's last part.
    evaluations: Records with `step`, `stage`, `wall_seconds`, `mlm_loss`, ...
  """

  name: str
  summary: dict[str, Any]
  evaluations: list[dict[str, Any]]


def read_run(workdir: str) -> Run:
  """Reads a finished run.

  Raises:
    InputError: for a workdir without a run, or whose run is not finished.
  """
  directory = run_directory.RunDirectory(workdir)
  if not tf.io.gfile.exists(os.path.join(workdir, "summary.json")):
    raise errors.InputError(f"{workdir} holds no run: no summary.json.")
  summary = directory.read_json("summary.json")
  if not summary.get("is_finished"):
    raise errors.InputError(
      f"{workdir}: the run is not finished; bin/pretrain.py continues it."
    )
  evaluations = [
    record
    for stage in summary["stages"]
    for record in metrics.read(directory.metrics(stage["stage"]))
    if record["kind"] == "eval"
  ]
  name = os.path.basename(os.path.normpath(workdir))
  return Run(name, summary, evaluations)


def compare(runs: Sequence[Run]) -> dict[str, Any]:
  """Returns each run's figures by name; speedups are against the first run."""
  first = runs[0].summary
  for run in runs:
    if run.summary["data_fingerprint"] != first["data_fingerprint"]:
      raise errors.InputError(
        f"{run.name} was trained on other data than {runs[0].name}; their"
        " losses cannot be compared."
      )
    if not run.summary["train_seconds"]:
      raise errors.InputError(
        f"{run.name} made one step a stage; there is no time to compare."
      )
  comparison: dict[str, Any] = {"unigram_mlm_loss": first["unigram_mlm_loss"]}
  for run in runs:
    comparison[run.name] = {
      "steps": run.summary["step"],
      **{key: run.summary[key] for key in _COMPARED},
      "speedup_wall": first["wall_seconds"] / run.summary["wall_seconds"],
      "speedup_train": first["train_seconds"] / run.summary["train_seconds"],
    }
  return comparison


def table(comparison: dict[str, Any]) -> str:
  """Returns the comparison as a text table, a run a row, with a verdict.

  The verdict is left out where the loss of token frequencies is not known.
  """
  unigram = comparison["unigram_mlm_loss"]
  rows = [
    [
      "run",
      "steps",
      "wall",
      "speedup",
      "training",
      "speedup",
      "MLM loss",
      "MLM accuracy",
      "NSP accuracy",
    ]
  ]
  runs = {
    name: figures
    for name, figures in comparison.items()
    if isinstance(figures, dict)
  }
  for name, figures in runs.items():
    rows.append(
      [
        name,
        f"{figures['steps']:,}",
        metrics.format_duration(figures["wall_seconds"]),
        f"{figures['speedup_wall']:.2f}",
        metrics.format_duration(figures["train_seconds"]),
        f"{figures['speedup_train']:.2f}",
        f"{figures['eval_mlm_loss']:.3f}",
        f"{figures['eval_mlm_accuracy']:.1%}",
        f"{figures['eval_nsp_accuracy']:.1%}",
      ]
    )
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
    "  ".join(
      cell.ljust(width) if index == 0 else cell.rjust(width)
      for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    for row in rows
  ]
  if unigram is None:  # Shards made elsewhere.
    return "\n".join(lines)
  learnt = [
    name for name, figures in runs.items() if figures["eval_mlm_loss"] < unigram
  ]
  lines += [
    "",
    f"Token frequencies alone give a held-out MLM loss of {unigram:.3f};"
    f" below it: {', '.join(learnt) or 'none'}.",
  ]
  return "\n".join(lines)


def plot(runs: Sequence[Run], path: str) -> None:
  """Draws held-out MLM loss against time and against steps, as in Figure 4.

  Dots mark the ends of stages. The dashed line is the loss of token
  frequencies alone, where that is known.
  """
  figure = figure_lib.Figure(figsize=(11, 4.2))
  axes = figure.subplots(1, 2, sharey=True)
  unigram = runs[0].summary["unigram_mlm_loss"]
  scales = {"wall_seconds": 1 / 60, "step": 1}
  for axis, (key, scale) in zip(axes, scales.items(), strict=True):
    for run in runs:
      x = [record[key] * scale for record in run.evaluations]
      y = [record["mlm_loss"] for record in run.evaluations]
      ends = [stage["step"] for stage in run.summary["stages"]]
      marks = [
        index
        for index, record in enumerate(run.evaluations)
        if record["step"] in ends
      ]
      axis.plot(x, y, marker="o", markevery=marks, markersize=4, label=run.name)
    if unigram is not None:
      axis.axhline(
        unigram,
        color="grey",
        linestyle="--",
        linewidth=1,
        label="token frequencies",
      )
    axis.grid(alpha=0.3)
  axes[0].set_xlabel("wall time (minutes)")
  axes[1].set_xlabel("steps")
  axes[0].set_ylabel("held-out MLM loss (nats)")
  axes[0].legend()
  figure.tight_layout()
  with (
    run_directory.writing(path),
    tf.io.gfile.GFile(path, "wb") as file,
  ):
    figure.savefig(file, format="png", dpi=150)
