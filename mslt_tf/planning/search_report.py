"""What a search found, as a table for a terminal."""

import itertools
from collections.abc import Sequence

from mslt_tf.planning import forecast as forecast_lib
from mslt_tf.planning import search
from mslt_tf.planning import text_table

_SHOWN_CANDIDATES = 12


def candidates(
  found: Sequence[search.Candidate],
  own: forecast_lib.Forecast,
  own_layer_share: float,
  rules: search.Rules,
  budget: search.Budget,
) -> str:
  """Returns the best schedules, with the config's own and the best as YAML."""
  lines = [
    "",
    _objective(budget),
    f"Rules: at least {rules.retraining:.0%} of the steps retrain everything,"
    f" every layer is trained in {rules.layer:.0%}",
    f"of them, every stage has {rules.stage:.0%}. Quality is not predicted:"
    " these rules stand in for it.",
    "",
  ]
  rows = [["", "layer share", "steps", "hours", "cost", "growing shares"]]
  for each in found[:_SHOWN_CANDIDATES]:
    rows.append(
      [*_candidate_cells(each.result, each.layer_share), _shares(each)]
    )
  rows.append([*_candidate_cells(own, own_layer_share), ""])
  lines += text_table.lines(rows)
  if len(found) > _SHOWN_CANDIDATES:
    lines.append(f"{len(found) - _SHOWN_CANDIDATES} more are behind these.")
  best = found[0]
  lines += ["", "The first, for a config:", "", *_schedule_yaml(best)]
  return "\n".join(lines)


def _objective(budget: search.Budget) -> str:
  if budget.steps is not None:
    return f"The fastest {budget.steps:,} steps within the rules."
  if budget.hours is not None:
    return f"The most steps in {budget.hours:g} hours within the rules."
  return f"The most steps for {budget.cost:,g} within the rules."


def _candidate_cells(
  result: forecast_lib.Forecast, layer_share: float
) -> list[str]:
  return [
    result.name,
    f"{layer_share:.0%}",
    f"{result.totals.steps:,}",
    text_table.significant(result.totals.hours),
    f"{result.totals.cost:,.0f}",
  ]


def _shares(candidate: search.Candidate) -> str:
  """Returns shares such as `0.1, 0.2, 4 x 0.1`."""
  runs = [
    (share, len(list(equal)))
    for share, equal in itertools.groupby(candidate.growing_shares)
  ]
  return ", ".join(
    f"{share:.3g}" if count == 1 else f"{count} x {share:.3g}"
    for share, count in runs
  )


def _schedule_yaml(candidate: search.Candidate) -> list[str]:
  steps = candidate.result.totals.steps
  if candidate.num_growing_stages == 1:
    return ["schedule:", "  method: baseline", f"  num_steps: {steps}"]
  # All digits that they have: they must sum to 1.
  shares = ", ".join(f"{share:.9g}" for share in candidate.growing_shares)
  return [
    "schedule:",
    "  method: mslt",
    f"  num_steps: {steps}",
    f"  num_growing_stages: {candidate.num_growing_stages}",
    f"  retraining_share: {candidate.retraining_share:.9g}",
    f"  growing_shares: [{shares}]",
  ]
