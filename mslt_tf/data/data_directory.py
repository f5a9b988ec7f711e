"""A directory that a data set is built into: unfinished, and then whole.

What is unfinished is in a directory of its own within it, with the arguments of
the build, so that the same build continues and another one does not. A data set
that is whole is moved out of it, the manifest last.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from mslt_tf import errors
from mslt_tf.data import manifest
from mslt_tf.data import record_index

VOCAB_FILE = "vocab.txt"

_SCRATCH_DIRECTORY = "unfinished"
_ARGUMENTS_FILE = "arguments.json"
# The name of a file until it is whole, where several may write it.
_PIECE = re.compile(r"\.[0-9a-f]{32}$")


def existing_manifest(output_directory: str, arguments: dict) -> dict | None:
  """Returns the manifest of the data set that is there, or None.

  Raises:
    errors.InputError: it was built with other arguments.
  """
  if not manifest.exists(output_directory):
    return None
  manifest.open_data(output_directory)
  description = manifest.load(output_directory)
  existing = description.get("arguments")
  existing = existing if isinstance(existing, dict) else {}
  for name, value in arguments.items():
    if existing.get(name) != value:
      raise errors.InputError(
        f"{name}={value}, but {output_directory!r} already holds data built"
        f" with {name}={existing.get(name)}; choose another directory."
      )
  # A build that was killed at its very end may have left it.
  _remove(os.path.join(output_directory, _SCRATCH_DIRECTORY))
  return description


@contextlib.contextmanager
def scratch_directory(output_directory: str, arguments: dict) -> Iterator[str]:
  """Gives the directory for what is unfinished.

  It has what an unfinished build of the same arguments left. What another one
  left goes. After a failure it stays, so that the build can continue, unless
  the arguments are what is wrong.
  """
  scratch = os.path.join(output_directory, _SCRATCH_DIRECTORY)
  path = os.path.join(scratch, _ARGUMENTS_FILE)
  with _reported(output_directory):
    if _is_of(path, arguments):
      logging.info("Continuing the unfinished build in %s.", output_directory)
      _remove_pieces(scratch)
    else:
      _discard(output_directory)
      tf.io.gfile.makedirs(scratch)
      write_json(arguments, path)
  try:
    with _reported(output_directory):
      yield scratch
  except errors.InputError as error:
    if not isinstance(error.__cause__, tf.errors.OpError | OSError):
      _remove(scratch)
    raise


def publish(scratch: str, output_directory: str) -> None:
  """Moves a data set that is whole out of `scratch`, the manifest last."""
  description = manifest.load(scratch)
  for name in (*_files(description), manifest.FILE):
    path = os.path.join(scratch, name)
    # A build that was killed here has moved some.
    if tf.io.gfile.exists(path):
      tf.io.gfile.rename(
        path, os.path.join(output_directory, name), overwrite=True
      )
  tf.io.gfile.rmtree(scratch)


def _files(description: dict) -> list[str]:
  """Returns the names of the files of a data set, but the manifest's."""
  shard_files = [
    shard["file"]
    for split in description["splits"].values()
    for shard in split["shards"]
  ]
  return [*shard_files, *map(record_index.path_of, shard_files), VOCAB_FILE]


def _is_of(path: str, arguments: dict) -> bool:
  """Says whether an unfinished build has these arguments."""
  if not tf.io.gfile.exists(path):
    return False
  with tf.io.gfile.GFile(path) as file:
    return file.read() == _json(arguments)


def _remove_pieces(scratch: str) -> None:
  """Removes the files that a killed build had begun to write."""
  for name in tf.io.gfile.listdir(scratch):
    if _PIECE.search(name):
      # Its writer may have outlived the build and finished it now.
      with contextlib.suppress(tf.errors.NotFoundError):
        tf.io.gfile.remove(os.path.join(scratch, name))


def _discard(output_directory: str) -> None:
  """Removes what an unfinished build of other arguments left."""
  scratch = os.path.join(output_directory, _SCRATCH_DIRECTORY)
  _disown(scratch)
  # Killed while it published, it left some files beside it.
  if manifest.exists(scratch):
    for name in _files(manifest.load(scratch)):
      published = os.path.join(output_directory, name)
      if tf.io.gfile.exists(published):
        tf.io.gfile.remove(published)
  _remove(scratch)


def _remove(scratch: str) -> None:
  _disown(scratch)
  if tf.io.gfile.exists(scratch):
    tf.io.gfile.rmtree(scratch)


def _disown(scratch: str) -> None:
  """Has no build continue with `scratch`, of which some is about to go."""
  path = os.path.join(scratch, _ARGUMENTS_FILE)
  if tf.io.gfile.exists(path):
    tf.io.gfile.remove(path)


def _json(value: object) -> str:
  return json.dumps(value, indent=1)


def write_json(value: object, path: str) -> None:
  """Writes a file, whole or not at all."""
  unfinished = f"{path}.unfinished"
  with tf.io.gfile.GFile(unfinished, "w") as file:
    file.write(_json(value))
  tf.io.gfile.rename(unfinished, path, overwrite=True)


@contextlib.contextmanager
def _reported(output_directory: str) -> Iterator[None]:
  """Turns a failure to write into an `errors.InputError`."""
  try:
    yield
  except (tf.errors.OpError, OSError) as error:
    reason = str(getattr(error, "message", error)).splitlines()[0]
    raise errors.InputError(
      f"output_dir={output_directory!r} cannot be written: {reason}"
    ) from error
