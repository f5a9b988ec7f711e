"""Pictures of a sentence's attention in one stage, or in two side by side.

Letters: L layers, N heads, S sequence.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib import figure as figure_lib

from mslt_tf import errors
from mslt_tf.analysis import attention
from mslt_tf.analysis import attention_figures
from mslt_tf.analysis import attention_text
from mslt_tf.analysis import layer_origins
from mslt_tf.models import pretrained

_NUM_ROWS = 4  # Of the comparison of stages, unless heads are named.
_NUM_COLUMNS = 4  # Of the heads that are drawn large.

Heads = Sequence[tuple[int, int]]  # Layer and head of each.


@dataclasses.dataclass(frozen=True)
class Stage:
  """A finished stage and what computes its attention maps."""

  number: int
  model: pretrained.PretrainedBert
  maps: attention.AttentionMaps


@dataclasses.dataclass(frozen=True)
class _Row:
  """A head of a layer, and the layer that is a copy of it, if there is one."""

  layer: int
  copy: int | None
  head: int


def draw(
  sentence: attention_text.Sentence,
  stage: Stage,
  *,
  before: Stage | None,
  heads: Heads,
  name: str,
) -> dict[str, figure_lib.Figure]:
  """Draws all heads; the chosen ones large; those of two stages side by side.

  Args:
    sentence: What is read.
    stage: Whose heads are drawn.
    before: An earlier stage to hold it against; `None` for none.
    heads: Which are drawn large, and side by side instead of some from all
      over.
    name: Of the workdir.

  Returns:
    The pictures by the names of their files.

  Raises:
    InputError: A chosen head has no like in the earlier stage.
  """
  maps = stage.maps(sentence.features)[:, 0]  # [L, N, S, S]
  title = f"Attention in {name}"
  if stage.model.history.stages:  # Imported models have none.
    title += f", stage {stage.number}"
  drawn = {
    "attention": attention_figures.grid(maps, sentence.tokens, title=title)
  }
  if heads:
    shown = [_panel(maps, layer, head) for layer, head in heads]
    drawn["attention_heads"] = attention_figures.panels(
      _in_rows(shown), sentence.tokens, title=title
    )
  if before is not None:
    maps_before = before.maps(sentence.features)[:, 0]
    drawn["attention_stages"] = attention_figures.panels(
      [
        [
          _panel(maps_before, row.layer, row.head),
          _panel(maps, row.layer, row.head),
          *([] if row.copy is None else [_panel(maps, row.copy, row.head)]),
        ]
        for row in _rows(stage, before, heads)
      ],
      sentence.tokens,
      title=f"Attention in {name}, before and after",
      columns=(
        f"stage {before.number}",
        f"stage {stage.number}, the same layer",
        f"stage {stage.number}, its copy",
      ),
    )
  return drawn


def pixels(
  model: pretrained.PretrainedBert, sentence: str, *, title: str
) -> np.ndarray:
  """Returns the picture of all heads as uint8 [height, width, 3].

  Raises:
    InputError: The sentence has no word, or more tokens than positions.
  """
  read = attention_text.of_sentence(model, sentence)
  maps = attention.AttentionMaps(model)(read.features)[:, 0]
  return attention_figures.pixels(
    attention_figures.grid(maps, read.tokens, title=title)
  )


def _panel(maps: np.ndarray, layer: int, head: int) -> attention_figures.Panel:
  return attention_figures.Panel(
    f"layer {layer}, head {head}", maps[layer, head]
  )


def _in_rows(
  panels: Sequence[attention_figures.Panel],
) -> list[Sequence[attention_figures.Panel]]:
  starts = range(0, len(panels), _NUM_COLUMNS)
  return [panels[start : start + _NUM_COLUMNS] for start in starts]


def _rows(stage: Stage, before: Stage, heads: Heads) -> Iterator[_Row]:
  """Yields the heads asked for, or some from all over."""
  stages = [record.stage for record in stage.model.history.stages]
  pairs = layer_origins.with_copies(
    layer_origins.kept_layers(stages, before.number, stage.number),
    layer_origins.copies(stages, stage.number),
  )
  if not pairs:
    raise errors.InputError(
      f"stage {stage.number} has no layer of stage {before.number} in its"
      " place; there is nothing to compare."
    )
  num_heads = stage.model.architecture.num_heads
  num_rows = min(_NUM_ROWS, max(len(pairs), num_heads))
  if not heads:
    for row in range(num_rows):
      yield _Row(
        *pairs[row * len(pairs) // num_rows], row * num_heads // num_rows
      )
  for layer, head in heads:
    found = [pair for pair in pairs if layer in pair]
    if not found:
      raise errors.InputError(
        f"heads={layer}:{head} cannot be compared; layers that can are"
        f" {', '.join(str(layer) for layer, _ in pairs)}."
      )
    yield _Row(*found[0], head)
