"""The paper's averages follow from its scores."""

import pytest

from mslt_tf.glue import paper
from mslt_tf.glue import tasks

TABLES = (paper.TABLE_2, paper.TABLE_3, paper.TABLE_4)


@pytest.mark.parametrize(
  ("table", "row"),
  [(table, row) for table in TABLES for row in table.rows],
)
def test_average_is_the_mean_of_the_scores(table, row):
  assert len(row.scores) == len(table.tasks)
  mean = sum(row.scores) / len(row.scores)
  # Half of the last digit printed, and what the scores' own rounding hides.
  assert row.average == pytest.approx(mean, abs=0.051)


@pytest.mark.parametrize(
  ("table", "total"),
  zip(TABLES, (2698.2, 2063.2, 2576.8), strict=True),
)
def test_no_score_is_mistyped(table, total):
  scores = [score for row in table.rows for score in row.scores]
  assert sum(scores) == pytest.approx(total)


@pytest.mark.parametrize("table", TABLES)
def test_columns_are_tasks(table):
  assert set(table.tasks) <= set(tasks.GLUE)
