"""The fastest layerwise schedules that train enough.

What is minimised is the time of the steps, or, which is the same schedule, what
is maximised is the steps of a budget. Quality is not predicted: time alone
would always choose less training. So the rules say how much training there must
be, and their defaults are the least that the paper reports scores for: 20 % of
the steps retrain everything, and every layer is trained in 40 % of the steps.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from mslt_tf import errors
from mslt_tf import schedules
from mslt_tf.planning import forecast as forecast_lib


@dataclasses.dataclass(frozen=True)
class Rules:
  """What a schedule must have, as shares of its steps.

  Attributes:
    retraining: Least share of the last stage, which trains everything.
    layer: Least share in which a layer is trained, retraining included.
    stage: Least share of any stage.
  """

  retraining: float = schedules.MSLT_RETRAINING_SHARE
  layer: float = 0.4
  stage: float = 0.1

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if not 0 <= value <= 1:
        raise errors.InputError(
          f"min_{field.name}_share={value} must be between 0 and 1."
        )
    if not self.stage:
      raise errors.InputError("min_stage_share=0.0 must be above 0.")


@dataclasses.dataclass(frozen=True)
class Budget:
  """What a run may take; exactly one is given.

  Attributes:
    steps: The fastest schedule of as many steps is looked for.
    hours: The one that makes most steps in this time.
    cost: The one that makes most steps for this money.
  """

  steps: int | None = None
  hours: float | None = None
  cost: float | None = None


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A schedule of the family, with its forecast.

  Attributes:
    num_growing_stages: k.
    retraining_share: Of the steps.
    growing_shares: Of the steps, stage by stage.
    layer_share: The share of its steps in which its least trained layer is.
  """

  num_growing_stages: int
  retraining_share: float
  growing_shares: tuple[float, ...]
  layer_share: float
  result: forecast_lib.Forecast


# Retraining is tried in steps of this share.
_PARTS = 20


def search(
  num_layers: int,
  setting: forecast_lib.Setting,
  *,
  rules: Rules,
  budget: Budget,
) -> list[Candidate]:
  """Returns the best schedule of each k and share of retraining, best first.

  For a k and a share of retraining the time is linear in the stages' shares:
  every stage gets the least that the rules allow, the cheapest gets the rest.
  k = 1 is the baseline, which keeps every rule.

  Raises:
    InputError: Where the budget is too small for a step of each stage.
  """
  found = [
    _candidate(num_layers, k, retraining, shares, setting, budget)
    for k in range(1, num_layers + 1)
    if num_layers % k == 0
    for retraining, shares in _divisions(num_layers, k, setting, rules)
  ]
  if budget.steps is not None:
    return sorted(found, key=lambda each: each.result.totals.hours)
  return sorted(found, key=lambda each: -each.result.totals.steps)


def layer_share(schedule: schedules.Schedule) -> float:
  """Returns the share of the steps in which the least trained layer is.

  A layer is a place in the finished model; what a copy's source was trained
  before does not count.
  """
  depth = schedule.stages[-1].num_layers
  trained = [
    sum(
      stage.num_steps
      for stage in schedule.stages
      if stage.num_frozen_layers <= layer < stage.num_layers
    )
    for layer in range(depth)
  ]
  return min(trained) / schedule.num_steps


def _divisions(
  num_layers: int, k: int, setting: forecast_lib.Setting, rules: Rules
) -> Iterator[tuple[float, tuple[float, ...]]]:
  """Yields shares of retraining with the best shares of the growing stages."""
  if k == 1:
    yield 0.0, (1.0,)
    return
  seconds = _step_seconds(num_layers, k, setting)
  for part in range(1, _PARTS):
    retraining = part / _PARTS
    if retraining < max(rules.retraining, rules.stage) - 1e-9:
      continue
    least = max(rules.stage, rules.layer - retraining)
    rest = 1 - retraining - k * least
    if rest < -1e-9:
      continue
    shares = [least] * k
    shares[seconds.index(min(seconds))] += max(0.0, rest)
    yield retraining, tuple(round(share, 9) for share in shares)


def _step_seconds(
  num_layers: int, k: int, setting: forecast_lib.Setting
) -> list[float]:
  """Returns the seconds of a step in each growing stage."""
  schedule = schedules.mslt(num_layers, 100 * k, num_growing_stages=k)
  result = forecast_lib.forecast("", schedule, setting)
  return [stage.step.seconds for stage in result.stages[:k]]


def _candidate(
  num_layers: int,
  k: int,
  retraining: float,
  shares: Sequence[float],
  setting: forecast_lib.Setting,
  budget: Budget,
) -> Candidate:
  def schedule(num_steps: int) -> schedules.Schedule:
    return schedules.mslt(
      num_layers,
      num_steps,
      num_growing_stages=k,
      retraining_share=retraining,
      growing_shares=shares,
    )

  steps = budget.steps
  if steps is None:
    steps = _affordable_steps(schedule(1_000_000), setting, budget)
  run = schedule(steps)
  name = f"k = {k}, retraining {retraining:.0%}" if k > 1 else "baseline"
  return Candidate(
    k,
    retraining,
    tuple(shares),
    layer_share(run),
    forecast_lib.forecast(name, run, setting),
  )


def _affordable_steps(
  probe: schedules.Schedule,
  setting: forecast_lib.Setting,
  budget: Budget,
) -> int:
  """Returns how many steps, divided as the probe's, a budget pays for."""
  totals = forecast_lib.forecast("", probe, setting).totals
  if budget.hours is not None:
    used = totals.hours / budget.hours
  elif budget.cost is not None and totals.cost:
    used = totals.cost / budget.cost
  else:
    raise errors.InputError(
      "max_cost needs the cluster's price_per_machine_hour, above 0."
    )
  return int(totals.steps / used)
