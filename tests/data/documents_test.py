"""Readers turn files into documents of sentences."""

import pytest

from mslt_tf import errors
from mslt_tf.data import documents

PROSE = (
  "Mr. Smith met Dr. J. Adams in the U.S. Army. He bought No. 5 for $3.50.\n"
  "\n"
  "The second paragraph is one sentence\nover two lines. Then it ends.\n"
)
SENTENCES = "".join(
  f"This is sentence {index} of a text.\nMr. Lee said so, too.\n"
  + ("\n" if index % 4 == 3 else "")
  for index in range(20)
)


def _write(path, content) -> str:
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return str(path)


def _sentences(files, **kwargs):
  return [list(text.sentences) for text in documents.read(files, **kwargs)]


def test_prose_is_cut_at_sentence_ends_and_not_at_abbreviations(tmp_path):
  path = _write(tmp_path / "a.txt", PROSE)
  assert _sentences([path], input_format="prose") == [
    [
      "Mr. Smith met Dr. J. Adams in the U.S. Army.",
      "He bought No. 5 for $3.50.",
      "The second paragraph is one sentence over two lines.",
      "Then it ends.",
    ]
  ]


def test_blank_lines_divide_documents_of_sentences(tmp_path):
  path = _write(tmp_path / "a.txt", "\n\none.\ntwo.\n \n\nthree. four.\n")
  assert _sentences([path], input_format="sentences") == [
    ["one.", "two."],
    ["three. four."],
  ]


def test_a_file_ends_a_document(tmp_path):
  files = [_write(tmp_path / name, name) for name in ("a", "b")]
  assert _sentences(files, input_format="sentences") == [["a"], ["b"]]


@pytest.mark.parametrize(
  "text, expected",
  [
    (PROSE, "prose"),
    (SENTENCES, "sentences"),
    # A paragraph a line, with and without blank lines between them.
    ("One thing is here. Another is there.\n\n" * 9, "prose"),
    ("One thing is here. Another is there.\n" * 9, "prose"),
    # Paragraphs of one sentence each.
    ("This paragraph is short.\n\n" * 9, "prose"),
    # Lines wrapped at a fixed width.
    (
      "It is a long text that was\nwrapped at some width and\nends. " * 9,
      "prose",
    ),
    ("", "prose"),
  ],
)
def test_the_format_is_detected(text, expected):
  assert documents.detect_format(text) == expected


def test_auto_reads_each_file_in_its_own_format(tmp_path):
  files = [
    _write(tmp_path / "a.txt", PROSE),
    _write(tmp_path / "b.txt", SENTENCES),
  ]
  assert [len(text) for text in _sentences(files)] == [4, 8, 8, 8, 8, 8]


def test_a_byte_order_mark_and_crlf_leave_no_trace(tmp_path):
  path = _write(tmp_path / "a.txt", b"\xef\xbb\xbfone.\r\ntwo.\r\n\r\nthree.")
  assert _sentences([path], input_format="sentences") == [
    ["one.", "two."],
    ["three."],
  ]
  assert _sentences([path], input_format="prose") == [
    ["one.", "two.", "three."]
  ]


@pytest.mark.parametrize("input_format", ["sentences", "prose"])
def test_undecodable_bytes_are_replaced_and_counted(tmp_path, input_format):
  raw = b"caf\xe9 is one, \xef\xbf\xbd is none\nna\xefve"
  (document,) = documents.read(
    [_write(tmp_path / "a.txt", raw)], input_format=input_format
  )
  assert document.num_undecodable == 2
  assert " ".join(document.sentences) == (
    "caf\ufffd is one, \ufffd is none na\ufffdve"
  )


def test_files_are_sorted_and_each_is_there_once(tmp_path):
  for name in ("b.txt", "a.txt", "c.md"):
    _write(tmp_path / name, name)
  (tmp_path / "d.txt").mkdir()
  patterns = [f"{tmp_path}/*.txt", f"{tmp_path}/b*"]
  assert documents.find_files(patterns) == [
    f"{tmp_path}/a.txt",
    f"{tmp_path}/b.txt",
  ]


def test_a_glob_without_files_is_an_error_that_names_it(tmp_path):
  with pytest.raises(errors.InputError, match=r"none-here"):
    documents.find_files([f"{tmp_path}/none-here*.txt"])
  with pytest.raises(errors.InputError, match=r"names no file"):
    documents.find_files([""])


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
  with pytest.raises(errors.InputError, match=r"gone.txt"):
    list(documents.read([f"{tmp_path}/gone.txt"]))


def test_the_fingerprint_is_of_content_and_not_of_names(tmp_path):
  first = _write(tmp_path / "a", "ab")
  second = _write(tmp_path / "b", "ab")
  third = _write(tmp_path / "c", "a")
  fourth = _write(tmp_path / "d", "bab")
  assert documents.fingerprint([first]) == documents.fingerprint([second])
  # The same bytes, cut into files at another place.
  assert documents.fingerprint([first, second]) != documents.fingerprint(
    [third, fourth]
  )


def test_a_file_too_large_for_one_document_is_not_read(tmp_path):
  path = tmp_path / "dump.txt"
  with open(path, "wb") as file:
    file.truncate(1 << 32)  # A sparse file takes no room.
  with pytest.raises(errors.InputError, match=r"dump.txt' has 4294967296"):
    list(documents.read([str(path)], input_format="prose"))


def test_an_empty_file_is_refused_by_name(tmp_path):
  path = tmp_path / "empty.txt"
  path.write_text("")
  with pytest.raises(errors.InputError, match=r"empty\.txt' is empty"):
    documents.find_files([str(path)])


def test_a_directory_is_refused_with_a_way_out(tmp_path):
  with pytest.raises(errors.InputError, match="is a directory; give its files"):
    documents.find_files([str(tmp_path)])
