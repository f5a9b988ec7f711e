"""Cuts text that comes in blocks of bytes at the borders of documents.

`documents` says what the formats are.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from mslt_tf import errors

MAX_DOCUMENT_BYTES = 1 << 26  # Held in memory; a long novel has 4 MB.

# CR LF, and CR CR LF, which some programs leave, end one line. CR alone does
# too.
_LINE_END_PATTERN = r"(?:\r{0,2}\n|\r(?!\r?\n))"
LINE_END = re.compile(_LINE_END_PATTERN)
_BLANK_LINE = re.compile(
  rf"{_LINE_END_PATTERN}[ \t]*{_LINE_END_PATTERN}".encode()
)
_LONGEST_BORDER = 16  # bytes of a border that two blocks may share


def cut(
  blocks: Iterator[bytes], input_format: str, path: str
) -> Iterator[bytes]:
  """Yields pieces of whole documents; all that is held is one document.

  Raises:
    errors.InputError: a document is too long, or the last has no end.
  """
  last_border = _LAST_BORDERS[input_format]
  held = bytearray()
  for block in blocks:
    searched = max(0, len(held) - _LONGEST_BORDER)
    held += block
    border = last_border(held, searched)
    if border > 0:
      yield bytes(held[:border])
      del held[:border]
    if len(held) > MAX_DOCUMENT_BYTES:
      raise errors.InputError(
        f"input={path!r} holds a document of more than"
        f" {MAX_DOCUMENT_BYTES} bytes ({_DOCUMENT_RULES[input_format]})."
      )
  if input_format == "mediawiki" and b"</mediawiki>" not in held:
    raise errors.InputError(
      f"input={path!r} is cut off: it has no </mediawiki> at its end."
    )
  if input_format == "wikiextractor" and held.strip():
    raise errors.InputError(
      f"input={path!r} is cut off: it does not end with </doc>."
    )
  if input_format not in ("mediawiki", "wikiextractor") and held:
    yield bytes(held)


def joined(pieces: Iterable[bytes], chunk_bytes: int) -> Iterator[bytes]:
  """Yields consecutive pieces together, of `chunk_bytes` or more."""
  together: list[bytes] = []
  size = 0
  for piece in pieces:
    together.append(piece)
    size += len(piece)
    if size >= chunk_bytes:
      yield b"".join(together)
      together = []
      size = 0
  if together:
    yield b"".join(together)


def _after_last(marker: bytes) -> Callable[[bytearray, int], int]:
  def last_border(text: bytearray, start: int) -> int:
    place = text.rfind(marker, start)
    return place + len(marker) if place >= 0 else 0

  return last_border


def _after_last_blank_line(text: bytearray, start: int) -> int:
  for blank_line in (b"\n\n", b"\n\r\n"):  # nearly always, and quick to find
    place = text.rfind(blank_line, start)
    if place >= 0:
      return place + len(blank_line)
  # A CR at the end may be half of CR LF.
  end = len(text.rstrip(b"\r"))
  border = 0
  for match in _BLANK_LINE.finditer(text, start, end):
    border = match.end()
  return border


# Where the last border between documents in a text ends, looked for from a
# place on; 0 if there is none.
_LAST_BORDERS: dict[str, Callable[[bytearray, int], int]] = {
  "sentences": _after_last_blank_line,
  "prose": lambda text, start: 0,
  "jsonl": _after_last(b"\n"),
  "mediawiki": _after_last(b"</page>"),
  "wikiextractor": _after_last(b"</doc>"),
}
_DOCUMENT_RULES = {
  "sentences": "read as sentences, where a blank line ends a document",
  "prose": "read as prose, where a file is one document",
  "jsonl": "read as jsonl, where a line is one",
  "mediawiki": "read as mediawiki, where a page is one",
  "wikiextractor": "read as wikiextractor, where </doc> ends one",
}
