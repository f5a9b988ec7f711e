"""Pages of a MediaWiki dump -> paragraphs of plain text.

As in the BERT paper (section 3.1) only text passages are kept: no lists,
tables, headings, references, pictures and templates.

What spans paragraphs (comments, raw tags, templates, tables, links to files)
is cut out first, by scans whose time is linear. Only then is the markup inside
a paragraph parsed by mwparserfromhell. Left alone with whole pages the parser
reads 1.2 MB/s, with this 8 times as much, and an unclosed bracket costs it a
time quadratic in the length of what it is given.
"""

import collections
import dataclasses
import functools
import html
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell import wikicode

# Namespaces whose links show no text, in English; a dump names its own.
_HIDDEN_NAMESPACES = frozenset({"file", "image", "category", "media"})
_HIDDEN_KEYS = ("-2", "6", "14")  # Media, File and Category in a dump's head.

# The time of the parser grows with the square of a malformed paragraph.
_MAX_PARAGRAPH_LENGTH = 10_000
_MAX_UNCLOSED = 20  # brackets of a paragraph

_PAGE = re.compile(rb"<page>.*?</page>", re.DOTALL)
_NAMESPACE = re.compile(rb'<namespace key="([^"]*)"[^>]*>([^<]*)</namespace>')

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
# Tags whose contents MediaWiki does not read as markup or are no prose.
_RAW_OPENING = re.compile(
  r"<(ref|math|nowiki|gallery|pre|source|syntaxhighlight|timeline|score|chem"
  r"|ce|hiero|imagemap|graph|mapframe|maplink|includeonly|templatedata"
  r"|references)\b(?:[^<>/]|/(?!>))*(/?)>",
  re.IGNORECASE,
)
_PREFORMATTED = re.compile(r"^ (?=[^\s{<|!])", re.MULTILINE)
_MARK = "\x01"  # of a preformatted line; no character of an XML file.
# Each alternative begins with a literal, which makes the search quick.
_BORDERS = re.compile(
  r"\{\{|\[\[|\{\||\|\}(?!\})|\}\}+|\]\]+"
  r"|<(/?)(table|ul|ol|dl|h[1-6])\b[^<>]*>",
  re.IGNORECASE,
)
_CLOSED_BY = {"}": "{{", "]": "[["}
_LONGEST_INDENTATION = 80  # characters in front of a table
# `[[de:Titel]]` stands in the margin; `mw:` and `doi:` are no languages.
_LANGUAGE = re.compile(r"(?!mw$|doi$)(?:[a-z]{2,3}(?:-[a-z]+)*|simple)$")
_BLOCK_TAG = re.compile(
  r"</?(?:blockquote|center|div|hr|p|poem|section|td|th|tr)\b[^<>]*>",
  re.IGNORECASE,
)
_INLINE_TAG = re.compile(
  r"</?(?:abbr|b|bdi|bdo|big|br|cite|code|del|dfn|em|font|i|ins|kbd|li|mark"
  r"|nobr|noinclude|nowiki|onlyinclude|q|rb|ref|references|rp|rt|ruby|s|samp"
  r"|small|span|strike|strong|sub|sup|time|tt|u|var|wbr)\b[^<>]*>",
  re.IGNORECASE,
)
_EMPHASIS = re.compile("'{2,}")
_BEHAVIOR_SWITCH = re.compile(r"__[A-Z]{3,}__")
_LEFTOVER = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{\||\|\}")
_LETTER = re.compile(r"[^\W\d_]")
_SENTENCE_END = re.compile(r"[.!?:…。！？।]")
_NO_PROSE = ("*", "#", ";", ":", "|", "!", "{|", "----", _MARK)

# What removed templates leave behind.
_TIDYING = (
  (re.compile(r"([(\[])[\s,;:]{1,20}"), r"\1"),
  (re.compile(r"[\s,;:]{1,20}([)\]])"), r"\1"),
  (re.compile(r"(?<!\w)(?:\(\)|\[\]|\"\"|“”)(?!\w)"), ""),
  (re.compile(r"\s+([,.;:!?)])(?=\s|$)"), r"\1"),
  (re.compile(r",(?:\s?,){1,20}"), ","),
)


@dataclasses.dataclass(frozen=True)
class Page:
  """What became of a page: paragraphs, or none and the reason."""

  paragraphs: tuple[str, ...] = ()
  num_malformed: int = 0  # paragraphs left out, as their markup is broken
  dropped_as: str | None = None


def head(dump: bytes) -> bytes:
  """Returns what stands before the first page: the site and its namespaces."""
  return dump.partition(b"<page>")[0]


def pages(dump: bytes) -> Iterator[bytes]:
  """Yields the XML of each page of a piece of a dump."""
  for match in _PAGE.finditer(dump):
    yield match.group()


@functools.lru_cache(maxsize=8)
def hidden_namespaces(dump_head: bytes) -> frozenset[str]:
  """Returns the namespaces whose links show no text, in lower case."""
  return _HIDDEN_NAMESPACES.union(
    html.unescape(name.decode(errors="replace")).lower()
    for key, name in _NAMESPACE.findall(dump_head)
    if key.decode() in _HIDDEN_KEYS
  )


def parse_page(xml: str, hidden: frozenset[str] = _HIDDEN_NAMESPACES) -> Page:
  """Returns the text of a page, if it is an article.

  Args:
    xml: a `<page>` element.
    hidden: see `hidden_namespaces`.
  """
  try:
    page = ElementTree.fromstring(xml)
  except ElementTree.ParseError:
    return Page(dropped_as="malformed_pages")
  namespace = page.findtext("ns")
  if namespace is None:
    return Page(dropped_as="malformed_pages")
  if namespace.strip() != "0":
    return Page(dropped_as="other_namespace_pages")
  if page.find("redirect") is not None:
    return Page(dropped_as="redirect_pages")
  texts = page.findall("revision/text")  # The newest revision is the last.
  return parse_markup((texts[-1].text or "") if texts else "", hidden)


def parse_markup(
  markup: str, hidden: frozenset[str] = _HIDDEN_NAMESPACES
) -> Page:
  """Returns the paragraphs of prose in the wikitext of a page.

  A paragraph without a sentence's end is none: it is a heading in bold or a
  caption.
  """
  paragraphs = []
  num_malformed = 0
  for paragraph in _marked_up_paragraphs(markup, hidden):
    try:
      text = _plain_text(paragraph, hidden)
    except (mwparserfromhell.parser.ParserError, RecursionError, ValueError):
      text = None
    if text is None:
      num_malformed += 1
    elif _SENTENCE_END.search(text) and _LETTER.search(text):
      paragraphs.append(text)
  return Page(tuple(paragraphs), num_malformed)


def _marked_up_paragraphs(markup: str, hidden: frozenset[str]) -> list[str]:
  """Cuts out all that is more than markup inside a paragraph."""
  markup = _without_raw_tags(_COMMENT.sub("", markup))
  markup = _without_nested(_PREFORMATTED.sub(_MARK, markup), hidden)
  markup = _BLOCK_TAG.sub("\n\n", markup)
  lines = []
  for line in markup.split("\n"):
    is_heading = line.startswith("=") and line.rstrip().endswith("=")
    if is_heading or line.startswith(_NO_PROSE):
      lines.append("")
    else:
      lines.append(line.replace(_MARK, "").strip())
  paragraphs = re.split(r"\n{2,}", "\n".join(lines))
  return [paragraph for paragraph in paragraphs if paragraph.strip()]


def _without_raw_tags(markup: str) -> str:
  """Cuts out tags such as <ref>; what is in <nowiki> becomes plain text."""
  parts = []
  place = 0  # up to where `markup` is dealt with
  unclosed = set()  # names, so that no end is looked for in vain again
  opening = _RAW_OPENING.search(markup)
  while opening:
    parts.append(markup[place : opening.start()])
    place = opening.end()
    name = opening.group(1).lower()
    if not opening.group(2) and name not in unclosed:
      closing = _closing_tag(name).search(markup, place)
      if closing is None:
        unclosed.add(name)
      else:
        if name == "nowiki":
          parts.append(_quoted(markup[place : closing.start()]))
        place = closing.end()
    opening = _RAW_OPENING.search(markup, place)
  return "".join([*parts, markup[place:]])


@functools.cache
def _closing_tag(name: str) -> re.Pattern[str]:
  return re.compile(rf"</{name}\s*>", re.IGNORECASE)


def _quoted(text: str) -> str:
  """Returns `text` with HTML entities for all that could be markup."""
  return re.sub(
    r"[^\w\s]", lambda match: f"&#{ord(match.group())};", html.unescape(text)
  )


def _without_nested(markup: str, hidden: frozenset[str]) -> str:
  """Cuts out templates, tables, HTML lists and links that show no text.

  They nest. What is opened and never closed stays, and what is closed and was
  never opened.
  """
  opened: list[tuple[str, int]] = []  # what opens, and where
  num_opened: collections.Counter[str] = collections.Counter()
  spans: list[tuple[int, int]] = []  # to cut out; in order, none in another

  def open_(kind: str, start: int) -> None:
    opened.append((kind, start))
    num_opened[kind] += 1

  def close(kind: str, end: int) -> None:
    if not num_opened[kind]:
      return
    opening, start = "", 0
    while opening != kind:
      opening, start = opened.pop()
      num_opened[opening] -= 1
    if kind == "[[" and not _is_hidden(markup[start + 2 : start + 80], hidden):
      return
    while spans and spans[-1][0] >= start:
      spans.pop()
    spans.append((start, end))

  for match in _BORDERS.finditer(markup):
    text = match.group()
    if text in ("{|", "|}") and not _begins_line(markup, match.start()):
      continue  # no table
    if text in ("{{", "[[", "{|"):
      open_(text, match.start())
    elif text == "|}":
      close("{|", match.end())
    elif text[0] != "<":
      # Of an odd number of brackets the first belongs to something else, as in
      # `[[File:a.png|[http://a.org b]]]`.
      first_end = match.start() + 2 + len(text) % 2
      for end in range(first_end, match.end() + 1, 2):
        close(_CLOSED_BY[text[0]], end)
    elif match[1]:
      close(match[2].lower(), match.end())
    else:
      open_(match[2].lower(), match.start())
  parts = []
  place = 0
  for start, end in spans:
    parts.append(markup[place:start])
    place = end
  return "".join([*parts, markup[place:]])


def _begins_line(markup: str, place: int) -> bool:
  start = max(0, place - _LONGEST_INDENTATION)
  before = markup[start:place].rpartition("\n")[2]
  return not before.strip(" \t:*")


def _is_hidden(target: str, hidden: frozenset[str]) -> bool:
  """Whether a link to `target` (its beginning is enough) shows no text."""
  prefix, colon, _ = re.split(r"[|\]\n]", target)[0].partition(":")
  prefix = prefix.strip().replace("_", " ").lower()
  return bool(colon) and (prefix in hidden or bool(_LANGUAGE.match(prefix)))


def _plain_text(paragraph: str, hidden: frozenset[str]) -> str | None:
  """Returns the text that a paragraph shows, None if its markup is broken."""
  if len(paragraph) > _MAX_PARAGRAPH_LENGTH:
    return None
  text = _INLINE_TAG.sub(_inline, paragraph)
  text = _BEHAVIOR_SWITCH.sub("", _EMPHASIS.sub("", text))
  # The parser would find that out, too, but in a long time.
  num_unclosed = abs(text.count("[") - text.count("]"))
  if text.count("[[") != text.count("]]") or num_unclosed > _MAX_UNCLOSED:
    return None
  if "[" in text:
    text = "".join(_shown(mwparserfromhell.parse(text)))
  if _LEFTOVER.search(text):
    return None
  text = " ".join(html.unescape(text).split())
  for pattern, replacement in _TIDYING:
    text = pattern.sub(replacement, text)
  return " ".join(text.split())


def _inline(tag: re.Match[str]) -> str:
  return " " if tag.group().lower().startswith("<br") else ""


def _shown(code: wikicode.Wikicode) -> Iterator[str]:
  for node in code.nodes:
    if isinstance(node, nodes.Wikilink):
      if node.text is not None:
        yield from _shown(node.text)
      else:
        yield str(node.title).strip().removeprefix(":")
    elif isinstance(node, nodes.ExternalLink):
      if node.title is not None:
        yield from _shown(node.title)
      elif not node.brackets:
        yield str(node.url)
    else:
      yield str(node)
