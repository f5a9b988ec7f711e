"""Examples of a task in memory, and what a row must be to become one."""

import collections
import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping

import numpy as np

from mslt_tf import errors
from mslt_tf.glue import rows
from mslt_tf.glue import tasks

_LABELS_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Examples:
  """N examples in the order of their file.

  Attributes:
    first: N texts.
    second: N texts of pairs; None where an example is a single text.
    labels: [N] class ids in int32, or values in float32; None without labels.
    dropped: How many rows were left out, by the reason.
  """

  first: list[str]
  second: list[str] | None
  labels: np.ndarray | None
  dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(self.first)


def from_rows(
  task: tasks.Task,
  columns: tasks.Columns,
  found: Iterable[rows.Row],
  source: str,
  dropped: collections.Counter[str],
) -> Examples:
  """Makes examples of rows.

  Args:
    task: Says what the labels mean.
    columns: Says which texts and labels the rows hold, in this order.
    found: Rows of `source`.
    source: For messages.
    dropped: What reading the rows left out; read when they are at their end.

  Raises:
    errors.InputError: a label that the task does not know, or no example.
  """
  first: list[str] = []
  second: list[str] = []
  labels: list[float] = []
  num_texts = 1 if columns.second is None else 2
  ids = {label: index for index, label in enumerate(task.labels)}
  for row in found:
    if columns.label is not None:
      text = row.values[num_texts]
      if text in task.ignored_labels:
        dropped[f"label {text!r}"] += 1
        continue
      label = ids.get(text) if ids else _value(text, task, source, row.line)
      if label is None:
        raise errors.InputError(
          f"{source}, line {row.line}: label {text!r} is unknown; task"
          f" {task.name} has {_shown(task.labels)}."
        )
      labels.append(label)
    first.append(row.values[0])
    if columns.second is not None:
      second.append(row.values[1])
  if not first:
    left_out = "".join(
      f" {count} rows with {reason} were left out."
      for reason, count in dropped.items()
    )
    raise errors.InputError(f"{source} has no examples.{left_out}")
  return Examples(
    first,
    None if columns.second is None else second,
    None if columns.label is None else label_array(task, labels),
    dict(dropped),
  )


def label_array(task: tasks.Task, labels: Iterable[float]) -> np.ndarray:
  """Returns labels [N] as a task has them: int32 class ids or float32."""
  return np.array(labels, np.float32 if task.is_regression else np.int32)


def count_remark(
  task: tasks.Task, split: tasks.Split, examples: Examples
) -> str:
  """Returns what differs from the official file and was left out, or ""."""
  name = f"{task.title} {split.name}"
  remarks = [
    f"{name}: left out {count} rows with {reason}."
    for reason, count in examples.dropped.items()
  ]
  if split.num_rows and len(examples) not in split.num_rows:
    official = " or ".join(f"{count:,}" for count in split.num_rows)
    remarks.append(
      f"{name}: {len(examples):,} examples, where the official file has"
      f" {official}."
    )
  return " ".join(remarks)


def fingerprint(examples: Examples) -> str:
  """Returns the sha256 of texts and labels, in their order."""
  digest = hashlib.sha256()
  for texts in (examples.first, examples.second or []):
    for text in texts:
      content = text.encode("utf-8", "surrogatepass")
      digest.update(f"{len(content)}:".encode() + content)
    digest.update(b"|")
  if examples.labels is not None:
    digest.update(examples.labels.tobytes())
  return digest.hexdigest()


def _value(text: str, task: tasks.Task, source: str, line: int) -> float:
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  low, high = task.label_range or (-math.inf, math.inf)
  if not math.isfinite(value) or not low <= value <= high:
    bounds = "" if task.label_range is None else f" from {low:g} to {high:g}"
    raise errors.InputError(
      f"{source}, line {line}: label {text!r} must be a number{bounds}."
    )
  return value


def _shown(labels: tuple[str, ...]) -> str:
  shown = ", ".join(repr(label) for label in labels[:_LABELS_SHOWN])
  more = len(labels) - _LABELS_SHOWN
  return f"{shown} and {more} more" if more > 0 else shown
