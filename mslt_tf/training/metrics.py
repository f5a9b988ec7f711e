"""Metrics of a run as JSON lines and TensorBoard events, and its clock."""

import json
import os
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from mslt_tf import errors
from mslt_tf.training import run_directory


class MetricsLog:
  """Writes records to a stage's `metrics.jsonl` and to TensorBoard.

  A record is a flat mapping with a `step`; its numbers become scalars named
  `<kind>/<key>` at that step.
  """

  def __init__(
    self,
    *,
    jsonl_path: str,
    event_dir: str,
    step: int,
    stage_event_dir: str | None = None,
    stage_start: int = 0,
  ):
    """Opens all for a stage that goes on from `step`.

    Records of later steps, left by a run that was killed after its last
    checkpoint, are dropped: these steps are about to be made again.

    Args:
      jsonl_path: Of the records.
      event_dir: Where scalars go, at the run's steps.
      step: Of the run.
      stage_event_dir: Where the same scalars go at steps that count from
        `stage_start`, so that TensorBoard lays stages over each other.
      stage_start: The run's step at which the stage begins.
    """
    self._jsonl_path = jsonl_path
    with run_directory.writing(os.path.dirname(jsonl_path)):
      tf.io.gfile.makedirs(os.path.dirname(jsonl_path))
      _drop_lines_after(jsonl_path, step)
    starts = {event_dir: 0}
    if stage_event_dir is not None:
      starts[stage_event_dir] = stage_start
    self._writers = {}
    for directory, start in starts.items():
      with run_directory.writing(directory):
        _drop_events_after(directory, step - start)
        writer = tf.summary.create_file_writer(directory)
        self._writers[directory] = (writer, start)

  def write(self, kind: str, record: Mapping[str, Any]) -> None:
    with (
      run_directory.writing(self._jsonl_path),
      tf.io.gfile.GFile(self._jsonl_path, "a") as file,
    ):
      file.write(json.dumps({"kind": kind, **record}) + "\n")
    for directory, (writer, start) in self._writers.items():
      with run_directory.writing(directory):
        with writer.as_default(step=record["step"] - start):
          for key, value in record.items():
            if key != "step" and isinstance(value, int | float):
              tf.summary.scalar(f"{kind}/{key}", value)
        writer.flush()

  def close(self) -> None:
    for writer, _ in self._writers.values():
      writer.close()


class Clock(tf.Module):
  """Seconds that a run has taken, over all its starts.

  Part of every checkpoint.
  """

  def __init__(self, started: float):
    """Starts at `started`, a reading of `time.monotonic()`."""
    super().__init__()
    self._started = started
    self._wall_seconds = tf.Variable(0.0, dtype=tf.float64)
    self._train_seconds = tf.Variable(0.0, dtype=tf.float64)

  @property
  def wall_seconds(self) -> float:
    """Everything."""
    return float(self._wall_seconds) + time.monotonic() - self._started

  @property
  def train_seconds(self) -> float:
    """Steps alone: no tracing, no first step of a start or stage, no saving.

    And the computing of frozen states, which spares steps.
    """
    return float(self._train_seconds)

  def resume(self, *, wall_seconds: float, train_seconds: float) -> None:
    """Goes on from what an earlier start has taken."""
    self._wall_seconds.assign(wall_seconds)
    self._train_seconds.assign(train_seconds)

  def count_up_to(self, wall_seconds: float) -> None:
    """Counts time that was spent after the checkpoint, where there is more."""
    self._wall_seconds.assign(max(float(self._wall_seconds), wall_seconds))

  def add_train_seconds(self, seconds: float) -> None:
    self._train_seconds.assign_add(seconds)

  def tick(self) -> None:
    """Moves the time up to now into the variable that a checkpoint holds."""
    self._wall_seconds.assign(self.wall_seconds)
    self._started = time.monotonic()


def read(path: str) -> list[dict[str, Any]]:
  """Returns the records of a `metrics.jsonl`, whole lines only."""
  if not tf.io.gfile.exists(path):
    raise errors.InputError(f"{path} is missing.")
  records = []
  with tf.io.gfile.GFile(path) as file:
    for number, line in enumerate(file, start=1):
      if not line.endswith("\n"):
        break  # A kill cut the last line off.
      try:
        records.append(json.loads(line))
      except ValueError as error:
        raise errors.InputError(
          f"{path}:{number}: not JSON: {error}"
        ) from error
  return records


def _drop_lines_after(path: str, step: int) -> None:
  if not tf.io.gfile.exists(path):
    return
  kept = [record for record in read(path) if record["step"] <= step]
  with tf.io.gfile.GFile(path + ".unfinished", "w") as file:
    file.write("".join(json.dumps(record) + "\n" for record in kept))
  tf.io.gfile.rename(path + ".unfinished", path, overwrite=True)


def _drop_events_after(directory: str, step: int) -> None:
  """Rewrites event files without events of later steps or cut-off ones."""
  names = (
    tf.io.gfile.listdir(directory) if tf.io.gfile.exists(directory) else []
  )
  for name in names:
    if not name.startswith("events.out.tfevents"):
      continue
    path = os.path.join(directory, name)
    serialized, is_whole = _whole_records(path)
    kept = [
      each
      for each in serialized
      if tf.compat.v1.Event.FromString(each).step <= step
    ]
    if is_whole and len(kept) == len(serialized):
      continue
    # TensorBoard reads every file with `tfevents` in its name.
    unfinished = os.path.join(directory, "unfinished")
    with tf.io.TFRecordWriter(unfinished) as writer:
      for each in kept:
        writer.write(each)
    tf.io.gfile.rename(unfinished, path, overwrite=True)


def _whole_records(path: str) -> tuple[list[bytes], bool]:
  """Returns a file's records, and whether nothing but them is in it."""
  records: list[bytes] = []
  try:
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
      records.append(record)
  except tf.errors.DataLossError:
    return records, False  # A kill cut the last event off.
  return records, True
