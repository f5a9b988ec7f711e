"""How long a training step takes, stage by stage, against baseline and peers.

Every stage of a schedule is a contestant, and so is every peer. A contestant
has a process of its own (`contestants`), and they take turns, so that a machine
that others use, too, is as fast or slow for all. Times are medians over the
rounds; loading, tracing and compiling come before.
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from absl import logging

from mslt_tf import config as config_lib
from mslt_tf import costs
from mslt_tf import errors
from mslt_tf import outline
from mslt_tf import processor
from mslt_tf.benchmark import contestants
from mslt_tf.benchmark import hugging_face
from mslt_tf.benchmark import model_garden
from mslt_tf.benchmark import stage_program

_PEERS: dict[str, Callable[..., contestants.Program]] = {
  "model_garden": model_garden.ModelGarden,
  "hugging_face": functools.partial(
    hugging_face.HuggingFace, is_compiled=False
  ),
  "hugging_face_compiled": functools.partial(
    hugging_face.HuggingFace, is_compiled=True
  ),
}
_WARM_UP_ROUNDS = 2
# What is timed of a stage, each in a turn of its own.
PARTS = ("forward", "gradients", "step")


@dataclasses.dataclass(frozen=True)
class Times:
  """Seconds of one thing over the rounds."""

  wall: tuple[float, ...]
  cpu: tuple[float, ...]  # of all threads

  @property
  def seconds(self) -> float:
    return statistics.median(self.wall)

  @property
  def spread(self) -> float:
    """Half of the middle half of the times, over their median."""
    low, _, high = statistics.quantiles(self.wall, n=4, method="inclusive")
    return (high - low) / 2 / self.seconds


def run(
  config: config_lib.Config,
  *,
  peers: Sequence[str],
  num_rounds: int,
  steps_per_turn: int,
) -> dict[str, Any]:
  """Measures a config's stages, its baseline, and peers.

  A stage's ideal speedup is that of a step whose forward and backward pass take
  as long for every FLOP as the baseline's (layers and heads, `costs`), and its
  update as long for every weight.

  Args:
    config: what is trained, and how; no data is read.
    peers: names in `contestants.PEERS`.
    num_rounds: turns that every contestant has.
    steps_per_turn: training steps of a turn.

  Returns:
    What the benchmark's JSON file has.

  Raises:
    errors.InputError: The last stage, which stands for the baseline, leaves
      something frozen.
  """
  last = config.schedule.stages[-1]
  if last.num_frozen_layers or last.embeddings != "trained":
    raise errors.InputError(
      f"the last stage has {last.num_frozen_layers} frozen layers and"
      f" embeddings {last.embeddings}; its step stands for the baseline's,"
      " which trains everything: give a schedule that ends so."
    )
  stages = outline.place_stages(config.schedule)
  makers: dict[str, Callable[[], contestants.Program]] = {
    f"stage {stage.number}": functools.partial(
      stage_program.StageProgram, config, stage.number
    )
    for stage in stages
  }
  for peer in peers:
    makers[peer] = functools.partial(_PEERS[peer], config)
  with contestants.start(makers) as started:
    for name, contestant in started.items():
      logging.info(
        "%s: ready after %.1f s, of which tracing and compiling %.1f s.",
        name,
        contestant.seconds_to_start,
        contestant.compile_seconds,
      )
    times = _rounds(started, num_rounds, steps_per_turn)
    peak_flops = started[f"stage {len(stages)}"].matmul_flops_per_second()
    memory = {
      name: contestant.peak_memory_bytes()
      for name, contestant in started.items()
    }
    compile_seconds = {
      name: contestant.compile_seconds for name, contestant in started.items()
    }
  return _result(config, times, peak_flops, memory, compile_seconds)


def _rounds(
  started: dict[str, contestants.Contestant],
  num_rounds: int,
  steps_per_turn: int,
) -> dict[tuple[str, str], Times]:
  """Returns the times of a step of each contestant's parts."""
  found: dict[tuple[str, str], list[tuple[float, float]]] = {}
  for number in range(-_WARM_UP_ROUNDS, num_rounds):
    for name, contestant in started.items():
      for part in contestant.parts:
        wall, cpu = contestant.run(part, steps_per_turn)
        if number >= 0:
          turns = found.setdefault((name, part), [])
          turns.append((wall / steps_per_turn, cpu / steps_per_turn))
    if number >= 0:
      logging.info("Round %d of %d is over.", number + 1, num_rounds)
  return {key: Times(*zip(*turns, strict=True)) for key, turns in found.items()}


def _result(
  config: config_lib.Config,
  times: dict[tuple[str, str], Times],
  peak_flops: float,
  memory: dict[str, int],
  compile_seconds: dict[str, float],
) -> dict[str, Any]:
  shape = outline.cost_shape(config)
  stages = outline.place_stages(config.schedule)
  cost = costs.schedule_cost(shape, config.schedule)
  last = f"stage {len(stages)}"
  # The baseline trains all of the full model, as the last stage does.
  baseline = times[last, "step"]
  full_gradients = times[last, "gradients"].seconds
  full = cost.stages[-1]
  batch_size = config.data.batch_size
  rows = []
  for stage, stage_cost in zip(stages, cost.stages, strict=True):
    name = f"stage {stage.number}"
    forward, gradients, step = (times[name, part] for part in PARTS)
    flops = stage_cost.flops * batch_size
    # Forward and backward go with the FLOPs, the update with what it updates.
    ideal_seconds = full_gradients * stage_cost.flops / full.flops + (
      baseline.seconds - full_gradients
    ) * (stage_cost.trained_parameters / full.trained_parameters)
    rows.append(
      {
        "stage": stage.number,
        "num_layers": stage.stage.num_layers,
        "num_frozen_layers": stage.stage.num_frozen_layers,
        "freeze_embeddings": stage.stage.freeze_embeddings,
        "num_steps": stage.end - stage.start,
        "step_seconds": step.seconds,
        "step_cpu_seconds": statistics.median(step.cpu),
        "step_spread": step.spread,
        "forward_seconds": forward.seconds,
        "backward_seconds": gradients.seconds - forward.seconds,
        "update_seconds": step.seconds - gradients.seconds,
        "examples_per_second": batch_size / step.seconds,
        "tokens_per_second": batch_size
        * config.data.sequence_length
        / step.seconds,
        "flops_per_step": flops,
        "peak_share": flops / step.seconds / peak_flops,
        "ideal_speedup": baseline.seconds / ideal_seconds,
        "ideal_flops_speedup": stage_cost.speedup,
        "speedup": baseline.seconds / step.seconds,
        "cpu_speedup": statistics.median(baseline.cpu)
        / statistics.median(step.cpu),
        "peak_memory_bytes": memory[name],
        "compile_seconds": compile_seconds[name],
      }
    )
  peers = sorted(
    {name for name, _ in times} - {f"stage {s.number}" for s in stages}
  )
  return {
    "stages": rows,
    "schedule_speedup": _schedule_speedup(rows, "speedup"),
    "schedule_cpu_speedup": _schedule_speedup(rows, "cpu_speedup"),
    "ideal_schedule_speedup": _schedule_speedup(rows, "ideal_speedup"),
    "ideal_flops_schedule_speedup": cost.speedup,
    "baseline_step_seconds": baseline.seconds,
    "baseline_step_cpu_seconds": statistics.median(baseline.cpu),
    "backward_over_forward": rows[-1]["backward_seconds"]
    / rows[-1]["forward_seconds"],
    "matmul_flops_per_second": peak_flops,
    "peak_share": rows[-1]["peak_share"],
    "peers": {
      name: baseline.seconds / times[name, "step"].seconds for name in peers
    },
    "peers_cpu": {
      name: statistics.median(baseline.cpu)
      / statistics.median(times[name, "step"].cpu)
      for name in peers
    },
    "peer_step_seconds": {name: times[name, "step"].seconds for name in peers},
    "batch_size": batch_size,
    "precision": config.training.precision,
    "xla": config.training.xla,
    "processor": processor.describe(),
    "cores": processor.num_cores(),
    "times": {
      f"{name}, {part}": dataclasses.asdict(each)
      for (name, part), each in times.items()
    },
  }


def _schedule_speedup(rows: Sequence[dict[str, Any]], speedup: str) -> float:
  """Returns the time of as many steps of the baseline over the schedule's."""
  num_steps = sum(row["num_steps"] for row in rows)
  return num_steps / sum(row["num_steps"] / row[speedup] for row in rows)


def summary(result: dict[str, Any]) -> str:
  """Returns a result as a table, for a person."""
  lines = [
    "stage  layers  frozen   step s   +- %  forward  backward  update"
    "  examples/s  peak share  speedup  ideal     MB  compile s"
  ]
  for row in result["stages"]:
    lines.append(
      f"{row['stage']:5}{row['num_layers']:8}{row['num_frozen_layers']:8}"
      f"{row['step_seconds']:9.3f}{100 * row['step_spread']:7.1f}"
      f"{row['forward_seconds']:9.3f}{row['backward_seconds']:10.3f}"
      f"{row['update_seconds']:8.3f}{row['examples_per_second']:12.2f}"
      f"{row['peak_share']:12.2f}{row['speedup']:9.2f}"
      f"{row['ideal_speedup']:7.2f}{row['peak_memory_bytes'] / 1e6:7,.0f}"
      f"{row['compile_seconds']:11.1f}"
    )
  lines += [
    "",
    f"schedule: {result['schedule_speedup']:.2f} times as fast as the baseline"
    f" (CPU time {result['schedule_cpu_speedup']:.2f}; ideal"
    f" {result['ideal_schedule_speedup']:.2f})",
    f"backward over forward: {result['backward_over_forward']:.2f}",
    f"best matrix product: {result['matmul_flops_per_second'] / 1e9:,.0f}"
    f" GFLOP/s, {result['cores']} cores of {result['processor']}",
  ]
  for name, ratio in result["peers"].items():
    lines.append(
      f"{name}: {result['peer_step_seconds'][name]:.3f} s a step; ours takes"
      f" {ratio:.2f} of its time, {result['peers_cpu'][name]:.2f} of its CPU"
      " time"
    )
  return "\n".join(lines)
