"""A directory that a data set is built into: unfinished, and then whole.

What is unfinished is in a directory of its own within it, with the arguments of
the build, so that the same build continues and another one does not. A data set
that is whole is moved out of it, the manifest last.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator

import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import whole_files
from mslt_tf.data.reading import manifest
from mslt_tf.data.reading import record_index

VOCAB_FILE = "vocab.txt"

_SCRATCH_DIRECTORY = "unfinished"
_ARGUMENTS_FILE = "arguments.json"
_LOCK_FILE = "lock"


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
  _check_arguments(
    existing,
    arguments,
    f"{output_directory!r} already holds data built with",
    "choose another directory.",
  )
  # A build that was killed at its very end may have left it.
  _remove(os.path.join(output_directory, _SCRATCH_DIRECTORY))
  return description


def _check_arguments(
  existing: dict, arguments: dict, what: str, advice: str
) -> None:
  for name, value in arguments.items():
    if existing.get(name) != value:
      raise errors.InputError(
        f"{name}={value}, but {what} {name}={existing.get(name)}; {advice}"
      )


@contextlib.contextmanager
def scratch_directory(output_directory: str, arguments: dict) -> Iterator[str]:
  """Gives the directory for what is unfinished.

  It has what an unfinished build of the same arguments left. After an error it
  goes, unless that was an `errors.UnavailableError`.

  Raises:
    errors.InputError: there is an unfinished build of other arguments, or one
      that is under way.
  """
  scratch = os.path.join(output_directory, _SCRATCH_DIRECTORY)
  path = os.path.join(scratch, _ARGUMENTS_FILE)
  with _reported(output_directory):
    if tf.io.gfile.exists(path):
      with tf.io.gfile.GFile(path) as file:
        _check_arguments(
          json.load(file),
          arguments,
          f"{scratch!r} holds a build that was not finished, with",
          f"finish that with the same command, or remove {scratch!r}.",
        )
    else:
      # Something that was removed in part.
      _remove(scratch)
      tf.io.gfile.makedirs(scratch)
      write_json(arguments, path)
  with _locked(scratch):
    try:
      with _reported(output_directory):
        whole_files.remove_pieces(scratch)
        yield scratch
    except errors.InputError as error:
      if not isinstance(error, errors.UnavailableError):
        _remove(scratch)
      raise


@contextlib.contextmanager
def _locked(scratch: str) -> Iterator[None]:
  """Keeps others out, which would remove the pieces; not in buckets."""
  with contextlib.ExitStack() as stack:
    with contextlib.suppress(FileNotFoundError):  # A bucket.
      file = stack.enter_context(open(os.path.join(scratch, _LOCK_FILE), "w"))
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        raise errors.InputError(
          f"output_dir={os.path.dirname(scratch)!r}: another process is"
          " building there."
        ) from None
    yield


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


def _remove(scratch: str) -> None:
  # First, so that no build continues with what is gone in part.
  path = os.path.join(scratch, _ARGUMENTS_FILE)
  if tf.io.gfile.exists(path):
    tf.io.gfile.remove(path)
  if tf.io.gfile.exists(scratch):
    tf.io.gfile.rmtree(scratch)


def write_json(value: object, path: str) -> None:
  """Writes a file, whole or not at all."""
  whole_files.write(path, json.dumps(value, indent=1).encode())


@contextlib.contextmanager
def _reported(output_directory: str) -> Iterator[None]:
  """Turns a failure to write into an `errors.UnavailableError`."""
  try:
    yield
  except (tf.errors.OpError, OSError) as error:
    reason = str(getattr(error, "message", error)).splitlines()[0]
    raise errors.UnavailableError(
      f"output_dir={output_directory!r} cannot be written: {reason}"
    ) from error
