"""Articles of a wiki become paragraphs of plain text."""

import bz2
import importlib.util
import re
import time

import pytest

from mslt_tf.data.text import documents
from mslt_tf.data.text import wikipedia

# 206 pages of the English Wikipedia of 2014, as the package gensim ships them.
REAL_DUMP = (
  "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
)


def _paragraphs(markup: str) -> list[str]:
  page = wikipedia.parse_markup(markup)
  assert not page.num_malformed
  return list(page.paragraphs)


@pytest.mark.parametrize(
  "markup, text",
  [
    # Emphasis, entities, links.
    ("It is '''bold''', ''odd'' and '''''both'''''.",
     "It is bold, odd and both."),
    ("A&nbsp;&ndash; b &amp; &#99;, &amp;lt; d.", "A – b & c, &lt; d."),
    ("A [[b]], [[c d|e]]s, [[f#g|''h'']], [[:Category:i]].",
     "A b, es, h, Category:i."),
    ("A [http://b.org c d]e[http://f.org].", "A c de."),
    ("At http://a.org/b today.", "At http://a.org/b today."),
    # What shows no text.
    ("A<!-- b\n\nc --> d.", "A d."),
    ("A<ref>b. c.</ref><ref name=d /> e<REF name='f/g'>h</ref >.", "A e."),
    ("A {{b|c={{d|[[e]]}}|f}} g.", "A g."),
    ("A [[File:b.png|thumb|c [[d]] [http://e.org f]]] g.", "A g."),
    ("A [[ image : b.png|c {{d}}\n\n[[e]]]] g.", "A g."),
    ("A. [[Category:B|c]][[de:D]][[zh-min-nan:E]]", "A."),
    ("A <math>\\frac{{a}}{b}</math> b<gallery>\nc. d.\n</gallery>.", "A b."),
    ("__NOTOC__A<br />b <small>c</small> <span style='d'>e</span>.",
     "A b c e."),
    ("A <nowiki>[[b]] '''&lt;</nowiki> c.", "A [[b]] '''< c."),
    ("<onlyinclude>A.</onlyinclude><includeonly>B.</includeonly>", "A."),
    # What templates leave behind.
    ("A ({{b}}) c ({{d}}; {{e}}, born {{f}}, 1950) g () h {{i}}, j.",
     "A c (born, 1950) g h, j."),
    ("Call main() now, with \"{{a}}\" .NET.", "Call main() now, with .NET."),
  ],
)  # fmt: skip
def test_markup_becomes_the_text_it_shows(markup, text):
  assert _paragraphs(markup) == [text]


@pytest.mark.parametrize(
  "left_out",
  [
    "== A heading. ==",
    "* A list.\n** Of two.\n# And more.\n; A term.\n: Its meaning.",
    '{| class="a"\n! B.\n|-\n| c. || {{d|e}}\n{|\n| f.\n|}\n|}',
    ":{|\n| A.\n|}",
    "{{a\n|b=\n{|\n| c.\n|}}}",
    # A table without its end.
    '{| class="a"\n|-\n| b.\n! c.',
    "<table>\n<tr><td>A.</td></tr></table>",
    "<ul><li>A.<li>B. <ul><li>C.</ul></ul>",
    " preformatted(); // A.",
    "<source lang='a'>\nB.\n\nC.\n</source>",
    "----",
    "\n'''A heading in bold'''\n",
  ],
)
def test_what_is_no_prose_ends_a_paragraph(left_out):
  assert _paragraphs(f"One\nis.\n{left_out}\nTwo is.") == ["One is.", "Two is."]


def test_a_template_at_the_start_of_a_line_makes_it_no_preformatted_one():
  assert _paragraphs("{{A}} B is here.") == ["B is here."]


@pytest.mark.parametrize("broken", ["A {{b.", "A [[b.", "A b]].", "x. " * 7000])
def test_a_broken_paragraph_is_left_out_and_counted(broken):
  assert wikipedia.parse_markup(f"One.\n\n{broken}\n\nTwo.") == wikipedia.Page(
    ("One.", "Two."), num_malformed=1
  )


@pytest.mark.parametrize("paragraph_length", [9_900, 200_000])
@pytest.mark.parametrize(
  "piece",
  [
    *("[[a", "{{a", "{|\n", "[http://a.b c", "''a'''b", "<b>x", "<ref>x"),
    *("<math>", "}}", "|}\n", "{|", "<table>x", "[[File:a|b|", "<!--", "]]"),
    *("<ref a=", "(", ", ", "==a", "<li>", "[[[http://b ]] [[", "\n=", "<"),
    *("&", "'", "\n ", " ", "[[a]] [http://b "),
  ],
)
def test_the_time_for_broken_pages_is_bounded(piece, paragraph_length):
  paragraph = (piece * paragraph_length)[:paragraph_length]
  start = time.process_time()
  wikipedia.parse_markup(f"{paragraph}\n\n" * (200_000 // paragraph_length))
  assert time.process_time() - start < 10


def test_the_newest_revision_of_a_page_counts():
  xml = (
    "<page><ns>0</ns><revision><text>Old.</text></revision>"
    "<revision><text>New.</text></revision></page>"
  )
  assert wikipedia.parse_page(xml).paragraphs == ("New.",)


@pytest.mark.parametrize(
  "xml, reason",
  [
    ("<page><ns>0</ns></page>", None),
    ("<page><ns>0</ns><revision><text/></revision></page>", None),
    ("<page><revision><text>A.</text></revision></page>", "malformed_pages"),
    ("<page><ns>0</ns>&a;</page>", "malformed_pages"),
    ("<page><ns>0</ns>", "malformed_pages"),
    ("<page><ns>14</ns></page>", "other_namespace_pages"),
    ('<page><ns>0</ns><redirect title="a"/></page>', "redirect_pages"),
  ],
)
def test_a_page_without_text_has_its_reason(xml, reason):
  assert wikipedia.parse_page(xml) == wikipedia.Page(dropped_as=reason)


@pytest.fixture(scope="module")
def real_path() -> str:
  (package,) = importlib.util.find_spec("gensim").submodule_search_locations
  return f"{package}/test/test_data/{REAL_DUMP}"


@pytest.fixture(scope="module")
def real(real_path) -> documents.Parsed:
  source = documents.Source(real_path)
  (chunk,) = documents.chunks(source, chunk_bytes=1 << 30)
  return documents.parse(chunk)


def test_a_real_dump_has_as_many_articles_as_a_search_finds(real, real_path):
  with bz2.open(real_path) as file:
    dump = file.read()
  pages = dump.split(b"<page>")[1:]
  articles = [page for page in pages if b"<ns>0</ns>" in page]
  redirects = [page for page in articles if b"<redirect" in page]
  assert (len(pages), len(articles), len(redirects)) == (206, 205, 99)
  # One is a bare list, of anthropologists.
  assert len(real.documents) == 205 - 99 - 1
  assert real.dropped == {
    "redirect_pages": 99,
    "other_namespace_pages": 1,
    "empty_documents": 1,
  }


def test_a_real_dump_leaves_no_markup(real):
  sentences = [each for document in real.documents for each in document]
  assert sum(map(len, sentences)) > 2_000_000
  markup = re.compile(
    r"\{\{|\}\}|\[\[|\]\]|\{\||\|\}|''|==|__|\|thumb"
    r"|</?[a-z]+[ >]|&[a-z]+;|\b(?:File|Image|Category):"
    r"|(?<!\w)\(\)|\( |\s[,;)](?:\s|$)"
  )
  assert [each for each in sentences if markup.search(each)] == []


def test_a_real_article_reads_as_prose(real):
  (article,) = (
    each for each in real.documents if each[0].startswith("Actresses (")
  )
  assert article[:3] == (
    "Actresses (Catalan: Actrius) is a 1997 Catalan language Spanish drama film"
    " produced and directed by Ventura Pons and based on the award-winning"
    " stage play E.R. by Josep Maria Benet i Jornet.",
    "The film has no male actors, with all roles played by females.",
    "The film was produced in 1996.",
  )
