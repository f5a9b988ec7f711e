"""What finished runs of fine-tuning say together. Pure: values in, values out.

Scores are fractions of 1 here; `tables` shows percents.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mslt_tf import errors
from mslt_tf.glue import metrics as metrics_lib
from mslt_tf.glue import protocol as protocol_lib
from mslt_tf.glue import tasks as tasks_lib


@dataclasses.dataclass(frozen=True)
class Result:
  """A finished run.

  Attributes:
    task: The task's name.
    checkpoint: What was fine-tuned.
    learning_rate: The peak.
    seed: Of everything random.
    metrics: Of each dev split, by its name: each metric, by its name.
  """

  task: str
  checkpoint: str
  learning_rate: float
  seed: int
  metrics: Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class RateSummary:
  """The runs of one rate.

  Attributes:
    learning_rate: The peak.
    scores: The headline metric by seed.
  """

  learning_rate: float
  scores: Mapping[int, float]

  @property
  def median(self) -> float:
    return statistics.median(self.scores.values())

  @property
  def lowest(self) -> float:
    return min(self.scores.values())

  @property
  def highest(self) -> float:
    return max(self.scores.values())

  @property
  def deviation(self) -> float | None:
    """The standard deviation over the seeds; None for a single one."""
    scores = list(self.scores.values())
    return statistics.stdev(scores) if len(scores) > 1 else None


@dataclasses.dataclass(frozen=True)
class Summary:
  """All runs of a task from a checkpoint.

  Attributes:
    task: The task.
    checkpoint: What was fine-tuned.
    rates: A summary of each rate, in the protocol's order.
    best: The one whose median is the highest; at equal ones the first.
    metrics: Medians over the seeds of the best rate of every metric, by split.
    num_expected: How many runs the protocol asks for.
    constant_score: The headline metric of the best constant answer.
    threshold: What the median must exceed to be better than that.
    results: Every single result.
  """

  task: tasks_lib.Task
  checkpoint: str
  rates: tuple[RateSummary, ...]
  best: RateSummary
  metrics: Mapping[str, Mapping[str, float]]
  num_expected: int
  constant_score: float
  threshold: float
  results: tuple[Result, ...]

  @property
  def score(self) -> float:
    """The number of the paper's tables."""
    return self.best.median

  @property
  def is_complete(self) -> bool:
    return len(self.results) == self.num_expected

  @property
  def is_better_than_constant(self) -> bool:
    return self.score > self.threshold


def summarize(
  results: Iterable[Result],
  *,
  tasks: Sequence[tasks_lib.Task],
  protocol: protocol_lib.Protocol,
  constants: Mapping[str, Mapping[str, metrics_lib.Constant]],
) -> list[Summary]:
  """Returns a summary of each checkpoint and task that has results.

  Checkpoints stand in the order in which they come up first, tasks in the order
  given.

  Args:
    results: Of finished runs, in any order; others may be missing yet.
    tasks: What the results are of.
    protocol: Whose runs these are.
    constants: What `metrics.constant` says, by task and dev split.

  Raises:
    errors.InputError: a run that is there twice, is none of the protocol's, or
      lacks a metric.
  """
  by_key: dict[tuple[str, str], list[Result]] = {}
  checkpoints: dict[str, None] = {}
  for result in results:
    checkpoints.setdefault(result.checkpoint)
    by_key.setdefault((result.checkpoint, result.task), []).append(result)
  known = {task.name for task in tasks}
  for _, name in by_key:
    if name not in known:
      raise errors.InputError(
        f"task={name} has results, but is none of {', '.join(sorted(known))}."
      )
  return [
    _summary(
      task, by_key[checkpoint, task.name], protocol, constants[task.name]
    )
    for checkpoint in checkpoints
    for task in tasks
    if (checkpoint, task.name) in by_key
  ]


def as_dict(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
  """Returns summaries, every single result with them, for JSON."""
  return [
    {
      "checkpoint": summary.checkpoint,
      "task": summary.task.name,
      "metric": summary.task.headline,
      "score": summary.score,
      "learning_rate": summary.best.learning_rate,
      "lowest": summary.best.lowest,
      "highest": summary.best.highest,
      "deviation": summary.best.deviation,
      "metrics": {
        split: dict(values) for split, values in summary.metrics.items()
      },
      "constant_score": summary.constant_score,
      "threshold": summary.threshold,
      "is_better_than_constant": summary.is_better_than_constant,
      "num_results": len(summary.results),
      "num_expected": summary.num_expected,
      "medians": [
        {"learning_rate": rate.learning_rate, "score": rate.median}
        for rate in summary.rates
      ],
      "results": [
        {
          "learning_rate": result.learning_rate,
          "seed": result.seed,
          "score": metrics_lib.headline(summary.task, result.metrics),
          "metrics": {
            split: dict(values) for split, values in result.metrics.items()
          },
        }
        for result in summary.results
      ],
    }
    for summary in summaries
  ]


def from_list(content: Any, source: str) -> list[Summary]:
  """Returns the summaries that `as_dict` has written.

  Args:
    content: Of the JSON file.
    source: What to call it in errors, such as its path.

  Raises:
    errors.InputError: it has another form.
  """
  try:
    return [_from_dict(each) for each in content]
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise errors.InputError(
      f"{source} is no results.json of this version: {error!r}."
    ) from error


def _from_dict(tree: Mapping[str, Any]) -> Summary:
  results = tuple(
    Result(
      tree["task"],
      tree["checkpoint"],
      each["learning_rate"],
      each["seed"],
      each["metrics"],
    )
    for each in tree["results"]
  )
  scores: dict[float, dict[int, float]] = {}
  for each in tree["results"]:
    scores.setdefault(each["learning_rate"], {})[each["seed"]] = each["score"]
  rates = {
    rate: RateSummary(rate, of_seeds) for rate, of_seeds in scores.items()
  }
  return Summary(
    task=_task(tree),
    checkpoint=tree["checkpoint"],
    rates=tuple(rates.values()),
    best=rates[tree["learning_rate"]],
    metrics=tree["metrics"],
    num_expected=tree["num_expected"],
    constant_score=tree["constant_score"],
    threshold=tree["threshold"],
    results=results,
  )


def _task(tree: Mapping[str, Any]) -> tasks_lib.Task:
  if task := tasks_lib.find(tree["task"]):
    return task
  # One's own: tables need no more of it than its name and metric.
  return tasks_lib.Task(
    name=tree["task"],
    title=tree["task"],
    labels=(),
    metrics=(tree["metric"],),
    train=None,
    dev=(),
    test=(),
  )


def _summary(
  task: tasks_lib.Task,
  results: Sequence[Result],
  protocol: protocol_lib.Protocol,
  constants: Mapping[str, metrics_lib.Constant],
) -> Summary:
  rates = _rates(task, results, protocol)
  best = max(rates, key=lambda rate: rate.median)
  at_best = [
    each for each in results if each.learning_rate == best.learning_rate
  ]
  scores = [constants[split.name].metrics[task.headline] for split in task.dev]
  order = {rate: place for place, rate in enumerate(protocol.learning_rates)}
  return Summary(
    task=task,
    checkpoint=results[0].checkpoint,
    rates=tuple(rates),
    best=best,
    metrics=_medians(at_best),
    num_expected=protocol.num_runs,
    constant_score=math.fsum(scores) / len(scores),
    threshold=metrics_lib.threshold(task, constants),
    results=tuple(
      sorted(results, key=lambda each: (order[each.learning_rate], each.seed))
    ),
  )


def _rates(
  task: tasks_lib.Task,
  results: Sequence[Result],
  protocol: protocol_lib.Protocol,
) -> list[RateSummary]:
  scores: dict[float, dict[int, float]] = {}
  for result in results:
    run = (
      f"{result.checkpoint}, {task.name}, rate {result.learning_rate:g}, seed"
      f" {result.seed}"
    )
    if (
      result.learning_rate not in protocol.learning_rates
      or result.seed not in protocol.seeds
    ):
      raise errors.InputError(f"{run}: no run of this protocol.")
    of_rate = scores.setdefault(result.learning_rate, {})
    if result.seed in of_rate:
      raise errors.InputError(f"{run}: there are two results.")
    of_rate[result.seed] = metrics_lib.headline(task, result.metrics)
  return [
    RateSummary(rate, dict(sorted(scores[rate].items())))
    for rate in protocol.learning_rates
    if rate in scores
  ]


def _medians(results: Sequence[Result]) -> dict[str, dict[str, float]]:
  return {
    split: {
      name: statistics.median(each.metrics[split][name] for each in results)
      for name in values
    }
    for split, values in results[0].metrics.items()
  }
