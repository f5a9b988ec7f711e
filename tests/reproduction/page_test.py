"""Tables that are put into a page."""

import pytest

from mslt_tf import errors
from mslt_tf.glue import tables
from mslt_tf.reproduction import page

TABLES = {"one": tables.Table("One", ("a", "b"), (("x", "1"),))}
PAGE = "Before.\n\n<!-- begin one -->\nold\n<!-- end one -->\n\nAfter.\n"
FILLED = (
  "Before.\n\n<!-- begin one -->\n**One**\n\n| a | b |\n|---|---:|\n"
  "| x | 1 |\n<!-- end one -->\n\nAfter.\n"
)


def test_a_table_takes_the_place_of_the_old_one_and_the_rest_stays(tmp_path):
  path = tmp_path / "page.md"
  path.write_text(PAGE)
  page.update(str(path), TABLES)
  assert path.read_text() == FILLED
  assert [each.name for each in tmp_path.iterdir()] == ["page.md"]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (
      "<!-- begin two -->\n<!-- end two -->\n",
      "--page=PAGE: there is no table two; there are one.",
    ),
    (
      "<!-- begin one -->\n<!-- end ome -->\n",
      "--page=PAGE: of 1 tables that begin, 0 end with <!-- end NAME --> of the"
      " same name.",
    ),
  ],
)
def test_what_cannot_be_filled_is_named_and_stays(tmp_path, text, message):
  path = tmp_path / "page.md"
  path.write_text(text)
  with pytest.raises(errors.InputError) as error:
    page.update(str(path), TABLES)
  assert str(error.value) == message.replace("PAGE", str(path))
  assert path.read_text() == text


def test_a_page_that_is_not_there_is_named(tmp_path):
  with pytest.raises(errors.InputError) as error:
    page.update(str(tmp_path / "absent.md"), TABLES)
  assert str(error.value) == (
    f"--page={tmp_path}/absent.md cannot be read and written: No such file or"
    " directory."
  )
