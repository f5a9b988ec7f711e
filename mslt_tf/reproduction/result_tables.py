"""The reproduction's records as tables. Pure.

A cell over several seeds is their mean, with the lowest and the highest behind.
"""

import dataclasses
import math
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
_BY_SEED = (
  "By seed: differences in this loss between runs of the same seed, which see"
  " the same data in the same order."
)
# Stands among the ablations beside the one of few layers.
_ALL_LAYERS = dataclasses.replace(
  experiments.BASELINE,
  title="12 from the first step to the last, all trained",
  question="layers",
)


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
  ) -> dict[int, recorded_run.RecordedRun]:
    """Returns its finished runs by seed, in the order of the seeds."""
    found = {
      seed: self.runs.get(experiments.Run(experiment, seed).name)
      for seed in experiment.seeds
    }
    return {
      seed: run
      for seed, run in found.items()
      if run is not None and run.is_finished
    }

  @property
  def unigram_loss(self) -> float | None:
    known = [run.unigram_mlm_loss for run in self.runs.values()]
    return next((each for each in known if each), None)


@dataclasses.dataclass(frozen=True)
class _Row:
  """A line of a main table: where, along some runs, it is read off."""

  title: str
  experiment: experiments.Experiment
  name: str  # Of the row, and, with the seed behind, of fine-tuned checkpoints.
  step: int
  benchmark: str = ""  # Of its speedup over the baseline, which has none.


def _row(
  experiment: experiments.Experiment, step: int, *, benchmark: str = ""
) -> _Row:
  return _Row(experiment.title, experiment, experiment.name, step, benchmark)


def all_tables(records: Records) -> dict[str, tables.Table]:
  """Returns the tables by the name that the page calls them."""
  steps, short_steps = experiments.NUM_STEPS, experiments.EQUAL_TIME_STEPS
  baseline = _row(experiments.BASELINE, steps)
  stacking = _row(experiments.STACKING, steps, benchmark="stacking")
  mslt = _row(experiments.MSLT, steps, benchmark="mslt")
  short_baseline = _row(experiments.SHORT_BASELINE, short_steps)
  cut_baseline = dataclasses.replace(
    baseline,
    title="baseline, cut from the long curve",
    name=jobs.CUT_NAME,
    step=short_steps,
  )
  short_stacking = _row(
    experiments.SHORT_STACKING,
    experiments.STACKING_EQUAL_TIME_STEPS,
    benchmark="stacking",
  )
  equal_steps = [baseline, stacking, mslt]
  equal_time = [mslt, short_baseline, cut_baseline, short_stacking]
  return {
    "headline": _headline(
      records, [*equal_steps, short_baseline, short_stacking]
    ),
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


def judge(differences: Sequence[float], seeds: Sequence[float]) -> str:
  """Tells what a change did to a loss.

  Twice the range of three values of a normal distribution is less than what one
  of them differs by from another value 9 times in 100. The mean difference of
  three pairs is beyond this limit over the root of 3 11 times in 100.

  Args:
    differences: Between runs of the same seed, for each seed.
    seeds: Losses of what was changed, by seed.
  """
  mean = statistics.fmean(differences)
  limit = 2 * (max(seeds) - min(seeds)) / math.sqrt(len(differences))
  if abs(mean) <= limit:
    return _NO_EFFECT
  return "worse" if mean > 0 else "better"


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


def _headline(records: Records, rows: Sequence[_Row]) -> tables.Table:
  cells = []
  for row in rows:
    losses = _losses(records, row.experiment, row.step)
    speedup = _measured_speedup(records, row)
    cells.append(
      (
        row.title,
        written_numbers.count(row.step),
        written_numbers.ratio(
          speedup and row.step / experiments.NUM_STEPS / speedup
        ),
        spread(list(losses.values()), written_numbers.loss),
        ""
        if row is rows[0]
        else _spread_of_differences(_differences(records, row, rows[0])),
      )
    )
  return tables.Table(
    "12 layers, hidden 128, two CPU cores",
    (
      "",
      "steps",
      "time",
      "held-out MLM loss",
      f"by seed, against {rows[0].title}",
    ),
    tuple(cells),
    (
      _unigram(records),
      "Cells: the mean over the seeds, with the lowest and the highest; loss in"
      " nats, the lower the better. Time: relative to the baseline's, by the"
      f" mean time of a step. {_BY_SEED}",
    ),
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
    runs = list(records.finished(row.experiment).values())
    cells.append(
      (
        row.title,
        written_numbers.count(row.step),
        spread(_values(runs, "mlm_loss", row.step), written_numbers.loss),
        ""
        if row is rows[0]
        else _spread_of_differences(_differences(records, row, rows[0])),
        *(
          spread(_values(runs, key, row.step), written_numbers.percent)
          for key in ("mlm_accuracy", "nsp_accuracy")
        ),
        # Seeds may have run on machines of different speed.
        written_numbers.duration(
          next(iter(_values(runs[:1], "train_seconds", row.step)), None)
        ),
        _speedup(records, row),
        *(
          _score(
            [
              results[row.name, seed][task]
              for seed in row.experiment.seeds
              if task in results.get((row.name, seed), {})
            ]
          )
          for task in titles
        ),
        _command(row.name),
      )
    )
  return tables.Table(
    title,
    (
      "",
      "steps",
      "held-out MLM loss",
      f"by seed, against {rows[0].title}",
      "MLM accuracy",
      "NSP accuracy",
      "training time",
      "speedup",
      *titles.values(),
      "command",
    ),
    tuple(cells),
    (
      _unigram(records),
      _BY_SEED,
      "Speedup: of a training step against the baseline's, the mean over the"
      " run, by bin/benchmark.py, which times them in turns; in brackets by"
      " FLOPs. Training time: of the first seed, without tracing, evaluation"
      " and saving, on the machine and as many cores as its run below names,"
      " whose pace drifts from run to run: speedups are to be compared, not"
      " these times.",
      *_fine_tuning_notes(records),
    ),
  )


def _differences(records: Records, row: _Row, other: _Row) -> list[float]:
  """Returns by how much losses differ between runs of the same seed."""
  losses, others = (
    _losses(records, each.experiment, each.step) for each in (row, other)
  )
  return [losses[seed] - others[seed] for seed in losses if seed in others]


def _spread_of_differences(values: Sequence[float]) -> str:
  return spread(values, lambda value: written_numbers.difference(value, 0.0))


def _with_notes(table: tables.Table, *notes: str) -> tables.Table:
  return dataclasses.replace(table, notes=(*table.notes, *filter(None, notes)))


def _equal_time_note(records: Records) -> str:
  speedup, stacking = (
    records.benchmark.get(each.name, {}).get("schedule_speedup")
    for each in (experiments.MSLT, experiments.STACKING)
  )
  if speedup is None or stacking is None:
    return ""
  steps = experiments.NUM_STEPS / speedup
  return (
    f"By these speedups the time of MSLT's {experiments.NUM_STEPS:,} steps is"
    f" that of {steps:,.0f} of the baseline's and {steps * stacking:,.0f} of"
    " stacking's; the runs were given"
    f" {experiments.EQUAL_TIME_STEPS:,} and"
    f" {experiments.STACKING_EQUAL_TIME_STEPS:,}."
  )


def _equal_loss_note(records: Records) -> str:
  """Tells what of the baseline's time MSLT saves at its own loss."""
  speedup = records.benchmark.get("mslt", {}).get("schedule_speedup")
  of_each = [
    _losses(records, experiment, steps)
    for experiment, steps in (
      (experiments.MSLT, experiments.NUM_STEPS),
      (experiments.SHORT_BASELINE, experiments.EQUAL_TIME_STEPS),
      (experiments.BASELINE, experiments.NUM_STEPS),
    )
  ]
  # Runs of one seed see the same data in the same order.
  of_seeds = [
    [losses[seed] for losses in of_each]
    for seed in set.intersection(*map(set, of_each))
  ]
  if speedup is None or not of_seeds:
    return ""
  mean = equal_loss_steps(*map(statistics.fmean, zip(*of_seeds, strict=True)))
  by_seed = [equal_loss_steps(*losses) for losses in of_seeds]
  known = [each for each in by_seed if each is not None]
  if mean is None or len(known) < len(by_seed):
    return ""
  saved = [saved_share(each, speedup=speedup) for each in known]
  return (
    "Equal loss: a baseline whose rate decays over its own run comes to MSLT's"
    f" loss in {mean:,.0f} steps, by a straight line over the logarithm of the"
    " steps, through the baseline's losses in"
    f" {experiments.EQUAL_TIME_STEPS:,} and {experiments.NUM_STEPS:,}. Of the"
    f" time of so many, MSLT saves {saved_share(mean, speedup=speedup):.0%};"
    f" seed by seed, {min(saved):.0%} to {max(saved):.0%}."
  )


def equal_loss_steps(loss: float, short: float, long: float) -> float | None:
  """Returns the steps in which the baseline would come to a loss.

  By a straight line over the logarithm of the steps.

  Args:
    loss: To come to.
    short: The baseline's in `EQUAL_TIME_STEPS`.
    long: The baseline's in `NUM_STEPS`.

  Returns:
    The steps; `None` where the loss is not between these two.
  """
  if not long <= loss <= short or long == short:
    return None
  ratio = experiments.NUM_STEPS / experiments.EQUAL_TIME_STEPS
  exponent = (short - loss) / (short - long)
  return experiments.EQUAL_TIME_STEPS * ratio**exponent


def saved_share(steps: float, *, speedup: float) -> float:
  """Returns the share of the baseline's time that `NUM_STEPS` save.

  Args:
    steps: In which the baseline comes to the same loss.
    speedup: Of a step over the baseline's.
  """
  return 1 - experiments.NUM_STEPS / speedup / steps


def _score(summaries: Sequence[results_lib.Summary]) -> str:
  cell = spread(
    [each.score for each in summaries], lambda score: f"{100 * score:.1f}"
  )
  is_constant = any(not each.is_better_than_constant for each in summaries)
  return cell + ("*" if is_constant else "")


def _fine_tuning_notes(records: Records) -> tuple[str, ...]:
  if not records.fine_tuning:
    return ()
  of_tasks = {each.task.title: each for each in records.fine_tuning}
  told = "; ".join(
    f"{title}, {tables.METRIC_NAMES[each.task.headline]},"
    f" {100 * each.constant_score:.1f} and {100 * each.threshold:.1f}"
    for title, each in of_tasks.items()
  )
  num_runs = max(each.num_expected for each in records.fine_tuning)
  runs = (
    "one run"
    if num_runs == 1
    else f"the median of the best rate's, of {num_runs} runs,"
  )
  return (
    f"Fine-tuning: {runs} for each pre-trained model, on dev. *: at least one"
    " of the models is not clearly better, by two standard errors, than giving"
    " all examples the same answer. What that scores, and what would be clearly"
    f" better: {told}.",
  )


def _losses(
  records: Records, experiment: experiments.Experiment, step: int
) -> dict[int, float]:
  """Returns the held-out MLM losses of its finished runs, by seed."""
  found = {
    seed: comparison.value_at(run, "mlm_loss", step, along="step")
    for seed, run in records.finished(experiment).items()
  }
  return {seed: loss for seed, loss in found.items() if loss is not None}


def _values(
  runs: Sequence[recorded_run.RecordedRun], key: str, step: int
) -> list[float]:
  found = [comparison.value_at(run, key, step, along="step") for run in runs]
  return [value for value in found if value is not None]


def _speedup(records: Records, row: _Row) -> str:
  predicted = written_numbers.ratio(_predicted(records, row.experiment))
  if not row.benchmark:
    return predicted
  measured = _measured_speedup(records, row)
  return f"{written_numbers.ratio(measured)} ({predicted})"


def _measured_speedup(records: Records, row: _Row) -> float | None:
  if not row.benchmark:
    return 1.0  # It is what the others are measured against.
  return records.benchmark.get(row.benchmark, {}).get("schedule_speedup")


def _ablations(records: Records) -> tables.Table:
  steps = experiments.NUM_STEPS
  mslt = list(_losses(records, experiments.MSLT, steps).values())
  rows = [
    (
      "",
      experiments.MSLT.title,
      spread(mslt, written_numbers.loss),
      "",
      "",
      *_accuracies(records, experiments.MSLT),
      *_costs_and_saving(records, experiments.MSLT),
      _command(experiments.MSLT.name),
    )
  ]
  question = ""
  for each in (_ALL_LAYERS, *experiments.ABLATIONS):
    differences = _differences(
      records, _row(each, steps), _row(experiments.MSLT, steps)
    )
    if not differences:
      continue
    rows.append(
      (
        ""
        if each.question == question
        else f"{each.question} (MSLT: {experiments.DEFAULTS[each.question]})",
        each.title,
        spread(
          list(_losses(records, each, steps).values()), written_numbers.loss
        ),
        _spread_of_differences(differences),
        # The range of fewer seeds is narrower.
        judge(differences, mslt)
        if len(mslt) == len(experiments.MSLT.seeds)
        else "",
        *_accuracies(records, each),
        *_costs_and_saving(records, each),
        _command(each.name),
      )
    )
    question = each.question
  return tables.Table(
    "Ablations",
    (
      "question",
      "answer",
      "held-out MLM loss",
      "by seed, against MSLT",
      "verdict",
      "MLM accuracy",
      "NSP accuracy",
      "speedup by FLOPs",
      "FLOPs saved at equal loss",
      "command",
    ),
    tuple(rows),
    (
      _unigram(records),
      "Differences are between runs of the same seed, so not between the"
      f" losses on the left. {_NO_EFFECT}: that of one seed is at most twice"
      " the range of MSLT's seeds, the mean of n seeds at most this over the"
      " root of n; a smaller one cannot be seen here. Of changes that do"
      " nothing, up to one in nine would still be called better or worse: among"
      " so many rows one such verdict is to be expected. All lean on the same"
      " runs of MSLT.",
      "FLOPs saved at equal loss: as the time above, by the mean losses of the"
      " seeds that a row has. It weighs loss against speed. Over, under: the"
      f" loss is lower than the baseline's in {experiments.NUM_STEPS:,} steps,"
      f" or higher than in {experiments.EQUAL_TIME_STEPS:,}; how many steps it"
      " is worth is not known.",
    ),
  )


def _accuracies(
  records: Records, experiment: experiments.Experiment
) -> list[str]:
  """Returns those of MLM and NSP."""
  runs = list(records.finished(experiment).values())
  return [
    spread(_values(runs, key, experiments.NUM_STEPS), written_numbers.percent)
    for key in ("mlm_accuracy", "nsp_accuracy")
  ]


def _command(name: str) -> str:
  return f"bin/reproduce --only={name}"


def _costs_and_saving(
  records: Records, experiment: experiments.Experiment
) -> tuple[str, str]:
  """Returns the speedup by FLOPs and what it saves at equal loss."""
  speedup = _predicted(records, experiment)
  steps = experiments.NUM_STEPS
  losses = [
    _losses(records, each, steps_of_run)
    for each, steps_of_run in (
      (experiment, steps),
      (experiments.SHORT_BASELINE, experiments.EQUAL_TIME_STEPS),
      (experiments.BASELINE, steps),
    )
  ]
  seeds = [seed for seed in losses[0] if all(seed in each for each in losses)]
  saved = "-"
  if speedup is not None and seeds:
    means = [statistics.fmean(each[seed] for seed in seeds) for each in losses]
    saved = _saved(*means, speedup=speedup)
  return written_numbers.ratio(speedup), saved


def _saved(loss: float, short: float, long: float, *, speedup: float) -> str:
  """Tells the saved share; as a bound where no line tells the steps."""
  if short <= long:
    return "-"
  steps = equal_loss_steps(loss, short, long)
  if steps is not None:
    return f"{saved_share(steps, speedup=speedup):.0%}"
  if loss < long:
    return f"over {saved_share(experiments.NUM_STEPS, speedup=speedup):.0%}"
  return (
    f"under {saved_share(experiments.EQUAL_TIME_STEPS, speedup=speedup):.0%}"
  )


def _predicted(
  records: Records, experiment: experiments.Experiment
) -> float | None:
  """Returns the speedup by FLOPs over the baseline, of 12 layers."""
  whole = _cost(records, experiments.MSLT)
  cost = _cost(records, experiment)
  if whole is None or cost is None:
    return None
  return whole.flops_per_example * whole.speedup / cost.flops_per_example


def _cost(
  records: Records, experiment: experiments.Experiment
) -> costs.ScheduleCost | None:
  run = next(iter(records.finished(experiment).values()), None)
  return None if run is None else run.cost


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
      written_numbers.plain(run.machine.get("cores")),
      _command(name),
    )
    for name, run in records.runs.items()
    if run.is_finished and run.evaluations
  ]
  return tables.Table(
    "Every run",
    (
      "run",
      "held-out MLM loss",
      "wall time",
      "training",
      "machine",
      "cores",
      "command",
    ),
    tuple(rows),
    (
      _unigram(records),
      "Machine, and how many of its cores the run was given: where it was"
      " continued elsewhere, the last.",
    ),
  )


def _unigram(records: Records) -> str:
  loss = written_numbers.loss(records.unigram_loss)
  return f"Token frequencies alone give a held-out MLM loss of {loss}."
