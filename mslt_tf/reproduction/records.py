"""The small files of the reproduction's jobs, kept where all can read them.

records/runs/<run> is a workdir without its weights, for bin/compare_runs.py.
`jobs` tells what else there is.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from typing import Any

from mslt_tf import errors
from mslt_tf.analysis import workdirs
from mslt_tf.glue import results as results_lib
from mslt_tf.reproduction import experiments
from mslt_tf.reproduction import jobs as jobs_lib
from mslt_tf.reproduction import result_tables
from mslt_tf.training import run_directory


def keep(places: jobs_lib.Places, jobs: Sequence[jobs_lib.Job]) -> None:
  """Records the jobs that are finished; other records stay as they are.

  Raises:
    errors.InputError: The records cannot be written.
  """
  try:
    os.makedirs(places.records, exist_ok=True)
    runs = {run.name: run for run in experiments.all_runs()}
    for job in jobs:
      if job.is_recorded() or not job.is_finished():
        continue
      if job.name in runs:
        _keep_curves(places, runs[job.name])
      run_directory.RunDirectory(os.path.dirname(job.record)).write_json(
        os.path.basename(job.record),
        job.to_keep(jobs_lib.read_json(job.result)),
      )
  except OSError as error:
    raise errors.InputError(
      f"--records={places.records} cannot be written: {error.strerror}."
    ) from error


def check_data(places: jobs_lib.Places) -> None:
  """Compares the workdir's data set, if it is there, with the records'.

  Raises:
    errors.InputError: Recorded runs were trained on another one.
  """
  try:
    with open(os.path.join(places.data, "manifest.json"), "rb") as file:
      fingerprint = hashlib.sha256(file.read()).hexdigest()
  except FileNotFoundError:
    return
  except OSError as error:
    raise errors.InputError(
      f"{error.filename} cannot be read: {error.strerror}."
    ) from error
  for name, run in read(places.records).runs.items():
    if run.data_fingerprint not in (None, fingerprint):
      raise errors.InputError(
        f"{places.data}: the sha256 of its manifest is {fingerprint}, but"
        f" {name} in {places.records} was trained on {run.data_fingerprint};"
        " other text or another program made it. New --workdir and --records"
        " keep the two apart."
      )


def read(records: str) -> result_tables.Records:
  """Returns what is there.

  Raises:
    errors.InputError: A file is damaged, or runs are of different data sets.
  """
  runs = {
    run.name: workdirs.read(folder, run.name)
    for run in experiments.all_runs()
    if os.path.isdir(folder := os.path.join(records, "runs", run.name))
  }
  of_data = {run.data_fingerprint: name for name, run in runs.items()}
  if len(of_data) > 1:
    raise errors.InputError(
      f"{records}: {' and '.join(of_data.values())} are trained on different"
      " data; remove the ones that are old."
    )
  return result_tables.Records(
    runs=runs,
    fine_tuning=[
      summary
      for path, content in _read_folder(records, "fine_tuning").items()
      for summary in results_lib.from_list(content, path)
    ],
    attention=_by_name(_read_folder(records, "attention")),
    benchmark=_by_name(_read_folder(records, "benchmark")),
    data=jobs_lib.read_json(os.path.join(records, "data.json")) or {},
  )


def _keep_curves(places: jobs_lib.Places, run: experiments.Run) -> None:
  """Copies what is not the summary; nothing of an earlier run stays."""
  source, target = places.run(run), places.recorded_run(run)
  shutil.rmtree(target, ignore_errors=True)
  os.makedirs(target)
  shutil.copy(os.path.join(source, "identity.json"), target)
  for entry in sorted(os.listdir(source)):
    path = os.path.join(source, entry, "metrics.jsonl")
    if os.path.exists(path):
      os.makedirs(os.path.join(target, entry))
      shutil.copy(path, os.path.join(target, entry))


def _read_folder(records: str, name: str) -> dict[str, Any]:
  """Returns the content of all files of a folder by their paths."""
  folder = os.path.join(records, name)
  if not os.path.isdir(folder):
    return {}
  paths = [os.path.join(folder, each) for each in sorted(os.listdir(folder))]
  return {path: jobs_lib.read_json(path) for path in paths}


def _by_name(contents: dict[str, Any]) -> dict[str, Any]:
  return {
    os.path.basename(path).removesuffix(".json"): content
    for path, content in contents.items()
  }
