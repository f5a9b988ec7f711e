"""What the GLUE server takes, answered by the best runs of a checkpoint."""

import os

import numpy as np
from absl import logging

from mslt_tf.finetune import finetune
from mslt_tf.finetune import run_files
from mslt_tf.glue import examples as examples_lib
from mslt_tf.glue import paper
from mslt_tf.glue import reading
from mslt_tf.glue import submission
from mslt_tf.glue import tables
from mslt_tf.glue import tasks as tasks_lib


def write_all(finetuning: finetune.FineTuning, workdir: str) -> str:
  """Writes a submission of each checkpoint; returns a report with Table 4.

  Raises:
    errors.InputError: a test file that is not what it should be.
  """
  lines = [
    write(finetuning, workdir, checkpoint)
    for checkpoint in finetuning.checkpoints
  ]
  published = tables.as_text([tables.published(paper.TABLE_4)])
  return "\n".join([published, "", *lines])


def check(finetuning: finetune.FineTuning) -> None:
  """Reads the test sets that `write_all` will need.

  Raises:
    errors.InputError: a test file that is not what it should be.
  """
  for task, split in submission.test_sets().values():
    if task.name == "wnli":
      _wnli(task, split, finetuning.data_dir)
    elif _answering(finetuning, task, split) is not None:
      reading.read(task, split, finetuning.data_dir)


def write(
  finetuning: finetune.FineTuning, workdir: str, checkpoint: str
) -> str:
  """Writes the files of a checkpoint's submission, and zips them if all are.

  A test set is answered by the run with the best score on dev, WNLI by the
  majority class of its training set, AX by MNLI's model.

  Returns:
    A sentence that says where it is, or what is missing.

  Raises:
    errors.InputError: a test file that is not what it should be.
  """
  directory = run_files.RunFiles(workdir).checkpoint(checkpoint)
  predictions = {}
  missing = []
  for name, (task, split) in submission.test_sets().items():
    values = _answers(finetuning, workdir, checkpoint, task, split)
    if values is None:
      missing.append(name)
    else:
      predictions[name] = values
  contents = submission.files(predictions)
  submission.write_files(os.path.join(directory, "submission"), contents)
  path = os.path.join(directory, "submission.zip")
  if missing:
    return (
      f"{directory}/submission has {len(contents)} files of"
      f" {len(contents) + len(missing)}; no {path} without"
      f" {', '.join(missing)}, whose tasks or files are not there."
    )
  num_rows = {name: len(values) for name, values in predictions.items()}
  submission.write_zip(path, contents, num_rows)
  if problems := submission.problems(contents):
    return f"{path} would be refused by the GLUE server: {' '.join(problems)}"
  return f"{path} is what the GLUE server takes; it alone can score it."


def _answers(
  finetuning: finetune.FineTuning,
  workdir: str,
  checkpoint: str,
  task: tasks_lib.Task,
  split: tasks_lib.Split,
) -> np.ndarray | None:
  """Returns predictions [N] of a test set, None without model or data."""
  data_dir = finetuning.data_dir
  if task.name == "wnli":
    return _wnli(task, split, data_dir)
  answering = _answering(finetuning, task, split)
  if answering is None:
    return None
  examples = _read(task, split, data_dir)
  return finetuning.predict(
    run_files.RunFiles(workdir), checkpoint, answering, examples
  )


def _answering(
  finetuning: finetune.FineTuning,
  task: tasks_lib.Task,
  split: tasks_lib.Split,
) -> tasks_lib.Task | None:
  """Returns the task whose model answers a test set, None if it cannot."""
  by_name = {each.name: each for each in finetuning.tasks}
  answering = by_name.get(task.answered_by or task.name)
  if answering and reading.is_there(task, split, finetuning.data_dir):
    return answering
  return None


def _wnli(
  task: tasks_lib.Task, split: tasks_lib.Split, data_dir: str
) -> np.ndarray | None:
  if task.train is None or not (
    reading.is_there(task, task.train, data_dir)
    and reading.is_there(task, split, data_dir)
  ):
    return None
  train = reading.read(task, task.train, data_dir)
  test = _read(task, split, data_dir)
  assert train.labels is not None  # Its file has a label column.
  return submission.majority(train.labels, len(test))


def _read(
  task: tasks_lib.Task, split: tasks_lib.Split, data_dir: str
) -> examples_lib.Examples:
  examples = reading.read(task, split, data_dir)
  if remark := examples_lib.count_remark(task, split, examples):
    logging.warning("%s", remark)
  return examples
