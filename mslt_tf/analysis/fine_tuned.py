"""Results of fine-tuning as the comparison shows them. Pure.

They are read from `results.json`, whose form is `glue.results.as_dict`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mslt_tf import errors
from mslt_tf import written_numbers
from mslt_tf.analysis import recorded_run
from mslt_tf.glue import paper
from mslt_tf.glue import results as results_lib
from mslt_tf.glue import tables
from mslt_tf.glue import tasks as tasks_lib


def summaries(content: Any, source: str) -> list[results_lib.Summary]:
  """Returns what a `results.json` holds.

  Args:
    content: Of the file.
    source: What to call it in errors, such as its path.

  Raises:
    InputError: It has another form.
  """
  try:
    return [_summary(each) for each in content]
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise errors.InputError(
      f"{source} is no results.json of this version: {error!r}."
    ) from error


def all_tables(
  results: Sequence[results_lib.Summary],
  runs: Sequence[recorded_run.RecordedRun],
) -> list[tables.Table]:
  """Returns the paper's Tables 2 and 3 with one's own rows, and other tasks.

  In Table 3 a checkpoint that is called like a run tells the run's steps and
  wall time, as the paper's rows do.
  """
  if not results:
    return []
  by_name = {run.name: run for run in runs}
  timed = [
    dataclasses.replace(each, checkpoint=_with_time(each.checkpoint, by_name))
    for each in results
  ]
  names = {each.task.name for each in results}
  shown = []
  if names & set(paper.TABLE_2.tasks):
    shown.append(tables.beside_paper(results, paper.TABLE_2))
  if names & set(paper.TABLE_3.tasks):
    shown.append(tables.beside_paper(timed, paper.TABLE_3))
  others = [
    each for each in results if each.task.name not in paper.TABLE_2.tasks
  ]
  if others:
    table = tables.without_paper(others)
    shown.append(dataclasses.replace(table, title="Other tasks, dev"))
  return [*shown, tables.spread(results)]


def _with_time(
  checkpoint: str, runs: Mapping[str, recorded_run.RecordedRun]
) -> str:
  run = runs.get(checkpoint)
  if run is None:
    return checkpoint
  time = written_numbers.duration(run.wall_seconds)
  return f"{checkpoint}, {run.step:,} steps, {time}"


def _summary(tree: Mapping[str, Any]) -> results_lib.Summary:
  results = tuple(
    results_lib.Result(
      tree["task"],
      tree["checkpoint"],
      each["learning_rate"],
      each["seed"],
      each["metrics"],
    )
    for each in tree["results"]
  )
  scores: dict[float, dict[int, float]] = {}
  for each in tree["results"]:
    scores.setdefault(each["learning_rate"], {})[each["seed"]] = each["score"]
  rates = {
    rate: results_lib.RateSummary(rate, of_seeds)
    for rate, of_seeds in scores.items()
  }
  return results_lib.Summary(
    task=_task(tree),
    checkpoint=tree["checkpoint"],
    rates=tuple(rates.values()),
    best=rates[tree["learning_rate"]],
    metrics=tree["metrics"],
    num_expected=tree["num_expected"],
    constant_score=tree["constant_score"],
    threshold=tree["threshold"],
    results=results,
  )


def _task(tree: Mapping[str, Any]) -> tasks_lib.Task:
  try:
    return tasks_lib.get(tree["task"])
  except errors.InputError:
    # One's own: tables need no more of it than its name and metric.
    return tasks_lib.Task(
      name=tree["task"],
      title=tree["task"],
      labels=(),
      metrics=(tree["metric"],),
      train=None,
      dev=(),
      test=(),
    )
