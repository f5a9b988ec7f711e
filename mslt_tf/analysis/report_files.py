"""Writes a comparison of runs: report.html, report.md, JSON and PNG."""

import io
import os
from collections.abc import Sequence

import matplotlib
import tensorflow as tf
from matplotlib import figure as figure_lib

from mslt_tf import errors
from mslt_tf.analysis import comparison
from mslt_tf.analysis import comparison_tables
from mslt_tf.analysis import curves
from mslt_tf.analysis import fine_tuned
from mslt_tf.analysis import recorded_run
from mslt_tf.analysis import report
from mslt_tf.analysis import schedule_drawing
from mslt_tf.glue import results as results_lib
from mslt_tf.glue import tables
from mslt_tf.training import run_directory

_CURVES = (
  "Held-out MLM loss against steps, wall time, training FLOPs and training"
  " examples. A marker stands where a stage ends. The highest losses, of the"
  " first fifth, run out at the top."
)
_SCHEDULES = (
  "Schedules: stages as columns, as wide as they have steps, and layers as"
  " boxes. A box says which layer of the stage before it starts from, where"
  " that is not the one in its own place."
)


def write(
  runs: Sequence[recorded_run.RecordedRun],
  fine_tuning_workdirs: Sequence[str],
  output_dir: str,
) -> tuple[str, list[str]]:
  """Writes all files of the comparison.

  Args:
    runs: The baseline first.
    fine_tuning_workdirs: Of bin/finetune.py.
    output_dir: Where the files go.

  Returns:
    The main table as text, and the lines that tell what is missing.

  Raises:
    InputError: A file cannot be written.
  """
  directory = run_directory.RunDirectory(output_dir)
  compared = comparison.compare(runs)
  fine_tuning, problems = _read_fine_tuning(fine_tuning_workdirs)
  compared["problems"] += problems
  compared["fine_tuning"] = results_lib.as_dict(fine_tuning)
  verdict = list(filter(None, [comparison.learnt(compared)]))
  shown = comparison.comparable(runs)
  pre_training = comparison_tables.pre_training(compared)
  content = report.Report(
    verdict=verdict,
    problems=compared["problems"],
    sections=_sections(
      runs,
      pre_training,
      fine_tuned.all_tables(fine_tuning, runs),
      _pictures(runs, shown, compared["unigram_mlm_loss"], output_dir),
    ),
    configs=[(run.name, run.config_text) for run in runs if run.config_text],
  )
  directory.write_json("comparison.json", compared)
  directory.write_text("report.md", report.as_markdown(content))
  directory.write_text("report.html", report.as_html(content))
  text = tables.as_text(pre_training[:1])
  return "\n\n".join([text, *verdict]), compared["problems"]


def _sections(
  runs: Sequence[recorded_run.RecordedRun],
  pre_training: Sequence[tables.Table],
  fine_tuning: Sequence[tables.Table],
  pictures: dict[str, report.Picture],
) -> list[report.Section]:
  def drawn(*names: str) -> tuple[report.Picture, ...]:
    return tuple(pictures[name] for name in names if name in pictures)

  sections = [
    report.Section("Pre-training", drawn("comparison"), tuple(pre_training)),
    report.Section("Fine-tuning", tables=tuple(fine_tuning)),
    report.Section(
      "Schedules", drawn("schedules"), (comparison_tables.stages(runs),)
    ),
    report.Section(
      "What they ran with",
      tables=(
        comparison_tables.machines(runs),
        comparison_tables.differences(runs),
      ),
    ),
  ]
  return [each for each in sections if each.pictures or each.tables]


def _pictures(
  runs: Sequence[recorded_run.RecordedRun],
  shown: Sequence[recorded_run.RecordedRun],
  unigram_mlm_loss: float | None,
  output_dir: str,
) -> dict[str, report.Picture]:
  """Draws the figures, writes each as PNG, and returns them by name."""
  pictures = {}
  if shown:
    pictures["comparison"] = _picture(
      "comparison", curves.draw(shown, unigram_mlm_loss), _CURVES, output_dir
    )
  named = [(run.name, run.schedule) for run in runs if run.schedule is not None]
  if named:
    pictures["schedules"] = _picture(
      "schedules", schedule_drawing.draw(named), _SCHEDULES, output_dir
    )
  return pictures


def _picture(
  name: str, figure: figure_lib.Figure, caption: str, output_dir: str
) -> report.Picture:
  path = os.path.join(output_dir, f"{name}.png")
  with run_directory.writing(path):
    tf.io.gfile.makedirs(output_dir)
    with tf.io.gfile.GFile(path, "wb") as file:
      figure.savefig(file, format="png", dpi=130)
  # Text stays text: small, and found by a search. Two figures of a page need
  # different ids, and the same figure the same ones.
  settings = {
    "svg.fonttype": "none",
    "svg.hashsalt": name,
    "font.family": "sans-serif",
  }
  text = io.StringIO()
  with matplotlib.rc_context(settings):
    figure.savefig(text, format="svg", metadata={"Date": None})
  return report.Picture(f"{name}.png", text.getvalue(), caption)


def _read_fine_tuning(
  workdirs: Sequence[str],
) -> tuple[list[results_lib.Summary], list[str]]:
  """Returns all results, and a line for each workdir that has none."""
  found: list[results_lib.Summary] = []
  problems = []
  for workdir in workdirs:
    path = os.path.join(workdir, "results.json")
    if not tf.io.gfile.exists(path):
      problems.append(f"{path} is missing: no result of fine-tuning yet.")
      continue
    try:
      content = run_directory.RunDirectory(workdir).read_json("results.json")
      found += results_lib.from_list(content, path)
    except errors.InputError as error:
      problems.append(str(error))
  return found, problems
