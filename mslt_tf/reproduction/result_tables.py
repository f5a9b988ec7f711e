"""The reproduction's records as tables. Pure.

A cell over several seeds is their mean, with the lowest and the highest behind.
"""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mslt_tf import costs
from mslt_tf import written_numbers
from mslt_tf.analysis import comparison
from mslt_tf.analysis import recorded_run
from mslt_tf.glue import results as results_lib
from mslt_tf.glue import tables
from mslt_tf.reproduction import experiments
from mslt_tf.reproduction import jobs

SPREAD = "the range of the seeds, widened by its width on both sides"

_NO_EFFECT = "no effect"


@dataclasses.dataclass(frozen=True)
class Records:
  """What is there so far.

  Attributes:
    runs: By name.
    fine_tuning: Results of checkpoints, which are called like runs.
    attention: Content of attention.json by run.
    benchmark: Content of benchmark.json by experiment.
    data: `jobs.DATA_FACTS` of each split of the data set.
  """

  runs: Mapping[str, recorded_run.RecordedRun]
  fine_tuning: Sequence[results_lib.Summary] = ()
  attention: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  benchmark: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  data: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def finished(
    self, experiment: experiments.Experiment
  ) -> list[recorded_run.RecordedRun]:
    """Returns its finished runs, in the order of the seeds."""
    found = [
      self.runs.get(experiments.Run(experiment, seed).name)
      for seed in experiment.seeds
    ]
    return [run for run in found if run is not None and run.is_finished]

  @property
  def unigram_loss(self) -> float | None:
    known = [run.unigram_mlm_loss for run in self.runs.values()]
    return next((each for each in known if each), None)


@dataclasses.dataclass(frozen=True)
class _Row:
  """A line of a main table: where, along some runs, it is read off."""

  title: str
  experiment: experiments.Experiment
  checkpoint: str  # What fine-tuning calls it, before the seed.
  step: int


def all_tables(records: Records) -> dict[str, tables.Table]:
  """Returns the tables by the name that the page calls them."""
  equal_steps = [
    _Row(each.title, each, each.name, experiments.NUM_STEPS)
    for each in (experiments.BASELINE, experiments.STACKING, experiments.MSLT)
  ]
  steps = experiments.EQUAL_TIME_STEPS
  equal_time = [
    equal_steps[-1],
    _Row(
      experiments.SHORT_BASELINE.title,
      experiments.SHORT_BASELINE,
      experiments.SHORT_BASELINE.name,
      steps,
    ),
    _Row(
      "baseline, cut from the long curve",
      experiments.BASELINE,
      jobs.CUT_NAME,
      steps,
    ),
  ]
  return {
    "data": _data(records),
    "equal_steps": _main(
      records, equal_steps, "Equal steps, as in the paper's Table 2"
    ),
    "equal_time": _with_notes(
      _main(records, equal_time, "Equal time, as in the paper's Table 3"),
      _equal_time_note(records),
      _equal_loss_note(records),
    ),
    "ablations": _ablations(records),
    "attention": _attention(records),
    "runs": _every_run(records),
  }


def spread(values: Sequence[float], format_one: Callable[[float], str]) -> str:
  """Returns a mean, with the lowest and the highest where there are several."""
  if not values:
    return "-"
  mean = format_one(statistics.fmean(values))
  if len(values) == 1:
    return f"{mean} (one seed)"
  return f"{mean} ({format_one(min(values))} to {format_one(max(values))})"


def seeds_spread(values: Sequence[float]) -> tuple[float, float]:
  """Returns `SPREAD`.

  A fourth value of a normal distribution is outside the range of three every
  other time, and outside of this one 13 times in 100.
  """
  low, high = min(values), max(values)
  return low - (high - low), high + (high - low)


def judge(loss: float, seeds: Sequence[float]) -> str:
  """Tells what a change did to a loss whose seeds had these."""
  low, high = seeds_spread(seeds)
  if low <= loss <= high:
    return _NO_EFFECT
  return "worse" if loss > high else "better"


def _data(records: Records) -> tables.Table:
  return tables.Table(
    "Data",
    ("", *(name.removeprefix("num_") for name in jobs.DATA_FACTS)),
    tuple(
      (split, *(written_numbers.count(facts[name]) for name in jobs.DATA_FACTS))
      for split, facts in records.data.items()
    ),
    (_unigram(records),),
  )


def _main(records: Records, rows: Sequence[_Row], title: str) -> tables.Table:
  results: dict[tuple[str, int], dict[str, results_lib.Summary]] = {}
  titles = {}
  for summary in records.fine_tuning:
    name, _, seed = summary.checkpoint.rpartition("_")
    of_tasks = results.setdefault((name, int(seed)), {})
    of_tasks[summary.task.name] = summary
    titles[summary.task.name] = summary.task.title
  cells = []
  for row in rows:
    runs = records.finished(row.experiment)
    cells.append(
      (
        row.title,
        written_numbers.count(row.step),
        *(
          spread(_values(runs, key, row.step), format_one)
          for key, format_one in (
            ("mlm_loss", written_numbers.loss),
            ("mlm_accuracy", written_numbers.percent),
            ("nsp_accuracy", written_numbers.percent),
          )
        ),
        # Seeds may have run on machines of different speed.
        written_numbers.duration(
          next(iter(_values(runs[:1], "train_seconds", row.step)), None)
        ),
        _speedup(records, row),
        *(
          _score(
            [
              results[row.checkpoint, seed][task]
              for seed in row.experiment.seeds
              if task in results.get((row.checkpoint, seed), {})
            ]
          )
          for task in titles
        ),
      )
    )
  return tables.Table(
    title,
    (
      "",
      "steps",
      "held-out MLM loss",
      "MLM accuracy",
      "NSP accuracy",
      "training time",
      "speedup",
      *titles.values(),
    ),
    tuple(cells),
    (
      _unigram(records),
      "Speedup: of a training step against the baseline's, the mean over the"
      " run, by bin/benchmark.py, which times them in turns; in brackets by"
      " FLOPs. Training time: of the first seed, without tracing, evaluation"
      " and saving, on the machine that its run below names.",
      *_fine_tuning_notes(records),
    ),
  )


def _with_notes(table: tables.Table, *notes: str) -> tables.Table:
  return dataclasses.replace(table, notes=(*table.notes, *filter(None, notes)))


def _equal_time_note(records: Records) -> str:
  speedup = records.benchmark.get("mslt", {}).get("schedule_speedup")
  if speedup is None:
    return ""
  return (
    f"By that speedup the time of MSLT's {experiments.NUM_STEPS:,} steps is"
    f" that of {experiments.NUM_STEPS / speedup:,.0f} of the baseline's; the"
    f" runs were given {experiments.EQUAL_TIME_STEPS:,}."
  )


def _equal_loss_note(records: Records) -> str:
  """Tells what of the baseline's time MSLT saves at its own loss."""
  speedup = records.benchmark.get("mslt", {}).get("schedule_speedup")
  short = _losses(
    records, experiments.SHORT_BASELINE, experiments.EQUAL_TIME_STEPS
  )
  long = _losses(records, experiments.BASELINE, experiments.NUM_STEPS)
  mslt = _losses(records, experiments.MSLT, experiments.NUM_STEPS)
  steps = [
    equal_loss_steps(mslt[seed], short=short[seed], long=long[seed])
    for seed in mslt
    if seed in short and seed in long
  ]
  known = [each for each in steps if each is not None]
  if speedup is None or not known or len(known) < len(steps):
    return ""
  saved = [1 - experiments.NUM_STEPS / speedup / each for each in known]
  return (
    "Equal loss: a baseline whose rate decays over its own run comes to MSLT's"
    f" loss in {spread(known, lambda each: f'{each:,.0f}')} steps, by a"
    " straight line over the logarithm of the steps from its loss in"
    f" {experiments.EQUAL_TIME_STEPS:,} to that in {experiments.NUM_STEPS:,},"
    " seed by seed. Of the time of so many, MSLT saves"
    f" {spread(saved, written_numbers.percent)}."
  )


def equal_loss_steps(loss: float, *, short: float, long: float) -> float | None:
  """Returns the steps in which the baseline would come to a loss.

  Args:
    loss: To come to.
    short: The baseline's in `EQUAL_TIME_STEPS`.
    long: The baseline's in `NUM_STEPS`.

  Returns:
    The steps, by a straight line over their logarithm; `None` for a loss that
    is not between the two.
  """
  if not long <= loss <= short or long == short:
    return None
  part = (short - loss) / (short - long)
  ratio = experiments.NUM_STEPS / experiments.EQUAL_TIME_STEPS
  return experiments.EQUAL_TIME_STEPS * ratio**part


def _score(summaries: Sequence[results_lib.Summary]) -> str:
  cell = spread(
    [each.score for each in summaries], lambda score: f"{100 * score:.1f}"
  )
  is_constant = any(not each.is_better_than_constant for each in summaries)
  return cell + ("*" if is_constant else "")


def _fine_tuning_notes(records: Records) -> tuple[str, ...]:
  if not records.fine_tuning:
    return ()
  constants = {
    each.task.title: (each.constant_score, each.threshold)
    for each in records.fine_tuning
  }
  told = ", ".join(
    f"{title} {100 * constant:.1f} and {100 * threshold:.1f}"
    for title, (constant, threshold) in constants.items()
  )
  num_runs = max(each.num_expected for each in records.fine_tuning)
  runs = (
    "one run"
    if num_runs == 1
    else f"the median of the best rate's, of {num_runs} runs,"
  )
  return (
    f"Fine-tuning: {runs} for each pre-trained model, on dev. *: of one or more"
    " models no better than one answer for all examples within two standard"
    f" errors. What one answer scores, and what is to be beaten: {told}.",
  )


def _losses(
  records: Records, experiment: experiments.Experiment, step: int
) -> dict[int, float]:
  """Returns the held-out MLM losses of its finished runs, by seed."""
  found = {}
  for seed in experiment.seeds:
    run = records.runs.get(experiments.Run(experiment, seed).name)
    if run is not None and run.is_finished:
      for loss in _values([run], "mlm_loss", step):
        found[seed] = loss
  return found


def _values(
  runs: Sequence[recorded_run.RecordedRun], key: str, step: int
) -> list[float]:
  found = [comparison.value_at(run, key, step, along="step") for run in runs]
  return [value for value in found if value is not None]


def _speedup(records: Records, row: _Row) -> str:
  measured = records.benchmark.get(row.experiment.name, {}).get(
    "schedule_speedup"
  )
  predicted = _predicted(records, row.experiment)
  if row.experiment in (experiments.BASELINE, experiments.SHORT_BASELINE):
    return predicted  # It is what the others are measured against.
  return f"{written_numbers.ratio(measured)} ({predicted})"


def _ablations(records: Records) -> tables.Table:
  steps = experiments.NUM_STEPS
  by_seed = _losses(records, experiments.MSLT, steps)
  mslt = list(by_seed.values())
  num_seeds = len(experiments.MSLT.seeds)
  rows = []
  question = ""
  for each in experiments.ABLATIONS:
    if each.question != question:
      question = each.question
      rows.append(
        (
          question,
          f"{experiments.DEFAULTS[question]} (default)",
          spread(mslt, written_numbers.loss),
          "",
          "",
          _predicted(records, experiments.MSLT),
          "",
        )
      )
    losses = list(_losses(records, each, steps).values())
    if not losses or not mslt:
      continue
    rows.append(
      (
        "",
        each.title,
        spread(losses, written_numbers.loss),
        written_numbers.difference(losses[0], by_seed.get(0)),
        # What `SPREAD` means depends on how many seeds it is of.
        judge(losses[0], mslt) if len(mslt) == num_seeds else "",
        _predicted(records, each),
        f"bin/reproduce --only={each.name}_{each.seeds[0]}",
      )
    )
  return tables.Table(
    "Ablations",
    (
      "question",
      "answer",
      "held-out MLM loss",
      "against MSLT's seed 0",
      "",
      "speedup by FLOPs",
      "command",
    ),
    tuple(rows),
    (
      _unigram(records),
      f"{_NO_EFFECT}: inside {SPREAD}; one in eight of the changes that have"
      " none falls outside. One seed each, the first; the difference is to MSLT"
      " with that seed, and so the same data in the same order.",
    ),
  )


def _predicted(records: Records, experiment: experiments.Experiment) -> str:
  """Returns the speedup by FLOPs over the baseline, of 12 layers."""
  whole = _cost(records, experiments.MSLT)
  cost = _cost(records, experiment)
  if whole is None or cost is None:
    return "-"
  baseline = whole.flops_per_example * whole.speedup
  return written_numbers.ratio(baseline / cost.flops_per_example)


def _cost(
  records: Records, experiment: experiments.Experiment
) -> costs.ScheduleCost | None:
  runs = records.finished(experiment)
  return runs[0].cost if runs else None


def _attention(records: Records) -> tables.Table:
  """Returns Jensen-Shannon divergences in bits, means over heads, by layer."""
  columns = {}
  for name, content in records.attention.items():
    last = content["comparisons"][-1]
    stages = f"stage {last['before']} and {last['after']}"
    for kind, what in (
      ("same_layer", "the same layer in"),
      ("grown", "a layer and what began as its copy, in"),
    ):
      columns[f"{name}: {what} {stages}"] = {
        each["layer"]: statistics.fmean(each["heads"]) for each in last[kind]
      }
    if last["other_heads"] is not None:  # There is more than one head.
      columns[f"{name}: two heads of a layer, mean"] = {
        "all": last["other_heads"]
      }
  columns = {title: column for title, column in columns.items() if column}
  layers = sorted(
    {each for column in columns.values() for each in column if each != "all"}
  )
  return tables.Table(
    "Divergence of attention, in bits",
    ("layer", *columns),
    tuple(
      (
        str(layer),
        *(
          "" if layer not in column else f"{column[layer]:.3f}"
          for column in columns.values()
        ),
      )
      for layer in [*layers, "all"]
    ),
  )


def _every_run(records: Records) -> tables.Table:
  rows = [
    (
      name,
      written_numbers.loss(run.evaluations[-1]["mlm_loss"]),
      written_numbers.duration(run.wall_seconds),
      written_numbers.duration(run.train_seconds),
      written_numbers.plain(run.machine.get("processor")),
      f"bin/reproduce --only={name}",
    )
    for name, run in records.runs.items()
    if run.is_finished and run.evaluations
  ]
  return tables.Table(
    "Every run",
    ("run", "held-out MLM loss", "wall time", "training", "machine", "command"),
    tuple(rows),
    (
      _unigram(records),
      "Machine: of a run that was continued on another, the last one.",
    ),
  )


def _unigram(records: Records) -> str:
  loss = written_numbers.loss(records.unigram_loss)
  return f"Token frequencies alone give a held-out MLM loss of {loss}."
