"""Readers of raw text: sources -> chunks of bytes -> documents of sentences.

Two steps, so that the work can be shared out over processes: `chunks` cuts a
source at document borders, which is cheap and serial; `parse` turns a chunk
into documents, in whatever process. Where the borders lie changes nothing.

Formats:
  sentences: one sentence a line, a blank line between documents.
  prose: a file is a document; blank lines divide its paragraphs, whose lines
    are joined and cut into sentences.
  jsonl: a JSON object a line; a field of it is the text of a document, whose
    lines are paragraphs.
  mediawiki: a dump of a wiki such as Wikipedia; its articles are documents.
  wikiextractor: what WikiExtractor makes of such a dump, `<doc id=...>`.
  auto: decides for each file by `text_formats.detect`.

Files may be compressed by gzip or bzip2. Text is UTF-8, with or without a byte
order mark, with LF, CRLF or CR. Bytes that are no UTF-8 become U+FFFD and are
counted. A source can also be a TensorFlow dataset.
"""

import collections
import contextlib
import dataclasses
import hashlib
import html
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import tensorflow as tf
from absl import logging

from mslt_tf import errors
from mslt_tf.data.text import compressed
from mslt_tf.data.text import cutting
from mslt_tf.data.text import text_formats
from mslt_tf.data.text import tfds_text
from mslt_tf.data.text import wikipedia

FORMATS = text_formats.FORMATS

_DETECTION_BYTES = 1 << 18
_BLOCK_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_REPLACEMENT = "\ufffd"
_SURROGATE = re.compile("[\ud800-\udfff]")

_DOC = re.compile(r"<doc id=[^\n]*>\n(.*?)</doc>", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Source:
  """A file, or a split of a TensorFlow dataset."""

  name: str  # the path, or tfds:NAME/CONFIG:VERSION@SPLIT
  split: tfds_text.Split | None = None


@dataclasses.dataclass(frozen=True)
class Chunk:
  """Whole documents of a source, not yet parsed."""

  source: Source
  input_format: str  # one of FORMATS but "auto", or "tfds"
  text_field: str
  # Of a file:
  content: bytes = b""
  first_line: int = 1  # the line of the file that `content` begins in
  # Of a TensorFlow dataset, the range of its examples:
  begin: int = 0
  end: int = 0


@dataclasses.dataclass(frozen=True)
class Parsed:
  """The documents of a chunk, and what is not in them as it was written."""

  # A document is its sentences: at least one, none blank, none with a newline.
  documents: list[tuple[str, ...]]
  # How often what was left out or changed:
  #   undecodable_places: bytes or characters that are no text, now U+FFFD
  #   empty_documents: without text
  # of a wiki's dump also
  #   redirect_pages, other_namespace_pages: no articles
  #   malformed_pages, malformed_paragraphs: with broken XML or markup
  dropped: collections.Counter[str]


def find(
  patterns: Sequence[str],
  *,
  tfds_data_dir: str | None = None,
  output_directory: str | None = None,
) -> list[Source]:
  """Returns the sources that the patterns mean, sorted, each once.

  Args:
    patterns: each a glob of files; or a directory, for all files in it at any
      depth but hidden ones; or `tfds:NAME[/CONFIG][:VERSION][@SPLIT]`, by
      default the split train.
    tfds_data_dir: where TensorFlow datasets are prepared; None is TFDS's own
      place.
    output_directory: what will be written, which must not lie in a directory
      that is read: the next start would find it there.

  Raises:
    errors.InputError: no pattern, one that means nothing that can be read, or
      one that means `output_directory`.
  """
  patterns = [pattern for pattern in patterns if pattern.strip()]
  if not patterns:
    raise errors.InputError("input=[] names no file.")
  sources = {}
  for pattern in patterns:
    with compressed.reported(pattern):
      if pattern.startswith(tfds_text.PREFIX):
        name, split = tfds_text.find(pattern, tfds_data_dir)
        sources[name] = Source(name, split)
      else:
        if output_directory is not None:
          _check_is_outside(output_directory, pattern)
        for path in _find_files(pattern):
          sources[path] = Source(path)
  return [sources[name] for name in sorted(sources)]


def fingerprint(sources: Sequence[Source]) -> str:
  """Returns the sha256 of the sources' contents.

  Their names and order do not matter.

  Raises:
    errors.InputError: a file that cannot be read.
  """
  return sorted_by_contents(sources)[1]


def sorted_by_contents(
  sources: Sequence[Source],
) -> tuple[list[Source], str]:
  """Returns the sources in an order that names do not change.

  Returns:
    The sources, and their fingerprint: where it is the same, the n-th source
    has the same contents.

  Raises:
    errors.InputError: a file that cannot be read.
  """
  digests = [
    compressed.fingerprint(source.name)
    if source.split is None
    else tfds_text.fingerprint(source.split)
    for source in sources
  ]
  order = sorted(range(len(sources)), key=digests.__getitem__)
  joined = "\n".join(digests[index] for index in order)
  return (
    [sources[index] for index in order],
    hashlib.sha256(joined.encode()).hexdigest(),
  )


def check_beginnings(
  sources: Sequence[Source],
  *,
  input_format: str = "auto",
  text_field: str = "text",
) -> None:
  """Looks at the first lines of every source, as `chunks` and `parse` will.

  One that is no text, or not of its format, is told before there is work that
  it would cost.

  Raises:
    errors.InputError: the first one.
  """
  for source in sources:
    if source.split is not None:
      tfds_text.check_feature(source.split, text_field, source.name)
      continue
    path = source.name
    with contextlib.closing(
      compressed.blocks(path, _DETECTION_BYTES)
    ) as blocks:
      head = _take(blocks, _DETECTION_BYTES)
    head_text = _head_text(head, path)
    text_formats.check(head_text, input_format, path)
    if input_format == "auto":
      is_json = text_formats.marked_format(head_text) == "jsonl"
    else:
      is_json = input_format == "jsonl"
    if is_json:
      _check_first_object(head, text_field, source)


def num_bytes(source: Source) -> int:
  """Returns how much text a source holds, roughly if it is compressed."""
  if source.split is not None:
    return tfds_text.num_bytes(source.split)
  return compressed.num_bytes(source.name)


def chunks(
  source: Source,
  *,
  input_format: str = "auto",
  text_field: str = "text",
  chunk_bytes: int,
) -> Iterator[Chunk]:
  """Yields what a source holds in chunks of whole documents.

  A chunk has about `chunk_bytes`, or more where a document has; that and the
  next document are held in memory.

  Args:
    source: one that `find` returned.
    input_format: one of FORMATS; without effect on a TensorFlow dataset.
    text_field: the field of a JSON object, or the feature of a TensorFlow
      dataset, that is the text.
    chunk_bytes: when a chunk is large enough.

  Raises:
    errors.InputError: an unknown format, a file that cannot be read or is not
      in its format, or has a document above `cutting.MAX_DOCUMENT_BYTES`.
  """
  if input_format not in FORMATS:
    raise errors.InputError(
      f"input_format={input_format!r} is not one of {', '.join(FORMATS)}."
    )
  if source.split is not None:
    yield from _chunks_of_split(source, source.split, text_field, chunk_bytes)
    return
  path = source.name
  block_bytes = max(1, min(chunk_bytes // 4, _BLOCK_BYTES))
  blocks: Iterator[bytes] = compressed.blocks(path, block_bytes)
  head = _take(blocks, _DETECTION_BYTES)
  head_text = _head_text(head, path)
  if input_format == "auto":
    input_format = text_formats.detect(head_text)
  text_formats.check(head_text, input_format, path)
  head = head.removeprefix(_BYTE_ORDER_MARK)
  blocks = itertools.chain(
    (
      head[start : start + block_bytes]
      for start in range(0, len(head), block_bytes)
    ),
    blocks,
  )
  first_line = 1
  prefix = wikipedia.head(head) if input_format == "mediawiki" else b""
  for content in cutting.joined(
    cutting.cut(blocks, input_format, path), chunk_bytes
  ):
    yield Chunk(
      source, input_format, text_field, prefix + content, first_line=first_line
    )
    first_line += content.count(b"\n")


def parse(chunk: Chunk) -> Parsed:
  """Returns the documents of a chunk.

  Raises:
    errors.InputError: a line that is not the JSON object it should be, or a
      TensorFlow dataset that cannot be read.
  """
  dropped: collections.Counter[str] = collections.Counter()
  documents = []
  for sentences in _PARSERS[chunk.input_format](chunk, dropped):
    if sentences:
      documents.append(tuple(sentences))
    else:
      dropped["empty_documents"] += 1
  return Parsed(documents, +dropped)


def _find_files(pattern: str) -> list[str]:
  """Returns the files that a glob or a directory means, but empty ones."""
  if tf.io.gfile.isdir(pattern):
    found = [
      os.path.join(directory, name)
      for directory, _, names in tf.io.gfile.walk(pattern)
      for name in names
      if not _is_hidden(os.path.relpath(directory, pattern), name)
    ]
    if not found:
      raise errors.InputError(
        f"input={pattern!r} is a directory without files."
      )
  else:
    found = [
      path for path in tf.io.gfile.glob(pattern) if not tf.io.gfile.isdir(path)
    ]
    if not found:
      raise errors.InputError(f"input={pattern!r} matches no file.")
  filled = [path for path in found if tf.io.gfile.stat(path).length]
  if not filled:
    rule = "is empty" if found == [pattern] else "has only empty files"
    raise errors.InputError(f"input={pattern!r} {rule}.")
  for path in sorted(set(found) - set(filled)):
    logging.warning("%s is empty.", path)
  return filled


def _check_is_outside(output_directory: str, pattern: str) -> None:
  # Of paths in buckets it makes others, but in both alike.
  inner, outer = map(os.path.realpath, (output_directory, pattern))
  if (
    os.path.commonpath([inner, outer]) == outer
    and ("://" in output_directory) == ("://" in pattern)
    and tf.io.gfile.isdir(pattern)
  ):
    raise errors.InputError(
      f"output_dir={output_directory!r} lies in the directory"
      f" input={pattern!r}, which would have what is made among its files the"
      " next time; take one outside of it."
    )


def _is_hidden(*parts: str) -> bool:
  names = "/".join(parts).split("/")
  return any(name.startswith(".") and name != "." for name in names)


def _chunks_of_split(
  source: Source, split: tfds_text.Split, feature: str, chunk_bytes: int
) -> Iterator[Chunk]:
  tfds_text.check_feature(split, feature, source.name)
  num_examples = tfds_text.num_examples(split)
  num_chunks = max(1, tfds_text.num_bytes(split) // chunk_bytes)
  step = max(1, num_examples // num_chunks)
  for begin in range(0, num_examples, step):
    end = min(begin + step, num_examples)
    yield Chunk(source, "tfds", feature, begin=begin, end=end)


def _take(blocks: Iterator[bytes], size: int) -> bytes:
  """Returns the next blocks, at least `size` bytes where there are as many."""
  taken = []
  num_taken = 0
  for block in blocks:
    taken.append(block)
    num_taken += len(block)
    if num_taken >= size:
      break
  return b"".join(taken)


def _check_first_object(head: bytes, text_field: str, source: Source) -> None:
  """Raises `InputError` where the first JSON line is not what it should be."""
  lines = head.removeprefix(_BYTE_ORDER_MARK).split(b"\n")
  if len(head) >= _DETECTION_BYTES:
    del lines[-1]  # It may go on.
  content = b"\n".join(lines)
  chunk = Chunk(source, "jsonl", text_field, content)
  next(_parse_jsonl(chunk, collections.Counter()), None)


def _head_text(head: bytes, path: str) -> str:
  """Returns the whole lines of the beginning of a file."""
  if head.startswith(_UTF16_MARKS):
    raise errors.InputError(
      f"input={path!r} is UTF-16 and must be UTF-8; iconv can convert it."
    )
  if b"\0" in head:
    raise errors.InputError(
      f"input={path!r} is no text: it holds NUL bytes. (Compressed files may be"
      " gzip or bzip2.)"
    )
  if len(head) >= _DETECTION_BYTES and b"\n" in head:
    head = head[: head.rindex(b"\n")]
  text = _text(head.removeprefix(_BYTE_ORDER_MARK), collections.Counter())
  return "\n".join(_lines(text))


def _parse_sentences(
  chunk: Chunk, dropped: collections.Counter[str]
) -> Iterator[list[str]]:
  sentences = []
  for line in [*_lines(_text(chunk.content, dropped)), ""]:
    line = line.strip()
    if line:
      sentences.append(line)
    elif sentences:
      yield sentences
      sentences = []


def _parse_prose(
  chunk: Chunk, dropped: collections.Counter[str]
) -> Iterator[list[str]]:
  sentences = []
  paragraph = []
  for line in [*_lines(_text(chunk.content, dropped)), ""]:
    line = line.strip()
    if line:
      paragraph.append(line)
    elif paragraph:
      sentences.extend(text_formats.split_sentences(" ".join(paragraph)))
      paragraph = []
  yield sentences


def _parse_jsonl(
  chunk: Chunk, dropped: collections.Counter[str]
) -> Iterator[list[str]]:
  for number, raw in enumerate(chunk.content.split(b"\n"), chunk.first_line):
    line = _text(raw, dropped)
    if line.strip():
      text = _field_of_json(
        line,
        chunk.text_field,
        f"input={chunk.source.name!r}, line {number:,}",
      )
      if _SURROGATE.search(text):
        text, num_replaced = _SURROGATE.subn(_REPLACEMENT, text)
        dropped["undecodable_places"] += num_replaced
      yield _sentences(_lines(text))


def _parse_mediawiki(
  chunk: Chunk, dropped: collections.Counter[str]
) -> Iterator[list[str]]:
  hidden = wikipedia.hidden_namespaces(wikipedia.head(chunk.content))
  for xml in wikipedia.pages(chunk.content):
    page = wikipedia.parse_page(_text(xml, dropped), hidden)
    if page.dropped_as is not None:
      dropped[page.dropped_as] += 1
      continue
    dropped["malformed_paragraphs"] += page.num_malformed
    yield _sentences(page.paragraphs)


def _parse_wikiextractor(
  chunk: Chunk, dropped: collections.Counter[str]
) -> Iterator[list[str]]:
  text = cutting.LINE_END.sub("\n", _text(chunk.content, dropped))
  for match in _DOC.finditer(text):
    _, _, body = match.group(1).lstrip().partition("\n")  # without the title
    yield _sentences(_lines(html.unescape(body)))


def _parse_split(
  chunk: Chunk, dropped: collections.Counter[str]
) -> Iterator[list[str]]:
  assert chunk.source.split is not None
  with compressed.reported(chunk.source.name):
    for raw in tfds_text.texts(
      chunk.source.split, chunk.text_field, chunk.begin, chunk.end
    ):
      yield _sentences(tfds_text.paragraphs(_text(raw, dropped)))


_PARSERS: dict[
  str,
  Callable[[Chunk, collections.Counter[str]], Iterator[list[str]]],
] = {
  "sentences": _parse_sentences,
  "prose": _parse_prose,
  "jsonl": _parse_jsonl,
  "mediawiki": _parse_mediawiki,
  "wikiextractor": _parse_wikiextractor,
  "tfds": _parse_split,
}


def _sentences(paragraphs: Iterable[str]) -> list[str]:
  return [
    sentence
    for paragraph in paragraphs
    for sentence in text_formats.split_sentences(paragraph.strip())
  ]


def _field_of_json(line: str, field: str, place: str) -> str:
  try:
    value = json.loads(line)
  except (ValueError, RecursionError) as error:
    reason = str(error).partition(": line ")[0]  # It counts another way.
    raise errors.InputError(f"{place}: this is no JSON: {reason}.") from error
  if not isinstance(value, dict):
    raise errors.InputError(
      f"{place}: this is a JSON {type(value).__name__}, not an object."
    )
  if field not in value:
    fields = ", ".join(value) or "none"
    raise errors.InputError(
      f"{place}: no field {field!r} (text_field); there are: {fields}."
    )
  if not isinstance(value[field], str):
    raise errors.InputError(
      f"{place}: {field!r} is {type(value[field]).__name__}, not text."
    )
  return value[field]


def _lines(text: str) -> list[str]:
  if "\r" in text:
    text = cutting.LINE_END.sub("\n", text)
  return text.split("\n")


def _text(raw: bytes, dropped: collections.Counter[str]) -> str:
  """Returns the text and counts in how many places it is not what was there."""
  try:
    return raw.decode("utf-8")
  except UnicodeDecodeError:
    text = raw.decode("utf-8", errors="replace")
    dropped["undecodable_places"] += text.count(_REPLACEMENT) - raw.count(
      _REPLACEMENT.encode()
    )
    return text
