"""Tasks of one's own, from TSV, CSV or JSON-lines files."""

import os
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from mslt_tf import errors
from mslt_tf.glue import reading
from mslt_tf.glue import tasks

FileFormat = Literal["tsv", "csv", "jsonl"]
LabelType = Literal["classes", "regression"]

_FORMATS: dict[str, FileFormat] = {
  ".tsv": "tsv",
  ".txt": "tsv",
  ".csv": "csv",
  ".jsonl": "jsonl",
  ".json": "jsonl",
}
_COMPRESSED = (".gz", ".bz2")
# Labels taken from a file; more are rather numbers or texts.
_MAX_CLASSES = 1000
_INTEGER = re.compile(r"[-+]?\d+")
# The first is the default headline.
_METRICS: dict[LabelType, tuple[tasks.Metric, ...]] = {
  "classes": ("accuracy", "f1", "matthews"),
  "regression": ("spearman", "pearson"),
}


def make(
  train: str,
  dev: str,
  *,
  name: str = "own",
  text: str = "text",
  second_text: str = "",
  label: str = "label",
  label_type: LabelType = "classes",
  labels: Sequence[str] = (),
  file_format: FileFormat | None = None,
  has_header: bool = True,
  headline: tasks.Metric | None = None,
) -> tasks.Task:
  """Returns a task over files.

  Args:
    train: The training file.
    dev: The file to evaluate on.
    name: The task's name, for tables and run directories; no known task's.
    text: The column of the text, by its name in the header or in the JSON
      objects; in files without a header by its place, from 0.
    second_text: The column of the second text of pairs, or "".
    label: The column of the label.
    label_type: Whether labels are classes or numbers.
    labels: The label strings in the order of their class ids. By default those
      of the training file, sorted, by number if all are whole numbers.
    file_format: By default what the files' names end in says.
    has_header: Whether TSV and CSV files name their columns in the first line.
    headline: The metric that tables show. By default accuracy, or Spearman's
      correlation.

  Raises:
    errors.InputError: a value that cannot be, or a training file that does not
      fit it.
  """
  if tasks.find(name) is not None:
    raise errors.InputError(
      f"task={name} is the name of a known task; your own needs another."
    )
  if label_type not in _METRICS:
    raise errors.InputError(
      f"label_type={label_type!r} must be one of {', '.join(_METRICS)}."
    )
  metrics = _METRICS[label_type]
  headline = headline or metrics[0]
  if headline not in metrics:
    raise errors.InputError(
      f"headline={headline!r} must be one of {', '.join(metrics)}, as"
      f" label_type={label_type}."
    )
  columns = tasks.Columns(
    _column("text", text, has_header),
    _column("second_text", second_text, has_header) if second_text else None,
    _column("label", label, has_header),
    has_header,
  )

  def split(split_name: str, path: str) -> tasks.Split:
    return tasks.Split(
      split_name, (path,), columns, file_format or _format(path)
    )

  train_split = split("train", train)
  return tasks.Task(
    name=name,
    title=name,
    labels=_labels(train_split, label_type, labels),
    metrics=(headline, *(each for each in metrics if each != headline)),
    train=train_split,
    dev=(split("dev", dev),),
    test=(),
  )


def _column(flag: str, value: str, has_header: bool) -> str | int:
  if has_header:
    return value
  if value.isdecimal():
    return int(value)
  raise errors.InputError(
    f"{flag}={value!r} must be a column's place from 0, as the files have no"
    " header."
  )


def _format(path: str) -> FileFormat:
  stem, ending = os.path.splitext(path.lower())
  if ending in _COMPRESSED:
    ending = os.path.splitext(stem)[1]
  if ending not in _FORMATS:
    raise errors.InputError(
      f"{path} does not end in one of {', '.join(_FORMATS)}; say file_format:"
      " tsv, csv or jsonl."
    )
  return _FORMATS[ending]


def _labels(
  train: tasks.Split, label_type: LabelType, given: Sequence[str]
) -> tuple[str, ...]:
  """Returns the label strings, () for a regression."""
  if label_type == "regression":
    if given:
      raise errors.InputError(
        f"labels={','.join(given)} must be empty, as label_type=regression."
      )
    return ()
  labels = tuple(given) or _sorted(reading.label_strings(train, train.paths[0]))
  if len(set(labels)) != len(labels) or len(labels) < 2:
    raise errors.InputError(
      f"labels={','.join(labels)} must be two or more different ones"
      f"{'' if given else f'; they are those of {train.paths[0]}'}."
    )
  if not given and len(labels) > _MAX_CLASSES:
    raise errors.InputError(
      f"{train.paths[0]}: column {train.columns.label!r} has {len(labels):,}"
      " different labels; if they are numbers, say label_type=regression."
    )
  return labels


def _sorted(labels: Iterable[str]) -> tuple[str, ...]:
  labels = sorted(labels)
  if all(_INTEGER.fullmatch(label) for label in labels):
    labels.sort(key=int)
  return tuple(labels)
