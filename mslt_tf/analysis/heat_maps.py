"""Numbers of every head of every layer, as tables in colour."""

import dataclasses
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib import cm
from matplotlib import colors
from matplotlib import figure as figure_lib

_COLOURS = matplotlib.colormaps["cividis"]
_FONT = 8
_CELL_WIDTH, _CELL_HEIGHT = 0.4, 0.24  # Inches; room for a number.
_HEADING = 0.35
_TITLE = 0.5  # Of two lines.
_BELOW = 0.4  # For the numbers of heads.
_SCALE = 1.15
_LEAST_HEIGHT = 2.0  # The scale's name needs it.


@dataclasses.dataclass(frozen=True)
class Table:
  """A number for each head of some layers.

  Attributes:
    title: What the numbers are; may have two lines.
    rows: What each row is, such as a layer.
    values: [rows, heads].
  """

  title: str
  rows: Sequence[str]
  values: np.ndarray


def draw(
  lines: Sequence[Sequence[Table]],
  *,
  title: str,
  unit: str,
  highest: float | None = None,
) -> figure_lib.Figure:
  """Draws tables beside and below each other, in colours of one scale.

  Args:
    lines: Tables of each line; not all empty.
    title: Stands above.
    unit: Of the numbers.
    highest: Where the scale ends; by default at the highest number.
  """
  tables = [table for line in lines for table in line]
  highest = highest or max(float(table.values.max()) for table in tables)
  # An empty scale, where all are 0, has no colours.
  norm = colors.Normalize(0, max(highest, 0.01))
  width = max(sum(map(_width, line)) for line in lines) + _SCALE
  heights = [max(map(_height, line)) for line in lines if line]
  height = max(_HEADING + sum(heights), _LEAST_HEIGHT)
  figure = figure_lib.Figure((width, height))
  figure.text(
    0.1 / width,
    1 - 0.1 / height,
    title,
    ha="left",
    va="top",
    fontsize=_FONT + 2,
    parse_math=False,
  )
  top = height - _HEADING
  for line, line_height in zip(filter(None, lines), heights, strict=True):
    left = 0.0
    for table in line:
      _draw_table(figure, table, norm, left, top - _TITLE)
      left += _width(table)
    top -= line_height
  scale_height = min(height - 0.8, 3)
  axes = figure.add_axes(
    (
      1 - (_SCALE - 0.25) / width,
      0.35 / height,
      0.12 / width,
      scale_height / height,
    )
  )
  scale = figure.colorbar(cm.ScalarMappable(norm, _COLOURS), cax=axes)
  scale.ax.tick_params(labelsize=_FONT)
  scale.set_label(unit, fontsize=_FONT)
  return figure


def _draw_table(figure, table, norm, left, top) -> None:
  """Draws a table whose upper left corner is at a place in inches."""
  width, height = figure.get_size_inches()
  num_rows, num_heads = table.values.shape
  x = left + _label_width(table)
  y = top - num_rows * _CELL_HEIGHT
  axes = figure.add_axes(
    (
      x / width,
      y / height,
      num_heads * _CELL_WIDTH / width,
      num_rows * _CELL_HEIGHT / height,
    )
  )
  axes.imshow(table.values, cmap=_COLOURS, norm=norm, aspect="auto")
  axes.set_title(table.title, fontsize=_FONT, loc="left", pad=4)
  axes.set_xticks(range(num_heads))
  axes.set_yticks(range(num_rows), table.rows)
  axes.tick_params(labelsize=_FONT, length=0)
  axes.set_xlabel("head", fontsize=_FONT, labelpad=1)
  for row, column in np.ndindex(num_rows, num_heads):
    value = table.values[row, column]
    axes.text(
      column,
      row,
      _written(value),
      ha="center",
      va="center",
      fontsize=_FONT - 1.5,
      color="black" if norm(value) > 0.55 else "white",
    )


def _written(value: float) -> str:
  if value == 0:
    return "0"
  if value < 0.001:
    return "<0.001"
  return f"{value:.2g}" if value < 0.0995 else f"{value:.2f}"


def _label_width(table: Table) -> float:
  return max(map(len, table.rows)) * 0.075 + 0.15


def _width(table: Table) -> float:
  """Returns inches, of the title where that is longer."""
  cells = table.values.shape[1] * _CELL_WIDTH
  letters = max(map(len, table.title.split("\n"))) * 0.068
  return _label_width(table) + max(cells, letters) + 0.2


def _height(table: Table) -> float:
  return _TITLE + len(table.values) * _CELL_HEIGHT + _BELOW
