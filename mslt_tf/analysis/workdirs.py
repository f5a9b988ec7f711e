"""Reads workdirs of runs, whatever state they are in."""

import os
import re
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from mslt_tf import errors
from mslt_tf.analysis import recorded_run
from mslt_tf.training import metrics
from mslt_tf.training import run_directory

_STAGE = re.compile(r"^stage_([1-9]\d*)/?$")


def read_all(workdirs: Sequence[str]) -> list[recorded_run.RecordedRun]:
  """Reads runs.

  Args:
    workdirs: Each WORKDIR, named after its folder, or NAME=WORKDIR.

  Raises:
    InputError: Two have one name, or there is no run in any of them.
  """
  if not workdirs:
    raise errors.InputError("--runs is empty.")
  named = run_directory.by_name("--runs", workdirs)
  runs = [read(path, name) for name, path in named.items()]
  if not any(run.evaluations or run.schedule for run in runs):
    raise errors.InputError(
      f"--runs={','.join(workdirs)}: there is no run; {runs[0].problems[0]}."
    )
  return runs


def read(workdir: str, name: str) -> recorded_run.RecordedRun:
  """Reads a run, finished, going or damaged."""
  problems: list[str] = []
  if not tf.io.gfile.isdir(workdir):
    return recorded_run.RecordedRun(
      name, problems=(f"{workdir} is no directory",)
    )
  metrics_of_stages = _read_metrics(workdir, problems)
  has_identity = tf.io.gfile.exists(os.path.join(workdir, "identity.json"))
  if not (has_identity or metrics_of_stages or problems):
    problem = f"{workdir} holds no run: no identity.json, no metrics"
    return recorded_run.RecordedRun(name, problems=(problem,))
  identity = _read_json(workdir, "identity.json", problems)
  summary = _read_json(workdir, "summary.json", problems, is_optional=True)
  return recorded_run.from_files(
    name,
    identity=identity,
    summary=summary,
    metrics=metrics_of_stages,
    config_text=_read_config(workdir, problems),
    problems=problems,
  )


def _read_json(
  workdir: str, name: str, problems: list[str], *, is_optional: bool = False
) -> Any:
  path = os.path.join(workdir, name)
  if not tf.io.gfile.exists(path):
    if not is_optional:
      problems.append(f"{path} is missing")
    return None
  try:
    return run_directory.RunDirectory(workdir).read_json(name)
  except errors.InputError as error:
    problems.append(str(error))
    return None


def _read_metrics(workdir: str, problems: list[str]) -> dict[int, list[Any]]:
  """Returns the records of every stage that has some, by its number."""
  directory = run_directory.RunDirectory(workdir)
  found = {}
  for entry in tf.io.gfile.listdir(workdir):
    stage = _STAGE.match(entry)
    if not stage:
      continue
    number = int(stage[1])
    if not tf.io.gfile.exists(directory.metrics(number)):
      continue  # `recorded_run` tells, where that is not the stage just begun.
    try:
      found[number] = metrics.read(directory.metrics(number))
    except (errors.InputError, tf.errors.OpError, UnicodeDecodeError) as error:
      reason = errors.first_line(error)
      problems.append(f"stage {number} cannot be read: {reason}")
  return found


def _read_config(workdir: str, problems: list[str]) -> str:
  path = os.path.join(workdir, "config.yaml")
  if not tf.io.gfile.exists(path):
    return ""
  try:
    with tf.io.gfile.GFile(path) as file:
      return file.read()
  except (tf.errors.OpError, UnicodeDecodeError) as error:
    problems.append(f"{path} cannot be read: {errors.first_line(error)}")
    return ""
