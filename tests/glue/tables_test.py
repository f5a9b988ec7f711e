"""Tables show our results above the paper's, marked where they mean little."""

import dataclasses

import pytest

from mslt_tf.glue import metrics
from mslt_tf.glue import paper
from mslt_tf.glue import protocol
from mslt_tf.glue import results
from mslt_tf.glue import tables
from mslt_tf.glue import tasks

PROTOCOL = protocol.Protocol(learning_rates=(3e-5,), seeds=(1, 2, 3))


def summarize(scores, *, chosen=None):
  """Makes summaries of {checkpoint: {task: scores by seed}}."""
  chosen = chosen or list(tasks.GLUE.values())
  by_name = {task.name: task for task in chosen}
  constants = {
    task.name: {
      split.name: metrics.Constant("x", {task.headline: 0.5}, 10000)
      for split in task.dev
    }
    for task in chosen
  }
  found = [
    results.Result(
      name,
      checkpoint,
      3e-5,
      seed,
      {
        split.name: {by_name[name].headline: score}
        for split in by_name[name].dev
      },
    )
    for checkpoint, of_tasks in scores.items()
    for name, of_seeds in of_tasks.items()
    for seed, score in enumerate(of_seeds, start=1)
  ]
  return results.summarize(
    found, tasks=chosen, protocol=PROTOCOL, constants=constants
  )


TWO = {
  "mslt": {"mrpc": [0.9, 0.91, 0.95], "cola": [0.6, 0.62, 0.61]},
  "baseline": {"mrpc": [0.88, 0.88, 0.88], "cola": [0.5, 0.4, 0.49]},
}


def test_rows_of_the_paper_stand_below_ours():
  table = tables.beside_paper(summarize(TWO), paper.TABLE_2)
  assert table.header == ("", "CoLA", "MRPC", "Avg")
  assert table.rows == (
    ("mslt", "61.0", "91.0", "76.0"),
    ("baseline", "49.0*", "88.0", "68.5"),
    # The paper's averages over the same two tasks.
    ("paper: Base MSLT", "61.1", "91.2", "76.2"),
    ("paper: Base baseline", "61.2", "89.7", "75.5"),
    ("paper: Large MSLT", "64.5", "92.2", "78.3"),
    ("paper: Large baseline", "64.0", "91.7", "77.8"),
  )
  assert table.notes == (
    "* no better than one answer for all examples, such as the majority class,"
    " within two standard errors of the dev set.",
    "Avg, the paper's too, is over CoLA, MRPC.",
  )


def test_the_papers_own_average_stands_beside_all_of_its_tasks():
  table = tables.beside_paper(
    summarize({"a": {name: [0.8] * 3 for name in paper.TABLE_2.tasks}}),
    paper.TABLE_2,
  )
  assert table.rows[0] == ("a", *["80.0"] * 9)
  assert table.rows[1] == (
    "paper: Base MSLT",
    "84.3", "87.9", "91.2", "92.2", "61.1", "89.5", "91.2", "69.3", "83.3",
  )  # fmt: skip
  assert table.notes == ()


def test_table_3_has_its_six_tasks_only():
  table = tables.beside_paper(summarize(TWO), paper.TABLE_3)
  assert table.header == ("", "MRPC", "Avg")
  assert table.rows[0] == ("mslt", "91.0", "91.0")
  assert table.rows[2] == ("paper: Base MSLT, 1M steps, 40 h", "91.2", "91.2")


def test_averages_are_over_what_every_checkpoint_has():
  table = tables.beside_paper(
    summarize({"a": {"mrpc": [0.9], "cola": [0.6]}, "b": {"cola": [0.7]}}),
    paper.TABLE_2,
  )
  assert table.rows[:3] == (
    ("a", "60.0 (1/3)", "90.0 (1/3)", "60.0"),
    ("b", "70.0 (1/3)", "-", "70.0"),
    ("paper: Base MSLT", "61.1", "91.2", "61.1"),
  )
  assert table.notes == (
    "(n/m): n of the protocol's m runs are finished.",
    "Avg, the paper's too, is over CoLA.",
  )


def test_without_a_task_that_all_have_there_is_no_average():
  table = tables.beside_paper(
    summarize({"a": {"mrpc": [0.9] * 3}, "b": {"cola": [0.7] * 3}}),
    paper.TABLE_2,
  )
  assert [row[-1] for row in table.rows] == ["-"] * 6
  assert table.notes == ("Avg, the paper's too, is over no task.",)


def test_the_papers_test_table_stands_alone():
  table = tables.published(paper.TABLE_4)
  assert table.header[1:3] == ("MNLI", "QQP")
  assert table.rows[1] == (
    "paper: Base baseline",
    "84.2", "71.4", "90.7", "93.5", "57.2", "84.4", "88.8", "68.1", "79.8",
  )  # fmt: skip
  assert table.notes == ("Scores of the test sets need the GLUE server.",)


def test_spread_of_the_seeds():
  table = tables.spread(summarize({"mslt": {"mrpc": [0.9, 0.91, 0.95]}}))
  (row,) = table.rows
  assert dict(zip(table.header, row, strict=True)) == {
    "checkpoint": "mslt",
    "task": "MRPC",
    "metric": "F1",
    "rate": "3e-05",
    "median": "91.0",
    "lowest": "90.0",
    "highest": "95.0",
    "deviation": "2.65",
    "constant": "50.0",
    # 2 * 2 / (4/3)^2 * sqrt(1/3 * 2/3 / 10000) above it.
    "to beat": "51.1",
    "runs": "3 of 3",
  }


def test_every_single_result():
  table = tables.every_result(
    summarize({"a": {"mrpc": [0.9, 0.8]}, "b": {"cola": [0.1, 0.2, 0.3]}})
  )
  assert table.header == (
    "checkpoint", "task", "rate", "seed 1", "seed 2", "seed 3", "median",
  )  # fmt: skip
  assert table.rows == (
    ("a", "MRPC", "3e-05", "90.0", "80.0", "-", "85.0"),
    ("b", "CoLA", "3e-05", "10.0", "20.0", "30.0", "20.0"),
  )


@pytest.mark.parametrize(
  ("names", "titles"),
  [
    (["mrpc"], ["Paper, Table 2", "Paper, Table 3"]),
    (["cola"], ["Paper, Table 2"]),
    (["wnli"], ["Dev"]),
    (["cola", "reviews"], ["Paper, Table 2", "Dev"]),
  ],
)
def test_report_has_the_tables_that_its_tasks_need(names, titles):
  chosen = [tasks.get(name) for name in names]
  report = tables.report(
    summarize({"a": {name: [0.9] for name in names}}, chosen=chosen)
  )
  assert [table.title.split(":")[0] for table in report] == [
    *titles,
    "Median of the best rate, and its seeds",
    "Every single result",
  ]


def test_a_task_of_ones_own_has_its_column():
  own = dataclasses.replace(tasks.REVIEWS, name="mail", title="mail")
  table, *_ = tables.report(summarize({"a": {"mail": [0.9] * 3}}, chosen=[own]))
  assert table.header == ("", "mail")
  assert table.rows == (("a", "90.0"),)


SMALL = tables.Table(
  "Title", ("", "MRPC"), (("a|b", "9.0*"), ("long name", "80.0")), ("* note",)
)


def test_text():
  assert tables.as_text([SMALL, SMALL]).split("\n\n")[0] == (
    "Title\n           MRPC\na|b        9.0*\nlong name  80.0\n* note"
  )


def test_markdown():
  assert tables.as_markdown([SMALL]) == (
    "**Title**\n\n|  | MRPC |\n|---|---:|\n| a\\|b | 9.0\\* |\n"
    "| long name | 80.0 |\n\n\\* note\n"
  )
