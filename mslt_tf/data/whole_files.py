"""Files that appear under their name when they are whole."""

import contextlib
import os
import re
import uuid
from collections.abc import Iterator

import tensorflow as tf

_PIECE = re.compile(r"\.[0-9a-f]{32}$")


@contextlib.contextmanager
def writing(path: str) -> Iterator[str]:
  """Gives a name to write a file under, which then becomes `path`.

  After an error nothing is left: the disk may be full. Who is killed leaves a
  piece, for `remove_pieces`. A power failure leaves a whole file or none.
  """
  # Several may write the same file.
  piece = f"{path}.{uuid.uuid4().hex}"
  try:
    yield piece
    sync(piece)
    tf.io.gfile.rename(piece, path, overwrite=True)
    sync(os.path.dirname(path))
  except BaseException:
    with contextlib.suppress(tf.errors.OpError):
      tf.io.gfile.remove(piece)
    raise


def sync(path: str) -> None:
  """Has a file, or the names in a directory, outlast a power failure."""
  if "://" in path:  # Buckets do without.
    return
  descriptor = os.open(path or ".", os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def write(path: str, content: bytes) -> None:
  """Writes a file."""
  with writing(path) as piece, tf.io.gfile.GFile(piece, "wb") as file:
    file.write(content)


def remove_pieces(directory: str) -> None:
  """Removes the files that someone who was killed had begun to write."""
  for name in tf.io.gfile.listdir(directory):
    if _PIECE.search(name):
      # Its writer may have outlived the others and finished it now.
      with contextlib.suppress(tf.errors.NotFoundError):
        tf.io.gfile.remove(f"{directory}/{name}")
