"""What the frozen part of a stage makes of each training example, on disk.

Two files of a local directory: `states.bin` has an array [N, S, D] in the type
that the model hands on, and `states.json`, written last, says what it belongs
to and its checksum.

N training examples, S sequence, D hidden, B batch.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import whole_files

_STATES = "states.bin"
_DESCRIPTION = "states.json"
_READ_BYTES = 1 << 24


@dataclasses.dataclass(frozen=True)
class Description:
  """What states belong to: others are of no use.

  Attributes:
    data_fingerprint: Of the data set.
    weights_sha256: Of the weights they are computed with.
    dtype: Name of their type.
    num_examples: N.
    sequence_length: S.
    hidden_size: D.
  """

  data_fingerprint: str
  weights_sha256: str
  dtype: str
  num_examples: int
  sequence_length: int
  hidden_size: int

  @property
  def shape(self) -> tuple[int, int, int]:
    return (self.num_examples, self.sequence_length, self.hidden_size)

  @property
  def num_bytes(self) -> int:
    return math.prod(self.shape) * tf.as_dtype(self.dtype).size


class StoredStates:
  """States of all training examples; made by `find` or `write`."""

  def __init__(self, directory: str, description: Description):
    self.description = description
    # Mapped, not read: the operating system keeps what fits into memory.
    self._states = np.memmap(
      os.path.join(directory, _STATES),
      tf.as_dtype(description.dtype).as_numpy_dtype,
      mode="r",
      shape=description.shape,
    )

  def of_examples(self, numbers: tf.Tensor) -> tf.Tensor:
    """Returns the states [B, S, D] of examples [B], counted in file order."""
    states = tf.numpy_function(
      self._rows, [numbers], tf.as_dtype(self.description.dtype), stateful=False
    )
    return tf.ensure_shape(states, [numbers.shape[0], *self._states.shape[1:]])

  def _rows(self, numbers: np.ndarray) -> np.ndarray:
    return np.asarray(self._states[numbers])


def find(directory: str, description: Description) -> StoredStates | None:
  """Returns the states in a directory if they are whole and the right ones."""
  described = os.path.join(directory, _DESCRIPTION)
  states = os.path.join(directory, _STATES)
  if not all(map(tf.io.gfile.exists, (described, states))):
    return None
  digest = hashlib.sha256()
  with tf.io.gfile.GFile(states, "rb") as file:
    while content := file.read(_READ_BYTES):
      digest.update(content)
  with tf.io.gfile.GFile(described, "rb") as file:
    if file.read() != _text(description, digest.hexdigest()):
      return None
  return StoredStates(directory, description)


def write(
  directory: str, description: Description, parts: Iterable[np.ndarray]
) -> StoredStates:
  """Stores states; a kill or an error at any moment leaves none.

  Args:
    directory: Where to; states that are there are replaced.
    description: What they belong to.
    parts: [any, S, D] each, N in all, in the order of the examples' numbers.

  Raises:
    errors.InputError: The directory cannot be written.
  """
  described = os.path.join(directory, _DESCRIPTION)
  path = os.path.join(directory, _STATES)
  with _naming(directory):
    tf.io.gfile.makedirs(directory)
    whole_files.remove_pieces(directory)
    if tf.io.gfile.exists(described):
      tf.io.gfile.remove(described)
  digest = hashlib.sha256()
  with (
    whole_files.writing(path) as piece,
    tf.io.gfile.GFile(piece, "wb") as file,
  ):
    for part in parts:
      content = part.tobytes()
      digest.update(content)
      with _naming(directory):
        file.write(content)
        file.flush()
  with _naming(directory):
    whole_files.write(described, _text(description, digest.hexdigest()))
  return StoredStates(directory, description)


def _text(description: Description, sha256: str) -> bytes:
  content = {**dataclasses.asdict(description), "sha256": sha256}
  return (json.dumps(content, indent=2) + "\n").encode()


@contextlib.contextmanager
def _naming(directory: str) -> Iterator[None]:
  """Turns what the file system refuses into `errors.InputError`."""
  try:
    yield
  except (tf.errors.OpError, OSError) as error:
    reason = errors.first_line(error)
    raise errors.InputError(
      f"{directory} cannot be written: {reason}"
    ) from error
