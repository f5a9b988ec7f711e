"""Splits of tasks, read from wherever they lie."""

import collections
import dataclasses
import os
from collections.abc import Iterator

import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.text import compressed
from mslt_tf.data.text import tfds_text
from mslt_tf.glue import examples as examples_lib
from mslt_tf.glue import reviews
from mslt_tf.glue import rows
from mslt_tf.glue import tasks
from mslt_tf.glue import tfds_examples

_BLOCK_BYTES = 1 << 20

# MRPC as Microsoft has it: GLUE's dev set is picked out of train by its ids.
_MRPC_IDS = ("#1 ID", "#2 ID")
_MRPC_TRAIN = "MRPC/msr_paraphrase_train.txt"
_MRPC_TEST = "MRPC/msr_paraphrase_test.txt"
_MRPC_DEV_IDS = ("MRPC/dev_ids.tsv", "MRPC/mrpc_dev_ids.tsv")


def read(
  task: tasks.Task, split: tasks.Split, data_dir: str = ""
) -> examples_lib.Examples:
  """Reads a split of a task.

  Args:
    task: A task of GLUE, of one's own, or `tasks.REVIEWS`.
    split: One of its splits.
    data_dir: The folder that GLUE's download unpacked, with CoLA, MRPC and so
      on in it; or `tfds:[DIR]` for what TensorFlow Datasets has prepared in
      DIR, or in its own place. Not needed for `tasks.REVIEWS`, nor for tasks of
      one's own, whose paths are whole.

  Raises:
    errors.InputError: a file that is not there or not what it should be; names
      the file, the line and the rule.
  """
  if split.file_format == "package":
    return reviews.read(split.name)
  if split.tfds_name and data_dir.startswith(tfds_text.PREFIX):
    directory = data_dir.removeprefix(tfds_text.PREFIX)
    return tfds_examples.read(task, split, directory or None)
  path = _find(split, data_dir)
  if path is None and task is tasks.GLUE["mrpc"]:
    return _read_original_mrpc(task, split, data_dir)
  if path is None:
    raise _not_there(task, data_dir, split.paths)
  return _read_file(task, split, path)


def is_there(task: tasks.Task, split: tasks.Split, data_dir: str) -> bool:
  """Whether a split lies in `data_dir`, which is as in `read`."""
  if split.tfds_name and data_dir.startswith(tfds_text.PREFIX):
    directory = data_dir.removeprefix(tfds_text.PREFIX)
    return tfds_examples.is_there(split, directory or None)
  return _find(split, data_dir) is not None or (
    task is tasks.GLUE["mrpc"]
    and tf.io.gfile.exists(os.path.join(data_dir, _original_mrpc(split)))
  )


def label_strings(split: tasks.Split, path: str) -> collections.Counter[str]:
  """Returns how often each label stands in a file, as it is written there.

  Raises:
    errors.InputError: as `read`.
  """
  columns = dataclasses.replace(split.columns, second=None)
  dropped: collections.Counter[str] = collections.Counter()
  found = _rows(dataclasses.replace(split, columns=columns), path, dropped)
  return collections.Counter(row.values[-1] for row in found)


def _read_file(
  task: tasks.Task, split: tasks.Split, path: str
) -> examples_lib.Examples:
  dropped: collections.Counter[str] = collections.Counter()
  found = _rows(split, path, dropped)
  return examples_lib.from_rows(task, split.columns, found, path, dropped)


def _rows(
  split: tasks.Split,
  path: str,
  dropped: collections.Counter[str],
  more_columns: tuple[str, ...] = (),
) -> Iterator[rows.Row]:
  columns = split.columns
  wanted = (columns.first, columns.second, columns.label)
  layout = rows.Layout(
    source=path,
    columns=(*(each for each in wanted if each is not None), *more_columns),
    has_header=columns.has_header,
    drops_bad_rows=split.drops_bad_rows,
    allows_extra_fields=split.allows_extra_fields,
  )
  blocks = compressed.blocks(path, _BLOCK_BYTES)
  return rows.READERS[split.file_format](blocks, layout, dropped)


def _read_original_mrpc(
  task: tasks.Task, split: tasks.Split, data_dir: str
) -> examples_lib.Examples:
  """Reads GLUE's split from Microsoft's files, in the same order.

  The test labels, which those have and GLUE has not, are not read.
  """
  name = _original_mrpc(split)
  path = os.path.join(data_dir, name)
  if not tf.io.gfile.exists(path):
    raise _not_there(task, data_dir, (*split.paths, name))
  dropped: collections.Counter[str] = collections.Counter()
  if split.name == "test":
    return _read_file(task, split, path)
  dev_ids = _mrpc_dev_ids(task, data_dir)
  is_dev = split.name == "dev"
  chosen = (
    row
    for row in _rows(split, path, dropped, more_columns=_MRPC_IDS)
    if (row.values[-2:] in dev_ids) == is_dev
  )
  return examples_lib.from_rows(task, split.columns, chosen, path, dropped)


def _original_mrpc(split: tasks.Split) -> str:
  return _MRPC_TEST if split.name == "test" else _MRPC_TRAIN


def _mrpc_dev_ids(task: tasks.Task, data_dir: str) -> set[tuple[str, ...]]:
  for name in _MRPC_DEV_IDS:
    path = os.path.join(data_dir, name)
    if tf.io.gfile.exists(path):
      layout = rows.Layout(path, columns=(0, 1), has_header=False)
      blocks = compressed.blocks(path, _BLOCK_BYTES)
      found = rows.tsv(blocks, layout, collections.Counter())
      return {row.values for row in found}
  raise _not_there(task, data_dir, _MRPC_DEV_IDS)


def _find(split: tasks.Split, data_dir: str) -> str | None:
  for name in split.paths:
    path = os.path.join(data_dir, name)
    if tf.io.gfile.exists(path):
      return path
  return None


def _not_there(
  task: tasks.Task, data_dir: str, names: tuple[str, ...]
) -> errors.InputError:
  needed = " or ".join(names)
  return errors.InputError(
    f"data_dir={data_dir!r} has no {needed}, which task {task.name} needs."
    if data_dir
    else f"{needed} does not exist; task {task.name} needs it."
  )
