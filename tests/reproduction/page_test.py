"""Tables that are put into a page."""

import pytest

from mslt_tf import errors
from mslt_tf.glue import tables
from mslt_tf.reproduction import page

TABLES = {"one": tables.Table("One", ("a", "b"), (("x", "1"),))}


def test_a_table_takes_the_place_of_the_old_one_and_the_rest_stays():
  text = "Before.\n\n<!-- begin one -->\nold\n<!-- end one -->\n\nAfter.\n"
  assert page.fill(text, TABLES, source="page.md") == (
    "Before.\n\n<!-- begin one -->\n**One**\n\n| a | b |\n|---|---:|\n"
    "| x | 1 |\n<!-- end one -->\n\nAfter.\n"
  )


def test_a_table_that_there_is_not_is_named():
  text = "<!-- begin two -->\n<!-- end two -->\n"
  with pytest.raises(errors.InputError) as error:
    page.fill(text, TABLES, source="page.md")
  assert str(error.value) == "page.md: there is no table two; there are one."
