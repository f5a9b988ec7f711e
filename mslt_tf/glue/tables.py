"""Results of fine-tuning as tables, with the paper's rows beside them. Pure.

Tables are values; `as_text` and `as_markdown` lay them out.
"""

import dataclasses
import statistics
from collections.abc import Iterator, Sequence

from mslt_tf.glue import paper
from mslt_tf.glue import results as results_lib
from mslt_tf.glue import tasks as tasks_lib

METRIC_NAMES = {
  "accuracy": "accuracy",
  "f1": "F1",
  "matthews": "Matthews' correlation",
  "pearson": "Pearson's correlation",
  "spearman": "Spearman's correlation",
}

_MISSING = "-"
_CONSTANT_MARK = "*"


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of text; the first column names the rows."""

  title: str
  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]
  notes: tuple[str, ...] = ()


def report(summaries: Sequence[results_lib.Summary]) -> list[Table]:
  """Returns all tables of results: ours beside the paper's, spread, every run.

  The paper's Tables 2 and 3 are there if a task of theirs is.
  """
  names = {summary.task.name for summary in summaries}
  tables = [
    beside_paper(summaries, table)
    for table in (paper.TABLE_2, paper.TABLE_3)
    if names & set(table.tasks)
  ]
  others = [
    each for each in summaries if each.task.name not in paper.TABLE_2.tasks
  ]
  if others:
    tables.append(without_paper(others))
  return [*tables, spread(summaries), every_result(summaries)]


def beside_paper(
  summaries: Sequence[results_lib.Summary], table: paper.Table
) -> Table:
  """Returns a row a checkpoint above the paper's rows of its dev sets.

  Args:
    summaries: Of any checkpoints and tasks.
    table: Its tasks are the columns, as far as they have results.

  Returns:
    The table. Averages, the paper's too, are over the columns that every
    checkpoint has; the paper's own stand where these are all of its columns.
  """
  names = {summary.task.name for summary in summaries}
  columns = [name for name in table.tasks if name in names]
  shown = [each for each in summaries if each.task.name in columns]
  by_checkpoint = _by_checkpoint(shown)
  averaged = [
    name
    for name in columns
    if all(name in of_tasks for of_tasks in by_checkpoint.values())
  ]
  rows = [
    (checkpoint, *_cells(of_tasks, columns), _average(of_tasks, averaged))
    for checkpoint, of_tasks in by_checkpoint.items()
  ]
  notes = list(_notes(shown))
  if len(averaged) < len(table.tasks):
    titles = ", ".join(_title(name) for name in averaged) or "no task"
    notes.append(f"Avg, the paper's too, is over {titles}.")
  return Table(
    table.title,
    ("", *map(_title, columns), "Avg"),
    (*rows, *_paper_rows(table, columns, averaged)),
    tuple(notes),
  )


def published(table: paper.Table) -> Table:
  """Returns a table of the paper alone."""
  note = "Scores of the test sets need the GLUE server."
  return Table(
    table.title,
    ("", *map(_title, table.tasks), "Avg"),
    tuple(_paper_rows(table, table.tasks, table.tasks)),
    () if table.is_dev else (note,),
  )


def without_paper(summaries: Sequence[results_lib.Summary]) -> Table:
  """Returns a row a checkpoint and a column a task, such as one's own."""
  titles = {each.task.name: each.task.title for each in summaries}
  rows = [
    (checkpoint, *_cells(of_tasks, list(titles)))
    for checkpoint, of_tasks in _by_checkpoint(summaries).items()
  ]
  return Table("Dev", ("", *titles.values()), tuple(rows), _notes(summaries))


def spread(summaries: Sequence[results_lib.Summary]) -> Table:
  """Returns a row a checkpoint and task: the best rate and its seeds."""
  rows = [
    (
      each.checkpoint,
      each.task.title,
      METRIC_NAMES[each.task.headline],
      f"{each.best.learning_rate:g}",
      _score(each),
      _percent(each.best.lowest),
      _percent(each.best.highest),
      _percent(each.best.deviation, digits=2),
      _percent(each.constant_score),
      _percent(each.threshold),
      f"{len(each.results)} of {each.num_expected}",
    )
    for each in summaries
  ]
  return Table(
    "Median of the best rate, and its seeds",
    (
      "checkpoint",
      "task",
      "metric",
      "rate",
      "median",
      "lowest",
      "highest",
      "deviation",
      "constant",
      "to beat",
      "runs",
    ),
    tuple(rows),
    (
      "constant: the best that one answer for all examples scores; to beat:"
      " that and two standard errors of a dev set of this size.",
      *_constant_note(summaries),
    ),
  )


def every_result(summaries: Sequence[results_lib.Summary]) -> Table:
  """Returns a row a checkpoint, task and rate, with each seed's score."""
  seeds = sorted(
    {
      seed
      for summary in summaries
      for rate in summary.rates
      for seed in rate.scores
    }
  )
  rows = [
    (
      summary.checkpoint,
      summary.task.title,
      f"{rate.learning_rate:g}",
      *(_percent(rate.scores.get(seed)) for seed in seeds),
      _percent(rate.median),
    )
    for summary in summaries
    for rate in summary.rates
  ]
  return Table(
    "Every single result",
    (
      "checkpoint",
      "task",
      "rate",
      *(f"seed {seed}" for seed in seeds),
      "median",
    ),
    tuple(rows),
  )


def as_text(tables: Sequence[Table]) -> str:
  """Returns tables for a terminal."""
  return "\n\n".join(
    "\n".join([table.title, *_aligned(table), *table.notes]) for table in tables
  )


def as_markdown(tables: Sequence[Table]) -> str:
  """Returns tables in Markdown."""
  return "\n\n".join(_markdown(table) for table in tables) + "\n"


def _by_checkpoint(
  summaries: Sequence[results_lib.Summary],
) -> dict[str, dict[str, results_lib.Summary]]:
  """Returns summaries by checkpoint and task."""
  grouped: dict[str, dict[str, results_lib.Summary]] = {}
  for each in summaries:
    grouped.setdefault(each.checkpoint, {})[each.task.name] = each
  return grouped


def _cells(
  of_tasks: dict[str, results_lib.Summary], columns: Sequence[str]
) -> list[str]:
  return [
    _score(of_tasks[name]) if name in of_tasks else _MISSING for name in columns
  ]


def _average(
  of_tasks: dict[str, results_lib.Summary], averaged: Sequence[str]
) -> str:
  if not averaged:
    return _MISSING
  return _percent(statistics.fmean(of_tasks[name].score for name in averaged))


def _paper_rows(
  table: paper.Table, columns: Sequence[str], averaged: Sequence[str]
) -> Iterator[tuple[str, ...]]:
  for row in table.rows:
    scores = dict(zip(table.tasks, row.scores, strict=True))
    if len(averaged) == len(table.tasks):
      average = f"{row.average:.1f}"
    elif averaged:
      average = f"{statistics.fmean(scores[name] for name in averaged):.1f}"
    else:
      average = _MISSING
    cells = (f"{scores[name]:.1f}" for name in columns)
    yield (f"paper: {row.name}", *cells, average)


def _notes(summaries: Sequence[results_lib.Summary]) -> tuple[str, ...]:
  """Returns what the marks of `_score` mean, as far as they are there."""
  if all(each.is_complete for each in summaries):
    return _constant_note(summaries)
  note = "(n/m): n of the protocol's m runs are finished."
  return (*_constant_note(summaries), note)


def _constant_note(
  summaries: Sequence[results_lib.Summary],
) -> tuple[str, ...]:
  if all(each.is_better_than_constant for each in summaries):
    return ()
  return (
    f"{_CONSTANT_MARK} no better than one answer for all examples, such as the"
    " majority class, within two standard errors of the dev set.",
  )


def _score(summary: results_lib.Summary) -> str:
  mark = "" if summary.is_better_than_constant else _CONSTANT_MARK
  text = _percent(summary.score) + mark
  if summary.is_complete:
    return text
  return f"{text} ({len(summary.results)}/{summary.num_expected})"


def _percent(value: float | None, digits: int = 1) -> str:
  return _MISSING if value is None else f"{100 * value:.{digits}f}"


def _title(name: str) -> str:
  return tasks_lib.get(name).title


def _aligned(table: Table) -> list[str]:
  cells = [table.header, *table.rows]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  return [
    "  ".join(
      cell.ljust(width) if place == 0 else cell.rjust(width)
      for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in cells
  ]


def _markdown(table: Table) -> str:
  lines = [
    f"**{table.title}**",
    "",
    _markdown_row(table.header),
    "|---" + "|---:" * (len(table.header) - 1) + "|",
    *map(_markdown_row, table.rows),
  ]
  for note in table.notes:
    lines += ["", _escaped(note)]
  return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
  return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
  return text.replace("|", r"\|").replace("*", r"\*")
