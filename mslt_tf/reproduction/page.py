"""Tables inside a page that is otherwise written by hand. Pure."""

import re
from collections.abc import Mapping

from mslt_tf import errors
from mslt_tf.glue import tables

_BLOCK = re.compile(
  r"(<!-- begin (?P<name>\w+) -->\n)(.*?)(<!-- end (?P=name) -->)", re.DOTALL
)


def fill(text: str, shown: Mapping[str, tables.Table], *, source: str) -> str:
  """Returns a page with its tables replaced.

  Args:
    text: Markdown, in which each table stands between `<!-- begin NAME -->` and
      `<!-- end NAME -->`.
    shown: Tables by name.
    source: What to call the page in errors.

  Raises:
    errors.InputError: The page asks for a table that there is not.
  """

  def replace(match: re.Match[str]) -> str:
    name = match["name"]
    if name not in shown:
      raise errors.InputError(
        f"{source}: there is no table {name}; there are {', '.join(shown)}."
      )
    return match[1] + tables.as_markdown([shown[name]]) + match[4]

  return _BLOCK.sub(replace, text)
