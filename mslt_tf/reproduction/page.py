"""Tables inside a page that is otherwise written by hand."""

import os
import re
from collections.abc import Mapping

from mslt_tf import errors
from mslt_tf.glue import tables

_BLOCK = re.compile(
  r"(<!-- begin (?P<name>\w+) -->\n)(.*?)(<!-- end (?P=name) -->)", re.DOTALL
)
_BEGIN = re.compile(r"<!-- begin ")


def fill(text: str, shown: Mapping[str, tables.Table], *, source: str) -> str:
  """Returns a page with its tables replaced.

  Args:
    text: Markdown, in which each table stands between `<!-- begin NAME -->` and
      `<!-- end NAME -->`.
    shown: Tables by name.
    source: What to call the page in errors.

  Raises:
    errors.InputError: The page asks for a table that there is not, or a mark
      has no other end.
  """

  def replace(match: re.Match[str]) -> str:
    name = match["name"]
    if name not in shown:
      raise errors.InputError(
        f"{source}: there is no table {name}; there are {', '.join(shown)}."
      )
    return match[1] + tables.as_markdown([shown[name]]) + match[4]

  filled, num_blocks = _BLOCK.subn(replace, text)
  num_begun = len(_BEGIN.findall(text))
  if num_blocks != num_begun:
    raise errors.InputError(
      f"{source}: of {num_begun} tables that begin, {num_blocks} end with"
      " <!-- end NAME --> of the same name."
    )
  return filled


def update(path: str, shown: Mapping[str, tables.Table]) -> None:
  """Replaces the tables of a file.

  Raises:
    errors.InputError: As `fill`, or the file cannot be read or written.
  """
  try:
    with open(path, encoding="utf-8") as file:
      text = file.read()
    filled = fill(text, shown, source=f"--page={path}")
    with open(f"{path}.unfinished", "w", encoding="utf-8") as file:
      file.write(filled)
    os.replace(f"{path}.unfinished", path)
  except OSError as error:
    raise errors.InputError(
      f"--page={path} cannot be read and written: {error.strerror}."
    ) from error
