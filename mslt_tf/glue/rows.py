"""Chosen columns of TSV, CSV and JSON-lines files, row by row.

Pure: bytes in, text out. A file comes in blocks, and only the chosen columns
are decoded, so that the large tasks take seconds.

  tsv: Fields between tabs. No quoting: a quotation mark is text, as the GLUE
    files need it.
  csv: Commas and double quotes; a quoted field may hold line ends.
  jsonl: A JSON object a line.

Lines end with LF or CR LF. Other characters that end lines in Unicode are text.
"""

import collections
import csv
import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mslt_tf import errors

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SURROGATE = re.compile(r"[\ud800-\udfff]")

TOO_FEW_FIELDS = "too few fields"
BLANK = "nothing in them"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
  """The chosen columns of a row, and the line that it ends in, from 1."""

  line: int
  values: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
  """How a file is laid out, and what is wanted of it.

  Attributes:
    source: The file's name, for messages.
    columns: What is wanted: names of the header or of JSON fields, or places
      from 0.
    has_header: Whether the first row names the columns. JSON lines have none.
    drops_bad_rows: Rows with too few fields, or whose last wanted field is
      empty, are left out and counted; else the former are errors.
    allows_extra_fields: Rows may differ in how many fields they have.
  """

  source: str
  columns: Sequence[str | int]
  has_header: bool = True
  drops_bad_rows: bool = False
  allows_extra_fields: bool = False


def tsv(
  blocks: Iterable[bytes], layout: Layout, dropped: collections.Counter[str]
) -> Iterator[Row]:
  """Yields the rows of a TSV file; counts what it leaves out in `dropped`.

  Raises:
    errors.InputError: a missing column, a row with too few or too many fields,
      or bytes that are no UTF-8; names the line.
  """
  numbered = (
    (number, line.split(b"\t") if line else [])
    for number, line in enumerate(_lines(blocks), start=1)
  )
  decoded = _chosen(numbered, layout, dropped)
  for number, fields in decoded:
    try:
      values = tuple([field.decode() for field in fields])
    except UnicodeDecodeError:
      raise _not_utf8(layout, number) from None
    yield Row(number, values)


def comma_separated(
  blocks: Iterable[bytes], layout: Layout, dropped: collections.Counter[str]
) -> Iterator[Row]:
  """Yields the rows of a CSV file, as `tsv` does.

  Raises:
    errors.InputError: as `tsv`, and for wrong quoting.
  """
  reader = csv.reader(_text_lines(blocks, layout), strict=True)

  def numbered() -> Iterator[tuple[int, list[str]]]:
    try:
      for fields in reader:
        yield reader.line_num, fields
    except csv.Error as error:
      raise errors.InputError(
        f"{layout.source}, line {reader.line_num}: no valid CSV: {error}."
      ) from None

  for number, fields in _chosen(numbered(), layout, dropped):
    yield Row(number, tuple(fields))


def json_lines(
  blocks: Iterable[bytes], layout: Layout, dropped: collections.Counter[str]
) -> Iterator[Row]:
  """Yields the rows of a file of JSON objects.

  Numbers and booleans become text as JSON writes them, and what is no UTF-8
  becomes U+FFFD.

  Raises:
    errors.InputError: a line that is no JSON object, or lacks a field.
  """
  for number, line in enumerate(_lines(blocks), start=1):
    if not line.strip():
      dropped[BLANK] += 1
      continue
    try:
      record = json.loads(line)
    except UnicodeDecodeError:
      raise _not_utf8(layout, number) from None
    except (ValueError, RecursionError) as error:
      raise errors.InputError(
        f"{layout.source}, line {number}: no valid JSON: {error}."
      ) from None
    if not isinstance(record, dict):
      raise errors.InputError(
        f"{layout.source}, line {number}: not a JSON object."
      )
    yield Row(
      number,
      tuple(_field(record, name, layout, number) for name in layout.columns),
    )


READERS = {"tsv": tsv, "csv": comma_separated, "jsonl": json_lines}


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
  """Yields lines without their ends and without a byte order mark."""
  # At LF alone: `splitlines` of text would also cut at U+0085 and U+2028, which
  # text from the web holds.
  is_first = True
  held = b""
  for block in blocks:
    *whole, held = (held + block).split(b"\n")
    for line in whole:
      if is_first:
        line = line.removeprefix(_BYTE_ORDER_MARK)
        is_first = False
      yield line.removesuffix(b"\r")
  if is_first:
    held = held.removeprefix(_BYTE_ORDER_MARK)
  if held:
    yield held.removesuffix(b"\r")


def _text_lines(blocks: Iterable[bytes], layout: Layout) -> Iterator[str]:
  for number, line in enumerate(_lines(blocks), start=1):
    try:
      yield line.decode() + "\n"
    except UnicodeDecodeError:
      raise _not_utf8(layout, number) from None


def _chosen(
  numbered: Iterator[tuple[int, list]],
  layout: Layout,
  dropped: collections.Counter[str],
) -> Iterator[tuple[int, list]]:
  """Yields of each row only the wanted fields, in their order."""
  places, num_fields = _places(numbered, layout)
  num_needed = max(places) + 1
  for number, fields in numbered:
    if not fields:
      dropped[BLANK] += 1
    elif layout.drops_bad_rows and (
      len(fields) < num_needed or not fields[places[-1]]
    ):
      dropped[TOO_FEW_FIELDS] += 1
    else:
      # Without a header, the first row says how many fields there are.
      num_fields = num_fields or len(fields)
      _check_num_fields(layout, number, len(fields), num_needed, num_fields)
      yield number, [fields[place] for place in places]


def _places(
  numbered: Iterator[tuple[int, list]], layout: Layout
) -> tuple[list[int], int | None]:
  """Returns the places of the wanted columns, and how many a row has."""
  if not layout.has_header:
    places = []
    for column in layout.columns:
      if not isinstance(column, int):
        raise errors.InputError(
          f"{layout.source}: column {column!r} must be a place from 0, as the"
          " file has no header."
        )
      places.append(column)
    return places, None
  _, fields = next(numbered, (1, []))
  header = [
    name.decode(errors="replace") if isinstance(name, bytes) else name
    for name in fields
  ]
  return [_place(column, header, layout) for column in layout.columns], len(
    header
  )


def _place(column: str | int, header: list[str], layout: Layout) -> int:
  if isinstance(column, int):
    if column < len(header):
      return column
    raise errors.InputError(
      f"{layout.source}, line 1: no column {column}, counted from 0; the header"
      f" has {len(header)} columns."
    )
  if header.count(column) == 1:
    return header.index(column)
  problem = "twice the" if column in header else "no"
  raise errors.InputError(
    f"{layout.source}, line 1: {problem} column {column!r}; the header has"
    f" {', '.join(map(repr, header)) or 'nothing'}."
  )


def _check_num_fields(
  layout: Layout,
  number: int,
  num_found: int,
  num_needed: int,
  num_expected: int,
) -> None:
  if num_found < num_needed:
    raise errors.InputError(
      f"{layout.source}, line {number}: {num_found} fields, but column"
      f" {num_needed} is needed."
    )
  # A tab or comma in a text would move all columns after it.
  if not layout.allows_extra_fields and num_found != num_expected:
    raise errors.InputError(
      f"{layout.source}, line {number}: {num_found} fields, where the first"
      f" line has {num_expected}."
    )


def _field(
  record: dict[str, Any], name: str | int, layout: Layout, number: int
) -> str:
  value = record.get(str(name))
  if isinstance(value, str):
    # Half of a character that was cut there; it is no UTF-8.
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
  if isinstance(value, bool | int | float):
    return json.dumps(value)
  if value is None:
    raise errors.InputError(
      f"{layout.source}, line {number}: no field {name!r}; the object has"
      f" {', '.join(map(repr, record)) or 'nothing'}."
    )
  raise errors.InputError(
    f"{layout.source}, line {number}: field {name!r} is neither text nor a"
    " number."
  )


def _not_utf8(layout: Layout, number: int) -> errors.InputError:
  return errors.InputError(f"{layout.source}, line {number}: not UTF-8.")
