"""Forecasts as tables for a terminal of 100 columns."""

import textwrap
from collections.abc import Sequence

from mslt_tf import costs
from mslt_tf.planning import calibration as calibration_lib
from mslt_tf.planning import device_memory
from mslt_tf.planning import forecast as forecast_lib
from mslt_tf.planning import text_table


def heading(
  setting: forecast_lib.Setting,
  calibration: calibration_lib.Calibration | None,
) -> str:
  """Returns the devices and the rates that all below depends on."""
  cluster, rates = setting.cluster, setting.rates
  lines = [
    f"Devices: {cluster.num_devices:,}, machines: {cluster.num_machines:,};"
    f" batch {setting.batch_size:,}, {setting.examples_per_device:,} a device,"
    f" parts: {setting.num_micro_batches}; {setting.model.precision}.",
    "A device's TFLOP/s: forward"
    f" {rates.forward / 1e12:.4g}, frozen forward"
    f" {rates.frozen_forward / 1e12:.4g}, backward {rates.backward / 1e12:.4g};"
    f" update {rates.update_seconds_per_weight * 1e12:.4g} ps a weight.",
  ]
  if calibration:
    lines += _calibration(calibration, setting)
  return "\n".join(textwrap.fill(line, text_table.WIDTH) for line in lines)


def _calibration(
  calibration: calibration_lib.Calibration, setting: forecast_lib.Setting
) -> list[str]:
  shares = ", ".join(
    f"{name.replace('_', ' ')} {share:.2f}"
    for name, share in calibration.shares.items()
  )
  residuals = ", ".join(
    f"stage {each.stage} {each.predicted / each.measured - 1:+.1%}"
    for each in calibration.residuals
  )
  lines = [
    f"They were measured on one device, of {calibration.peak_flops / 1e12:.4g}"
    f" TFLOP/s at best; shares of that: {shares}.",
    f"Predicted against measured steps: {residuals}.",
  ]
  predicted = device_memory.device_memory(
    setting.model,
    calibration.largest_stage,
    costs.stage_cost(
      setting.model.shape,
      calibration.largest_stage,
      num_layers=calibration.largest_stage.num_layers,
    ),
    examples=calibration.batch_size,
    num_micro_batches=1,
    reserved=setting.cluster.reserved_memory_bytes,
  )
  lines.append(
    f"Its largest process held {calibration.memory_bytes / 1e9:.3g} GB; by the"
    f" terms below it would be {predicted.num_bytes / 1e9:.3g}."
  )
  if calibration.rates.frozen_forward == calibration.rates.forward:
    lines.append(
      "No stage of it has frozen layers: they are taken to be as fast as"
      " trained ones."
    )
  if calibration.batch_size != setting.examples_per_device:
    lines.append(
      f"It had {calibration.batch_size} examples; rates for"
      f" {setting.examples_per_device} may differ."
    )
  return lines


def stages(result: forecast_lib.Forecast, setting: forecast_lib.Setting) -> str:
  """Returns a schedule's two tables, stage by stage, and what does not fit."""
  lines = [
    "",
    f"{result.name}: milliseconds of a step, hours of a stage",
    *_time_table(result),
    "",
    f"{result.name}: memory in GB on a device; what the steps take together",
    *_other_table(result),
  ]
  for number, stage in enumerate(result.stages, start=1):
    if stage.excess_bytes:
      lines.append(_does_not_fit(number, stage, setting))
  return "\n".join(lines)


def _time_table(result: forecast_lib.Forecast) -> list[str]:
  rows = [
    ["stage", "steps", "layers", "frozen", "forward", "in frozen", "backward",
     "reduce", "update", "input", "step", "hours"]
  ]  # fmt: skip
  for number, stage in enumerate(result.stages, start=1):
    step = stage.step
    rows.append(
      [
        str(number),
        f"{stage.totals.steps:,}",
        str(stage.stage.num_layers),
        str(stage.stage.num_frozen_layers),
        *(
          text_table.significant(1e3 * seconds)
          for seconds in (
            step.forward,
            step.frozen_forward,
            step.backward,
            step.all_reduce,
            step.update,
            step.input_wait,
            step.seconds,
          )
        ),
        text_table.significant(stage.totals.hours),
      ]
    )
  totals = result.totals
  rows.append(
    [
      "whole",
      f"{totals.steps:,}",
      *[""] * 9,
      text_table.significant(totals.hours),
    ]
  )
  return text_table.lines(rows)


def _other_table(result: forecast_lib.Forecast) -> list[str]:
  rows = [
    ["stage", "weights", "gradients", "slots", "activations", "all", "EFLOP",
     "all-reduced TB", "M examples", "cost"]
  ]  # fmt: skip
  for number, stage in enumerate(result.stages, start=1):
    memory = stage.memory
    rows.append(
      [
        str(number),
        *(
          text_table.significant(num_bytes / 1e9)
          for num_bytes in (
            memory.weights + memory.compute_copies,
            memory.gradients + memory.table_gradients,
            memory.slots,
            memory.activations,
            memory.num_bytes,
          )
        ),
        *_together(stage.totals),
      ]
    )
  rows.append(
    [
      "whole",
      *[""] * 4,
      text_table.significant(result.largest_memory / 1e9),
      *_together(result.totals),
    ]
  )
  return text_table.lines(rows)


def _together(totals: forecast_lib.Totals) -> list[str]:
  return [
    text_table.significant(totals.flops / 1e18),
    text_table.significant(totals.all_reduced_bytes / 1e12),
    text_table.significant(totals.examples / 1e6),
    f"{totals.cost:,.0f}",
  ]


def _does_not_fit(
  number: int,
  stage: forecast_lib.StageForecast,
  setting: forecast_lib.Setting,
) -> str:
  memory = setting.cluster.memory_bytes / 1e9
  line = (
    f"Stage {number} does not fit: {stage.memory.num_bytes / 1e9:.3g} GB of"
    f" {memory:.3g}, {stage.excess_bytes / 1e9:.3g} GB too much;"
  )
  if stage.fitting_micro_batches is None:
    return f"{line} nor does a single example at a time."
  return (
    f"{line} training.num_micro_batches={stage.fitting_micro_batches} fits."
  )


def comparison(results: Sequence[forecast_lib.Forecast]) -> str:
  """Returns the schedules side by side; speedups are over the baseline."""
  rows = [
    ["", "hours", "speedup", "EFLOP", "all-reduced TB", "M examples", "cost",
     "memory GB", "parts"]
  ]  # fmt: skip
  for result in results:
    rows.append(
      [
        result.name,
        text_table.significant(result.totals.hours),
        f"{_speedup(results, result):.2f}",
        *_together(result.totals),
        text_table.significant(result.largest_memory / 1e9),
        str(result.fitting_micro_batches or "none"),
      ]
    )
  return "\n".join(
    [
      "",
      f"Side by side, {results[0].totals.steps:,} steps; parts:"
      " training.num_micro_batches that fits",
      *text_table.lines(rows),
    ]
  )


def _speedup(
  results: Sequence[forecast_lib.Forecast], result: forecast_lib.Forecast
) -> float:
  return results[0].totals.hours / result.totals.hours


def sweep(
  devices: Sequence[int], rows: Sequence[Sequence[forecast_lib.Forecast]]
) -> str:
  """Returns hours, speedups and cost for each number of devices.

  Args:
    devices: Their numbers.
    rows: For each, the same schedules' forecasts, the baseline first.
  """
  names = [result.name for result in rows[0]]
  table = [
    ["devices", *names, "reduce", "input", "cost", f"{names[-1]}'s", "parts"]
  ]
  for number, results in zip(devices, rows, strict=True):
    step = results[0].stages[-1].step
    parts = [result.fitting_micro_batches for result in results]
    table.append(
      [
        f"{number:,}",
        text_table.significant(results[0].totals.hours),
        *(
          f"{text_table.significant(result.totals.hours)} x"
          f"{_speedup(results, result):.2f}"
          for result in results[1:]
        ),
        f"{step.all_reduce / step.seconds:.0%}",
        f"{step.input_wait / step.seconds:.0%}",
        *(f"{result.totals.cost:,.0f}" for result in (results[0], results[-1])),
        "none" if None in parts else str(max(each for each in parts if each)),
      ]
    )
  return "\n".join(
    [
      f"{rows[0][0].totals.steps:,} steps: hours, and speedups over the"
      " baseline. Shares of the baseline's step:",
      "reduce, input. Cost: the baseline's, then the last schedule's. Parts:"
      " training.num_micro_batches",
      "that fits.",
      *text_table.lines(table),
    ]
  )
