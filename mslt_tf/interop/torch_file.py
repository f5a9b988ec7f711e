"""`pytorch_model.bin`: a zip file with a pickle in it.

Only torch reads it, and only what its weights-only loader lets through; that
loader runs no code of the file.
"""

import zipfile
from typing import Any

import numpy as np
import tensorflow as tf

from mslt_tf import errors


def load(path: str) -> dict[str, Any]:
  """Returns the file's tensors by name.

  Raises:
    InputError: torch is not installed, or the file is no dict of tensors.
  """
  try:
    import torch
  except ImportError as error:
    raise errors.InputError(
      f"{path} can only be read where torch is installed: pip install"
      f" --constraint requirements.txt '.[interop]' ({error})."
    ) from None
  _check_zip(path)
  try:
    with tf.io.gfile.GFile(path, "rb") as file:
      tensors = torch.load(file, map_location="cpu", weights_only=True)
  except Exception as error:
    # Whatever a hostile file sets off in there.
    reason = errors.first_line(error)[:200]
    raise errors.InputError(
      f"{path} cannot be read as weights: {reason}"
    ) from error
  if not isinstance(tensors, dict) or not all(
    isinstance(name, str) and isinstance(each, torch.Tensor)
    for name, each in tensors.items()
  ):
    raise errors.InputError(f"{path} holds no weights by name.")
  for name, each in tensors.items():
    is_dense = each.layout == torch.strided and each.device.type == "cpu"
    # A stride of 0 makes any shape of a few bytes.
    if not is_dense or each.untyped_storage().nbytes() < each.nbytes:
      raise errors.InputError(
        f"{path}: {name!r} has shape {tuple(each.shape)} and is no array that"
        " the file holds whole."
      )
  return tensors


def to_float32(tensor: Any, path: str) -> np.ndarray:
  if not tensor.is_floating_point():
    raise errors.InputError(
      f"{path}: an array has dtype={tensor.dtype}; weights are floats."
    )
  return tensor.detach().float().numpy()


def _check_zip(path: str) -> None:
  """A compressed entry could unfold to any size; torch writes none."""
  try:
    with (
      tf.io.gfile.GFile(path, "rb") as file,
      zipfile.ZipFile(file) as archive,
    ):
      entries = archive.infolist()
  except (zipfile.BadZipFile, OSError, tf.errors.OpError, ValueError) as error:
    reason = errors.first_line(error)
    raise errors.InputError(
      f"{path} is no file of torch 1.6 or newer: {reason}"
    ) from error
  if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
    raise errors.InputError(f"{path} is compressed, which no weights are.")
