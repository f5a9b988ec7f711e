"""Results of fine-tuning stand beside the paper's."""

from mslt_tf.analysis import fine_tuned
from mslt_tf.analysis import recorded_run
from mslt_tf.glue import results as results_lib


def tree(task="rte", checkpoint="mslt", score=0.75, metric="accuracy"):
  """A summary of two rates, in the form of `results_lib.as_dict`."""
  scores = {0.001: {1: 0.5, 2: 0.25}, 0.002: {1: score, 2: score}}
  return {
    "checkpoint": checkpoint,
    "task": task,
    "metric": metric,
    "score": score,
    "learning_rate": 0.002,
    "lowest": score,
    "highest": score,
    "deviation": 0.0,
    "metrics": {"dev": {metric: score}},
    "constant_score": 0.5,
    "threshold": 0.5625,
    "is_better_than_constant": score > 0.5625,
    "num_results": 4,
    "num_expected": 6,
    "medians": [
      {"learning_rate": 0.001, "score": 0.375},
      {"learning_rate": 0.002, "score": score},
    ],
    "results": [
      {
        "learning_rate": rate,
        "seed": seed,
        "score": value,
        "metrics": {"dev": {metric: value}},
      }
      for rate, of_seeds in scores.items()
      for seed, value in of_seeds.items()
    ],
  }


def test_tables_2_and_3_have_our_rows_above_the_papers():
  summaries = results_lib.from_list(
    [tree(), tree(checkpoint="other", score=0.625)], "x"
  )
  run = recorded_run.RecordedRun("mslt", step=1000, wall_seconds=3700.0)
  table_2, table_3, _ = fine_tuned.all_tables(summaries, [run])
  assert table_2.header == ("", "RTE", "Avg")
  assert table_2.rows[0] == ("mslt", "75.0 (4/6)", "75.0")
  assert table_2.rows[2] == ("paper: Base MSLT", "69.3", "69.3")
  assert table_3.rows[0][0] == "mslt, 1,000 steps, 1:01:40"
  assert table_3.rows[1][0] == "other"


def test_a_task_of_ones_own_has_a_table_without_the_papers_rows():
  summaries = results_lib.from_list([tree(task="mine")], "x")
  table, _ = fine_tuned.all_tables(summaries, [])
  assert (table.header, table.rows) == (("", "mine"), (("mslt", "75.0 (4/6)"),))


def test_without_results_there_are_no_tables():
  assert fine_tuned.all_tables([], []) == []
