"""How text files are recognised, and how prose is cut into sentences.

`documents` says what the formats are.
"""

import re
from typing import cast

import nupunkt

from mslt_tf import errors

FORMATS = (
  "auto",
  "sentences",
  "prose",
  "jsonl",
  "mediawiki",
  "wikiextractor",
)

_DETECTION_LINES = 500  # Their sentences are counted, which takes 0.1 s.
_SENTENCE_END = re.compile(r"[.!?:;…][\"'”’)\]]*$")
_MEDIAWIKI_ROOT = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?<mediawiki[\s>]")
_JSON_OBJECT = re.compile(r'\{\s*"[^"]*"\s*:')
_DOC_START = re.compile(r"\s*<doc id=")


def detect(text: str) -> str:
  """Says which of FORMATS the beginning of a file is in.

  It is `mediawiki` or `wikiextractor` if it begins with their tag, and `jsonl`
  if its first line begins as a JSON object does. Otherwise it is `sentences` if
  all of these hold for its non-blank lines:
    1. Stretches of lines without a blank line between them are 1.5 lines long
       on average, or longer. (Otherwise every line is a paragraph.)
    2. At least half of the lines end as a sentence does, in one of `.!?:;`.
       (Otherwise lines are wrapped in the middle of sentences.)
    3. At most one in five lines holds more than one sentence. (Otherwise a
       line is a paragraph.)
  Otherwise it is `prose`.
  """
  if marked := marked_format(text):
    return marked
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


def marked_format(text: str) -> str | None:
  """Returns the format that a file's first characters give away, if they do."""
  if _MEDIAWIKI_ROOT.match(text):
    return "mediawiki"
  if _DOC_START.match(text):
    return "wikiextractor"
  first_line, _, _ = text.lstrip().partition("\n")
  return "jsonl" if _JSON_OBJECT.match(first_line) else None


def check(text: str, input_format: str, path: str) -> None:
  """Checks that the beginning of a file is what `input_format` says.

  Raises:
    errors.InputError: it is not.
  """
  if input_format == "mediawiki" and not _MEDIAWIKI_ROOT.match(text):
    raise errors.InputError(
      f"input={path!r} is not a MediaWiki dump: it does not begin with"
      " <mediawiki>."
    )
  if input_format == "wikiextractor" and not _DOC_START.match(text):
    raise errors.InputError(
      f"input={path!r} is not from WikiExtractor: it does not begin with"
      " <doc id=...>."
    )


def split_sentences(paragraph: str) -> list[str]:
  """Returns the sentences of English prose, without blank ones."""
  # Tuples come only where paragraph borders are asked for.
  sentences = cast(list[str], nupunkt.sent_tokenize(paragraph))
  sentences = [sentence.strip() for sentence in sentences]
  return [sentence for sentence in sentences if sentence]
