"""What a run will do and cost, known from its config alone."""

import dataclasses
from collections.abc import Sequence

from mslt_tf import config as config_lib
from mslt_tf import costs
from mslt_tf import schedules


@dataclasses.dataclass(frozen=True)
class PlacedStage:
  """A stage with its place in the run."""

  number: int  # From 1, as in the paper.
  stage: schedules.Stage
  start: int  # The run's step.
  end: int


def place_stages(schedule: schedules.Schedule) -> list[PlacedStage]:
  return [
    PlacedStage(number, *rest)
    for number, rest in enumerate(
      zip(
        schedule.stages,
        schedule.stage_starts,
        schedule.stage_ends,
        strict=True,
      ),
      start=1,
    )
  ]


def cost_shape(config: config_lib.Config) -> costs.Shape:
  return costs.Shape(
    vocab_size=config.model.vocab_size,
    hidden_size=config.model.hidden_size,
    intermediate_size=config.model.intermediate_size,
    max_positions=config.model.max_positions,
    num_segments=config.model.num_segments,
    sequence_length=config.data.sequence_length,
    max_predictions=config.data.max_predictions,
  )


def remaining_steps(config: config_lib.Config, step: int) -> float:
  """Returns what is left after `step`, in steps as dear as the last one."""
  run_cost = costs.schedule_cost(cost_shape(config), config.schedule)
  stages = place_stages(config.schedule)
  flops = [stage.flops for stage in run_cost.stages]
  current = next(
    index for index, stage in enumerate(stages) if step <= stage.end
  )
  return sum(
    max(0, stage.end - max(stage.start, step)) * flops[index] / flops[current]
    for index, stage in enumerate(stages)
  )


def describe_stage(stage: PlacedStage, num_stages: int) -> str:
  what = stage.stage
  frozen = {
    "trained": "all trained",
    "frozen": f"{what.num_frozen_layers} of them and the embeddings frozen",
    "words": f"{what.num_frozen_layers} of them frozen",
  }[what.embeddings]
  return (
    f"stage {stage.number} of {num_stages}: {what.num_layers} layers, {frozen};"
    f" steps {stage.start:,} to {stage.end:,}"
  )


def describe_run(config: config_lib.Config) -> str:
  """Returns the resolved config, the stage table and the predicted cost."""
  run_cost = costs.schedule_cost(cost_shape(config), config.schedule)
  lines = [config_lib.to_yaml(config), *_stage_table(config, run_cost), ""]
  examples = config.schedule.num_steps * config.data.batch_size
  lines += [
    f"Whole run: {config.schedule.num_steps:,} steps,"
    f" {examples:,} examples,"
    f" {run_cost.flops_per_example * examples:.3g} FLOPs.",
    f"Predicted: {run_cost.speedup:.2f} times as fast as the baseline with as"
    f" many steps ({run_cost.ideal_speedup:.2f} counting encoder layers only).",
    f"Where there are several devices, each sends"
    f" {_sent_bytes(config, run_cost) / 1e9:,.0f} GB of gradients in all.",
    f"The workdir grows to {disk_bytes(config) / 1e9:.3g} GB at most, logs"
    " apart.",
  ]
  return "\n".join(lines)


def describe_schedule(config: config_lib.Config) -> str:
  """Returns the stage table."""
  run_cost = costs.schedule_cost(cost_shape(config), config.schedule)
  return "\n".join(_stage_table(config, run_cost))


def _sent_bytes(config: config_lib.Config, run_cost: costs.ScheduleCost) -> int:
  """Returns what a device contributes to the all-reduces of a run."""
  return sum(
    stage.num_steps * cost.gradient_bytes
    for stage, cost in zip(config.schedule.stages, run_cost.stages, strict=True)
  )


def _stage_table(
  config: config_lib.Config, run_cost: costs.ScheduleCost
) -> list[str]:
  rows = [
    [
      "stage",
      "steps",
      "layers",
      "frozen",
      "embeddings",
      "copied from",
      "trained weights",
      "gradient MB",
      "GFLOPs/example",
      "speedup",
      "layers only",
    ]
  ]
  for stage, cost in zip(
    place_stages(config.schedule), run_cost.stages, strict=True
  ):
    what = stage.stage
    rows.append(
      [
        str(stage.number),
        f"{stage.start:,}-{stage.end:,}",
        str(what.num_layers),
        str(what.num_frozen_layers),
        what.embeddings,
        format_sources(what.source_layers),
        f"{cost.trained_parameters:,}",
        f"{cost.gradient_bytes / 1e6:.4g}",
        f"{cost.flops / 1e9:.3g}",
        f"{cost.speedup:.2f}",
        f"{cost.ideal_speedup:.2f}",
      ]
    )
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    "  ".join(
      cell.rjust(width) for cell, width in zip(row, widths, strict=True)
    )
    for row in rows
  ]


def format_sources(source_layers: Sequence[int | None]) -> str:
  """Returns ranges such as `0-5 3-5`; `new` is a random initialisation."""
  ranges: list[list[int | None]] = []
  for source in source_layers:
    follows = ranges and (
      source is None if ranges[-1][1] is None else source == ranges[-1][1] + 1
    )
    if follows:
      ranges[-1][1] = source
    else:
      ranges.append([source, source])
  return " ".join(
    "new"
    if first is None
    else (f"{first}-{last}" if first != last else f"{first}")
    for first, last in ranges
  )


def frozen_states_bytes(
  config: config_lib.Config, num_examples: int | None = None
) -> int:
  """Returns the disk that a stage's frozen states take; 0 if none are kept.

  Args:
    config: The run.
    num_examples: For training; where it is not known, the bound is returned.
  """
  limit = int(config.training.reuse_frozen_states_gb * 1e9)
  if not any(stage.num_frozen_layers for stage in config.schedule.stages):
    return 0
  if num_examples is None:
    return limit
  needed = (
    num_examples
    * config.data.sequence_length
    * config.model.hidden_size
    * costs.COMPUTE_BYTES[config.training.precision]
  )
  return needed if needed <= limit else 0


def disk_bytes(
  config: config_lib.Config, num_examples: int | None = None
) -> int:
  """Returns how large a run's workdir gets at most, logs aside.

  The stages' files stay; of the checkpoints and the frozen states, those of one
  stage are there at a time, and one more checkpoint while it is written.

  Args:
    config: The run.
    num_examples: For training, where it is known.
  """
  parameters = [
    (stage.total_parameters, stage.trained_parameters)
    for stage in costs.schedule_cost(cost_shape(config), config.schedule).stages
  ]
  is_carried = config.optimizer.state_at_growth == "carried"
  per_parameter = costs.BYTES_PER_PARAMETER
  # A file has every weight; the optimizer's moments of what is trained are in
  # checkpoints, where they are carried those of all in the stage's file.
  stage_files = sum(
    total * (1 + costs.NUM_SLOTS * is_carried) for total, _ in parameters
  )
  shape, initial_layers = cost_shape(config), config.schedule.initial_layers
  if initial_layers is not None:
    stage_files += (
      initial_layers * costs.layer_parameters(shape)
      + costs.embedding_parameters(shape)
      + costs.head_parameters(shape)
    )
  checkpoint = max(
    total + costs.NUM_SLOTS * trained for total, trained in parameters
  )
  num_checkpoints = config.training.keep_checkpoints + 1
  weights_bytes = per_parameter * (stage_files + num_checkpoints * checkpoint)
  return weights_bytes + frozen_states_bytes(config, num_examples)
