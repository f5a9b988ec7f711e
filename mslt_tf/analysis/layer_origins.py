"""Which layers of two stages are the same layer, and which are copies.

It follows from the stages' `source_layers` alone. Layers count from 0, stages
from 1.
"""

from collections.abc import Mapping, Sequence

from mslt_tf import schedules


def kept_layers(
  stages: Sequence[schedules.Stage], before: int, after: int
) -> tuple[int, ...]:
  """Returns the layers of stage `before` that stage `after` has in their place.

  Args:
    stages: From the first one to `after` at least.
    before: Number of the earlier stage.
    after: Number of the later one.
  """
  between = stages[before:after]
  return tuple(
    layer
    for layer in range(stages[before - 1].num_layers)
    if all(_keeps(stage, layer) for stage in between)
  )


def copies(stages: Sequence[schedules.Stage], number: int) -> dict[int, int]:
  """Returns by layer of a stage the one that it began as a copy of.

  Layers that no growth copied are left out, and so are copies of a layer that
  is not in its place any more. Of MSLT on 3, 6 and 9 layers, layer 6 is a copy
  of layer 3, which is one of layer 0.

  Args:
    stages: From the first one to `number` at least.
    number: Of the stage.
  """
  found: dict[int, int] = {}
  for stage in stages[:number]:
    before = found
    found = {}
    for layer, source in enumerate(stage.source_layers):
      original = before.get(layer) if source == layer else source
      if original is not None and _keeps(stage, original):
        found[layer] = original
  return found


def with_copies(
  kept: Sequence[int], copied: Mapping[int, int]
) -> list[tuple[int, int | None]]:
  """Returns each kept layer that has a copy with its first one.

  Where none has a copy, it is each kept layer with `None`.

  Args:
    kept: Layers of both stages, `kept_layers`.
    copied: Of the later stage, `copies`.
  """
  firsts: dict[int, int] = {}
  for layer, original in copied.items():
    if original in kept:
      firsts.setdefault(original, layer)
  if firsts:
    return sorted(firsts.items())
  return [(layer, None) for layer in kept]


def _keeps(stage: schedules.Stage, layer: int) -> bool:
  return layer < stage.num_layers and stage.source_layers[layer] == layer
