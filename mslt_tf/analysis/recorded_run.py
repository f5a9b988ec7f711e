"""A run as its files tell of it, finished or still going. Pure Python.

What a file lacks, because another version wrote it or the run has not come so
far, is `None` or empty here, and `problems` says so in a line each.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mslt_tf import costs
from mslt_tf import errors
from mslt_tf import schedules

_SHAPE_OF_MODEL = (
  "vocab_size",
  "hidden_size",
  "intermediate_size",
  "max_positions",
  "num_segments",
)
_SHAPE_OF_DATA = ("sequence_length", "max_predictions")
_NEEDED = ("step", "mlm_loss", "wall_seconds")
_OTHER_VERSION = "probably from another version"


@dataclasses.dataclass(frozen=True)
class RecordedRun:
  """A run's files.

  Attributes:
    name: What tables and figures call it.
    evaluations: Records with at least `step`, `mlm_loss` in nats and
      `wall_seconds`, in the order of their steps.
    examples_per_second: The median of each stage, by its number from 1.
    step: Updates made.
    wall_seconds: All time spent.
    train_seconds: Steps alone, without tracing, evaluation and saving.
    is_finished: Whether its last step is made.
    batch_size: Examples of a step.
    shape: Sizes that costs depend on.
    schedule: Its stages.
    data_fingerprint: Of what it is trained on.
    eval_examples: The most held-out examples that its evaluations read,
      infinity for all; None where it is not known.
    unigram_mlm_loss: Loss of token frequencies alone on all held-out examples,
      in nats.
    identity: Config fields that cannot change, by `section.field`.
    config_text: All of its config, as YAML.
    versions: Of the programs that it ran with.
    machine: What it ran on.
    problems: What is missing or wrong, a line each.
  """

  name: str
  evaluations: tuple[Mapping[str, Any], ...] = ()
  examples_per_second: Mapping[int, float] = dataclasses.field(
    default_factory=dict
  )
  step: int = 0
  wall_seconds: float | None = None
  train_seconds: float | None = None
  is_finished: bool = False
  batch_size: int | None = None
  shape: costs.Shape | None = None
  schedule: schedules.Schedule | None = None
  data_fingerprint: str | None = None
  eval_examples: float | None = None
  unigram_mlm_loss: float | None = None
  identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  config_text: str = ""
  versions: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  machine: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  problems: tuple[str, ...] = ()

  @property
  def cost(self) -> costs.ScheduleCost | None:
    if self.shape is None or self.schedule is None:
      return None
    return costs.schedule_cost(self.shape, self.schedule)

  @property
  def num_steps(self) -> int | None:
    """Steps of the whole run, those that are not made yet with them."""
    return None if self.schedule is None else self.schedule.num_steps

  @property
  def status(self) -> str:
    if self.is_finished:
      return "finished"
    if self.num_steps is None:
      return f"at step {self.step:,}"
    return f"at step {self.step:,} of {self.num_steps:,}"

  def flops_at(self, step: float) -> float | None:
    """Returns the FLOPs of training up to a step of the run."""
    cost = self.cost
    if cost is None or self.batch_size is None or self.schedule is None:
      return None
    starts_and_ends = zip(
      self.schedule.stage_starts, self.schedule.stage_ends, strict=True
    )
    return self.batch_size * math.fsum(
      max(0, min(step, end) - start) * stage.flops
      for (start, end), stage in zip(starts_and_ends, cost.stages, strict=True)
    )


def from_files(
  name: str,
  *,
  identity: Any,
  summary: Any,
  metrics: Mapping[int, Sequence[Any]],
  config_text: str = "",
  problems: Sequence[str] = (),
) -> RecordedRun:
  """Returns what the files of a run say.

  Args:
    name: What to call it.
    identity: Content of `identity.json`, or None.
    summary: Content of `summary.json`, or None.
    metrics: The records of each stage that has some, by its number.
    config_text: Content of `config.yaml`.
    problems: Of reading them.
  """
  told = list(problems)
  records = _whole_records(metrics, told)
  evaluations = [each for each in records if each["kind"] == "eval"]
  shape, batch_size, schedule = _parts(identity, told)
  summary = summary if isinstance(summary, Mapping) else {}
  is_finished = bool(summary.get("is_finished"))
  if evaluations:
    num_begun = max(metrics)
    if is_finished and schedule is not None:
      num_begun = len(schedule.stages)
    _tell_missing_stages(num_begun, metrics, evaluations, told)
  else:
    yet = "" if is_finished else " yet"
    told.append(f"no evaluation{yet}; there are no losses to show")
  last = records[-1] if records else {}
  times = summary if is_finished else last
  return RecordedRun(
    name,
    evaluations=tuple(evaluations),
    examples_per_second=_speeds(records),
    step=last.get("step", 0),
    wall_seconds=_number(times.get("wall_seconds")),
    train_seconds=_number(times.get("train_seconds")),
    is_finished=is_finished,
    batch_size=batch_size,
    shape=shape,
    schedule=schedule,
    data_fingerprint=_fingerprint(identity, summary),
    eval_examples=_eval_examples(summary),
    unigram_mlm_loss=_number(summary.get("unigram_mlm_loss")),
    identity=_flat(identity),
    config_text=config_text,
    versions=_mapping(summary.get("versions")),
    machine=_mapping(summary.get("machine")),
    problems=tuple(told),
  )


def _whole_records(
  metrics: Mapping[int, Sequence[Any]], told: list[str]
) -> list[dict[str, Any]]:
  """Returns the usable records of all stages in the order of their steps."""
  whole = []
  for number, records in sorted(metrics.items()):
    usable = [each for each in records if _is_whole(each)]
    if len(usable) < len(records):
      told.append(
        f"stage_{number}/metrics.jsonl: {len(records) - len(usable)} of"
        f" {len(records)} records lack {', '.join(_NEEDED)};"
        f" {_OTHER_VERSION}, they are left out"
      )
    whole += [{"stage": number, **each} for each in usable]
  return sorted(whole, key=lambda each: each["step"])


def _is_whole(record: Any) -> bool:
  return (
    isinstance(record, Mapping)
    and isinstance(record.get("kind"), str)
    and all(_number(record.get(name)) is not None for name in _NEEDED)
  )


def _parts(
  identity: Any, told: list[str]
) -> tuple[costs.Shape | None, int | None, schedules.Schedule | None]:
  """Returns shape, batch size and schedule, as far as they are there."""
  if identity is None:
    return None, None, None
  shape, batch_size, schedule = None, None, None
  reasons = []
  try:
    model, data = identity["model"], identity["data"]
    shape = costs.Shape(
      **{name: model[name] for name in _SHAPE_OF_MODEL},
      **{name: data[name] for name in _SHAPE_OF_DATA},
    )
    batch_size = data["batch_size"]
  except (KeyError, TypeError) as error:
    reasons.append(f"no examples and FLOPs ({error} is missing)")
  try:
    schedule = _schedule(identity["schedule"])
  except (KeyError, TypeError, errors.InputError) as error:
    reasons.append(f"no schedule ({error})")
  if reasons:
    told.append(f"identity.json is {_OTHER_VERSION}: {'; '.join(reasons)}")
  return shape, batch_size, schedule


def _schedule(tree: Mapping[str, Any]) -> schedules.Schedule:
  stages = [
    schedules.Stage(**{**each, "source_layers": tuple(each["source_layers"])})
    for each in tree["stages"]
  ]
  return schedules.Schedule(tuple(stages), tree.get("initial_layers"))


def _tell_missing_stages(
  num_begun: int,
  metrics: Mapping[int, Sequence[Any]],
  evaluations: Sequence[Mapping[str, Any]],
  told: list[str],
) -> None:
  evaluated = {each["stage"] for each in evaluations}
  current = max(metrics)
  for number in range(1, num_begun + 1):
    if number not in metrics:
      told.append(f"stage {number} has no metrics; its curve is missing")
    elif number not in evaluated and number != current:
      told.append(f"stage {number} has no evaluation; its curve is missing")


def _speeds(records: Iterable[Mapping[str, Any]]) -> dict[int, float]:
  speeds: dict[int, list[float]] = {}
  for record in records:
    speed = _number(record.get("examples_per_second"))
    if speed is not None:
      speeds.setdefault(record["stage"], []).append(speed)
  return {stage: statistics.median(each) for stage, each in speeds.items()}


def _fingerprint(identity: Any, summary: Mapping[str, Any]) -> str | None:
  data = identity.get("data") if isinstance(identity, Mapping) else None
  found = _mapping(data).get("fingerprint", summary.get("data_fingerprint"))
  return found if isinstance(found, str) else None


def _eval_examples(summary: Mapping[str, Any]) -> float | None:
  training = _mapping(_mapping(summary.get("config")).get("training"))
  if "eval_examples" not in training:
    return None
  most = training["eval_examples"]
  return math.inf if most is None else _number(most)


def _flat(tree: Any) -> dict[str, Any]:
  """Returns the fields of all sections but the schedule, which is drawn."""
  return {
    f"{section}.{name}": value
    for section, fields in _mapping(tree).items()
    if section != "schedule"
    for name, value in _mapping(fields).items()
  }


def _mapping(value: Any) -> Mapping[str, Any]:
  return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> Any:
  """Returns a finite number, or None."""
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return value if is_number and math.isfinite(value) else None
