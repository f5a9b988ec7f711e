"""The reproduction as an ordered list of commands, each done once.

workdir/                          records/
  reviews.jsonl                                          text from a package
  data/                             data.json            of the shards: counts
  benchmark_<experiment>.json       benchmark/<experiment>.json
  <run>/                            runs/<run>/          without weights
  fine_tuning_<checkpoint>/         fine_tuning/<checkpoint>.json
  attention_<run>/                  attention/<run>.json

A job leaves a JSON file in the workdir, which is large and may get lost, and
the same content, or the part of it that is to be kept, in the records.
"""

import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Callable, Sequence, Set
from typing import Any

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf.glue import protocol as protocol_lib
from mslt_tf.reproduction import experiments

CONFIG = "configs/reproduction.yaml"
GLUE_TASKS = ("cola", "mrpc", "stsb", "rte")
# What the row of the baseline's earlier stage is called.
CUT_NAME = "baseline_cut"
# Of the data set's manifest, what is kept of each split.
DATA_FACTS = ("num_documents", "num_sentences", "num_tokens", "num_examples")

_TIMED_STAGE = ("num_layers", "num_frozen_layers", "num_steps")
_FINE_TUNING_CONFIG = "configs/reproduction_finetuning.yaml"
# What is timed: a schedule against the baseline with as many steps.
_BENCHMARKS = (experiments.MSLT, experiments.STACKING)
# Whose attention is measured; Figure 3 is of stacking from 6 to 12 layers.
_ATTENTION_OF = (
  experiments.Run(experiments.MSLT, 0),
  experiments.Run(experiments.STACKING, 0),
  experiments.Run(experiments.TWO_STAGE_STACKING, 0),
)


@dataclasses.dataclass(frozen=True)
class Job:
  """A command.

  Attributes:
    name: What the log calls it.
    command: A binary's file name, and its flags.
    result: The JSON file that it writes last.
    record: The file in the records that keeps it.
    row: Of the tables, which it fills together with its other seeds; "" if it
      fills none.
    needs: Names of the jobs whose files in the workdir it reads.
    needs_all_cores: Whether it measures the machine, or uses all of it well.
    is_whole: Whether the result, or the record, is that of a finished job.
      Raises `InputError` if it is one of another job.
    to_keep: The part of the result that is recorded.
  """

  name: str
  command: tuple[str, ...]
  result: str
  record: str
  row: str = ""
  needs: tuple[str, ...] = ()
  needs_all_cores: bool = False
  is_whole: Callable[[Any], bool] = lambda content: True
  to_keep: Callable[[Any], Any] = lambda content: content

  def is_finished(self) -> bool:
    """Whether its result is in the workdir."""
    return self._has(self.result)

  def is_recorded(self) -> bool:
    return self._has(self.record)

  def _has(self, path: str) -> bool:
    content = read_json(path, is_whole=False)
    try:
      return content is not None and self.is_whole(content)
    except errors.InputError as error:
      raise errors.InputError(f"{path}: {error}") from None


@dataclasses.dataclass(frozen=True)
class Places:
  """Where everything is.

  Attributes:
    workdir: Data, runs and logs.
    records: The small files that are kept.
  """

  workdir: str
  records: str

  @property
  def data(self) -> str:
    return os.path.join(self.workdir, "data")

  @property
  def reviews(self) -> str:
    return os.path.join(self.workdir, "reviews.jsonl")

  @property
  def logs(self) -> str:
    return os.path.join(self.workdir, "logs")

  def run(self, run: experiments.Run) -> str:
    return os.path.join(self.workdir, run.name)

  def recorded_run(self, run: experiments.Run) -> str:
    return os.path.join(self.records, "runs", run.name)


def read_json(path: str, *, is_whole: bool = True) -> Any:
  """Returns a file's content; None if there is no file.

  Args:
    path: The file.
    is_whole: Whether anything but JSON is an error, and not just a file that a
      kill left half-written.

  Raises:
    errors.InputError: The file cannot be read.
  """
  try:
    with open(path, encoding="utf-8") as file:
      return json.load(file)
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    if is_whole:
      raise errors.InputError(f"{path} cannot be read: {error}.") from error
    return None


def all_jobs(
  places: Places, *, inputs: Sequence[str], glue_dir: str
) -> list[Job]:
  """Returns the queue: data, speed, main comparison, ablations.

  Args:
    places: Where they write.
    inputs: Of the data set.
    glue_dir: The official files of GLUE; "" leaves these tasks out.
  """
  jobs = [data_job(places, inputs)]
  jobs += [_benchmark_job(places, each) for each in _BENCHMARKS]
  for run in experiments.all_runs():
    jobs.append(pretraining_job(places, run))
    # What needs a run's weights follows at once: the workdir may get lost.
    if run.experiment in experiments.MAIN:
      jobs.append(_fine_tuning_job(places, run, glue_dir))
    if run.experiment is experiments.BASELINE:
      jobs.append(_fine_tuning_job(places, run, glue_dir, is_cut=True))
    if run in _ATTENTION_OF:
      jobs.append(_attention_job(places, run))
  return jobs


def select(jobs: Sequence[Job], names: Sequence[str]) -> list[Job]:
  """Returns jobs, and those that they need, in the order of the queue.

  Args:
    jobs: The queue.
    names: Of jobs, or of rows for all jobs of a row.

  Raises:
    errors.InputError: naming one that does not exist.
  """
  rows = dict.fromkeys(job.row for job in jobs if job.row)
  known = {*rows, *(job.name for job in jobs)}
  for name in names:
    if name not in known:
      of_rows = [job.name for job in jobs if job.row]
      others = [job.name for job in jobs if not job.row]
      raise errors.InputError(
        f"--only={name} is none of the rows {', '.join(rows)}, none of their"
        f" jobs such as {' and '.join(of_rows[:2])}, and none of"
        f" {', '.join(others)}."
      )
  wanted = {
    job.name for job in jobs if not {job.name, job.row}.isdisjoint(names)
  }
  for job in reversed(jobs):
    if job.name in wanted:
      wanted.update(job.needs)
  return [job for job in jobs if job.name in wanted]


def data_job(places: Places, inputs: Sequence[str]) -> Job:
  return Job(
    "data",
    (
      "create_pretraining_data.py",
      f"--input={','.join(inputs)}",
      f"--output_dir={places.data}",
      "--vocab_size=8192",
      "--sequence_length=64",
      "--max_predictions=10",
    ),
    os.path.join(places.data, "manifest.json"),
    os.path.join(places.records, "data.json"),
    needs_all_cores=True,
    to_keep=lambda manifest: {
      split: {name: facts[name] for name in DATA_FACTS}
      for split, facts in manifest["splits"].items()
    },
  )


def pretraining_job(places: Places, run: experiments.Run) -> Job:
  config = _config(run.settings)
  return Job(
    run.name,
    (
      "pretrain.py",
      f"--config={CONFIG}",
      f"--workdir={places.run(run)}",
      *(f"--set={setting}" for setting in run.settings),
      f"--set=data.directory={places.data}",
    ),
    os.path.join(places.run(run), "summary.json"),
    os.path.join(places.recorded_run(run), "summary.json"),
    row=run.experiment.name,
    needs=("data",),
    is_whole=functools.partial(
      _is_finished_run, config=config_lib.to_dict(config)
    ),
    to_keep=_without_path,
  )


def _fine_tuning_job(
  places: Places,
  run: experiments.Run,
  glue_dir: str,
  *,
  is_cut: bool = False,
) -> Job:
  tasks = ["reviews", *(GLUE_TASKS if glue_dir else ())]
  row = CUT_NAME if is_cut else run.experiment.name
  checkpoint = f"{row}_{run.seed}"
  name = f"fine_tuning_{checkpoint}"
  path = os.path.join(places.workdir, name)
  return Job(
    name,
    (
      "finetune.py",
      f"--config={_FINE_TUNING_CONFIG}",
      f"--task={','.join(tasks)}",
      *([f"--data_dir={glue_dir}"] if glue_dir else []),
      f"--checkpoint={checkpoint}={places.run(run)}",
      *([f"--stage={experiments.CUT_STAGE}"] if is_cut else []),
      f"--workdir={path}",
    ),
    os.path.join(path, "results.json"),
    os.path.join(places.records, "fine_tuning", f"{checkpoint}.json"),
    row=row,
    needs=(run.name,),
    is_whole=functools.partial(
      _has_results, tasks=tasks, runs=_fine_tuning_runs()
    ),
  )


def _benchmark_job(places: Places, experiment: experiments.Experiment) -> Job:
  path = os.path.join(places.workdir, f"benchmark_{experiment.name}.json")
  config = _config(experiment.settings)
  return Job(
    f"benchmark_{experiment.name}",
    (
      "benchmark.py",
      f"--config={CONFIG}",
      *(f"--set={setting}" for setting in experiment.settings),
      "--rounds=7",
      "--steps=10",
      f"--output={path}",
    ),
    path,
    os.path.join(places.records, "benchmark", f"{experiment.name}.json"),
    needs_all_cores=True,
    is_whole=functools.partial(_is_benchmark, config=config),
  )


def _attention_job(places: Places, run: experiments.Run) -> Job:
  name = f"attention_{run.name}"
  path = os.path.join(places.workdir, name)
  return Job(
    name,
    (
      "plot_attention.py",
      f"--checkpoint={places.run(run)}",
      "--compare",
      f"--output_dir={path}",
    ),
    os.path.join(path, "attention.json"),
    os.path.join(places.records, "attention", f"{run.name}.json"),
    needs=("data", run.name),
    to_keep=lambda content: {"comparisons": content["comparisons"]},
  )


def _config(settings: Sequence[str]) -> config_lib.Config:
  with open(CONFIG, encoding="utf-8") as file:
    return config_lib.load(file.read(), source=CONFIG, overrides=settings)


def _fine_tuning_runs() -> Set[tuple[float, int]]:
  """Returns the rates and seeds that each model is fine-tuned with."""
  with open(_FINE_TUNING_CONFIG, encoding="utf-8") as file:
    protocol = config_lib.load_flat(
      protocol_lib.Protocol,
      file.read(),
      source=_FINE_TUNING_CONFIG,
      overrides=(),
    )
  return set(itertools.product(protocol.learning_rates, protocol.seeds))


def _is_finished_run(summary: Any, *, config: Any) -> bool:
  """Whether a summary.json is of a finished run of this config."""
  if _identity(summary["config"]) != _identity(config):
    raise errors.InputError(
      f"this is a run of another config than {CONFIG} and its settings give; to"
      " train it anew remove its folder, and what fine-tuning and attention"
      " made of it, here and in the records."
    )
  return summary["is_finished"]


def _identity(config: Any) -> Any:
  """Returns what a run's results depend on."""
  training = config["training"]
  return {
    **{name: config[name] for name in ("model", "schedule", "optimizer")},
    "data": {
      name: value
      for name, value in config["data"].items()
      if name != "directory"
    },
    "training": {
      name: training[name] for name in ("seed", "precision", "eval_examples")
    },
  }


def _without_path(summary: Any) -> Any:
  """Returns a summary that does not tell where the data lay."""
  config = summary["config"]
  data = {**config["data"], "directory": None}
  return {**summary, "config": {**config, "data": data}}


def _has_results(
  content: Any, *, tasks: Sequence[str], runs: Set[tuple[float, int]]
) -> bool:
  """Whether a results.json has all runs, by rate and seed, of these tasks."""
  found = {
    each["task"]: {
      (result["learning_rate"], result["seed"]) for result in each["results"]
    }
    for each in content
  }
  return all(runs <= found.get(task, set()) for task in tasks)


def _is_benchmark(content: Any, *, config: config_lib.Config) -> bool:
  """Whether the steps of this config's stages were timed."""
  timed = [
    tuple(stage[name] for name in _TIMED_STAGE) for stage in content["stages"]
  ]
  stages = [
    tuple(getattr(stage, name) for name in _TIMED_STAGE)
    for stage in config.schedule.stages
  ]
  if timed != stages or content["batch_size"] != config.data.batch_size:
    raise errors.InputError(
      f"this is the timing of another config than {CONFIG}; remove it to"
      " measure anew."
    )
  return True
