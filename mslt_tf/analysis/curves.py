"""Loss curves as a figure, like the paper's Figure 4."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib import axes as axes_lib
from matplotlib import figure as figure_lib
from matplotlib import ticker

from mslt_tf.analysis import recorded_run

# Okabe and Ito's colours, which colour-blind readers tell apart; yellow is too
# pale for a line. Markers and dashes say the same without colour.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (1.5, 1)))

_Reader = Callable[[recorded_run.RecordedRun, Mapping[str, Any]], float | None]


def draw(
  runs: Sequence[recorded_run.RecordedRun], unigram_mlm_loss: float | None
) -> figure_lib.Figure:
  """Draws held-out MLM loss against steps, time, FLOPs and examples.

  Markers stand where a stage ends. The early losses run out of the picture at
  its top, so that the late ones can be told apart.

  Args:
    runs: With evaluations each.
    unigram_mlm_loss: Of token frequencies alone, a dotted line; None if that is
      not known.
  """
  figure = figure_lib.Figure(figsize=(11, 8), layout="constrained")
  panels = figure.subplots(2, 2, sharey=True).flat
  readers: tuple[tuple[str, _Reader], ...] = (
    ("step", lambda run, each: each["step"]),
    ("wall", lambda run, each: each["wall_seconds"]),
    ("FLOPs", lambda run, each: run.flops_at(each["step"])),
    ("examples", _examples),
  )
  for axes, (what, reader) in zip(panels, readers, strict=True):
    _draw_panel(axes, runs, what, reader)
    if unigram_mlm_loss is not None:
      axes.axhline(
        unigram_mlm_loss,
        color="#777777",
        linestyle=":",
        linewidth=1.5,
        zorder=1,
        label="token frequencies alone",
      )
  _limit(figure.axes[0], runs, unigram_mlm_loss)
  for axes in figure.axes[::2]:
    axes.set_ylabel("held-out MLM loss (nats)")
  handles, labels = figure.axes[0].get_legend_handles_labels()
  figure.legend(
    handles,
    labels,
    loc="outside upper center",
    ncols=4,
    frameon=False,
    title="marker: end of a stage",
    title_fontsize=9,
  )
  return figure


def _examples(
  run: recorded_run.RecordedRun, evaluation: Mapping[str, Any]
) -> float | None:
  if run.batch_size is None:
    return None
  return evaluation["step"] * run.batch_size


def _draw_panel(
  axes: axes_lib.Axes,
  runs: Sequence[recorded_run.RecordedRun],
  what: str,
  reader: _Reader,
) -> None:
  longest = max(
    (reader(run, run.evaluations[-1]) or 0 for run in runs), default=0
  )
  unit, scale = _unit(what, longest)
  for place, run in enumerate(runs):
    for number, part in enumerate(_unbroken(run)):
      points = [(reader(run, each), each) for each in part]
      known = [(x / scale, each) for x, each in points if x is not None]
      ends = _stage_ends([each for _, each in known], run)
      axes.plot(
        [x for x, _ in known],
        [each["mlm_loss"] for _, each in known],
        color=_COLORS[place % len(_COLORS)],
        linestyle=_DASHES[place % len(_DASHES)],
        marker=_MARKERS[place % len(_MARKERS)],
        markevery=ends,
        markersize=7,
        markeredgecolor="white",
        linewidth=1.8,
        label=_label(run) if not number else "_",
      )
  axes.set_xlabel(unit)
  axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
  axes.xaxis.set_major_locator(ticker.MaxNLocator(7))
  axes.set_xlim(left=0)
  axes.grid(alpha=0.3)
  axes.spines[["top", "right"]].set_visible(False)


def _label(run: recorded_run.RecordedRun) -> str:
  return run.name if run.is_finished else f"{run.name} ({run.status})"


def _unbroken(
  run: recorded_run.RecordedRun,
) -> list[list[Mapping[str, Any]]]:
  """Returns the evaluations between which no stage is missing."""
  parts: list[list[Mapping[str, Any]]] = [[]]
  for each in run.evaluations:
    if parts[-1] and each["stage"] - parts[-1][-1]["stage"] > 1:
      parts.append([])
    parts[-1].append(each)
  return parts


def _stage_ends(
  evaluations: Sequence[Mapping[str, Any]], run: recorded_run.RecordedRun
) -> list[int]:
  """Returns the places of evaluations at which a stage ends."""
  ends = () if run.schedule is None else run.schedule.stage_ends
  return [
    place for place, each in enumerate(evaluations) if each["step"] in ends
  ]


def _limit(
  axes: axes_lib.Axes,
  runs: Sequence[recorded_run.RecordedRun],
  unigram_mlm_loss: float | None,
) -> None:
  """Leaves out what the first fifth of the steps has above the rest."""
  longest = max(run.evaluations[-1]["step"] for run in runs)
  late = [
    each["mlm_loss"]
    for run in runs
    for each in run.evaluations
    if each["step"] >= 0.2 * longest or each is run.evaluations[-1]
  ]
  if unigram_mlm_loss is not None:
    late.append(unigram_mlm_loss)
  low, high = min(late), max(late)
  margin = 0.06 * (high - low) or 0.1
  axes.set_ylim(low - margin, high + margin)


def _unit(what: str, largest: float) -> tuple[str, float]:
  """Returns an axis label, and what to divide by."""
  if what == "wall":
    for label, seconds in (("days", 86_400), ("hours", 3_600)):
      if largest >= 3 * seconds:
        return f"wall time ({label})", seconds
    minutes = ("wall time (minutes)", 60)
    return minutes if largest >= 180 else ("wall time (seconds)", 1)
  if what == "step":
    large = largest >= 20_000
    return ("steps (thousands)", 1e3) if large else ("steps", 1)
  power = int(math.log10(largest)) // 3 * 3 if largest >= 1_000 else 0
  label = "training FLOPs" if what == "FLOPs" else "training examples"
  if not largest:
    return f"{label} (not known)", 1
  names = {0: "", 3: "thousands", 6: "millions", 9: "billions"}
  if power and (what == "FLOPs" or power not in names):
    return f"{label} (\N{MULTIPLICATION SIGN}10{_raised(power)})", 10.0**power
  return f"{label} ({names[power]})" if power else label, 10.0**power


def _raised(power: int) -> str:
  return str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
