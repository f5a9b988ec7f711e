"""GLUE as TensorFlow Datasets has prepared it. Nothing is downloaded.

tensorflow_datasets takes seconds to import, so that is done where it is needed.
"""

import numpy as np

from mslt_tf import errors
from mslt_tf.data.text import tfds_text
from mslt_tf.glue import examples as examples_lib
from mslt_tf.glue import tasks

# The texts' features where they are not named as the columns of GLUE's files.
_TEXTS: dict[str, tuple[str, ...]] = {
  "cola": ("sentence",),
  "mrpc": ("sentence1", "sentence2"),
  "mnli": ("premise", "hypothesis"),
  "ax": ("premise", "hypothesis"),
}
_BATCH = 4096


def read(
  task: tasks.Task, split: tasks.Split, data_directory: str | None
) -> examples_lib.Examples:
  """Reads a split of GLUE in the order of its official file.

  Args:
    task: A task of GLUE. The class ids of TensorFlow Datasets are its own.
    split: One of its splits.
    data_directory: Where data sets are prepared; None is TFDS's own place.

  Raises:
    errors.InputError: it does not lie prepared there, or has a label that the
      task does not know.
  """
  columns = split.columns
  texts = _TEXTS.get(
    task.name,
    tuple(str(each) for each in (columns.first, columns.second) if each),
  )
  features = _features(split, (*texts, "label", "idx"), data_directory)
  # They lie shuffled; predictions for the GLUE server need the file's order.
  order = np.argsort(features["idx"], kind="stable")
  first, *second = (
    [features[name][index].decode() for index in order] for name in texts
  )
  labels = None
  if columns.label is not None:
    labels = examples_lib.label_array(task, features["label"][order])
    _check_labels(task, split, labels)
  return examples_lib.Examples(first, second[0] if second else None, labels)


def is_there(split: tasks.Split, data_directory: str | None) -> bool:
  """Whether TensorFlow Datasets has prepared a split."""
  try:
    tfds_text.find(tfds_text.PREFIX + split.tfds_name, data_directory)
  except errors.InputError:
    return False
  return True


def _features(
  split: tasks.Split, names: tuple[str, ...], data_directory: str | None
) -> dict[str, np.ndarray]:
  """Returns features [N] of all examples, by name."""
  import tensorflow_datasets as tfds

  _, found = tfds_text.find(tfds_text.PREFIX + split.tfds_name, data_directory)
  builder = tfds.builder_from_directory(found.directory)
  dataset = builder.as_dataset(
    split=found.name,
    decoders=tfds.decode.PartialDecoding(dict.fromkeys(names, True)),
    read_config=tfds.ReadConfig(try_autocache=False),
  )
  batches = list(dataset.batch(_BATCH).as_numpy_iterator())
  if not batches:
    raise errors.InputError(f"tfds:{split.tfds_name} has no examples.")
  return {
    name: np.concatenate([batch[name] for batch in batches]) for name in names
  }


def _check_labels(
  task: tasks.Task, split: tasks.Split, labels: np.ndarray
) -> None:
  low, high = task.label_range or (0, len(task.labels) - 1)
  wrong = labels[~((labels >= low) & (labels <= high))]
  if wrong.size:
    raise errors.InputError(
      f"tfds:{split.tfds_name} has the label {wrong[0]:g}; task {task.name} has"
      f" labels from {low:g} to {high:g}."
    )
