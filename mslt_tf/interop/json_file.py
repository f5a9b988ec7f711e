"""JSON objects from elsewhere, read with a limit."""

import json
from typing import Any

import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import whole_files

_MAX_BYTES = 1 << 27  # A tokenizer's with its vocabulary has some MB.


def read(path: str) -> dict[str, Any]:
  """Returns a file's JSON object. Raises `InputError` if it has none."""
  try:
    num_bytes = tf.io.gfile.stat(path).length
    if num_bytes > _MAX_BYTES:
      raise errors.InputError(
        f"{path} has {num_bytes} bytes; at most {_MAX_BYTES} are read."
      )
    with tf.io.gfile.GFile(path, "rb") as file:
      content = json.loads(file.read())
  except tf.errors.OpError as error:
    raise errors.InputError(f"{path} cannot be read: {error.message}") from None
  except (ValueError, RecursionError) as error:
    raise errors.InputError(f"{path} is no JSON: {error}.") from error
  if not isinstance(content, dict):
    raise errors.InputError(f"{path} is no JSON object.")
  return content


def write(path: str, content: Any) -> None:
  text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
  whole_files.write(path, text.encode())
