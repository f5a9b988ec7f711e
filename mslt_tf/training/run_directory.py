"""Where a run writes: its identity, its stages' files and its summary.

workdir/
  lock                   held by the process that is at work here
  identity.json          what may not change between two starts
  config.yaml            the resolved config of the last start
  summary.json           how the run stands
  tensorboard/           event files, with those of each stage in stage_N/
  vocab.txt              of the data, where it is known
  data.json              what the data are, for the model's card
  workers_token          of several workers: that all see this directory
  stage_0/               the weights of an initial checkpoint, like stage_1
  stage_1/
    metrics.jsonl        a line for every log and every evaluation
    checkpoints/         of the unfinished stage
      frozen_states/       of the training examples, where they are reused
    results.json         times and held-out metrics at the stage's end
    weights.index        the stage's file; it exists, the stage is finished
    weights.data-00000-of-00001
  stage_2/ ...
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf import file_lock
from mslt_tf.data import whole_files

_HOW_TO_CONTINUE = (
  " A finished run goes on with --set=schedule.extra_steps=[N], and once more"
  " with [N,M]."
)
# TensorFlow begins some messages with the name of its operation.
_NODE = re.compile(r"^\{\{.*?\}\} ")
_INDEX_SUFFIX = ".index"
_DATA_SUFFIX = ".data-00000-of-00001"


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
  """Turns what a file system refuses, a full disk say, into `InputError`."""
  try:
    yield
  except (tf.errors.OpError, OSError) as error:
    reason = _NODE.sub("", errors.first_line(error))
    raise errors.InputError(f"{path} cannot be written: {reason}") from error


@contextlib.contextmanager
def alone(workdir: str) -> Iterator[None]:
  """Keeps other processes out of a workdir, which is made if need be.

  Not where it is in a bucket.

  Raises:
    BusyError: One is at work there.
    InputError: It cannot be made.
  """
  _check_is_no_file(workdir)
  with contextlib.ExitStack() as stack:
    if "://" not in workdir:
      with writing(workdir):
        tf.io.gfile.makedirs(workdir)
        stack.enter_context(
          file_lock.held(
            os.path.join(workdir, "lock"),
            busy=f"--workdir={workdir}: another process is at work there.",
          )
        )
    yield


@dataclasses.dataclass(frozen=True)
class RunDirectory:
  """The files of one run. Stages count from 1, as in the paper."""

  path: str

  @property
  def tensorboard(self) -> str:
    return os.path.join(self.path, "tensorboard")

  def stage_tensorboard(self, number: int) -> str:
    return os.path.join(self.tensorboard, f"stage_{number}")

  def stage(self, number: int) -> str:
    return os.path.join(self.path, f"stage_{number}")

  def checkpoints(self, number: int) -> str:
    return os.path.join(self.stage(number), "checkpoints")

  def frozen_states(self, number: int) -> str:
    # Among the checkpoints: it goes with them when the stage is finished.
    return os.path.join(self.checkpoints(number), "frozen_states")

  def metrics(self, number: int) -> str:
    return os.path.join(self.stage(number), "metrics.jsonl")

  def is_finished(self, number: int) -> bool:
    return has_arrays(self._weights(number))

  def last_finished(self, num_stages: int) -> int:
    """Returns the last finished of `num_stages` stages, 0 if none is.

    Raises:
      InputError: The file is missing that a stage which has begun came from.
    """
    last = max(
      (n for n in range(1, num_stages + 1) if self.is_finished(n)), default=0
    )
    for later in range(last + 2, num_stages + 1):
      if tf.io.gfile.exists(self.stage(later)):
        raise errors.InputError(
          f"{self._weights(last + 1)}.index is missing, but stage {later} has"
          f" begun; bring it back, or remove {self.stage(later)} to train from"
          f" stage {last + 1} on again."
        )
    return last

  def finish_stage(
    self,
    number: int,
    *,
    arrays: Mapping[str, np.ndarray],
    results: Mapping[str, Any],
  ) -> None:
    """Writes the stage's file, from then on the stage is finished.

    A kill at any moment leaves either no stage file or a whole one, and so does
    a power failure, where the workdir is local.
    """
    self.write_json(f"stage_{number}/results.json", results)
    # Among the checkpoints: whatever a kill leaves here goes with them.
    write_arrays(
      self._weights(number), arrays, unfinished_in=self.checkpoints(number)
    )
    self.remove_checkpoints(number)

  def remove_checkpoints(self, number: int) -> None:
    """Frees the room of a finished stage, which is never entered again."""
    with writing(self.checkpoints(number)):
      if tf.io.gfile.exists(self.checkpoints(number)):
        tf.io.gfile.rmtree(self.checkpoints(number))

  def read_stage(self, number: int) -> dict[str, np.ndarray]:
    """Returns the arrays of a finished stage by name."""
    return read_arrays(self._weights(number))

  def read_results(self, number: int) -> dict[str, Any]:
    """Returns what `finish_stage` was given."""
    name = f"stage_{number}/results.json"
    results = self.read_json(name)
    for key in ("step", "batch_index", "wall_seconds", "train_seconds"):
      if not isinstance(results, dict) or key not in results:
        path = os.path.join(self.path, name)
        raise errors.InputError(f"{path}: {key} is missing.")
    return results

  def read_json(self, name: str) -> Any:
    """Returns a file's content. Raises `InputError` if it is no JSON."""
    path = os.path.join(self.path, name)
    try:
      with tf.io.gfile.GFile(path) as file:
        return json.load(file)
    except (ValueError, tf.errors.OpError) as error:
      reason = errors.first_line(error)
      raise errors.InputError(f"{path} cannot be read: {reason}") from error

  def write_json(self, name: str, content: Any) -> None:
    self.write_text(name, json.dumps(content, indent=2) + "\n")

  def write_text(self, name: str, text: str) -> None:
    """Writes a file such that a reader sees the old or the new one."""
    path = os.path.join(self.path, name)
    with writing(path):
      tf.io.gfile.makedirs(os.path.dirname(path))
      with tf.io.gfile.GFile(path + ".unfinished", "w") as file:
        file.write(text)
      whole_files.sync(path + ".unfinished")
      tf.io.gfile.rename(path + ".unfinished", path, overwrite=True)

  def _weights(self, number: int) -> str:
    return os.path.join(self.stage(number), "weights")


def write_arrays(
  prefix: str, arrays: Mapping[str, np.ndarray], *, unfinished_in: str
) -> None:
  """Writes a TensorFlow checkpoint of arrays, whole or not at all.

  `<prefix>.index` comes last: where it is, the rest is too.

  Args:
    prefix: The checkpoint's path without its endings.
    arrays: By name.
    unfinished_in: A directory for what is not whole yet; a kill leaves it
      there.
  """
  names = sorted(arrays)
  unfinished = os.path.join(unfinished_in, "weights")
  with writing(prefix):
    tf.io.gfile.makedirs(unfinished_in)
    tf.raw_ops.SaveV2(
      prefix=unfinished,
      tensor_names=names,
      shape_and_slices=[""] * len(names),
      tensors=[arrays[name] for name in names],
    )
    for suffix in (_DATA_SUFFIX, _INDEX_SUFFIX):
      whole_files.sync(unfinished + suffix)
      tf.io.gfile.rename(unfinished + suffix, prefix + suffix, overwrite=True)
    whole_files.sync(os.path.dirname(prefix))


def read_arrays(prefix: str) -> dict[str, np.ndarray]:
  """Returns the arrays of a checkpoint by name.

  Raises:
    InputError: It cannot be read.
  """
  try:
    reader = tf.train.load_checkpoint(prefix)
    names = reader.get_variable_to_shape_map()
    return {name: reader.get_tensor(name) for name in names}
  except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
    reason = errors.first_line(error)
    raise errors.InputError(
      f"{prefix}.index cannot be read: {reason}"
    ) from error


def remove_arrays(prefix: str) -> None:
  """Removes a checkpoint of arrays, if it is there."""
  for suffix in (_INDEX_SUFFIX, _DATA_SUFFIX):
    if tf.io.gfile.exists(prefix + suffix):
      tf.io.gfile.remove(prefix + suffix)


def has_arrays(prefix: str) -> bool:
  """Whether a whole checkpoint of arrays is there."""
  return tf.io.gfile.exists(prefix + _INDEX_SUFFIX)


def claim(workdir: str, identity: Mapping[str, Any]) -> RunDirectory:
  """Opens a workdir for the run of this identity.

  The list `identity["schedule"]["stages"]` of a finished run may get longer:
  that continues the run.

  Raises:
    InputError: Where the workdir holds another run; names the first field that
      differs and both values.
  """
  directory = RunDirectory(workdir)
  name = "identity.json"
  if tf.io.gfile.exists(os.path.join(workdir, name)):
    held = directory.read_json(name)
    difference = _first_difference(held, identity)
    if difference and not _continues(directory, held, identity):
      field, there, here = difference
      raise errors.InputError(
        f"{workdir} holds another run: {field} is {there} there and {here}"
        " here; use another --workdir or the same config."
        + (_HOW_TO_CONTINUE if field.startswith("schedule") else "")
      )
    if not difference:
      return directory
  _check_is_no_file(workdir)
  directory.write_json(name, identity)
  return directory


def by_name(flag: str, workdirs: Sequence[str]) -> dict[str, str]:
  """Returns what a flag that takes workdirs is given, by their names.

  Args:
    flag: What an error names.
    workdirs: Each WORKDIR, named after its folder, or NAME=WORKDIR.

  Raises:
    errors.InputError: Two have the same name, or one has none.
  """
  named: dict[str, str] = {}
  for each in workdirs:
    name, equals, workdir = each.partition("=")
    if not equals:
      name, workdir = os.path.basename(os.path.normpath(each)), each
    if not name or not workdir:
      raise errors.InputError(
        f"{flag}={each!r} must be WORKDIR or NAME=WORKDIR."
      )
    if name in named:
      raise errors.InputError(
        f"{flag}: {named[name]} and {workdir} are both named {name};"
        " NAME=WORKDIR names one."
      )
    named[name] = workdir
  return named


def _check_is_no_file(workdir: str) -> None:
  if tf.io.gfile.exists(workdir) and not tf.io.gfile.isdir(workdir):
    raise errors.InputError(f"--workdir={workdir} is a file, not a directory.")


def _continues(
  directory: RunDirectory, held: Any, wanted: Mapping[str, Any]
) -> bool:
  """Whether `wanted` is the held run, finished, with stages put behind it."""
  try:
    held_stages = held["schedule"]["stages"]
  except (KeyError, TypeError):
    return False
  count = len(held_stages)
  shortened = {
    **wanted,
    "schedule": {
      **wanted["schedule"],
      "stages": wanted["schedule"]["stages"][:count],
    },
  }
  return not _first_difference(held, shortened) and directory.is_finished(count)


def _first_difference(
  held: Any, wanted: Any, path: str = ""
) -> tuple[str, Any, Any] | None:
  """Returns the path and both values of the first field that differs."""
  if isinstance(held, Mapping) and isinstance(wanted, Mapping):
    pairs = [
      (key, held.get(key), wanted.get(key)) for key in {**held, **wanted}
    ]
  elif (
    isinstance(held, list)
    and isinstance(wanted, list)
    and len(held) == len(wanted)
  ):
    pairs = [
      (index, *both)
      for index, both in enumerate(zip(held, wanted, strict=True))
    ]
  else:
    if held == wanted:
      return None
    if isinstance(held, list) and isinstance(wanted, list):
      return (path, f"{len(held)} entries", f"{len(wanted)} entries")
    return (path, held, wanted)
  for key, there, here in pairs:
    inner = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"
    difference = _first_difference(there, here, inner.lstrip("."))
    if difference:
      return difference
  return None
