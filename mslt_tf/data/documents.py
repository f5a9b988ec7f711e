"""Readers of raw text: files -> documents of sentences.

Formats:
  sentences: one sentence a line, a blank line between documents.
  prose: a file is a document; blank lines divide its paragraphs, whose lines
    are joined and cut into sentences.
  auto: decides for each file by `detect_format`.

Text is UTF-8, with or without a byte order mark, with LF or CRLF. Bytes that
are no UTF-8 become U+FFFD and are counted.
"""

import collections
import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import cast

import nupunkt
import tensorflow as tf
from absl import logging

from mslt_tf import errors

FORMATS = ("auto", "sentences", "prose")

_DETECTION_BYTES = 1 << 18
_DETECTION_LINES = 500  # Their sentences are counted, which takes 0.1 s.
_MAX_PROSE_BYTES = 1 << 28  # Read at once; a long novel has 4 MB.
_HASH_BYTES = 1 << 22
_SENTENCE_END = re.compile(r"[.!?:;…][\"'”’)\]]*$")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_REPLACEMENT = "\ufffd"


@dataclasses.dataclass(frozen=True)
class Document:
  """At least one sentence, none of them blank."""

  sentences: tuple[str, ...]
  num_undecodable: int = 0  # places where bytes were no UTF-8


def find_files(patterns: Sequence[str]) -> list[str]:
  """Returns the files that the globs match, sorted, each once.

  Raises:
    errors.InputError: no pattern, or one that matches no file.
  """
  patterns = [pattern for pattern in patterns if pattern.strip()]
  if not patterns:
    raise errors.InputError("input=[] names no file.")
  files = set()
  for pattern in patterns:
    found = [
      path for path in tf.io.gfile.glob(pattern) if not tf.io.gfile.isdir(path)
    ]
    if not found and tf.io.gfile.isdir(pattern):
      raise errors.InputError(
        f"input={pattern!r} is a directory; give its files, such as"
        f" {pattern.rstrip('/')}/*.txt."
      )
    if not found:
      raise errors.InputError(f"input={pattern!r} matches no file.")
    for path in found:
      if tf.io.gfile.stat(path).length:
        continue
      if path == pattern:
        raise errors.InputError(f"input={path!r} is empty.")
      logging.warning("%s is empty.", path)
    files.update(found)
  return sorted(files)


def fingerprint(files: Sequence[str]) -> str:
  """Returns the sha256 of the files' contents, whatever they are called.

  Raises:
    errors.InputError: a file that cannot be read.
  """
  digest = hashlib.sha256()
  for path in files:
    with _reported(path), tf.io.gfile.GFile(path, "rb") as file:
      digest.update(b"%d\n" % tf.io.gfile.stat(path).length)
      while chunk := file.read(_HASH_BYTES):
        digest.update(chunk)
  return digest.hexdigest()


def read(
  files: Sequence[str], *, input_format: str = "auto"
) -> Iterator[Document]:
  """Yields the documents of `files` in their order; blank ones are left out.

  Raises:
    errors.InputError: an unknown format or a file that cannot be read.
  """
  if input_format not in FORMATS:
    raise errors.InputError(
      f"input_format={input_format!r} is not one of {', '.join(FORMATS)}."
    )
  num_files: collections.Counter[str] = collections.Counter()
  for path in files:
    file_format = input_format
    with _reported(path):
      if file_format == "auto":
        file_format = detect_format(_head(path))
      num_files[file_format] += 1
      if file_format == "prose":
        yield from _read_prose(path)
      else:
        yield from _read_sentences(path)
  if input_format == "auto":
    # A wrong guess would spoil the sentence pairs without a sign.
    logging.info(
      "Read as prose: %d files, as a sentence a line: %d (--input_format).",
      num_files["prose"],
      num_files["sentences"],
    )


def detect_format(text: str) -> str:
  """Says whether the beginning of a file is `sentences` or `prose`.

  It is `sentences` if all of these hold for its non-blank lines:
    1. Stretches of lines without a blank line between them are 1.5 lines long
       on average, or longer. (Otherwise every line is a paragraph.)
    2. At least half of the lines end as a sentence does, in one of `.!?:;`.
       (Otherwise lines are wrapped in the middle of sentences.)
    3. At most one in five lines holds more than one sentence. (Otherwise a
       line is a paragraph.)
  """
  lines = [line.strip() for line in text.split("\n")]
  lines = lines[:_DETECTION_LINES]
  filled = [line for line in lines if line]
  if not filled:
    return "prose"
  is_start = [
    bool(line) and not before
    for before, line in zip(["", *lines], lines, strict=False)
  ]
  if len(filled) < 1.5 * sum(is_start):
    return "prose"
  num_ended = sum(bool(_SENTENCE_END.search(line)) for line in filled)
  if 2 * num_ended < len(filled):
    return "prose"
  num_several = sum(len(split_sentences(line)) > 1 for line in filled)
  return "prose" if 5 * num_several > len(filled) else "sentences"


def split_sentences(paragraph: str) -> list[str]:
  """Returns the sentences of English prose, without blank ones."""
  # Tuples come only where paragraph borders are asked for.
  sentences = cast(list[str], nupunkt.sent_tokenize(paragraph))
  sentences = [sentence.strip() for sentence in sentences]
  return [sentence for sentence in sentences if sentence]


@contextlib.contextmanager
def _reported(path: str) -> Iterator[None]:
  """Turns a failure to read `path` into an `errors.InputError`."""
  try:
    yield
  except tf.errors.OpError as error:
    raise errors.InputError(
      f"input={path!r} cannot be read: {error.message}"
    ) from error


def _read_prose(path: str) -> Iterator[Document]:
  num_bytes = tf.io.gfile.stat(path).length
  if num_bytes > _MAX_PROSE_BYTES:
    raise errors.InputError(
      f"input={path!r} has {num_bytes} bytes; a file of prose is one document,"
      f" of at most {_MAX_PROSE_BYTES}."
    )
  with tf.io.gfile.GFile(path, "rb") as file:
    text, num_undecodable = _decode(file.read().removeprefix(_BYTE_ORDER_MARK))
  sentences = []
  paragraph = []
  for line in [*text.split("\n"), ""]:
    line = line.strip()
    if line:
      paragraph.append(line)
    elif paragraph:
      sentences.extend(split_sentences(" ".join(paragraph)))
      paragraph = []
  if sentences:
    yield Document(tuple(sentences), num_undecodable)


def _read_sentences(path: str) -> Iterator[Document]:
  sentences = []
  num_undecodable = 0
  is_first = True
  with tf.io.gfile.GFile(path, "rb") as file:
    for raw in file:
      if is_first:
        raw = raw.removeprefix(_BYTE_ORDER_MARK)
        is_first = False
      line, num_replaced = _decode(raw)
      num_undecodable += num_replaced
      line = line.strip()
      if line:
        sentences.append(line)
      elif sentences:
        yield Document(tuple(sentences), num_undecodable)
        sentences = []
        num_undecodable = 0
  if sentences:
    yield Document(tuple(sentences), num_undecodable)


def _head(path: str) -> str:
  """Returns the whole lines at the beginning of a file."""
  with tf.io.gfile.GFile(path, "rb") as file:
    raw = file.read(_DETECTION_BYTES).removeprefix(_BYTE_ORDER_MARK)
  if len(raw) >= _DETECTION_BYTES and b"\n" in raw:
    raw = raw[: raw.rindex(b"\n")]
  return _decode(raw)[0]


def _decode(raw: bytes) -> tuple[str, int]:
  """Returns the text and in how many places it is not what was written."""
  try:
    return raw.decode("utf-8"), 0
  except UnicodeDecodeError:
    text = raw.decode("utf-8", errors="replace")
    return text, text.count(_REPLACEMENT) - raw.count(_REPLACEMENT.encode())
