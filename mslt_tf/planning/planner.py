"""A config's schedule and the methods beside it, on a cluster.

What each function returns has a `text` for a person and a `tree` for JSON.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import outline
from mslt_tf import schedules
from mslt_tf.planning import calibration as calibration_lib
from mslt_tf.planning import cluster as cluster_lib
from mslt_tf.planning import device_memory
from mslt_tf.planning import forecast as forecast_lib
from mslt_tf.planning import paper_check
from mslt_tf.planning import paper_report
from mslt_tf.planning import report
from mslt_tf.planning import search as search_lib
from mslt_tf.planning import search_report
from mslt_tf.planning import step_time


@dataclasses.dataclass(frozen=True)
class Answer:
  """One answer, twice."""

  text: str
  tree: dict[str, Any]


def calibrate(
  config: config_lib.Config, text: str, *, source: str
) -> calibration_lib.Calibration:
  """Returns what a file of bin/benchmark.py says of the config's model."""
  return calibration_lib.calibrate(
    text,
    source=source,
    shape=outline.cost_shape(config),
    precision=config.training.precision,
  )


def setting(
  config: config_lib.Config,
  cluster: cluster_lib.Cluster,
  calibration: calibration_lib.Calibration | None = None,
) -> forecast_lib.Setting:
  """Returns all that a forecast depends on, the schedule apart."""
  precision = config.training.precision
  return forecast_lib.Setting(
    model=device_memory.Model(
      outline.cost_shape(config), config.model.num_heads, precision
    ),
    batch_size=config.data.batch_size,
    num_micro_batches=config.training.num_micro_batches,
    cluster=cluster,
    rates=calibration.rates
    if calibration
    else step_time.rates_of(cluster, precision),
  )


def compare(
  config: config_lib.Config,
  cluster: cluster_lib.Cluster,
  *,
  num_growing_stages: int,
  calibration: calibration_lib.Calibration | None = None,
) -> Answer:
  """Forecasts the config's schedule and the three methods in as many steps."""
  where = setting(config, cluster, calibration)
  named, left_out = _methods(config, num_growing_stages)
  results = [
    forecast_lib.forecast(name, schedule, where)
    for name, schedule in named.items()
  ]
  text = "\n".join(
    [
      report.heading(where, calibration),
      *(report.stages(result, where) for result in results),
      report.comparison(results),
      *left_out,
    ]
  )
  tree = {
    "cluster": dataclasses.asdict(cluster),
    "rates": dataclasses.asdict(where.rates),
    "calibration": dataclasses.asdict(calibration) if calibration else None,
    "schedules": [forecast_lib.to_dict(result) for result in results],
    "left_out": left_out,
  }
  return Answer(text, tree)


def sweep(
  config: config_lib.Config,
  cluster: cluster_lib.Cluster,
  *,
  devices: Sequence[int],
  num_growing_stages: int,
  calibration: calibration_lib.Calibration | None = None,
) -> Answer:
  """Forecasts the three methods on several numbers of devices."""
  named, left_out = _methods(config, num_growing_stages)
  rows = []
  for number in devices:
    where = setting(
      config, dataclasses.replace(cluster, num_devices=number), calibration
    )
    rows.append(
      [
        forecast_lib.forecast(name, schedule, where)
        for name, schedule in named.items()
      ]
    )
  text = "\n".join([report.sweep(devices, rows), *left_out])
  tree = {
    "cluster": dataclasses.asdict(cluster),
    "devices": [
      {
        "num_devices": number,
        "schedules": [forecast_lib.to_dict(result) for result in row],
      }
      for number, row in zip(devices, rows, strict=True)
    ],
    "left_out": left_out,
  }
  return Answer(text, tree)


def search(
  config: config_lib.Config,
  cluster: cluster_lib.Cluster,
  *,
  rules: search_lib.Rules,
  max_hours: float | None = None,
  max_cost: float | None = None,
  calibration: calibration_lib.Calibration | None = None,
) -> Answer:
  """Looks for the best layerwise schedules of the config's model."""
  if config.schedule.initial_layers is not None:
    raise errors.InputError(
      f"schedule.initial_layers={config.schedule.initial_layers}: schedules are"
      " searched for models that start from random weights."
    )
  budget = _budget(config, max_hours, max_cost)
  where = setting(config, cluster, calibration)
  found = search_lib.search(
    config.model.num_layers, where, rules=rules, budget=budget
  )
  own = forecast_lib.forecast("the config", config.schedule, where)
  text = "\n".join(
    [
      report.heading(where, calibration),
      search_report.candidates(
        found, own, search_lib.layer_share(config.schedule), rules, budget
      ),
    ]
  )
  tree = {
    "cluster": dataclasses.asdict(cluster),
    "rules": dataclasses.asdict(rules),
    "budget": dataclasses.asdict(budget),
    "config": forecast_lib.to_dict(own),
    "found": [
      dataclasses.asdict(each) | {"result": forecast_lib.to_dict(each.result)}
      for each in found
    ],
  }
  return Answer(text, tree)


def check_paper(cluster: cluster_lib.Cluster) -> Answer:
  """Predicts the paper's hours of MSLT from those of its baselines."""
  checks = {
    name: {row.name: paper_check.check(row, each) for row in paper_check.ROWS}
    for name, each in [
      ("the cluster file", cluster),
      *paper_check.assumptions(cluster),
    ]
  }
  own = checks["the cluster file"]
  stacking = {
    row.name: paper_check.stacking_speedup(row, cluster, one.flops_per_second)
    for row in paper_check.ROWS
    if (one := own[row.name]) is not None
  }
  tree = {
    "cluster": dataclasses.asdict(cluster),
    "checks": {
      name: {
        model: dataclasses.asdict(one)
        | {
          "paper_speedup": one.row.speedup,
          "speedup_residual": one.speedup_residual,
          "hours_residual": one.hours_residual,
        }
        if one
        else None
        for model, one in models.items()
      }
      for name, models in checks.items()
    },
    "stacking_speedups": stacking,
  }
  return Answer(paper_report.describe(checks, stacking, cluster), tree)


def _budget(
  config: config_lib.Config, max_hours: float | None, max_cost: float | None
) -> search_lib.Budget:
  if max_hours is not None and max_cost is not None:
    raise errors.InputError(
      f"max_hours={max_hours:g} and max_cost={max_cost:g} are both given; give"
      " one."
    )
  for name, value in (("max_hours", max_hours), ("max_cost", max_cost)):
    if value is not None and not 0 < value < math.inf:
      raise errors.InputError(f"{name}={value:g} must be above 0 and finite.")
  if max_hours is None and max_cost is None:
    return search_lib.Budget(steps=config.schedule.num_steps)
  return search_lib.Budget(hours=max_hours, cost=max_cost)


def _methods(
  config: config_lib.Config, num_growing_stages: int
) -> tuple[dict[str, schedules.Schedule], list[str]]:
  """Returns schedules by name, and a line for each that cannot be.

  The config's comes last, unless it is one of the others.
  """
  depth, steps = config.model.num_layers, config.schedule.num_steps
  makers: dict[str, Callable[[], schedules.Schedule]] = {
    "baseline": lambda: schedules.baseline(depth, steps),
    "stacking": lambda: schedules.progressive_stacking(depth, steps),
    "mslt": lambda: schedules.mslt(
      depth, steps, num_growing_stages=num_growing_stages
    ),
  }
  named, left_out = {}, []
  for name, make in makers.items():
    try:
      named[name] = make()
    except errors.InputError as error:
      left_out.append(f"{name} is left out: {error}")
  if config.schedule not in named.values():
    named["config"] = config.schedule
  return named, left_out
