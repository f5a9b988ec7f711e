"""What was measured of attention: as JSON, heat maps and lines for a person."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import figure as figure_lib

from mslt_tf.analysis import attention
from mslt_tf.analysis import attention_measures
from mslt_tf.analysis import attention_text
from mslt_tf.analysis import heat_maps

_TITLES = {"local": "local", "cls": "[CLS]", "sep": "[SEP]"}


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two stages held against each other.

  Attributes:
    before: Number of the earlier stage.
    after: Number of the later one.
    copies: Layers of the later one, by the layer that each is a copy of.
    divergences: What was measured.
  """

  before: int
  after: int
  copies: Mapping[int, int]
  divergences: attention_measures.Divergences


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """All that was measured of a workdir's stages.

  Attributes:
    name: Of the workdir.
    text: What the models read.
    shares: By stage.
    comparisons: Of stages that follow each other.
  """

  name: str
  text: attention_text.Text
  shares: Mapping[int, attention_measures.Shares]
  comparisons: tuple[Comparison, ...]


def as_dict(measured: Measured) -> dict[str, Any]:
  """Returns what attention.json holds; docs/attention.md tells its fields."""
  first = next(iter(measured.shares.values()))
  return {
    "name": measured.name,
    "text": {
      "source": measured.text.source,
      "examples": measured.text.num_examples,
      "queries": first.num_queries,
    },
    "local_distance": attention.LOCAL_DISTANCE,
    "uniform_shares": dict(
      zip(attention.PATTERNS, first.uniform.tolist(), strict=True)
    ),
    "stages": [
      {
        "stage": stage,
        "shares": dict(
          zip(attention.PATTERNS, each.shares.tolist(), strict=True)
        ),
      }
      for stage, each in measured.shares.items()
    ],
    "divergence": "Jensen-Shannon, bits",
    "comparisons": [_comparison_as_dict(each) for each in measured.comparisons],
  }


def _comparison_as_dict(comparison: Comparison) -> dict[str, Any]:
  divergences = comparison.divergences
  return {
    "before": comparison.before,
    "after": comparison.after,
    "same_layer": [
      {"layer": layer, "heads": heads.tolist()}
      for layer, heads in divergences.same_layer.items()
    ],
    **{
      name: [
        {
          "layer": layer,
          "copy_of": comparison.copies[layer],
          "heads": heads.tolist(),
        }
        for layer, heads in by_layer.items()
      ]
      for name, by_layer in (
        ("grown", divergences.grown),
        ("copies", divergences.copies),
      )
    },
    "other_heads": divergences.other_heads,
  }


def draw(measured: Measured) -> dict[str, figure_lib.Figure]:
  """Returns heat maps by the names of their files."""
  source = f"{measured.text.num_examples} examples"
  drawn = {
    "attention_shares": heat_maps.draw(
      [_share_tables(stage, each) for stage, each in measured.shares.items()],
      title=f"Where the heads of {measured.name} look: {source}",
      unit="share of attention",
      highest=1.0,
    )
  }
  lines = [_divergence_tables(each) for each in measured.comparisons]
  if any(lines):
    drawn["attention_divergence"] = heat_maps.draw(
      lines,
      title=f"How heads of {measured.name} differ: {source}",
      unit="Jensen-Shannon divergence, bits",
    )
  return drawn


def _share_tables(
  stage: int, measured: attention_measures.Shares
) -> list[heat_maps.Table]:
  return [
    heat_maps.Table(
      f"stage {stage}: {_TITLES[name]}\n(if uniform: {uniform:.2f})",
      [f"layer {layer}" for layer in range(len(values))],
      values,
    )
    for name, values, uniform in zip(
      attention.PATTERNS, measured.shares, measured.uniform, strict=True
    )
  ]


def _divergence_tables(comparison: Comparison) -> list[heat_maps.Table]:
  before, after = comparison.before, comparison.after
  divergences, copies = comparison.divergences, comparison.copies
  pairs = [
    (
      f"the same layer,\nstages {before} and {after}",
      {f"layer {k}": v for k, v in divergences.same_layer.items()},
    ),
    (
      f"a layer in stage {before}\nand its copy in stage {after}",
      {f"{copies[k]} and {k}": v for k, v in divergences.grown.items()},
    ),
    (
      f"a layer and its copy,\nboth in stage {after}",
      {f"{copies[k]} and {k}": v for k, v in divergences.copies.items()},
    ),
  ]
  return [
    heat_maps.Table(title, list(rows), np.stack(list(rows.values())))
    for title, rows in pairs
    if rows
  ]


def summary(measured: Measured) -> list[str]:
  """Returns the means over all heads, a line a stage and a comparison."""
  lines = []
  for stage, each in measured.shares.items():
    parts = [
      f"{_TITLES[name]} {values.mean():.3f} (uniform {uniform:.3f})"
      for name, values, uniform in zip(
        attention.PATTERNS, each.shares, each.uniform, strict=True
      )
    ]
    lines.append(f"stage {stage}, share of attention: {', '.join(parts)}")
  lines += [_comparison_summary(each) for each in measured.comparisons]
  return lines


def _comparison_summary(comparison: Comparison) -> str:
  divergences = comparison.divergences
  parts = [
    f"{name} {np.mean(list(by_layer.values())):.4f}"
    for name, by_layer in (
      ("the same layer", divergences.same_layer),
      ("a layer before and its copy after", divergences.grown),
      ("a layer and its copy after", divergences.copies),
    )
    if by_layer
  ]
  if divergences.other_heads is not None:
    parts.append(f"two heads of a layer {divergences.other_heads:.4f}")
  return (
    f"stages {comparison.before} and {comparison.after}, divergence in bits:"
    f" {', '.join(parts)}"
  )
