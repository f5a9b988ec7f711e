"""Results of fine-tuning as the comparison shows them. Pure."""

import dataclasses
from collections.abc import Mapping, Sequence

from mslt_tf import written_numbers
from mslt_tf.analysis import recorded_run
from mslt_tf.glue import paper
from mslt_tf.glue import results as results_lib
from mslt_tf.glue import tables


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
