"""The paper's Tables 2, 3 and 4, for printing beside one's own results."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of the paper: scores in percent in the order of the table's tasks."""

  name: str
  scores: tuple[float, ...]
  average: float


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of the paper.

  Attributes:
    title: What it shows.
    tasks: The names of the tasks of its columns.
    rows: Its rows.
    is_dev: Whether it is of the dev sets; else of the GLUE server's test sets.
  """

  title: str
  tasks: tuple[str, ...]
  rows: tuple[Row, ...]
  is_dev: bool


_ALL = ("mnli", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte")
_SIX = ("mnli", "qnli", "sst2", "stsb", "mrpc", "rte")

TABLE_2 = Table(
  "Paper, Table 2: dev, equal steps",
  _ALL,
  (
    Row("Base MSLT", (84.3, 87.9, 91.2, 92.2, 61.1, 89.5, 91.2, 69.3), 83.3),
    Row(
      "Base baseline", (84.4, 88.0, 91.5, 92.7, 61.2, 89.7, 89.7, 70.2), 83.4
    ),
    Row("Large MSLT", (86.2, 88.5, 92.6, 93.2, 64.5, 90.2, 92.2, 74.1), 85.2),
    Row(
      "Large baseline", (86.5, 88.9, 93.0, 93.6, 64.0, 90.4, 91.7, 74.5), 85.3
    ),
  ),
  is_dev=True,
)

TABLE_3 = Table(
  "Paper, Table 3: dev, equal time",
  _SIX,
  (
    Row(
      "Base MSLT, 1M steps, 40 h", (84.3, 91.2, 92.2, 89.5, 91.2, 69.3), 86.3
    ),
    Row(
      "Base baseline, 480k steps, 41 h",
      (83.3, 90.6, 91.2, 89.2, 89.2, 68.9),
      85.4,
    ),
    Row(
      "Large MSLT, 500k steps, 42 h", (84.7, 91.5, 92.1, 89.9, 91.6, 70.7), 86.8
    ),
    Row(
      "Large baseline, 230k steps, 42 h",
      (84.1, 90.8, 91.1, 89.2, 88.9, 68.5),
      85.4,
    ),
  ),
  is_dev=True,
)

TABLE_4 = Table(
  "Paper, Table 4: test, by the GLUE server",
  _ALL,
  (
    Row("Base MSLT", (83.9, 71.0, 90.4, 93.0, 56.6, 84.1, 89.2, 68.0), 79.5),
    Row(
      "Base baseline", (84.2, 71.4, 90.7, 93.5, 57.2, 84.4, 88.8, 68.1), 79.8
    ),
    Row("Large MSLT", (85.9, 71.9, 92.4, 94.1, 60.5, 85.8, 89.9, 69.8), 81.3),
    Row(
      "Large baseline", (86.4, 72.1, 92.8, 94.7, 60.6, 86.1, 89.1, 70.2), 81.5
    ),
  ),
  is_dev=False,
)
