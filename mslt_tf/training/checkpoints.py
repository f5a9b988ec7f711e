"""Checkpoints of an unfinished stage: written aside, renamed, read back whole.

checkpoints/
  ckpt-<number>.index           last to come: where it is, the rest is too
  ckpt-<number>.data-*
  unfinished/                   what a kill left of one that was being written
"""

import os
import re
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from mslt_tf import errors
from mslt_tf.training import run_directory

_INDEX = re.compile(r"^ckpt-(\d+)\.index$")
_FILE = re.compile(r"^ckpt-(\d+)\.(index|data-.*)$")
_UNFINISHED = "unfinished"
# A file system's trouble, which says nothing about the file.
_OUT_OF_REACH = (
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.DeadlineExceededError,
  tf.errors.PermissionDeniedError,
  tf.errors.ResourceExhaustedError,
  tf.errors.UnavailableError,
)


class Checkpoints:
  """The checkpoints in one directory; their numbers rise with time."""

  def __init__(
    self, directory: str, checkpoint: tf.train.Checkpoint, *, keep: int
  ):
    """Writes nothing yet.

    Args:
      checkpoint: What is saved and restored.
      keep: How many checkpoints stay.
    """
    self._directory = directory
    self._checkpoint = checkpoint
    self._keep = keep
    self._current: int | None = None  # The last one saved or restored.

  def newest_good(self) -> int | None:
    """Returns the newest checkpoint that is whole; `None` if there is none.

    Every byte is read and held against its checksum. Damaged ones are logged.

    Raises:
      InputError: There are checkpoints, but none is whole.
    """
    numbers = self._numbers()
    for number in reversed(numbers):
      reason = self._damage(number)
      if reason is None:
        return number
      logging.warning(
        "%s is damaged, an older checkpoint is tried: %s",
        self._prefix(number),
        reason,
      )
    if numbers:
      raise errors.InputError(
        f"{self._directory}: none of the {len(numbers)} checkpoints can be"
        " read; remove this directory to train the stage from its start."
      )
    return None

  def restore(self, number: int) -> None:
    """Restores a checkpoint; everything that is saved must be in it.

    Raises:
      InputError: It cannot be read, or does not fit.
    """
    prefix = self._prefix(number)
    self._current = number
    try:
      status = self._checkpoint.read(prefix)
      status.assert_existing_objects_matched()
    except (tf.errors.OpError, AssertionError, ValueError) as error:
      reason = errors.first_line(error)
      raise errors.InputError(
        f"{prefix}: the checkpoint cannot be restored: {reason}"
      ) from error

  def save(self, number: int) -> None:
    """Writes a checkpoint, then removes all but the newest `keep` up to it.

    One that was just saved or restored is left as it is.

    A kill, or an error such as a full disk, leaves those before untouched.

    Raises:
      InputError: The directory cannot be written.
    """
    if number == self._current:
      return  # It is there; renaming two files over it could be torn apart.
    unfinished = os.path.join(self._directory, _UNFINISHED)
    with run_directory.writing(self._prefix(number)):
      if tf.io.gfile.exists(unfinished):
        tf.io.gfile.rmtree(unfinished)
      tf.io.gfile.makedirs(unfinished)
      self._checkpoint.write(os.path.join(unfinished, f"ckpt-{number}"))
      names = tf.io.gfile.listdir(unfinished)
      for name in sorted(names, key=lambda name: name.endswith(".index")):
        tf.io.gfile.rename(
          os.path.join(unfinished, name),
          os.path.join(self._directory, name),
          overwrite=True,
        )
      tf.io.gfile.rmtree(unfinished)
      self._current = number
      # Those above are damaged, for the run went on from one before them.
      kept = [each for each in self._numbers() if each <= number]
      self._remove_all_but(kept[-self._keep :])

  def _remove_all_but(self, kept: Sequence[int]) -> None:
    """Removes the files of others, and those that a kill left unindexed."""
    # Not `glob`: the directory's name may have a bracket. The index first:
    # without it the rest counts for nothing.
    names = tf.io.gfile.listdir(self._directory)
    for name in sorted(names, key=lambda name: not name.endswith(".index")):
      match = _FILE.match(name)
      if match and int(match[1]) not in kept:
        tf.io.gfile.remove(os.path.join(self._directory, name))

  def _damage(self, number: int) -> str | None:
    try:
      reader = tf.train.load_checkpoint(self._prefix(number))
      for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)
    except _OUT_OF_REACH as error:
      reason = errors.first_line(error)
      raise errors.InputError(
        f"{self._prefix(number)} cannot be read now: {reason}"
      ) from error
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
      return errors.first_line(error)
    return None

  def _numbers(self) -> list[int]:
    if not tf.io.gfile.exists(self._directory):
      return []
    names = tf.io.gfile.listdir(self._directory)
    return sorted(
      int(match[1]) for name in names if (match := _INDEX.match(name))
    )

  def _prefix(self, number: int) -> str:
    return os.path.join(self._directory, f"ckpt-{number}")
