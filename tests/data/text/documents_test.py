"""Sources are found, cut into chunks and parsed into documents of sentences."""

import bz2
import collections
import gzip
import json
import pickle
import tracemalloc

import pytest

from mslt_tf import errors
from mslt_tf.data.text import cutting
from mslt_tf.data.text import documents

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
JSONL = (
  '{"text": "One is here. Two is.\\nThree.", "id": 1}\n\n'
  '{"id": 2, "text": "Caf\\u00e9 &amp; bar."}\n'
)
WIKIEXTRACTOR = (
  '<doc id="12" url="https://a.org/?curid=12" title="A &gt; B">\n'
  "A &gt; B\n\nOne &lt;is&gt; here. Two &amp;amp; is.\nThree.\n\n</doc>\n"
  '<doc id="13" url="https://a.org/?curid=13" title="Empty">\nEmpty\n\n</doc>\n'
)


def _page(text: str, *, namespace: int = 0, more: str = "") -> str:
  return (
    f"  <page>\n    <title>T</title>\n    <ns>{namespace}</ns>\n{more}"
    f"    <revision>\n      <text>{text}</text>\n    </revision>\n  </page>\n"
  )


DUMP_HEAD = (
  '<mediawiki version="0.10" xml:lang="de">\n  <siteinfo>\n    <namespaces>\n'
  '      <namespace key="6" case="first-letter">Datei</namespace>\n'
  '      <namespace key="10" case="first-letter">Vorlage</namespace>\n'
  "    </namespaces>\n  </siteinfo>\n"
)
DUMP = (
  DUMP_HEAD
  + _page("One '''is''' &amp;lt; here. [[Datei:a.png|thumb|A. B.]] Two is.")
  + _page("A talk.", namespace=1)
  + _page("#REDIRECT [[T]]", more='    <redirect title="T" />\n')
  + _page("&undefined;")
  + _page("{{a template}}")
  + _page("Three [[Seite|is]].\n\nFour has {{ no end.")
  + "</mediawiki>\n"
)


def _write(path, content) -> str:
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return str(path)


def _parse(path, *, chunk_bytes=1 << 20, **kwargs):
  """Returns documents and counts of all chunks together."""
  chunks = documents.chunks(
    documents.Source(path), chunk_bytes=chunk_bytes, **kwargs
  )
  # As chunks are sent to other processes.
  parts = [
    documents.parse(pickle.loads(pickle.dumps(chunk))) for chunk in chunks
  ]
  counts = collections.Counter()
  for part in parts:
    counts.update(part.dropped)
  return [each for part in parts for each in part.documents], counts


def _documents(path, **kwargs):
  return [list(sentences) for sentences in _parse(path, **kwargs)[0]]


def _names(patterns):
  return [source.name for source in documents.find(patterns)]


def _fingerprint(*paths):
  return documents.fingerprint([documents.Source(path) for path in paths])


def test_prose_is_cut_at_sentence_ends_and_not_at_abbreviations(tmp_path):
  path = _write(tmp_path / "a.txt", PROSE)
  assert _documents(path, input_format="prose") == [
    [
      "Mr. Smith met Dr. J. Adams in the U.S. Army.",
      "He bought No. 5 for $3.50.",
      "The second paragraph is one sentence over two lines.",
      "Then it ends.",
    ]
  ]


def test_blank_lines_divide_documents_of_sentences(tmp_path):
  path = _write(tmp_path / "a.txt", "\n\none.\ntwo.\n \n\nthree. four.\n")
  assert _documents(path, input_format="sentences") == [
    ["one.", "two."],
    ["three. four."],
  ]


def test_the_text_of_json_lines_is_prose_with_a_paragraph_a_line(tmp_path):
  path = _write(tmp_path / "a.jsonl", JSONL)
  assert _documents(path) == [
    ["One is here.", "Two is.", "Three."],
    ["Café &amp; bar."],
  ]


def test_another_field_of_json_lines_can_be_the_text(tmp_path):
  path = _write(tmp_path / "a.jsonl", '{"text": 5, "body": "One. Two."}')
  assert _documents(path, text_field="body") == [["One.", "Two."]]


def test_surrogates_of_json_are_replaced_and_counted(tmp_path):
  path = _write(tmp_path / "a.jsonl", '{"text": "a\\ud800b \\ud83d\\ude00."}')
  assert _parse(path) == ([("a\ufffdb 😀.",)], {"undecodable_places": 1})


def test_documents_of_wikiextractor_lose_their_titles(tmp_path):
  path = _write(tmp_path / "wiki_00", WIKIEXTRACTOR)
  assert _parse(path) == (
    [("One <is> here.", "Two &amp; is.", "Three.")],
    {"empty_documents": 1},
  )


def test_articles_of_a_dump_are_documents_and_the_rest_is_counted(tmp_path):
  path = _write(tmp_path / "dump.xml", DUMP)
  assert _parse(path) == (
    [("One is < here.", "Two is."), ("Three is.",)],
    {
      "other_namespace_pages": 1,
      "redirect_pages": 1,
      "malformed_pages": 1,
      "malformed_paragraphs": 1,
      "empty_documents": 1,
    },
  )


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
    ("\n \n", "prose"),
    (DUMP, "mediawiki"),
    ('<?xml version="1.0"?>\n<mediawiki>\n</mediawiki>', "mediawiki"),
    ("\n" + WIKIEXTRACTOR, "wikiextractor"),
    ("\n" + JSONL, "jsonl"),
    ("{Braces} are here.\n" * 9, "sentences"),
  ],
)
def test_the_format_is_detected(tmp_path, text, expected):
  source = documents.Source(_write(tmp_path / "a", text))
  formats = {
    chunk.input_format for chunk in documents.chunks(source, chunk_bytes=50)
  }
  assert formats <= {expected}
  # A dump without pages has no chunks.
  assert formats or expected == "mediawiki"


@pytest.mark.parametrize("chunk_bytes", [1, 7, 64, 1000])
@pytest.mark.parametrize(
  "text",
  [
    pytest.param(SENTENCES, id="lf"),
    pytest.param(SENTENCES.replace("\n", "\r\n"), id="crlf"),
    pytest.param(SENTENCES.replace("\n", "\r"), id="cr"),
    pytest.param(SENTENCES.replace("\n", "\r\r\n"), id="crcrlf"),
    pytest.param(SENTENCES.replace("\n\n", "\n \t\n"), id="blanks"),
    pytest.param(PROSE, id="prose"),
    pytest.param(JSONL, id="jsonl"),
    pytest.param(WIKIEXTRACTOR, id="wikiextractor"),
    pytest.param(DUMP, id="dump"),
  ],
)
def test_the_size_of_chunks_changes_nothing(tmp_path, text, chunk_bytes):
  path = _write(tmp_path / "a", text)
  assert _parse(path, chunk_bytes=chunk_bytes) == _parse(path)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_line_ends_of_all_systems_are_alike(tmp_path, line_end):
  path = _write(tmp_path / "a", SENTENCES.replace("\n", line_end))
  assert [len(each) for each in _documents(path)] == [8, 8, 8, 8, 8]


def test_chunks_are_about_as_large_as_asked_for(tmp_path):
  source = documents.Source(_write(tmp_path / "a", SENTENCES * 30))
  sizes = [
    len(chunk.content) for chunk in documents.chunks(source, chunk_bytes=2000)
  ]
  assert len(sizes) > 10
  assert all(2000 <= size < 3000 for size in sizes[:-1])


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_compressed_files_are_known_by_their_bytes(tmp_path, compress):
  # Two streams, cut in the middle of a line, under a misleading name.
  raw = SENTENCES.encode()
  path = _write(tmp_path / "a.txt", compress(raw[:77]) + compress(raw[77:]))
  assert [len(each) for each in _documents(path)] == [8, 8, 8, 8, 8]


def test_a_byte_order_mark_and_crlf_leave_no_trace(tmp_path):
  path = _write(tmp_path / "a.txt", b"\xef\xbb\xbfone.\r\ntwo.\r\n\r\nthree.")
  assert _documents(path, input_format="sentences") == [
    ["one.", "two."],
    ["three."],
  ]
  assert _documents(path, input_format="prose") == [["one.", "two.", "three."]]


@pytest.mark.parametrize("input_format", ["sentences", "prose"])
def test_undecodable_bytes_are_replaced_and_counted(tmp_path, input_format):
  raw = b"caf\xe9 is one, \xef\xbf\xbd is none\nna\xefve"
  path = _write(tmp_path / "a.txt", raw)
  (sentences,), dropped = _parse(path, input_format=input_format)
  assert dropped == {"undecodable_places": 2}
  assert " ".join(sentences) == ("caf\ufffd is one, \ufffd is none na\ufffdve")


def test_a_blank_file_is_an_empty_document(tmp_path):
  path = _write(tmp_path / "a.txt", " \n\n")
  assert _parse(path) == ([], {"empty_documents": 1})


def test_files_are_sorted_and_each_is_there_once(tmp_path):
  for name in ("b.txt", "a.txt", "c.md"):
    _write(tmp_path / name, name)
  (tmp_path / "d.txt").mkdir()
  assert _names([f"{tmp_path}/*.txt", f"{tmp_path}/b*", " "]) == [
    f"{tmp_path}/a.txt",
    f"{tmp_path}/b.txt",
  ]


def test_a_directory_means_its_files_at_any_depth_but_hidden_ones(tmp_path):
  for name in ("AA/wiki_00", "AB/C/wiki_01", "x", ".hidden", ".git/config"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    _write(tmp_path / name, name)
  _write(tmp_path / "AA" / "empty", "")
  assert _names([str(tmp_path)]) == [
    f"{tmp_path}/AA/wiki_00",
    f"{tmp_path}/AB/C/wiki_01",
    f"{tmp_path}/x",
  ]


@pytest.mark.parametrize("place", ["", "data", "data/new/data", "link/data"])
def test_what_is_made_does_not_lie_in_a_directory_that_is_read(
  tmp_path, monkeypatch, place
):
  texts = tmp_path / "texts"
  texts.mkdir()
  (texts / "a.txt").write_text("A is here.\n")
  (texts / "link").symlink_to(texts)
  monkeypatch.chdir(tmp_path)
  output_directory = str(texts / place)
  with pytest.raises(
    errors.InputError, match=r"^output_dir='.*' lies in .* input='texts'"
  ):
    documents.find(["texts"], output_directory=output_directory)


@pytest.mark.parametrize(
  "pattern, place",
  [
    ("texts", "texts2"),
    ("texts/sub", "texts"),
    (".", "gs://bucket/data"),
    ("texts/*.txt", "texts/data"),  # A glob has what it had.
  ],
)
def test_what_is_made_may_lie_beside_what_is_read(
  tmp_path, monkeypatch, pattern, place
):
  (tmp_path / "texts" / "sub").mkdir(parents=True)
  for path in ("texts/a.txt", "texts/sub/b.txt"):
    (tmp_path / path).write_text("A is here.\n")
  monkeypatch.chdir(tmp_path)
  assert documents.find([pattern], output_directory=place)


def test_a_hidden_directory_can_be_named(tmp_path):
  (tmp_path / ".cache").mkdir()
  _write(tmp_path / ".cache" / "a", "a")
  assert _names([f"{tmp_path}/.cache/"]) == [f"{tmp_path}/.cache/a"]


def test_the_fingerprint_is_of_content_and_not_of_names(tmp_path):
  first = _write(tmp_path / "a", "ab")
  second = _write(tmp_path / "b", "ab")
  third = _write(tmp_path / "c", "a")
  fourth = _write(tmp_path / "d", "bab")
  assert _fingerprint(first) == _fingerprint(second)
  assert _fingerprint(first, third) == _fingerprint(third, second)
  assert _fingerprint(first) != _fingerprint(first, second)
  # The same bytes, cut into files at another place.
  assert _fingerprint(first, second) != _fingerprint(third, fourth)


def test_the_size_of_a_compressed_file_is_estimated(tmp_path):
  plain = documents.Source(_write(tmp_path / "a", SENTENCES))
  packed = _write(tmp_path / "b", gzip.compress(SENTENCES.encode()))
  assert documents.num_bytes(plain) == len(SENTENCES)
  assert documents.num_bytes(documents.Source(packed)) == 4 * len(
    gzip.compress(SENTENCES.encode())
  )


@pytest.mark.parametrize(
  "pattern, rule",
  [
    ("", "input=[] names no file."),
    ("none-here*.txt", "input='DIR/none-here*.txt' matches no file."),
    ("empty.txt", "input='DIR/empty.txt' is empty."),
    ("empty*", "input='DIR/empty*' has only empty files."),
    ("bare", "input='DIR/bare' is a directory without files."),
  ],
)
def test_a_pattern_that_means_nothing_is_one_line(tmp_path, pattern, rule):
  _write(tmp_path / "empty.txt", "")
  (tmp_path / "bare").mkdir()
  with pytest.raises(errors.InputError) as caught:
    documents.find([f"{tmp_path}/{pattern}" if pattern else ""])
  assert str(caught.value).replace(str(tmp_path), "DIR") == rule


@pytest.mark.parametrize(
  "content, input_format, rule",
  [
    (PROSE, "docx", "input_format='docx' is not one of auto, sentences,"),
    (
      SENTENCES.encode("utf-16"),
      "auto",
      "input='FILE' is UTF-16 and must be UTF-8; iconv can convert it.",
    ),
    (
      b"PK\x03\x04\x00\x00word",
      "auto",
      "input='FILE' is no text: it holds NUL bytes. (Compressed files may be"
      " gzip or bzip2.)",
    ),
    (
      gzip.compress(SENTENCES.encode(), mtime=0)[:-9],
      "auto",
      "input='FILE' cannot be decompressed, it is damaged or incomplete: it"
      " ends in the middle of a stream.",
    ),
    (
      bz2.compress(SENTENCES.encode())[:-9],
      "auto",
      "input='FILE' cannot be decompressed, it is damaged or incomplete: it"
      " ends in the middle of a stream.",
    ),
    (
      gzip.compress(SENTENCES.encode(), mtime=0) + b"more",
      "auto",
      "input='FILE' cannot be decompressed, it is damaged or incomplete: ",
    ),
    (
      bz2.compress(SENTENCES.encode()) + b"more",
      "auto",
      "input='FILE' cannot be decompressed, it is damaged or incomplete: ",
    ),
    (
      gzip.compress(SENTENCES.encode(), mtime=0)[:-8] + b"12345678",
      "auto",
      "input='FILE' cannot be decompressed, it is damaged or incomplete: ",
    ),
    (
      PROSE,
      "mediawiki",
      "input='FILE' is not a MediaWiki dump: it does not begin with"
      " <mediawiki>.",
    ),
    (
      DUMP[: DUMP.rindex("</page>")],
      "auto",
      "input='FILE' is cut off: it has no </mediawiki> at its end.",
    ),
    (
      DUMP[: DUMP.rindex("</mediawiki>")],
      "auto",
      "input='FILE' is cut off: it has no </mediawiki> at its end.",
    ),
    (
      PROSE,
      "wikiextractor",
      "input='FILE' is not from WikiExtractor: it does not begin with"
      " <doc id=...>.",
    ),
    (
      WIKIEXTRACTOR[:-8],
      "auto",
      "input='FILE' is cut off: it does not end with </doc>.",
    ),
    (
      PROSE,
      "jsonl",
      "input='FILE', line 1: this is no JSON: Expecting value.",
    ),
    (
      JSONL + '{"text": "cut',
      "auto",
      "input='FILE', line 4: this is no JSON: Unterminated string starting at.",
    ),
    (
      JSONL + "[" * 200_000,
      "auto",
      "input='FILE', line 4: this is no JSON: maximum recursion depth exceeded",
    ),
    (
      JSONL + "[1]",
      "auto",
      "input='FILE', line 4: this is a JSON list, not an object.",
    ),
    (
      JSONL + '\n{"body": "a", "id": 3}',
      "auto",
      "input='FILE', line 5: no field 'text' (text_field); there are: body,"
      " id.",
    ),
    (
      JSONL + '{"text": null}',
      "auto",
      "input='FILE', line 4: 'text' is NoneType, not text.",
    ),
  ],
)
def test_bad_input_is_one_line(tmp_path, content, input_format, rule):
  path = _write(tmp_path / "a", content)
  with pytest.raises(errors.InputError) as caught:
    _parse(path, input_format=input_format, chunk_bytes=40)
  line = str(caught.value).replace(path, "FILE")
  assert line.startswith(rule)
  assert "\n" not in line
  assert line == rule or not rule.endswith(".")


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
  with pytest.raises(errors.InputError, match=r"gone.txt' cannot be read: "):
    _documents(f"{tmp_path}/gone.txt")


@pytest.mark.parametrize(
  "text, rule",
  [
    (PROSE, "read as prose, where a file is one document"),
    (SENTENCES.replace("\n\n", "\n"), "where a blank line ends a document"),
    (json.dumps({"text": "a" * 999}), "read as jsonl, where a line is one"),
    (
      DUMP_HEAD + _page("a" * 999) + "</mediawiki>",
      "read as mediawiki, where a page is one",
    ),
  ],
)
def test_a_document_above_the_limit_is_an_error(
  tmp_path, monkeypatch, text, rule
):
  monkeypatch.setattr(cutting, "MAX_DOCUMENT_BYTES", 99)
  path = _write(tmp_path / "a", text)
  with pytest.raises(errors.InputError) as caught:
    _parse(path, chunk_bytes=40)
  assert str(caught.value).startswith(
    f"input={path!r} holds a document of more than 99 bytes ("
  )
  assert rule in str(caught.value)


def test_a_small_file_that_unpacks_to_a_huge_one_takes_no_memory(tmp_path):
  packed = gzip.compress(bytes(1 << 28).replace(b"\0", b"a"), compresslevel=1)
  path = _write(tmp_path / "a.gz", packed)
  tracemalloc.start()
  with pytest.raises(errors.InputError, match="more than 67108864 bytes"):
    _parse(path, chunk_bytes=1 << 20)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 5 * 64 << 20
