"""The eleven files that the GLUE server takes, written and checked.

Each is named after its test set, has the header `index<TAB>prediction` and a
row an example: its place from 0, and the label string or STS-B's number. The
server takes them zipped, without a folder. It alone can score them.
"""

import collections
import io
import itertools
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import whole_files
from mslt_tf.glue import reading
from mslt_tf.glue import tasks

_HEADER = "index\tprediction"
# Zip files of the same predictions are the same bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def test_sets() -> dict[str, tuple[tasks.Task, tasks.Split]]:
  """Returns the task and split of each file, by its name."""
  return {
    split.submission: (task, split)
    for task in tasks.GLUE.values()
    for split in task.test
  }


def majority(labels: np.ndarray, num_examples: int) -> np.ndarray:
  """Returns the most frequent class for every example.

  Of the labels of WNLI's training set, it is the usual answer to WNLI: its
  dev and test sets repeat sentences of the training set with the other label,
  so that what a model learns by heart misleads it.

  Args:
    labels: [N] class ids.
    num_examples: How many to predict.

  Returns:
    [num_examples] class ids.
  """
  return np.full(num_examples, np.bincount(labels).argmax(), np.int32)


def files(predictions: Mapping[str, Sequence | np.ndarray]) -> dict[str, bytes]:
  """Returns the contents of files by their names.

  Args:
    predictions: By a file's name, such as "MNLI-m.tsv": class ids [N], or for
      STS-B numbers [N], which are clipped to what the task allows.

  Raises:
    errors.InputError: a file that the server does not take, a class that the
      task has not, or a prediction that is not finite.
  """
  sets = test_sets()
  for name in predictions:
    if name not in sets:
      raise errors.InputError(
        f"{name} is no file of a submission; these are {', '.join(sets)}."
      )
  return {
    name: _content(name, sets[name][0], np.asarray(values))
    for name, values in predictions.items()
  }


def write_files(directory: str, contents: Mapping[str, bytes]) -> None:
  """Writes files of a submission, one or all, into a directory."""
  tf.io.gfile.makedirs(directory)
  for name, content in contents.items():
    whole_files.write(os.path.join(directory, name), content)


def write_zip(
  path: str,
  contents: Mapping[str, bytes],
  num_rows: Mapping[str, int] | None = None,
) -> None:
  """Writes a whole submission as the server takes it.

  Args:
    path: The zip file.
    contents: All eleven files, as `files` makes them.
    num_rows: As of `problems`.

  Raises:
    errors.InputError: the server would refuse it; nothing is written then.
  """
  _refuse(path, problems(contents, num_rows))
  packed = io.BytesIO()
  with zipfile.ZipFile(packed, "w") as archive:
    for name, content in contents.items():
      entry = zipfile.ZipInfo(name, _ZIP_TIME)
      archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
  whole_files.write(path, packed.getvalue())


def check(path: str, data_dir: str = "") -> None:
  """Checks a submission.

  Args:
    path: A zip file, or a directory of the files, where a zip of them and
      hidden files may be too.
    data_dir: A folder of GLUE as `reading.read` takes it. Where it has a test
      file, that says how many rows there must be; else the official count.

  Raises:
    errors.InputError: what the server would refuse or score wrongly, a line
      each.
  """
  contents, found = _read(path)
  num_rows = {
    name: len(reading.read(task, split, data_dir))
    for name, (task, split) in test_sets().items()
    if data_dir and reading.is_there(task, split, data_dir)
  }
  _refuse(path, [*found, *problems(contents, num_rows)])


def problems(
  contents: Mapping[str, bytes], num_rows: Mapping[str, int] | None = None
) -> list[str]:
  """Returns what is wrong with the files of a submission, a line each.

  Args:
    contents: Files by their names.
    num_rows: How many rows a file must have, where that is not the official
      count.
  """
  sets = test_sets()
  lines = [
    f"{name}: no file of a submission." for name in contents if name not in sets
  ]
  for name, (task, split) in sets.items():
    if name not in contents:
      lines.append(f"{name}: missing.")
      continue
    expected = (num_rows or {}).get(name, split.num_rows[0])
    lines += [
      f"{name}{each}"
      for each in _problems_of_file(contents[name], task, expected)
    ]
  return lines


def _content(name: str, task: tasks.Task, values: np.ndarray) -> bytes:
  if values.ndim != 1:
    raise errors.InputError(
      f"{name}: predictions of shape {values.shape} must be one an example."
    )
  if task.is_regression:
    if not np.isfinite(values).all():
      raise errors.InputError(f"{name}: a prediction is not finite.")
    low, high = task.label_range or (-np.inf, np.inf)
    texts = [f"{value:.3f}" for value in np.clip(values, low, high)]
  else:
    unknown = set(values.tolist()) - set(range(len(task.labels)))
    if unknown:
      raise errors.InputError(
        f"{name}: class {unknown.pop()} must be from 0 to"
        f" {len(task.labels) - 1}."
      )
    texts = [task.labels[int(value)] for value in values]
  rows = (f"{index}\t{text}" for index, text in enumerate(texts))
  return "".join(f"{row}\n" for row in (_HEADER, *rows)).encode()


def _problems_of_file(
  content: bytes, task: tasks.Task, num_expected: int
) -> list[str]:
  try:
    text = content.decode()
  except UnicodeDecodeError:
    return [": not UTF-8."]
  header, *rows = text.split("\n")
  if rows and not rows[-1]:
    del rows[-1]  # What the last line's end leaves.
  lines = []
  if header != _HEADER:
    lines.append(f", line 1: {header[:40]!r} must be {_HEADER!r}.")
  if len(rows) != num_expected:
    lines.append(f": {len(rows):,} rows, where {num_expected:,} are needed.")
  return lines + _problems_of_rows(rows, task)


def _problems_of_rows(rows: Sequence[str], task: tasks.Task) -> list[str]:
  """Returns the first wrong index and the first wrong prediction."""
  wrong_index = wrong_prediction = ""
  num_wrong = 0
  for place, row in enumerate(rows):
    fields = row.split("\t")
    where = f", line {place + 2}:"
    if len(fields) != 2:
      return [f"{where} {len(fields)} fields, where 2 are needed."]
    index, prediction = fields
    if index != str(place) and not wrong_index:
      wrong_index = f"{where} index {index!r} must be {place}."
    if not _is_valid(prediction, task):
      num_wrong += 1
      wrong_prediction = wrong_prediction or (
        f"{where} prediction {prediction!r} must be {_rule(task)}"
      )
  if num_wrong > 1:
    wrong_prediction += f" ({num_wrong - 1:,} more like it)"
  if wrong_prediction:
    wrong_prediction += "."
  return [each for each in (wrong_index, wrong_prediction) if each]


def _is_valid(prediction: str, task: tasks.Task) -> bool:
  if not task.is_regression:
    return prediction in task.labels
  try:
    value = float(prediction)
  except ValueError:
    return False
  low, high = task.label_range or (-np.inf, np.inf)
  return low <= value <= high


def _rule(task: tasks.Task) -> str:
  if task.label_range is not None:
    return "a number from {:g} to {:g}".format(*task.label_range)
  return " or ".join(task.labels)


def _read(path: str) -> tuple[dict[str, bytes], list[str]]:
  """Returns the files of a submission, and what is wrong with their packing."""
  if tf.io.gfile.isdir(path):
    names = sorted(
      name
      for name in tf.io.gfile.listdir(path)
      if not name.startswith(".") and not name.endswith(".zip")
    )
    folders = [
      name for name in names if tf.io.gfile.isdir(os.path.join(path, name))
    ]
    wrong = [
      f"{name.rstrip('/')}: a folder, where files alone are taken."
      for name in folders
    ]
    contents = {
      name: _read_file(os.path.join(path, name))
      for name in names
      if name not in folders
    }
    return contents, wrong
  return _unzipped(path, _read_file(path))


def _unzipped(path: str, packed: bytes) -> tuple[dict[str, bytes], list[str]]:
  try:
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
      names = archive.namelist()
      contents = {
        name: archive.read(name) for name in names if not name.endswith("/")
      }
  except (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,  # a way of compressing that Python has not
    RuntimeError,  # encrypted
  ) as error:
    raise errors.InputError(f"{path} is no zip file: {error}.") from None
  counts = collections.Counter(names)
  wrong = [
    f"{name}: is there {n} times." for name, n in counts.items() if n > 1
  ]
  folders = {name.split("/")[0] for name in names if "/" in name}
  wrong += [
    f"{name}: a folder, where files alone are taken." for name in folders
  ]
  return {k: v for k, v in contents.items() if "/" not in k}, wrong


def _read_file(path: str) -> bytes:
  try:
    with tf.io.gfile.GFile(path, "rb") as file:
      return file.read()
  except tf.errors.OpError as error:
    raise errors.InputError(
      f"submission {path} cannot be read: {error.message}"
    ) from None


def _refuse(path: str, lines: Sequence[str]) -> None:
  if lines:
    raise errors.InputError(
      "\n".join(itertools.chain([f"{path} would be refused:"], lines))
    )
