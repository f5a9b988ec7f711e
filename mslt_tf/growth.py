"""Growth: the weights of a deeper model from those of the stage before.

Weights are named arrays, `bert/encoder/layer_<index>/<rest>` in the encoder.
Whatever else hangs on such a name, as the optimizer's moments do, grows along.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

Array = TypeVar("Array")

_LAYER = re.compile(r"^bert/encoder/layer_(\d+)/(.*)$")


def grow(
  arrays: Mapping[str, Array],
  source_layers: Sequence[int | None],
  *,
  fresh: Mapping[str, Array],
) -> dict[str, Array]:
  """Returns weights whose i-th layer is a copy of layer `source_layers[i]`.

  What belongs to no encoder layer is taken over as it is.

  Args:
    arrays: Named weights of the stage before; empty before the first stage.
    source_layers: Schedule's `Stage.source_layers`.
    fresh: Named initial weights of the new model, for layers whose source is
      `None`, and for everything where `arrays` is empty.
  """
  if not arrays:
    return dict(fresh)
  layers_before: dict[int, dict[str, Array]] = {}
  grown = {}
  for name, array in arrays.items():
    match = _LAYER.match(name)
    if match:
      layers_before.setdefault(int(match[1]), {})[match[2]] = array
    else:
      grown[name] = array
  for name, array in fresh.items():
    match = _LAYER.match(name)
    if match and source_layers[int(match[1])] is None:
      grown[name] = array
  for index, source in enumerate(source_layers):
    if source is not None:
      for rest, array in layers_before[source].items():
        grown[f"bert/encoder/layer_{index}/{rest}"] = array
  return grown
