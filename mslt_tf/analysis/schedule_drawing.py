"""Schedules as a figure, like the paper's Figure 1, from their data."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import axes as axes_lib
from matplotlib import figure as figure_lib
from matplotlib import patches
from matplotlib import ticker

from mslt_tf import schedules

# Told apart without colour too: by lightness and by hatching.
_TRAINED: dict[str, Any] = {"facecolor": "#56B4E9", "edgecolor": "#1A4D73"}
_FROZEN: dict[str, Any] = {
  "facecolor": "#EEEEEE",
  "edgecolor": "#9A9A9A",
  "hatch": "////",
}
_HEADS: dict[str, Any] = {"facecolor": "#F6E9A8", "edgecolor": "#7A6A10"}
_INCHES_A_ROW = 0.24
_SMALLEST_TEXT_SHARE = 0.055  # Of the width; in a narrower box text runs over.


def draw(named: Sequence[tuple[str, schedules.Schedule]]) -> figure_lib.Figure:
  """Draws a panel a schedule: stages as columns, layers as boxes.

  A column is as wide as its stage has steps. Below the layers stand the
  embeddings, above them the heads. A box tells which layer of the stage before
  it starts from, unless that is the layer in its own place.

  Args:
    named: Names and schedules; they share the axis of steps.
  """
  rows = [schedule.stages[-1].num_layers + 2 for _, schedule in named]
  longest = max(schedule.num_steps for _, schedule in named)
  figure = figure_lib.Figure(
    figsize=(11, 0.9 + sum(0.75 + _INCHES_A_ROW * each for each in rows)),
    layout="constrained",
  )
  panels = figure.subplots(
    len(named), 1, squeeze=False, gridspec_kw={"height_ratios": rows}
  )[:, 0]
  for axes, (name, schedule) in zip(panels, named, strict=True):
    _draw_schedule(axes, schedule, longest)
    axes.set_title(name, loc="left", fontweight="bold", fontsize=11)
  panels[-1].set_xlabel("steps")
  figure.legend(
    handles=[
      patches.Patch(**_TRAINED, label="trained"),
      patches.Patch(**_FROZEN, label="frozen: forward only"),
      patches.Patch(**_HEADS, label="heads, trained"),
    ],
    loc="outside upper center",
    ncols=3,
    frameon=False,
  )
  return figure


def _draw_schedule(
  axes: axes_lib.Axes, schedule: schedules.Schedule, longest: int
) -> None:
  num_layers = max(stage.num_layers for stage in schedule.stages)
  for number, (stage, start) in enumerate(
    zip(schedule.stages, schedule.stage_starts, strict=True), start=1
  ):
    share = stage.num_steps / longest
    place = (start + 0.004 * longest, stage.num_steps - 0.008 * longest)
    _box(axes, place, 0, _FROZEN if stage.freeze_embeddings else _TRAINED)
    for layer, source in enumerate(stage.source_layers):
      text = ""
      if share >= _SMALLEST_TEXT_SHARE:
        text = _origin(layer, source, is_first=number == 1, share=share)
      is_frozen = layer < stage.num_frozen_layers
      _box(axes, place, layer + 1, _FROZEN if is_frozen else _TRAINED, text)
    _box(axes, place, stage.num_layers + 1, _HEADS)
    axes.text(
      start + stage.num_steps / 2,
      stage.num_layers + 1.55,
      f"stage {number}" if share >= 0.08 else f"{number}",
      ha="center",
      va="bottom",
      fontsize=9,
    )
  _label_rows(axes, num_layers)
  axes.set_xlim(0, longest)
  axes.set_xticks([0, *schedule.stage_ends])
  axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
  axes.tick_params(axis="x", labelsize=9)
  if _are_narrow(schedule, longest):
    axes.tick_params(axis="x", labelrotation=30)
  axes.tick_params(axis="y", length=0, labelsize=8)
  axes.spines[["top", "right", "left"]].set_visible(False)


def _box(
  axes: axes_lib.Axes,
  place: tuple[float, float],
  row: int,
  style: Mapping[str, Any],
  text: str = "",
) -> None:
  start, width = place
  axes.add_patch(
    patches.Rectangle(
      (start, row - 0.42),
      max(width, 0),
      0.84,
      linewidth=0.8,
      **style,
    )
  )
  if text:
    axes.text(
      start + width / 2,
      row,
      text,
      ha="center",
      va="center",
      fontsize=8,
      bbox={
        "facecolor": "white",
        "edgecolor": "none",
        "alpha": 0.85,
        "pad": 0.8,
      },
    )


def _origin(
  layer: int, source: int | None, *, is_first: bool, share: float
) -> str:
  if source is None:
    return "" if is_first else "new"
  if source == layer:
    return ""
  return f"copy of layer {source}" if share >= 0.14 else f"from {source}"


def _label_rows(axes: axes_lib.Axes, num_layers: int) -> None:
  """Numbers layers from 0, as `source_layers` does."""
  rows = range(num_layers)
  axes.set_yticks(
    [0, *(layer + 1 for layer in rows)],
    ["embeddings", *(f"layer {layer}" for layer in rows)],
  )
  axes.set_ylim(-0.6, num_layers + 2.6)


def _are_narrow(schedule: schedules.Schedule, longest: int) -> bool:
  return any(stage.num_steps / longest < 0.07 for stage in schedule.stages[1:])
