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

from mslt_tf import errors
from mslt_tf import file_lock
from mslt_tf.data import whole_files
from mslt_tf.data.reading import manifest
from mslt_tf.data.reading import record_index

VOCAB_FILE = "vocab.txt"

_SCRATCH_DIRECTORY = "unfinished"
_ARGUMENTS_FILE = "arguments.json"
_LOCK_FILE = ".lock"  # In the output directory, and there for good.
# All that a build writes into the directory for what is unfinished.
_OWN_FILE = re.compile(
  r"((arguments|text|examples|manifest)\.json|vocab\.txt|text-\d+-\d+"
  r"|examples-(train|heldout)-\d+"
  r"|(train|heldout)-\d+-of-\d+\.tfrecord(\.index)?)(\.[0-9a-f]{32})?"
)


@contextlib.contextmanager
def locked(output_directory: str) -> Iterator[None]:
  """Makes the directory and keeps other builds out of it; not in buckets.

  Raises:
    errors.InputError: a build is under way there.
    errors.UnavailableError: it cannot be written.
  """
  with contextlib.ExitStack() as stack:
    with _reported(output_directory):
      # One that is complete may be for reading only.
      if not _is_complete(output_directory):
        tf.io.gfile.makedirs(output_directory)
        if "://" not in output_directory:
          stack.enter_context(
            file_lock.held(
              os.path.join(output_directory, _LOCK_FILE),
              busy=f"output_dir={output_directory!r}: another process is"
              " building there.",
            )
          )
    yield


def _is_complete(output_directory: str) -> bool:
  """Says whether nothing is left to be done, not even to be removed."""
  return manifest.exists(output_directory) and not tf.io.gfile.exists(
    os.path.join(output_directory, _SCRATCH_DIRECTORY)
  )


def check_arguments(output_directory: str, arguments: dict) -> None:
  """Checks that no other data set is there, whole or begun; when `locked`.

  Args:
    arguments: some of those of the build, all that is known yet.

  Raises:
    errors.InputError: it is of other arguments.
  """
  if existing_manifest(output_directory, arguments) is None:
    with _reported(output_directory):
      _check_unfinished(
        os.path.join(output_directory, _SCRATCH_DIRECTORY), arguments
      )


def existing_manifest(output_directory: str, arguments: dict) -> dict | None:
  """Returns the manifest of the data set that is there, or None; when `locked`.

  Raises:
    errors.InputError: it was built with other arguments.
  """
  if not manifest.exists(output_directory):
    return None
  manifest.open_data(output_directory)
  description = manifest.load(output_directory)
  existing = description.get("arguments")
  existing = existing if isinstance(existing, dict) else {}
  _check_same(
    existing,
    arguments,
    f"{output_directory!r} already holds data built with",
    "choose another directory.",
  )
  # A build that was killed at its very end may have left it.
  scratch = os.path.join(output_directory, _SCRATCH_DIRECTORY)
  with _reported(output_directory):
    if not _foreign_files(scratch):
      _remove(scratch)
  return description


def _check_unfinished(scratch: str, arguments: dict) -> bool:
  """Returns whether a build was begun there.

  Raises:
    errors.InputError: it is of other arguments.
  """
  path = os.path.join(scratch, _ARGUMENTS_FILE)
  if not tf.io.gfile.exists(path):
    return False
  with tf.io.gfile.GFile(path) as file:
    _check_same(
      json.load(file),
      arguments,
      f"{scratch!r} holds a build that was not finished, with",
      f"finish that with the same command, or remove {scratch!r}.",
    )
  return True


def _check_same(
  existing: dict, arguments: dict, what: str, advice: str
) -> None:
  for name, value in arguments.items():
    if existing.get(name) != value:
      raise errors.InputError(
        f"{name}={value}, but {what} {name}={existing.get(name)}; {advice}"
      )


@contextlib.contextmanager
def scratch_directory(output_directory: str, arguments: dict) -> Iterator[str]:
  """Gives the directory for what is unfinished; when `locked`.

  It has what an unfinished build of the same arguments left. After an error it
  goes, unless that was an `errors.UnavailableError`.

  Raises:
    errors.InputError: there is an unfinished build of other arguments, or
      something that no build has left.
  """
  scratch = os.path.join(output_directory, _SCRATCH_DIRECTORY)
  with _reported(output_directory):
    if not _check_unfinished(scratch, arguments):
      # Something that was removed in part, unless it is not of a build.
      if foreign := _foreign_files(scratch):
        raise errors.InputError(
          f"{scratch!r} is where a build puts what is unfinished, but"
          f" {foreign[0]!r} in it is of no build; move it away."
        )
      _remove(scratch)
      tf.io.gfile.makedirs(scratch)
      write_json(arguments, os.path.join(scratch, _ARGUMENTS_FILE))
  try:
    with _reported(output_directory):
      whole_files.remove_pieces(scratch)
      yield scratch
  except errors.InputError as error:
    if not isinstance(error, errors.UnavailableError):
      _remove(scratch)
    raise


def _foreign_files(scratch: str) -> list[str]:
  """Returns the names in a directory that are none of a build's files."""
  if not tf.io.gfile.exists(scratch):
    return []
  return [
    name
    for name in sorted(tf.io.gfile.listdir(scratch))
    if not _OWN_FILE.fullmatch(name)
  ]


def publish(scratch: str, output_directory: str) -> None:
  """Moves a data set that is whole out of `scratch`, the manifest last."""
  for names in (_files(manifest.load(scratch)), [manifest.FILE]):
    for name in names:
      path = os.path.join(scratch, name)
      # A build that was killed here has moved some.
      if tf.io.gfile.exists(path):
        tf.io.gfile.rename(
          path, os.path.join(output_directory, name), overwrite=True
        )
    whole_files.sync(output_directory)
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
  """Turns a failure to write or read into an `errors.UnavailableError`."""
  try:
    yield
  except (tf.errors.OpError, OSError) as error:
    reason = errors.first_line(error)
    # It may be of the input, or of temporary files.
    if output_directory in reason:
      reason = f"output_dir={output_directory!r} cannot be written: {reason}"
    raise errors.UnavailableError(reason) from error
