"""Attention maps as pictures: a grid of all heads, and chosen ones large.

They are the paper's Figures 2 and 3. Rows of a map are queries, columns keys.
Letters: L layers, N heads, S sequence.
"""

import dataclasses
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib import axes as axes_lib
from matplotlib import colors
from matplotlib import figure as figure_lib
from matplotlib.backends import backend_agg

RESOLUTION = 150  # Dots an inch, at which the smallest letters are legible.
# A square root, since what a head spreads over many tokens would not show.
_NORM = colors.PowerNorm(0.5, vmin=0, vmax=1)
_COLOURS = matplotlib.colormaps["Blues"].with_extremes(bad="0.55")
_AXES = "rows: the token that looks; columns: the token looked at"
_SCALE = "attention weight, colours by its square root"

# In inches, but for fonts, which are in points, 72 of which are an inch.
_SMALL_FONT, _FONT = 6, 8
_PITCH = 0.09  # Of tokens in the small font.
_LARGEST_CELL = 2.7
_LARGEST_PANEL = 4.5
_LETTER = 0.62 / 72  # Width of a letter, of a point of its font.


@dataclasses.dataclass(frozen=True)
class Panel:
  """One head's attention map [S, S] with its title."""

  title: str
  attention: np.ndarray


def grid(
  maps: np.ndarray, tokens: Sequence[str], *, title: str
) -> figure_lib.Figure:
  """Draws all heads: a row a layer and a column a head, tokens outside.

  Args:
    maps: [L, N, S, S].
    tokens: S; where they are many, every so many is named.
    title: Stands above.
  """
  num_layers, num_heads, length, _ = maps.shape
  side = min((length + 1) * _PITCH, _LARGEST_CELL)
  margin = _margin(tokens, _SMALL_FONT)
  left, right, top, bottom = margin + 0.55, 1.0, 0.6, margin + 0.35
  width = max(left + num_heads * side + right, 4.5)
  height = max(top + num_layers * side + bottom, 3.0)
  figure = figure_lib.Figure((width, height))
  # As one picture: Large has 384 maps, and as many axes would take minutes.
  axes = _axes(
    figure, left, bottom, num_heads * side, num_layers * side, width, height
  )
  image = axes.imshow(
    _mosaic(maps), cmap=_COLOURS, norm=_NORM, interpolation="nearest"
  )
  _name_tokens(
    axes,
    tokens,
    starts=(
      [n * (length + 1) for n in range(num_heads)],
      [n * (length + 1) for n in range(num_layers)],
    ),
    every=_every(length, side),
    font=_SMALL_FONT,
  )
  middle = (length - 1) / 2
  for head in range(num_heads):
    axes.annotate(
      f"head {head}" if side > 0.5 else f"{head}",
      (head * (length + 1) + middle, 1),
      xycoords=("data", "axes fraction"),
      xytext=(0, 4),
      textcoords="offset points",
      ha="center",
      fontsize=_FONT,
    )
  for layer in range(num_layers):
    axes.annotate(
      f"layer {layer}",
      (0, layer * (length + 1) + middle),
      xycoords=("axes fraction", "data"),
      xytext=(-72 * margin - 8, 0),
      textcoords="offset points",
      ha="right",
      va="center",
      rotation=90,
      fontsize=_FONT,
    )
  axes.set_xlabel(_AXES, fontsize=_FONT)
  figure.text(
    0.1 / width,
    1 - 0.12 / height,
    title,
    ha="left",
    va="top",
    fontsize=_FONT + 1,
    parse_math=False,
  )
  _colour_scale(
    figure,
    image,
    1 - (right - 0.25) / width,
    bottom / height,
    min(num_layers * side, 4) / height,
    width,
  )
  return figure


def panels(
  rows: Sequence[Sequence[Panel]],
  tokens: Sequence[str],
  *,
  title: str,
  columns: Sequence[str] = (),
) -> figure_lib.Figure:
  """Draws chosen heads large.

  Args:
    rows: Of panels; the first is the longest.
    tokens: S.
    title: Stands above.
    columns: What each column shows, at least; none for no headings.
  """
  length = len(tokens)
  side = float(np.clip(length * 0.125, 2.0, _LARGEST_PANEL))
  margin = _margin(tokens, _FONT)
  left, right, bottom = margin + 0.35, 1.1, margin + 0.35
  top = 0.4 + (0.3 if columns else 0)
  gap = 0.4
  num_columns = len(rows[0])
  width = left + num_columns * (side + gap) + right
  height = top + len(rows) * (side + gap) + bottom
  figure = figure_lib.Figure((width, height))
  image = None
  for row, shown in enumerate(rows):
    for column, panel in enumerate(shown):
      x = left + column * (side + gap)
      y = height - top - (row + 1) * (side + gap) + gap / 2
      axes = _axes(figure, x, y, side, side, width, height)
      image = axes.imshow(
        panel.attention, cmap=_COLOURS, norm=_NORM, interpolation="nearest"
      )
      axes.set_title(panel.title, fontsize=_FONT + 1, pad=4)
      _name_tokens(
        axes,
        tokens,
        starts=([0], [0]),
        every=_every(length, side, pitch=0.12),
        font=_FONT,
      )
      # Named outside alone.
      axes.tick_params(
        labelleft=column == 0,
        labelbottom=row == len(rows) - 1 or column >= len(rows[row + 1]),
      )
  figure.text(left / width, 0.1 / height, _AXES, va="bottom", fontsize=_FONT)
  for column, heading in enumerate(columns[:num_columns]):
    figure.text(
      (left + column * (side + gap) + side / 2) / width,
      1 - 0.45 / height,
      heading,
      ha="center",
      va="top",
      fontsize=_FONT + 2,
    )
  figure.text(
    0.1 / width,
    1 - 0.12 / height,
    title,
    ha="left",
    va="top",
    fontsize=_FONT + 2,
    parse_math=False,
  )
  _colour_scale(
    figure,
    image,
    1 - (right - 0.2) / width,
    (bottom + gap / 2) / height,
    min(len(rows) * side, 4) / height,
    width,
  )
  return figure


def pixels(figure: figure_lib.Figure) -> np.ndarray:
  """Returns the picture as uint8 [height, width, 3], red, green and blue."""
  figure.set_dpi(RESOLUTION)
  canvas = backend_agg.FigureCanvasAgg(figure)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _mosaic(maps: np.ndarray) -> np.ndarray:
  """Returns maps [L, N, S, S] as [L (S + 1) - 1, N (S + 1) - 1].

  A line of NaN parts them.
  """
  num_layers, num_heads, length, _ = maps.shape
  shape = (num_layers, length + 1, num_heads, length + 1)
  image = np.full(shape, np.nan, np.float32)
  image[:, :length, :, :length] = maps.transpose(0, 2, 1, 3)
  return image.reshape(shape[0] * shape[1], -1)[:-1, :-1]


def _name_tokens(
  axes: axes_lib.Axes,
  tokens: Sequence[str],
  *,
  starts: tuple[Sequence[int], Sequence[int]],
  every: int,
  font: int,
) -> None:
  """Names every so many tokens of each map, which begin at `starts`."""
  places = range(0, len(tokens), every)
  named = [tokens[place] for place in places]
  for axis, axis_starts in zip((axes.xaxis, axes.yaxis), starts, strict=True):
    axis.set_ticks([start + place for start in axis_starts for place in places])
    # A token may be a dollar, which would begin a formula.
    axis.set_ticklabels(
      named * len(axis_starts), fontsize=font, parse_math=False
    )
  axes.tick_params(length=1.5, pad=1.5)
  axes.tick_params(axis="x", rotation=90)


def _axes(figure, x, y, side_x, side_y, width, height) -> axes_lib.Axes:
  """Returns axes at a place of a figure, all in inches."""
  return figure.add_axes(
    (x / width, y / height, side_x / width, side_y / height)
  )


def _colour_scale(figure, image, x, y, length, width) -> None:
  """Puts the colour scale at a place given in shares of the figure."""
  axes = figure.add_axes((x, y, 0.12 / width, length))
  scale = figure.colorbar(image, cax=axes, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
  scale.ax.set_yticklabels(["0", "0.01", "0.05", "0.2", "0.5", "1"])
  scale.ax.minorticks_off()
  scale.ax.tick_params(labelsize=_FONT)
  scale.set_label(_SCALE, fontsize=_FONT)


def _margin(tokens: Sequence[str], font: int) -> float:
  """Returns the inches that the longest token takes."""
  return max(map(len, tokens)) * font * _LETTER + 0.08


def _every(length: int, side: float, pitch: float = _PITCH) -> int:
  """Returns which tokens have room for their names: every so many."""
  return max(1, math.ceil(length * pitch / side))
