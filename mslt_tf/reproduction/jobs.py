"""The reproduction as an ordered list of commands, each done once.

workdir/
  reviews.jsonl               text from a package
  data/                       vocabulary and shards
  <run>/                      of bin/pretrain.py
  reviews_<seed>/, glue_<seed>/, cut_reviews_<seed>/, cut_glue_<seed>/
                              of bin/finetune.py
  attention_<run>/            of bin/plot_attention.py
  benchmark_<method>.json     of bin/benchmark.py
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from mslt_tf.reproduction import experiments

CONFIG = "configs/reproduction.yaml"
GLUE_TASKS = ("cola", "mrpc", "stsb", "rte")

_FINE_TUNING_CONFIG = "configs/reproduction_finetuning.yaml"
# A run and what its cut is called, where fine-tuning takes both.
CUT_NAME = "baseline_cut"
# Whose attention is measured; Figure 3 is of stacking from 6 to 12 layers.
_ATTENTION_OF = ("mslt_0", "stacking_0", "stacking_6_12_0")
# What is timed: a schedule against the baseline with as many steps.
_BENCHMARKS = (experiments.MSLT, experiments.STACKING)


@dataclasses.dataclass(frozen=True)
class Job:
  """A command.

  Attributes:
    name: What the log calls it.
    command: A binary's file name, and its flags.
    result: The JSON file that it writes last.
    is_whole: Whether the file's content is that of a finished job.
  """

  name: str
  command: tuple[str, ...]
  result: str
  is_whole: Callable[[Any], bool] = lambda content: True

  def is_finished(self) -> bool:
    try:
      with open(self.result, encoding="utf-8") as file:
        return self.is_whole(json.load(file))
    except (OSError, ValueError):
      return False


@dataclasses.dataclass(frozen=True)
class Workdir:
  """Where all of it is."""

  path: str

  @property
  def data(self) -> str:
    return os.path.join(self.path, "data")

  @property
  def reviews(self) -> str:
    return os.path.join(self.path, "reviews.jsonl")

  def run(self, run: experiments.Run) -> str:
    return os.path.join(self.path, run.name)

  def fine_tuning(self) -> list[str]:
    """Returns the workdirs that bin/finetune.py may have written."""
    return [
      os.path.join(self.path, f"{cut}{tasks}_{seed}")
      for seed in experiments.MAIN_SEEDS
      for cut in ("", "cut_")
      for tasks in ("reviews", "glue")
    ]

  def attention(self) -> dict[str, str]:
    """Returns the files of bin/plot_attention.py, by run."""
    return {
      name: os.path.join(self.path, f"attention_{name}", "attention.json")
      for name in _ATTENTION_OF
    }

  def benchmarks(self) -> dict[str, str]:
    """Returns the files of bin/benchmark.py, by experiment."""
    return {
      each.name: os.path.join(self.path, f"benchmark_{each.name}.json")
      for each in _BENCHMARKS
    }


def all_jobs(
  workdir: Workdir, *, inputs: Sequence[str], glue_dir: str
) -> list[Job]:
  """Returns the queue: data, main comparison, ablations.

  Args:
    workdir: Where they write.
    inputs: Of the data set.
    glue_dir: The official files of GLUE; "" leaves these tasks out.
  """
  jobs = [data_job(workdir, inputs)]
  for seed in experiments.MAIN_SEEDS:
    runs = [run for run in experiments.main_runs() if run.seed == seed]
    jobs += [pretraining_job(workdir, run) for run in runs]
    jobs += _fine_tuning_jobs(workdir, runs, seed, glue_dir)
    if seed == experiments.MAIN_SEEDS[0]:
      jobs += [_benchmark_job(workdir, each) for each in _BENCHMARKS]
  jobs += [pretraining_job(workdir, run) for run in experiments.other_runs()]
  jobs += [
    Job(
      f"attention of {name}",
      (
        "plot_attention.py",
        f"--checkpoint={os.path.join(workdir.path, name)}",
        "--compare",
        f"--output_dir={os.path.dirname(path)}",
      ),
      path,
    )
    for name, path in workdir.attention().items()
  ]
  return jobs


def data_job(workdir: Workdir, inputs: Sequence[str]) -> Job:
  return Job(
    "data",
    (
      "create_pretraining_data.py",
      f"--input={','.join(inputs)}",
      f"--output_dir={workdir.data}",
      "--vocab_size=8192",
      "--sequence_length=64",
      "--max_predictions=10",
    ),
    os.path.join(workdir.data, "manifest.json"),
  )


def pretraining_job(workdir: Workdir, run: experiments.Run) -> Job:
  return Job(
    run.name,
    (
      "pretrain.py",
      f"--config={CONFIG}",
      f"--workdir={workdir.run(run)}",
      *(f"--set={setting}" for setting in run.settings),
      f"--set=data.directory={workdir.data}",
    ),
    os.path.join(workdir.run(run), "summary.json"),
    lambda summary: summary["is_finished"],
  )


def _fine_tuning_jobs(
  workdir: Workdir, runs: Sequence[experiments.Run], seed: int, glue_dir: str
) -> list[Job]:
  checkpoints = [f"{run.name}={workdir.run(run)}" for run in runs]
  baseline = workdir.run(experiments.Run(experiments.BASELINE, seed))
  cut = f"{CUT_NAME}_{seed}={baseline}"
  # GLUE takes long: its spread is that of the pre-trained models' seeds.
  sets: list[tuple[str, Sequence[str], list[str]]] = [
    ("reviews", ["reviews"], [])
  ]
  if glue_dir:
    flags = [f"--data_dir={glue_dir}", "--set=seeds=[1]"]
    sets.append(("glue", GLUE_TASKS, flags))
  jobs = []
  for tasks, names, flags in sets:
    for name, of, stage in (
      (f"{tasks}_{seed}", checkpoints, []),
      (
        f"cut_{tasks}_{seed}",
        [cut],
        [f"--stage={experiments.CUT_STAGE}"],
      ),
    ):
      path = os.path.join(workdir.path, name)
      jobs.append(
        Job(
          name,
          (
            "finetune.py",
            f"--config={_FINE_TUNING_CONFIG}",
            f"--task={','.join(names)}",
            *flags,
            f"--checkpoint={','.join(of)}",
            *stage,
            f"--workdir={path}",
          ),
          os.path.join(path, "results.json"),
          functools.partial(_has_results, num_results=len(of) * len(names)),
        )
      )
  return jobs


def _has_results(content: Any, *, num_results: int) -> bool:
  """Whether a results.json of bin/finetune.py has all runs of so many tasks."""
  return len(content) == num_results and all(
    each["num_results"] == each["num_expected"] for each in content
  )


def _benchmark_job(workdir: Workdir, experiment: experiments.Experiment) -> Job:
  path = workdir.benchmarks()[experiment.name]
  return Job(
    f"benchmark of {experiment.name}",
    (
      "benchmark.py",
      f"--config={CONFIG}",
      *(f"--set={setting}" for setting in experiment.settings),
      "--rounds=7",
      "--steps=10",
      f"--output={path}",
    ),
    path,
  )
