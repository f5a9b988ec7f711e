"""The paper's hours against the model's, fitted to its baselines alone.

Table 3 of the paper has the hours of a baseline and of MSLT for either model.
The baseline's give one constant, the share of the peak that matrix products
achieve; MSLT's hours and the speedup are then predictions.
"""

import dataclasses
import math

from mslt_tf import costs
from mslt_tf import schedules
from mslt_tf.planning import cluster as cluster_lib
from mslt_tf.planning import step_time

BATCH_SIZE = 1024
_SECONDS_PER_HOUR = 3600


@dataclasses.dataclass(frozen=True)
class PaperRow:
  """A model's two rows of Table 3, on 32 V100."""

  name: str
  shape: costs.Shape
  num_layers: int
  num_growing_stages: int
  baseline_steps: int
  baseline_hours: float
  mslt_steps: int
  mslt_hours: float

  @property
  def speedup(self) -> float:
    """The baseline's time of a step over MSLT's."""
    baseline = self.baseline_hours / self.baseline_steps
    return baseline / (self.mslt_hours / self.mslt_steps)

  @property
  def speedup_range(self) -> tuple[float, float]:
    """The speedups that the whole hours of the table allow."""
    low = (self.baseline_hours - 0.5) / (self.mslt_hours + 0.5)
    high = (self.baseline_hours + 0.5) / (self.mslt_hours - 0.5)
    steps = self.mslt_steps / self.baseline_steps
    return low * steps, high * steps


_BASE = costs.Shape(
  vocab_size=30522,
  hidden_size=768,
  intermediate_size=3072,
  max_positions=512,
  num_segments=2,
  sequence_length=128,
  max_predictions=20,
)
_LARGE = dataclasses.replace(_BASE, hidden_size=1024, intermediate_size=4096)
ROWS = (
  PaperRow("Base", _BASE, 12, 4, 480_000, 41, 1_000_000, 40),
  PaperRow("Large", _LARGE, 24, 4, 230_000, 42, 500_000, 42),
)


@dataclasses.dataclass(frozen=True)
class Check:
  """A prediction beside what the paper has.

  Attributes:
    flops_per_second: Of a device, fitted to the baseline's hours.
    baseline_step: The baseline's step with that, in terms.
    mslt_hours: Predicted.
    speedup: Predicted.
  """

  row: PaperRow
  flops_per_second: float
  baseline_step: step_time.StepTime
  mslt_hours: float
  speedup: float

  @property
  def hours_residual(self) -> float:
    return self.mslt_hours / self.row.mslt_hours - 1

  @property
  def speedup_residual(self) -> float:
    return self.speedup / self.row.speedup - 1


def check(row: PaperRow, cluster: cluster_lib.Cluster) -> Check | None:
  """Returns a model's check; `None` where no share of the peaks can fit.

  Args:
    row: The paper's hours.
    cluster: Its links, memory bandwidth and overlap are assumptions; its
      achieved share is not used.
  """
  baseline = schedules.baseline(row.num_layers, row.baseline_steps)
  mslt = schedules.mslt(
    row.num_layers, row.mslt_steps, num_growing_stages=row.num_growing_stages
  )
  flops = _fit(row, baseline, cluster)
  if flops is None:
    return None
  steps = _steps(row.shape, baseline, cluster, flops)
  hours = _hours(row.shape, mslt, cluster, flops)
  return Check(
    row=row,
    flops_per_second=flops,
    baseline_step=steps[0],
    mslt_hours=hours,
    speedup=(row.baseline_hours / row.baseline_steps)
    / (hours / row.mslt_steps),
  )


def stacking_speedup(
  row: PaperRow, cluster: cluster_lib.Cluster, flops: float
) -> float:
  """Returns the predicted speedup of progressive stacking over the baseline."""
  stacking = schedules.progressive_stacking(row.num_layers, row.mslt_steps)
  baseline = schedules.baseline(row.num_layers, row.mslt_steps)
  return _hours(row.shape, baseline, cluster, flops) / _hours(
    row.shape, stacking, cluster, flops
  )


def assumptions(
  cluster: cluster_lib.Cluster,
) -> list[tuple[str, cluster_lib.Cluster]]:
  """Returns clusters that differ in what the paper does not say, with names."""
  replace = dataclasses.replace
  fast_links = replace(
    cluster,
    device_link_bandwidth=_NO_LIMIT,
    machine_link_bandwidth=_NO_LIMIT,
    link_latency=0.0,
    memory_bandwidth=_NO_LIMIT,
  )
  links = [
    (
      f"{gigabits} Gbit/s between machines, {name}",
      replace(cluster, machine_link_bandwidth=gigabits / 8 * 1e9, overlap=o),
    )
    for gigabits in (200, 100, 50, 25)
    for o, name in ((0.0, "no overlap"), (0.5, "half overlapped"))
  ]
  return [("FLOPs alone, no all-reduce and no update", fast_links), *links]


_NO_LIMIT = 1e30


def _steps(
  shape: costs.Shape,
  schedule: schedules.Schedule,
  cluster: cluster_lib.Cluster,
  flops: float,
) -> list[step_time.StepTime]:
  rates = step_time.uniform_rates(flops, cluster)
  return [
    step_time.step_time(
      cost, rates=rates, cluster=cluster, batch_size=BATCH_SIZE
    )
    for cost in costs.schedule_cost(shape, schedule).stages
  ]


def _hours(
  shape: costs.Shape,
  schedule: schedules.Schedule,
  cluster: cluster_lib.Cluster,
  flops: float,
) -> float:
  steps = _steps(shape, schedule, cluster, flops)
  seconds = sum(
    stage.num_steps * step.seconds
    for stage, step in zip(schedule.stages, steps, strict=True)
  )
  return seconds / _SECONDS_PER_HOUR


def _fit(
  row: PaperRow, baseline: schedules.Schedule, cluster: cluster_lib.Cluster
) -> float | None:
  """Returns FLOP/s of a device by bisection: more of them, fewer hours."""
  high = max(cluster.peaks)
  low = high / 1e6
  if _hours(row.shape, baseline, cluster, high) > row.baseline_hours:
    return None
  for _ in range(100):
    middle = math.sqrt(low * high)
    if _hours(row.shape, baseline, cluster, middle) > row.baseline_hours:
      low = middle
    else:
      high = middle
  return high
