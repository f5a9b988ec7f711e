"""The small files of the reproduction's runs, kept where all can read them.

records/
  runs/<run>/          a workdir without its weights, for bin/compare_runs.py
  fine_tuning.json     every result of bin/finetune.py
  attention.json       of bin/plot_attention.py, by run
  benchmark.json       of bin/benchmark.py, by experiment
  data.json            how large the data set is
"""

import json
import os
import shutil
from typing import Any

from mslt_tf.analysis import fine_tuned
from mslt_tf.analysis import workdirs
from mslt_tf.reproduction import experiments
from mslt_tf.reproduction import jobs
from mslt_tf.reproduction import result_tables


def keep(workdir: jobs.Workdir, records: str) -> None:
  """Copies what is finished in the workdir to the records."""
  for run in [*experiments.main_runs(), *experiments.other_runs()]:
    if jobs.pretraining_job(workdir, run).is_finished():
      _copy_run(workdir.run(run), os.path.join(records, "runs", run.name))
  fine_tuning: list[Any] = []
  for path in workdir.fine_tuning():
    fine_tuning += _read(os.path.join(path, "results.json")) or []
  _write(os.path.join(records, "fine_tuning.json"), fine_tuning)
  for name, files in (
    ("attention", workdir.attention()),
    ("benchmark", workdir.benchmarks()),
  ):
    found = {each: _read(path) for each, path in files.items()}
    content = {each: value for each, value in found.items() if value}
    _write(os.path.join(records, f"{name}.json"), content)
  manifest = _read(os.path.join(workdir.data, "manifest.json"))
  if manifest:
    splits = {
      split: {name: facts[name] for name in result_tables.DATA_FACTS}
      for split, facts in manifest["splits"].items()
    }
    _write(os.path.join(records, "data.json"), splits)


def read(records: str) -> result_tables.Records:
  """Returns what is there."""
  folders = {
    run.name: os.path.join(records, "runs", run.name)
    for run in [*experiments.main_runs(), *experiments.other_runs()]
  }
  path = os.path.join(records, "fine_tuning.json")
  return result_tables.Records(
    runs={
      name: workdirs.read(folder, name)
      for name, folder in folders.items()
      if os.path.isdir(folder)
    },
    fine_tuning=fine_tuned.summaries(_read(path) or [], path),
    attention=_read(os.path.join(records, "attention.json")) or {},
    benchmark=_read(os.path.join(records, "benchmark.json")) or {},
    data=_read(os.path.join(records, "data.json")) or {},
  )


def _copy_run(workdir: str, target: str) -> None:
  for folder, _, names in os.walk(workdir):
    for name in names:
      if name not in ("identity.json", "summary.json", "metrics.jsonl"):
        continue
      path = os.path.join(folder, name)
      copy = os.path.join(target, os.path.relpath(path, workdir))
      os.makedirs(os.path.dirname(copy), exist_ok=True)
      shutil.copyfile(path, copy)


def _read(path: str) -> Any:
  try:
    with open(path, encoding="utf-8") as file:
      return json.load(file)
  except (OSError, ValueError):
    return None


def _write(path: str, content: Any) -> None:
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(path, "w", encoding="utf-8") as file:
    json.dump(content, file, indent=1)
    file.write("\n")
