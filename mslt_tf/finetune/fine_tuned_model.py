"""The model that fine-tuning left: text in, labels or a value out."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.finetune import run_files
from mslt_tf.finetune import trainer as trainer_lib
from mslt_tf.glue import examples as examples_lib
from mslt_tf.glue import inputs as inputs_lib
from mslt_tf.glue import protocol as protocol_lib
from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import classifier
from mslt_tf.models import pretrained
from mslt_tf.training import run_directory


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTunedModel:
  """The best run of a task.

  Attributes:
    bert: Encoder and pooler after fine-tuning; the pre-training heads, which
      fine-tuning drops, are zeros.
    output_weights: float32 [C, D].
    output_bias: float32 [C].
    labels: By class; empty for a regression.
    takes_pairs: Whether an input is two texts.
    max_sequence_length: In tokens, as in training.
  """

  bert: pretrained.PretrainedBert
  output_weights: np.ndarray
  output_bias: np.ndarray
  labels: tuple[str, ...]
  takes_pairs: bool
  max_sequence_length: int

  def outputs(self, first: Sequence[str], second: Sequence[str] | None):
    """Returns probabilities [N, C], or for a regression values [N, 1].

    Args:
      first: N texts.
      second: N texts of pairs; None if the task takes single texts.
    """
    trainer = trainer_lib.Trainer(
      self.bert.architecture,
      protocol_lib.Protocol(max_sequence_length=self.max_sequence_length),
      num_outputs=len(self.output_bias),
      is_regression=not self.labels,
    )
    trainer.fill(
      {
        **self.bert.weights,
        classifier.OUTPUT_WEIGHTS: self.output_weights,
        classifier.OUTPUT_BIAS: self.output_bias,
      }
    )
    inputs = inputs_lib.encode(
      examples_lib.Examples(
        list(first), None if second is None else list(second), None
      ),
      vocabulary_lib.make_tokenizer(
        self.bert.vocabulary, lower_case=self.bert.lower_case
      ),
      self.bert.vocabulary,
      max_length=self.max_sequence_length,
    )
    outputs = trainer.outputs(inputs)
    return trainer_lib.probabilities(outputs) if self.labels else outputs


def is_one(path: str) -> bool:
  """Whether a directory is one of fine-tuning, or of a checkpoint in it."""
  return bool(_checkpoints(path))


def load(path: str, *, task: str = "") -> FineTunedModel:
  """Reads the best run of a task.

  Args:
    path: The workdir of fine-tuning; where several checkpoints are in it, the
      directory of one.
    task: Which; needed where there are several.

  Raises:
    errors.InputError: there is none, or it is not clear which.
  """
  if not tf.io.gfile.isdir(path):
    raise errors.InputError(f"--checkpoint={path} is no directory.")
  checkpoint = _only(
    _checkpoints(path),
    none=f"--checkpoint={path} is no workdir of bin/finetune.py.",
    many=f"--checkpoint={path} holds several; name one:",
  )
  names = _tasks(checkpoint)
  if task:
    if task not in names:
      raise errors.InputError(
        f"--task={task} has no finished run in {checkpoint}; these have:"
        f" {', '.join(names) or 'none'}."
      )
    names = [task]
  name = _only(
    names,
    none=f"{checkpoint} has no finished run.",
    many=f"{checkpoint} holds several tasks; --task must name one:",
  )
  return _read(checkpoint, os.path.join(checkpoint, name))


def _read(checkpoint: str, directory: str) -> FineTunedModel:
  model = _read_json(checkpoint, run_files.MODEL_FILE, ("model", "lower_case"))
  task = _read_json(
    directory,
    run_files.TASK_FILE,
    ("labels", "takes_pairs", "max_sequence_length"),
  )
  best = run_files.find_best(directory)
  assert best is not None  # `_tasks` has seen it.
  arrays = run_files.read_weights(best[0])
  architecture = architecture_lib.Architecture(**model["model"])
  shapes = architecture_lib.weight_shapes(architecture)
  return FineTunedModel(
    bert=pretrained.PretrainedBert(
      architecture=architecture,
      lower_case=model["lower_case"],
      vocabulary=vocabulary_lib.load(
        os.path.join(checkpoint, run_files.VOCABULARY_FILE)
      ),
      weights={
        name: arrays.get(name, np.zeros(shape, np.float32))
        for name, shape in shapes.items()
      },
    ),
    output_weights=arrays[classifier.OUTPUT_WEIGHTS],
    output_bias=arrays[classifier.OUTPUT_BIAS],
    labels=tuple(task["labels"]),
    takes_pairs=task["takes_pairs"],
    max_sequence_length=task["max_sequence_length"],
  )


def _read_json(
  directory: str, name: str, fields: tuple[str, ...]
) -> dict[str, Any]:
  content = run_directory.RunDirectory(directory).read_json(name)
  for field in fields:
    if not isinstance(content, dict) or field not in content:
      raise errors.InputError(f"{directory}/{name}: {field} is missing.")
  return content


def _checkpoints(path: str) -> list[str]:
  """Returns the directories of checkpoints: `path` itself, or those in it."""
  return [
    each
    for each in (path, *_directories(path))
    if tf.io.gfile.exists(os.path.join(each, run_files.MODEL_FILE))
  ]


def _tasks(checkpoint: str) -> list[str]:
  return [
    os.path.basename(each)
    for each in _directories(checkpoint)
    if run_files.find_best(each) is not None
  ]


def _directories(path: str) -> list[str]:
  if not tf.io.gfile.isdir(path):
    return []
  names = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(path))
  paths = (os.path.join(path, name) for name in names)
  return [each for each in paths if tf.io.gfile.isdir(each)]


def _only(found: list[str], *, none: str, many: str) -> str:
  if not found:
    raise errors.InputError(none)
  if len(found) > 1:
    raise errors.InputError(f"{many} {', '.join(found)}.")
  return found[0]
