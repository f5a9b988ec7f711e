"""Averages over text: what heads attend to, and how alike two of them are.

Letters: L layers, N heads.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mslt_tf.analysis import attention
from mslt_tf.analysis import attention_text


@dataclasses.dataclass(frozen=True)
class Shares:
  """How much of its attention a head gives each pattern.

  Attributes:
    shares: [3, L, N], by `attention.PATTERNS`.
    uniform: [3], of a head that looks everywhere alike.
    num_queries: How many positions they are means over.
  """

  shares: np.ndarray
  uniform: np.ndarray
  num_queries: int


@dataclasses.dataclass(frozen=True)
class Divergences:
  """Mean Jensen-Shannon divergences in bits, [N] by layer of the later stage.

  Attributes:
    same_layer: A layer before and after.
    grown: What a layer began as a copy of, before, and itself, after.
    copies: What a layer began as a copy of and itself, both after.
    other_heads: Of two heads of the same layer, after, as something to hold the
      others against; `None` where a layer has but one.
  """

  same_layer: dict[int, np.ndarray]
  grown: dict[int, np.ndarray]
  copies: dict[int, np.ndarray]
  other_heads: float | None


def measure_shares(
  maps: attention.AttentionMaps, text: attention_text.Text, *, sep_id: int
) -> Shares:
  """Returns the means over all queries of a text that are not padding."""
  total, uniform = np.zeros(()), np.zeros(())
  num_queries = 0
  for features in text.batches:
    mask = features["input_mask"]
    keys = attention.keys_of_patterns(features, sep_id=sep_id)
    total = total + attention.sum_over_queries(
      attention.shares(maps(features), keys), mask
    )
    evenly = keys.sum(-1) / np.maximum(mask.sum(-1), 1)[:, np.newaxis]
    uniform = uniform + (evenly * (mask > 0)).sum((1, 2))
    num_queries += int((mask > 0).sum())
  return Shares(total / num_queries, uniform / num_queries, num_queries)


def measure_divergences(
  before: attention.AttentionMaps,
  after: attention.AttentionMaps,
  text: attention_text.Text,
  *,
  kept: Sequence[int],
  copies: Mapping[int, int],
) -> Divergences:
  """Returns the means over all queries of a text that are not padding.

  Args:
    before: Of the earlier stage.
    after: Of the later one.
    text: What both read.
    kept: Layers that are the same in both, `layer_origins.kept_layers`.
    copies: Layers of the later stage, `layer_origins.copies`.
  """
  grown = {
    layer: original for layer, original in copies.items() if original in kept
  }
  sums: dict[tuple[str, int], np.ndarray | float] = {}
  num_queries = 0
  for features in text.batches:
    first, second = before(features), after(features)  # [L, B, N, S, S]
    mask = features["input_mask"]
    pairs = {
      **{("same", layer): (first[layer], second[layer]) for layer in kept},
      **{("grown", k): (first[v], second[k]) for k, v in grown.items()},
      **{("copies", k): (second[v], second[k]) for k, v in copies.items()},
      **{
        ("heads", layer): (maps, np.roll(maps, 1, axis=1))
        for layer, maps in enumerate(second)
      },
    }
    for key, (one, other) in pairs.items():
      sums[key] = sums.get(key, 0.0) + attention.sum_over_queries(
        attention.jensen_shannon(one, other), mask
      )
    num_queries += int((mask > 0).sum())
  means = {key: np.asarray(each) / num_queries for key, each in sums.items()}
  by_kind = {
    kind: {layer: mean for (each, layer), mean in means.items() if each == kind}
    for kind in ("same", "grown", "copies", "heads")
  }
  other_heads = np.stack(list(by_kind["heads"].values()))  # [L, N]
  return Divergences(
    same_layer=by_kind["same"],
    grown=by_kind["grown"],
    copies=by_kind["copies"],
    other_heads=float(other_heads.mean()) if other_heads.shape[1] > 1 else None,
  )
