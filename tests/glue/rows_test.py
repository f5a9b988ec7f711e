"""Columns are picked out of files, whatever traps these hold."""

import collections

import pytest

from mslt_tf import errors
from mslt_tf.glue import rows


def read(content, file_format="tsv", block_bytes=7, dropped=None, **layout):
  """Returns (line, *values) of each row; small blocks cut lines anywhere."""
  if isinstance(content, str):
    content = content.encode()
  blocks = [
    content[start : start + block_bytes]
    for start in range(0, len(content), block_bytes)
  ]
  dropped = collections.Counter() if dropped is None else dropped
  found = rows.READERS[file_format](
    blocks, rows.Layout(source="f.tsv", **layout), dropped
  )
  return [(row.line, *row.values) for row in found]


def test_columns_are_found_by_name_in_the_order_asked_for():
  assert read("a\tb\tc\n1\t2\t3\n", columns=("c", "a")) == [(2, "3", "1")]


def test_columns_are_found_by_place_where_there_is_no_header():
  assert read(
    "gj04\t1\t\tIt ran.\ngj04\t0\t*\tRan it.\n",
    columns=(3, 1),
    has_header=False,
  ) == [(1, "It ran.", "1"), (2, "Ran it.", "0")]


def test_quotation_marks_of_a_tsv_file_are_text():
  content = 'text\tn\n" She said\t1\nso "\t2\n""\t3\n'
  assert read(content, columns=("text",)) == [
    (2, '" She said'),
    (3, 'so "'),
    (4, '""'),
  ]


@pytest.mark.parametrize("file_format", ["tsv", "csv", "jsonl"])
def test_byte_order_mark_and_crlf_are_no_part_of_the_text(file_format):
  content = {
    "tsv": "\ufefftext\tn\r\nab\t1\r\n",
    "csv": "\ufefftext,n\r\nab,1\r\n",
    "jsonl": '\ufeff\r\n{"text": "ab", "n": 1}\r\n',
  }[file_format]
  assert read(content, file_format, columns=("text", "n")) == [(2, "ab", "1")]


def test_only_lf_ends_a_line():
  text = "a\u0085b\u2028c\x0bd\x1ce\rf"
  assert read(f"text\tn\n{text}\t1\n", columns=("text",)) == [(2, text)]


def test_last_line_needs_no_end():
  assert read("t\tn\nab\t1\ncd\t2", columns=("t",)) == [(2, "ab"), (3, "cd")]


def test_csv_fields_may_hold_commas_quotes_and_line_ends():
  content = 'text,n\n"a, ""b""\nc",1\nd,2\n'
  assert read(content, "csv", columns=("text", "n")) == [
    (3, 'a, "b"\nc', "1"),
    (4, "d", "2"),
  ]


def test_half_of_a_character_in_json_is_replaced():
  # As tools write it that cut texts: no UTF-8 can be made of it.
  content = '{"t": "cut \\ud83d"}\n{"t": "\\ud83d\\ude00"}\n'
  assert read(content, "jsonl", columns=("t",)) == [
    (1, "cut \ufffd"),
    (2, "\U0001f600"),
  ]


def test_json_numbers_and_booleans_become_text():
  content = '{"t": "a", "n": 1}\n{"n": 0.5, "t": "b"}\n{"t": "c", "n": true}\n'
  assert read(content, "jsonl", columns=("t", "n")) == [
    (1, "a", "1"),
    (2, "b", "0.5"),
    (3, "c", "true"),
  ]


def test_blank_lines_are_left_out_and_counted():
  dropped = collections.Counter()
  assert read("t\tn\n\na\t1\n\n", columns=("t",), dropped=dropped) == [(3, "a")]
  assert dropped == {"nothing in them": 2}


def test_known_bad_rows_are_left_out_and_counted():
  # A question with a line end in it makes two short rows.
  content = (
    "id\tq1\tq2\tdup\n1\ta\tb\t1\n2\tc\nd\te\t0\n3\tf\tg\t\n4\th\ti\t0\n"
  )
  dropped = collections.Counter()
  assert read(
    content, columns=("q1", "q2", "dup"), drops_bad_rows=True, dropped=dropped
  ) == [(2, "a", "b", "1"), (6, "h", "i", "0")]
  assert dropped == {"too few fields": 3}


def test_rows_of_other_lengths_are_kept_where_that_is_allowed():
  assert read(
    "t\tn\na\t1\tmore\n", columns=("t",), allows_extra_fields=True
  ) == [(2, "a")]


@pytest.mark.parametrize(
  ("content", "file_format", "layout", "message"),
  [
    (
      "a\tb\n1\t2\n",
      "tsv",
      {"columns": ("c",)},
      r"f\.tsv, line 1: no column 'c'; the header has 'a', 'b'\.",
    ),
    (
      "a\ta\n1\t2\n",
      "tsv",
      {"columns": ("a",)},
      r"f\.tsv, line 1: twice the column 'a'",
    ),
    ("", "tsv", {"columns": ("c",)}, r"no column 'c'; the header has nothing"),
    (
      "a\tb\n1\t2\n",
      "tsv",
      {"columns": (2,)},
      r"line 1: no column 2, counted from 0; the header has 2 columns\.",
    ),
    (
      "1\t2\n",
      "tsv",
      {"columns": ("a",), "has_header": False},
      r"column 'a' must be a place from 0",
    ),
    (
      "a\tb\n1\t2\n3\n",
      "tsv",
      {"columns": ("b",)},
      r"f\.tsv, line 3: 1 fields, but column 2 is needed\.",
    ),
    (
      "a\tb\n1\t2\t3\n",
      "tsv",
      {"columns": ("b",)},
      r"f\.tsv, line 2: 3 fields, where the first line has 2\.",
    ),
    (
      "1\t2\n3\t4\t5\n",
      "tsv",
      {"columns": (1,), "has_header": False},
      r"f\.tsv, line 2: 3 fields, where the first line has 2\.",
    ),
    (
      b"a\tb\n1\t2\n\xff\t2\n",
      "tsv",
      {"columns": ("a",)},
      r"f\.tsv, line 3: not UTF-8\.",
    ),
    (
      b"a,b\n1,\xff\n",
      "csv",
      {"columns": ("a",)},
      r"f\.tsv, line 2: not UTF-8\.",
    ),
    (
      'a,b\n"1,2\n',
      "csv",
      {"columns": ("a",)},
      r"f\.tsv, line 2: no valid CSV: ",
    ),
    (
      '{"a": 1}\n{"a" 1}\n',
      "jsonl",
      {"columns": ("a",)},
      r"f\.tsv, line 2: no valid JSON: ",
    ),
    (b'{"a": "\xff"}\n', "jsonl", {"columns": ("a",)}, r"line 1: not UTF-8"),
    (
      '{"a": ' + "[" * 100_000 + "\n",
      "jsonl",
      {"columns": ("a",)},
      r"line 1: no valid JSON: ",
    ),
    ("[1]\n", "jsonl", {"columns": ("a",)}, r"line 1: not a JSON object\."),
    (
      '{"a": 1, "c": 2}\n',
      "jsonl",
      {"columns": ("b",)},
      r"f\.tsv, line 1: no field 'b'; the object has 'a', 'c'\.",
    ),
    (
      '{"a": ["x"]}\n',
      "jsonl",
      {"columns": ("a",)},
      r"line 1: field 'a' is neither text nor a number\.",
    ),
  ],
)
def test_what_is_wrong_is_named_with_its_line(
  content, file_format, layout, message
):
  with pytest.raises(errors.InputError, match=message):
    read(content, file_format, **layout)
