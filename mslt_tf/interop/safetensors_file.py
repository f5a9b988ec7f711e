"""Safetensors files: eight bytes of length, a JSON header, the raw arrays.

Read and written here because the format is smaller than its package, which
only the extra `interop` installs, and because a header from elsewhere is
checked in full before memory is taken.
"""

import contextlib
import dataclasses
import json
import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import whole_files

_MAX_HEADER_BYTES = 100_000_000  # As the safetensors package has it.
_ITEM_BYTES = {
  "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
  "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
  "I32": 4, "U32": 4, "F32": 4,
  "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
_FLOATS = ("F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True)
class Entry:
  """An array of a file; `begin` and `end` count bytes of the file."""

  dtype: str
  shape: tuple[int, ...]
  begin: int
  end: int


def write(path: str, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes float32 arrays, whole or not at all."""
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  end = 0
  for name in sorted(arrays):
    begin, end = end, end + 4 * arrays[name].size
    header[name] = {
      "dtype": "F32",
      "shape": list(arrays[name].shape),
      "data_offsets": [begin, end],
    }
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)  # The arrays begin at a multiple of 8.
  with (
    whole_files.writing(path) as piece,
    tf.io.gfile.GFile(piece, "wb") as file,
  ):
    file.write(struct.pack("<Q", len(text)) + text)
    for name in sorted(arrays):
      file.write(np.ascontiguousarray(arrays[name], "<f4").tobytes())


def read_entries(path: str) -> dict[str, Entry]:
  """Returns what a file holds, by name; reads nothing but the header.

  Raises:
    InputError: The file is damaged: its header is too long, no JSON or gives
      arrays that overlap, leave gaps or do not end where the file ends.
  """
  num_bytes = _size(path)
  with _opened(path) as file:
    start = file.read(8)
    if len(start) < 8:
      raise _damaged(path, f"it has {len(start)} bytes")
    (length,) = struct.unpack("<Q", start)
    if length > min(num_bytes - 8, _MAX_HEADER_BYTES):
      raise _damaged(
        path, f"a header of {length} bytes in a file of {num_bytes}"
      )
    content = file.read(length)
  try:
    header = json.loads(content, object_pairs_hook=_unique)
  except (ValueError, RecursionError) as error:
    raise _damaged(path, f"its header is no JSON: {error}") from error
  if not isinstance(header, dict):
    raise _damaged(path, "its header is no JSON object")
  header.pop("__metadata__", None)
  entries = {
    name: _entry(path, name, fields, 8 + length)
    for name, fields in header.items()
  }
  _check_cover(path, entries, 8 + length, num_bytes)
  return entries


def read_float32(path: str, entry: Entry) -> np.ndarray:
  """Returns an array of float32, float16 or bfloat16 as float32."""
  if entry.dtype not in _FLOATS:
    raise errors.InputError(
      f"{path}: an array has dtype={entry.dtype}; weights are one of"
      f" {', '.join(_FLOATS)}."
    )
  with _opened(path) as file:
    file.seek(entry.begin)
    content = file.read(entry.end - entry.begin)
  if len(content) != entry.end - entry.begin:
    raise _damaged(path, "it is cut off")
  if entry.dtype == "BF16":
    # The upper half of a float32.
    bits = np.frombuffer(content, "<u2").astype(np.uint32) << 16
    array = bits.view(np.float32)
  else:
    kind = "<f4" if entry.dtype == "F32" else "<f2"
    array = np.frombuffer(content, kind).astype(np.float32)
  return array.reshape(entry.shape)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
  try:
    with tf.io.gfile.GFile(path, "rb") as file:
      yield file
  except tf.errors.OpError as error:
    raise errors.InputError(f"{path} cannot be read: {error.message}") from None


def _entry(path: str, name: str, fields: Any, start: int) -> Entry:
  where = f"array {name[:100]!r}"
  if not isinstance(fields, dict):
    raise _damaged(path, f"{where} is no JSON object")
  dtype, shape = fields.get("dtype"), fields.get("shape")
  offsets = fields.get("data_offsets")
  if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
    raise _damaged(path, f"{where} has dtype={str(dtype)[:20]}")
  if not _is_sizes(shape):
    raise _damaged(path, f"{where} has shape={str(shape)[:40]}")
  if not _is_sizes(offsets) or len(offsets) != 2:
    raise _damaged(path, f"{where} has data_offsets={str(offsets)[:40]}")
  begin, end = offsets
  if end - begin != math.prod(shape) * _ITEM_BYTES[dtype]:
    raise _damaged(
      path,
      f"{where} has data_offsets={offsets}, which is not the size of"
      f" {dtype} {str(shape)[:40]}",
    )
  return Entry(dtype, tuple(shape), start + begin, start + end)


def _check_cover(
  path: str, entries: Mapping[str, Entry], start: int, num_bytes: int
) -> None:
  """The arrays must fill the file, without overlap or gap."""
  place = start
  for name, entry in sorted(
    entries.items(), key=lambda item: (item[1].begin, item[1].end)
  ):
    if entry.begin != place:
      raise _damaged(
        path,
        f"array {name[:100]!r} begins at byte {entry.begin}, not {place}",
      )
    place = entry.end
  if place != num_bytes:
    raise _damaged(
      path, f"it has {num_bytes} bytes, its header tells of {place}"
    )


def _is_sizes(value: Any) -> TypeGuard[list[int]]:
  return (
    isinstance(value, list)
    and len(value) <= 8
    and all(type(each) is int and 0 <= each < 2**48 for each in value)
  )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  names = dict(pairs)
  if len(names) < len(pairs):
    raise ValueError("a name stands there twice")
  return names


def _size(path: str) -> int:
  try:
    return tf.io.gfile.stat(path).length
  except tf.errors.OpError as error:
    raise errors.InputError(f"{path} cannot be read: {error.message}") from None


def _damaged(path: str, reason: str) -> errors.InputError:
  return errors.InputError(f"{path} is damaged: {reason}.")
