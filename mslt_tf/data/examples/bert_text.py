"""Text as BERT's own tokenizer prepares it before it looks up pieces.

TensorFlow Text's FastBertTokenizer prepares text in another way: in lower case
it also folds compatibility characters ("…" becomes three points, "²" a "2" and
"ß" an "ss"); otherwise it turns format characters into spaces. So the text is
prepared here, and the op only splits it and looks up pieces.
docs/tokenization.md says which difference is left.

The rules are those of `BasicTokenizer` and `WordpieceTokenizer` in
google-research/bert, tokenization.py.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np

MAX_WORD_CHARACTERS = 200  # A longer word is unknown.
MAX_WORD_BYTES = 4 * MAX_WORD_CHARACTERS  # In UTF-8.

# What becomes of a word too long. No vocabulary has it: BERT drops it from
# text.
TOO_LONG = "\ufffd"

# Of what BERT splits within ASCII; the rest has spaces around it by then.
LONG_WORD = rf"[^\s!-/:-@\[-`{{-~]{{{MAX_WORD_CHARACTERS + 1},}}"
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_ASCII_CONTROLS = bytes({*range(32), 127} - {*b"\t\n\r"})

# Han characters, each of which is a word: BERT's `_is_chinese_char`.
_HAN = (
  range(0x3400, 0x4DC0),
  range(0x4E00, 0xA000),
  range(0xF900, 0xFB00),
  range(0x20000, 0x2A6E0),
  range(0x2A700, 0x2CEB0),
  range(0x2F800, 0x2FA20),
)


def is_dropped(character: str) -> bool:
  """Whether BERT drops it."""
  if character in "\t\n\r":
    return False
  return unicodedata.category(character) in ("Cc", "Cf") or (
    character == "\ufffd"
  )


def is_space(character: str) -> bool:
  """Whether it becomes a space; the op itself splits at the others of ASCII."""
  return character == "\n" or unicodedata.category(character)[0] == "Z"


def is_accent(character: str) -> bool:
  """Whether it is dropped in lower case, once letters are decomposed."""
  return unicodedata.category(character) == "Mn"


def is_word(character: str) -> bool:
  """Whether it is a word of its own; the op itself splits ASCII.

  It knows only the punctuation of an older Unicode than Python's.
  """
  return character > "\x7f" and (
    unicodedata.category(character)[0] == "P"
    or any(ord(character) in block for block in _HAN)
  )


def prepare(
  sentences: Iterable[str | bytes], *, lower_case: bool
) -> list[bytes]:
  """Returns sentences, all UTF-8, that FastBertTokenizer splits as BERT does.

  Args:
    sentences: one or more, the bytes being UTF-8.
    lower_case: whether to turn it into lower case and to drop the accents.
  """
  # All at once: a few calls for each sentence would take as long as the op.
  joined = b"\n".join(map(_line, sentences)).translate(None, _ASCII_CONTROLS)
  if lower_case:
    joined = joined.lower()  # Of bytes: the letters of ASCII.
  if not joined.isascii():
    lines = joined.split(b"\n")
    others = [index for index, line in enumerate(lines) if not line.isascii()]
    text = b"\n".join(lines[index] for index in others).decode("utf-8")
    prepared = _beyond_ascii(text, lower_case=lower_case).encode("utf-8")
    for index, line in zip(others, prepared.split(b"\n"), strict=True):
      lines[index] = line
    joined = b"\n".join(lines)
  return _without_long_words(joined).split(b"\n")


def _line(sentence: str | bytes) -> bytes:
  if isinstance(sentence, str):
    sentence = sentence.encode("utf-8")
  return sentence.replace(b"\n", b" ")


def _beyond_ascii(text: str, *, lower_case: bool) -> str:
  text = _replace(text, _cleaned)
  if lower_case:
    # Before punctuation is set apart: a final sigma depends on it.
    text = unicodedata.normalize("NFD", text.lower())
    text = _replace(text, _without_accent)
  return _replace(text, _set_apart)


def _replace(text: str, replacement: Callable[[str], str]) -> str:
  """Returns `text` with the replacement of each character beyond ASCII."""
  # Few characters change, so this is much faster than `str.translate`.
  for character in sorted(set(_NOT_ASCII.findall(text))):
    new = replacement(character)
    if new != character:
      text = text.replace(character, new)
  return text


@functools.cache
def _cleaned(character: str) -> str:
  if is_dropped(character):
    return ""
  return " " if is_space(character) else character


@functools.cache
def _without_accent(character: str) -> str:
  return "" if is_accent(character) else character


@functools.cache
def _set_apart(character: str) -> str:
  return f" {character} " if is_word(character) else character


def _without_long_words(text: bytes) -> bytes:
  """Returns `text` with each word that is too long replaced."""
  # The pattern is slow: it gets only what is long up to the next white space.
  spaces = np.flatnonzero(np.frombuffer(text, np.uint8) <= ord(" "))
  starts, ends = np.append(0, spaces + 1), np.append(spaces, len(text))
  is_long = ends - starts > MAX_WORD_CHARACTERS
  parts = []
  done = 0
  for start, end in zip(starts[is_long], ends[is_long], strict=True):
    stretch = text[start:end].decode("utf-8")
    parts += [text[done:start], re.sub(LONG_WORD, TOO_LONG, stretch).encode()]
    done = end
  return b"".join([*parts, text[done:]])
