"""A device's rates from the times that bin/benchmark.py measured on one."""

import dataclasses
import json
import math
from typing import Any

from mslt_tf import costs
from mslt_tf import errors
from mslt_tf import schedules
from mslt_tf.planning import step_time


@dataclasses.dataclass(frozen=True)
class StageResidual:
  """Seconds of a step that the rates predict, and that were measured."""

  stage: int
  predicted: float
  measured: float


@dataclasses.dataclass(frozen=True)
class Calibration:
  """Rates of one device, and how well they explain what they are fitted to.

  Attributes:
    peak_flops: The best matrix product's FLOP/s, measured.
    batch_size: Examples a step that the device had.
    memory_bytes: The most that a stage's process held.
    largest_stage: The stage whose process that was.
  """

  rates: step_time.Rates
  residuals: tuple[StageResidual, ...]
  peak_flops: float
  batch_size: int
  memory_bytes: int
  largest_stage: schedules.Stage

  @property
  def shares(self) -> dict[str, float]:
    """Achieved shares of the best matrix product's FLOP/s."""
    return {
      name: getattr(self.rates, name) / self.peak_flops
      for name in ("forward", "frozen_forward", "backward")
    }


@dataclasses.dataclass(frozen=True)
class _Measured:
  """A stage's row in the file with what it computes in a step."""

  row: dict[str, Any]
  stage: schedules.Stage
  cost: costs.StageCost
  batch_size: int

  @property
  def trained_forward_flops(self) -> int:
    return self.batch_size * (
      self.cost.forward_flops - self.cost.frozen_forward_flops
    )

  @property
  def frozen_flops(self) -> int:
    return self.batch_size * self.cost.frozen_forward_flops

  @property
  def backward_flops(self) -> int:
    return self.batch_size * self.cost.backward_flops


def calibrate(
  text: str, *, source: str, shape: costs.Shape, precision: str
) -> Calibration:
  """Fits rates to a benchmark of one device.

  Args:
    text: What bin/benchmark.py wrote.
    source: What to call the text in errors.
    shape: Of the model that was measured.
    precision: `training.precision`, as it was measured.

  Raises:
    InputError: Where it is no such file, or of another model or precision.
  """
  result = _read(text, source)
  if result["precision"] != precision:
    raise errors.InputError(
      f"{source}: precision={result['precision']}; the config has"
      f" training.precision={precision}."
    )
  measured = [_measured(row, result, shape, source) for row in result["stages"]]
  rates = _fit(measured, source)
  largest = max(measured, key=lambda each: each.row["peak_memory_bytes"])
  return Calibration(
    rates=rates,
    residuals=tuple(_residual(each, rates) for each in measured),
    peak_flops=result["matmul_flops_per_second"],
    batch_size=result["batch_size"],
    memory_bytes=largest.row["peak_memory_bytes"],
    largest_stage=largest.stage,
  )


_FIELDS = {"stages", "precision", "batch_size", "matmul_flops_per_second"}
_STAGE_FIELDS = {
  "stage", "num_layers", "num_frozen_layers", "forward_seconds",
  "backward_seconds", "update_seconds", "step_seconds", "flops_per_step",
  "peak_memory_bytes",
}  # fmt: skip


_MAY_BE_BELOW_0 = {"update_seconds", "num_frozen_layers"}
_COUNTS = {"batch_size", "num_layers", "num_frozen_layers"}
_MOST = 1 << 20  # of these; a schedule lists its layers.


def _read(text: str, source: str) -> dict[str, Any]:
  try:
    result = json.loads(text)
  except ValueError as error:
    raise errors.InputError(f"{source} is not JSON: {error}.") from error
  _check_fields(result, _FIELDS, source)
  if not isinstance(result["stages"], list) or not result["stages"]:
    raise errors.InputError(f"{source}: stages must be a list, not empty.")
  for row in result["stages"]:
    _check_fields(row, _STAGE_FIELDS, source)
    _check_numbers(row, _STAGE_FIELDS, source)
  _check_numbers(result, {"batch_size", "matmul_flops_per_second"}, source)
  return result


def _check_fields(tree: Any, fields: set[str], source: str) -> None:
  missing = fields - set(tree) if isinstance(tree, dict) else fields
  if missing:
    raise errors.InputError(
      f"{source} is no file of bin/benchmark.py: {min(missing)} is missing."
    )


def _check_numbers(tree: dict[str, Any], fields: set[str], source: str) -> None:
  for name in sorted(fields):
    value = tree[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Noise may make a difference of two times negative, and layers be 0.
    low = -math.inf if name in _MAY_BE_BELOW_0 else 0
    if not is_number or not low < value < math.inf:
      raise errors.InputError(
        f"{source}: {name}={value!r} must be a number above 0."
      )
    if name in _COUNTS and not (isinstance(value, int) and value <= _MOST):
      raise errors.InputError(
        f"{source}: {name}={value!r} must be a whole number up to {_MOST:,}."
      )


def _measured(
  row: dict[str, Any], result: dict[str, Any], shape: costs.Shape, source: str
) -> _Measured:
  depth, frozen = row["num_layers"], row["num_frozen_layers"]
  stage = schedules.Stage(
    depth,
    1,
    (None,) * depth,
    frozen,
    # As it is without schedule.freeze_embeddings=false, where it is not told.
    freeze_embeddings=bool(row.get("freeze_embeddings", frozen > 0)),
  )
  cost = costs.stage_cost(shape, stage, num_layers=depth)
  expected = cost.flops * result["batch_size"]
  if row["flops_per_step"] != expected:
    raise errors.InputError(
      f"{source}: stage {row['stage']} has flops_per_step="
      f"{row['flops_per_step']}; of the config's model it would be {expected}."
    )
  return _Measured(row, stage, cost, result["batch_size"])


def _fit(measured: list[_Measured], source: str) -> step_time.Rates:
  """Each rate is a sum of work over a sum of time.

  What a stage without frozen layers takes gives the trained rates; what is left
  of the forward time of the others is that of frozen layers.
  """
  whole = [each for each in measured if not each.row["num_frozen_layers"]]
  if not whole:
    raise errors.InputError(f"{source}: no stage trains everything.")
  forward = sum(each.trained_forward_flops for each in whole) / sum(
    each.row["forward_seconds"] for each in whole
  )
  frozen_flops = sum(each.frozen_flops for each in measured)
  frozen_seconds = sum(
    each.row["forward_seconds"] - each.trained_forward_flops / forward
    for each in measured
    if each.row["num_frozen_layers"]
  )
  return step_time.Rates(
    forward=forward,
    frozen_forward=frozen_flops / frozen_seconds
    if frozen_seconds > 0
    else forward,
    backward=sum(each.backward_flops for each in measured)
    / sum(each.row["backward_seconds"] for each in measured),
    update_seconds_per_weight=max(
      0.0, sum(each.row["update_seconds"] for each in whole)
    )
    / sum(each.cost.trained_parameters for each in whole),
  )


def _residual(measured: _Measured, rates: step_time.Rates) -> StageResidual:
  return StageResidual(
    stage=measured.row["stage"],
    predicted=measured.trained_forward_flops / rates.forward
    + measured.frozen_flops / rates.frozen_forward
    + measured.backward_flops / rates.backward
    + measured.cost.trained_parameters * rates.update_seconds_per_weight,
    measured=measured.row["step_seconds"],
  )
