"""YAML 1.2 as configs need it: read strictly, written so that it reads back.

PyYAML follows YAML 1.1, where `1e-4` is text, `on` a boolean, `1:30` the number
90 and `010` the number 8. Repeated keys it takes without a word.
"""

import re
from typing import Any

import yaml

from mslt_tf import errors


def load(text: str) -> Any:
  """Returns YAML text as dicts, lists and scalars.

  Raises:
    InputError: For text that is no YAML or has a key twice; names the line.
  """
  try:
    return yaml.load(text, Loader=_Loader)
  except yaml.MarkedYAMLError as error:
    where = (
      f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
    )
    raise errors.InputError(
      f"not valid YAML{where}: {error.problem}."
    ) from error
  except yaml.YAMLError as error:
    reason = " ".join(str(error).split())
    raise errors.InputError(f"not valid YAML: {reason}.") from error


def dump(tree: Any) -> str:
  """Returns YAML text, a field a line, that `load` reads back equal."""
  return yaml.dump(
    tree, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=80
  )


class _Loader(yaml.SafeLoader):
  """Refuses repeated keys; its numbers and booleans are set below."""

  def construct_mapping(self, node, deep=False):
    keys = []
    for key_node, _ in node.value:
      key = self.construct_object(key_node, deep=deep)
      if key in keys:
        line = key_node.start_mark.line + 1
        raise errors.InputError(f"line {line}: {key} is given twice.")
      keys.append(key)
    return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
  """Writes a field a line; quotes text that `_Loader` has as a number."""

  def represent_sequence(self, tag, sequence, flow_style=None):
    is_flat = not any(isinstance(each, dict | list) for each in sequence)
    return super().represent_sequence(tag, sequence, flow_style=is_flat)


_Loader.yaml_implicit_resolvers = {
  first: [
    (tag, pattern)
    for tag, pattern in resolvers
    if tag.rpartition(":")[2] not in ("bool", "int", "float", "timestamp")
  ]
  for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
  ("bool", r"true|false", "tf"),
  ("int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
  (
    "float",
    r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?"
    r"|[-+]?\.inf|\.nan",
    "-+.0123456789",
  ),
):
  for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
      f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )
