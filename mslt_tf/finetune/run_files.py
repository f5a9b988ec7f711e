"""Where fine-tuning writes, run by run.

workdir/
  identity.json                 what all runs have in common
  results.json, results.md      what the finished runs say
  tensorboard/<run>/            event files
  <checkpoint>/
    identity.json               which weights are fine-tuned
    model.json, vocab.txt       how to run them
    submission/, submission.zip for the GLUE server
    <task>/
      identity.json             which data
      task.json                 labels and the like
      rate_3e-05_seed_2/
        metrics.jsonl           of training
        weights.*               of the best run so far alone
        result.json             it exists, the run is finished
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.glue import examples as examples_lib
from mslt_tf.glue import protocol as protocol_lib
from mslt_tf.glue import results as results_lib
from mslt_tf.glue import tasks as tasks_lib
from mslt_tf.models import pretrained
from mslt_tf.training import metrics
from mslt_tf.training import run_directory

MODEL_FILE = "model.json"
VOCABULARY_FILE = "vocab.txt"
TASK_FILE = "task.json"

_RESULT_FILE = "result.json"
_RUN = re.compile(r"^rate_.+_seed_\d+$")
# Rates and seeds may be added to a workdir.
_GRID = ("learning_rates", "seeds")


@dataclasses.dataclass(frozen=True)
class RunFiles:
  """The files of a workdir."""

  path: str

  def checkpoint(self, name: str) -> str:
    return os.path.join(self.path, name)

  def task(self, checkpoint: str, task: str) -> str:
    return os.path.join(self.path, checkpoint, task)

  def run(self, run: protocol_lib.Run) -> str:
    return os.path.join(self.path, run.name)

  @contextlib.contextmanager
  def metrics(self, run: protocol_lib.Run) -> Iterator[metrics.MetricsLog]:
    """Opens what a run logs; a run that was killed starts over."""
    log = metrics.MetricsLog(
      jsonl_path=os.path.join(self.run(run), "metrics.jsonl"),
      event_dir=os.path.join(self.path, "tensorboard", run.name),
      step=0,
    )
    try:
      yield log
    finally:
      log.close()

  def claim(self, protocol: protocol_lib.Protocol) -> None:
    """Opens the workdir for runs of this protocol.

    Raises:
      errors.InputError: it holds those of another.
    """
    identity = dataclasses.asdict(protocol)
    for name in _GRID:
      del identity[name]
    # Each task's directory has its own.
    del identity["num_epochs"]
    run_directory.claim(self.path, {"protocol": identity})

  def claim_checkpoint(
    self, name: str, model: pretrained.PretrainedBert
  ) -> None:
    """Opens a checkpoint's directory, and writes what it takes to run it.

    Raises:
      errors.InputError: the weights or the vocabulary are others there.
    """
    architecture = dataclasses.asdict(model.architecture)
    directory = run_directory.claim(
      self.checkpoint(name),
      {
        "model": architecture,
        "lower_case": model.lower_case,
        "vocab_sha256": model.vocabulary.sha256,
        "weights_sha256": pretrained.fingerprint(model.weights),
      },
    )
    directory.write_json(
      MODEL_FILE, {"model": architecture, "lower_case": model.lower_case}
    )
    with run_directory.writing(directory.path):
      vocabulary_lib.save(
        model.vocabulary, os.path.join(directory.path, VOCABULARY_FILE)
      )

  def claim_task(
    self,
    checkpoint: str,
    task: tasks_lib.Task,
    *,
    splits: Mapping[str, examples_lib.Examples],
    num_epochs: int,
    max_sequence_length: int,
  ) -> None:
    """Opens a task's directory.

    Raises:
      errors.InputError: the task, its data or its epochs are others there.
    """
    directory = run_directory.claim(
      self.task(checkpoint, task.name),
      {
        "task": task.name,
        "labels": list(task.labels),
        "num_epochs": num_epochs,
        "examples_sha256": {
          name: examples_lib.fingerprint(examples)
          for name, examples in splits.items()
        },
      },
    )
    takes_pairs = any(each.second is not None for each in splits.values())
    directory.write_json(
      TASK_FILE,
      {
        "labels": list(task.labels),
        "takes_pairs": takes_pairs,
        "max_sequence_length": max_sequence_length,
      },
    )

  def is_finished(self, run: protocol_lib.Run) -> bool:
    return tf.io.gfile.exists(os.path.join(self.run(run), _RESULT_FILE))

  def read_result(self, run: protocol_lib.Run) -> results_lib.Result:
    """Returns the result of a finished run.

    Raises:
      errors.InputError: its file is damaged.
    """
    content = run_directory.RunDirectory(self.run(run)).read_json(_RESULT_FILE)
    if not isinstance(content, dict) or "metrics" not in content:
      raise errors.InputError(
        f"{self.run(run)}/{_RESULT_FILE} has no metrics; without the file, the"
        " run is made again."
      )
    return results_lib.Result(
      run.task,
      run.checkpoint,
      run.learning_rate,
      run.seed,
      content["metrics"],
    )

  def finish(
    self,
    run: protocol_lib.Run,
    content: Mapping[str, Any],
    weights: Mapping[str, np.ndarray] | None,
  ) -> None:
    """Writes what came of a run, from then on it is finished.

    Args:
      run: Which.
      content: Of its JSON file: `metrics` by dev split, `score`, and more.
      weights: Where it is the best so far; those of the one before go.
    """
    directory = self.run(run)
    if weights is not None:
      scratch = os.path.join(directory, "unfinished")
      run_directory.write_arrays(
        _weights(directory), weights, unfinished_in=scratch
      )
      with run_directory.writing(directory):
        tf.io.gfile.rmtree(scratch)
    run_directory.RunDirectory(directory).write_json(_RESULT_FILE, content)
    if weights is not None:
      for other in _run_directories(os.path.dirname(directory)):
        if other != directory:
          run_directory.remove_arrays(_weights(other))

  def best_score(self, checkpoint: str, task: str) -> float | None:
    """Returns the score of the run whose weights are kept, if there is one."""
    best = find_best(self.task(checkpoint, task))
    return None if best is None else best[1]["score"]


def find_best(task_directory: str) -> tuple[str, dict[str, Any]] | None:
  """Returns the directory and the result of the best run, if one is finished.

  Raises:
    errors.InputError: its file is damaged.
  """
  found = []
  for directory in _run_directories(task_directory):
    is_finished = tf.io.gfile.exists(os.path.join(directory, _RESULT_FILE))
    if is_finished and run_directory.has_arrays(_weights(directory)):
      reader = run_directory.RunDirectory(directory)
      found.append((directory, reader.read_json(_RESULT_FILE)))
  # After a kill there may be two.
  return max(found, key=lambda each: each[1]["score"], default=None)


def read_weights(directory: str) -> dict[str, np.ndarray]:
  """Returns the weights of a run. Raises `InputError` if they are damaged."""
  return run_directory.read_arrays(_weights(directory))


def _run_directories(task_directory: str) -> list[str]:
  if not tf.io.gfile.isdir(task_directory):
    return []
  names = sorted(
    name.rstrip("/") for name in tf.io.gfile.listdir(task_directory)
  )
  return [
    os.path.join(task_directory, name) for name in names if _RUN.match(name)
  ]


def _weights(directory: str) -> str:
  return os.path.join(directory, "weights")
