"""What a schedule takes on a cluster, stage by stage and as a whole."""

import dataclasses
from typing import Any

from mslt_tf import costs
from mslt_tf import errors
from mslt_tf import schedules
from mslt_tf.planning import cluster as cluster_lib
from mslt_tf.planning import device_memory
from mslt_tf.planning import step_time

SECONDS_PER_HOUR = 3600


@dataclasses.dataclass(frozen=True)
class Setting:
  """Everything but the schedule. Raises `InputError` for uneven batches.

  Attributes:
    model: Sizes and precision.
    batch_size: Examples of a step, over all devices.
    num_micro_batches: Parts that a device's share goes through the model in.
    cluster: The devices.
    rates: Of one device.
  """

  model: device_memory.Model
  batch_size: int
  num_micro_batches: int
  cluster: cluster_lib.Cluster
  rates: step_time.Rates

  def __post_init__(self):
    if self.examples_per_device % self.num_micro_batches:
      raise errors.InputError(
        f"training.num_micro_batches={self.num_micro_batches} does not divide"
        f" the {self.examples_per_device} examples of a device."
      )

  @property
  def examples_per_device(self) -> int:
    return step_time.examples_per_device(
      self.batch_size, self.cluster.num_devices
    )


@dataclasses.dataclass(frozen=True)
class Totals:
  """What steps take together.

  Attributes:
    flops: On all devices.
    all_reduced_bytes: Gradients that go into the all-reduces, of one device.
    sent_bytes: What one device sends in them.
    cost: In the currency of the cluster's price.
  """

  steps: int
  examples: int
  hours: float
  flops: float
  all_reduced_bytes: int
  sent_bytes: float
  cost: float


@dataclasses.dataclass(frozen=True)
class StageForecast:
  """A stage's.

  Attributes:
    excess_bytes: By how much a device's memory is too small; 0 if it is not.
    fitting_micro_batches: The fewest `training.num_micro_batches` that fit, or
      `None` where a single example does not.
  """

  stage: schedules.Stage
  step: step_time.StepTime
  totals: Totals
  memory: device_memory.DeviceMemory
  excess_bytes: float
  fitting_micro_batches: int | None


@dataclasses.dataclass(frozen=True)
class Forecast:
  """A schedule's."""

  name: str
  stages: tuple[StageForecast, ...]
  totals: Totals

  @property
  def fitting_micro_batches(self) -> int | None:
    """What every stage fits with."""
    parts = [stage.fitting_micro_batches for stage in self.stages]
    return None if None in parts else max(each for each in parts if each)

  @property
  def largest_memory(self) -> float:
    return max(stage.memory.num_bytes for stage in self.stages)


def forecast(
  name: str, schedule: schedules.Schedule, setting: Setting
) -> Forecast:
  """Returns what a schedule takes."""
  run_cost = costs.schedule_cost(setting.model.shape, schedule)
  stages = tuple(
    _stage(stage, cost, setting)
    for stage, cost in zip(schedule.stages, run_cost.stages, strict=True)
  )
  sums = zip(
    *(dataclasses.astuple(stage.totals) for stage in stages), strict=True
  )
  return Forecast(name, stages, Totals(*map(sum, sums)))


def to_dict(result: Forecast) -> dict[str, Any]:
  """Returns a forecast for JSON; seconds, bytes and FLOPs."""
  tree = dataclasses.asdict(result)
  for entry, stage in zip(tree["stages"], result.stages, strict=True):
    entry["step"]["seconds"] = stage.step.seconds
    entry["memory"]["num_bytes"] = stage.memory.num_bytes
  tree["fitting_micro_batches"] = result.fitting_micro_batches
  return tree


def _stage(
  stage: schedules.Stage, cost: costs.StageCost, setting: Setting
) -> StageForecast:
  cluster = setting.cluster
  step = step_time.step_time(
    cost, rates=setting.rates, cluster=cluster, batch_size=setting.batch_size
  )
  memory = device_memory.device_memory(
    setting.model,
    stage,
    cost,
    examples=setting.examples_per_device,
    num_micro_batches=setting.num_micro_batches,
    reserved=cluster.reserved_memory_bytes,
  )
  return StageForecast(
    stage=stage,
    step=step,
    totals=_totals(stage.num_steps, step.seconds, cost, setting),
    memory=memory,
    excess_bytes=max(0.0, memory.num_bytes - cluster.memory_bytes),
    fitting_micro_batches=device_memory.fitting_micro_batches(
      setting.model,
      stage,
      cost,
      examples=setting.examples_per_device,
      memory_bytes=cluster.memory_bytes,
      reserved=cluster.reserved_memory_bytes,
    ),
  )


def _totals(
  steps: int, step_seconds: float, cost: costs.StageCost, setting: Setting
) -> Totals:
  hours = steps * step_seconds / SECONDS_PER_HOUR
  n = setting.cluster.num_devices
  reduced = steps * cost.gradient_bytes if n > 1 else 0
  return Totals(
    steps=steps,
    examples=steps * setting.batch_size,
    hours=hours,
    flops=steps * setting.batch_size * cost.flops,
    all_reduced_bytes=reduced,
    sent_bytes=step_time.sent_bytes(reduced, n),
    cost=hours * setting.cluster.price_per_hour,
  )
