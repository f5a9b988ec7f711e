"""Files as blocks of bytes, gzip and bzip2 decompressed on the way.

The first bytes say what a file is, not its name. Files of several compressed
streams, such as Wikipedia's "multistream" dumps, read as one.
"""

import bz2
import contextlib
import functools
import hashlib
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import tensorflow as tf

from mslt_tf import errors

_READ_BYTES = 1 << 20
_MAGIC_BYTES = 10
_GZIP_MAGIC = b"\x1f\x8b\x08"
_BZIP2_MAGIC = b"BZh"
# What follows the block size "1" to "9": the first block, or the end.
_BZIP2_BLOCK_MAGICS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
_GZIP_WBITS = 31  # zlib's number for a gzip header and the largest window.

# What a byte of a compressed file is of text, so that work can be shared out.
_EXPANSION = 4

# zlib's and bz2's have the methods and attributes used here in common.
_Decompressor = Any


def blocks(path: str, block_bytes: int) -> Generator[bytes, None, None]:
  """Yields the contents of a file in blocks of at most `block_bytes`.

  Raises:
    errors.InputError: the file cannot be read, or its compressed contents are
      damaged, cut off or followed by something else.
  """
  with reported(path), tf.io.gfile.GFile(path, "rb") as file:
    compression = _compression(file.read(_MAGIC_BYTES))
    file.seek(0)
    if compression is None:
      yield from iter(functools.partial(file.read, block_bytes), b"")
      return
    pieces = iter(functools.partial(file.read, _READ_BYTES), b"")
    try:
      yield from _decompressed(pieces, *compression, block_bytes)
    except (zlib.error, OSError, EOFError) as error:
      raise errors.InputError(
        f"input={path!r} cannot be decompressed, it is damaged or incomplete:"
        f" {error}."
      ) from None


def num_bytes(path: str) -> int:
  """Returns how long the contents of a file are, roughly if compressed."""
  with reported(path):
    length = tf.io.gfile.stat(path).length
    with tf.io.gfile.GFile(path, "rb") as file:
      is_compressed = _compression(file.read(_MAGIC_BYTES)) is not None
  return length * _EXPANSION if is_compressed else length


def fingerprint(path: str) -> str:
  """Returns the sha256 of a file as it lies there."""
  digest = hashlib.sha256()
  with reported(path), tf.io.gfile.GFile(path, "rb") as file:
    while block := file.read(_READ_BYTES):
      digest.update(block)
  return digest.hexdigest()


@contextlib.contextmanager
def reported(path: str) -> Iterator[None]:
  """Turns a failure to read `path` into an `errors.UnavailableError`."""
  try:
    yield
  except tf.errors.OpError as error:
    raise errors.UnavailableError(
      f"input={path!r} cannot be read: {error.message}"
    ) from error


def _compression(
  magic: bytes,
) -> tuple[Callable[[], _Decompressor], bytes] | None:
  """Returns what makes a decompressor, and what may pad the file's end."""
  if magic.startswith(_GZIP_MAGIC):
    return functools.partial(zlib.decompressobj, wbits=_GZIP_WBITS), b"\0"
  if magic.startswith(_BZIP2_MAGIC) and magic[4:] in _BZIP2_BLOCK_MAGICS:
    return bz2.BZ2Decompressor, b""
  return None


def _decompressed(
  pieces: Iterator[bytes],
  make_decompressor: Callable[[], _Decompressor],
  padding: bytes,
  block_bytes: int,
) -> Iterator[bytes]:
  """Yields blocks of what `pieces` of compressed streams hold.

  Raises:
    zlib.error, OSError: something else than such streams.
    EOFError: the last stream has no end.
  """
  decompressor = None
  for raw in pieces:
    is_full = False  # A full block may have left more behind.
    while raw or is_full:
      if decompressor is None:
        raw = raw.lstrip(padding)
        if not raw:
          break
        decompressor = make_decompressor()
      block = decompressor.decompress(raw, block_bytes)
      if block:
        yield block
      is_full = len(block) == block_bytes and not decompressor.eof
      if decompressor.eof:
        raw = decompressor.unused_data
        decompressor = None
      else:
        # bz2 keeps what it has not yet dealt with, zlib hands it back.
        raw = getattr(decompressor, "unconsumed_tail", b"")
  if decompressor is not None:
    raise EOFError("it ends in the middle of a stream")
