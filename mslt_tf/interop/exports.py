"""The formats that a model is exported to, and how an export is written."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.interop import huggingface
from mslt_tf.interop import json_file
from mslt_tf.interop import model_garden
from mslt_tf.interop import saved_model
from mslt_tf.interop import tf1
from mslt_tf.models import pretrained
from mslt_tf.training import run_directory

# Each writes its files into an empty directory.
FORMATS: dict[str, Callable[[pretrained.PretrainedBert, str], None]] = {
  "huggingface": huggingface.export,
  "huggingface_masked_lm": huggingface.export_masked_lm,
  "huggingface_encoder": huggingface.export_encoder,
  "tf1": tf1.export,
  "saved_model": saved_model.export,
  "model_garden": model_garden.export,
}
_RECORD = "mslt_export.json"


def export(
  model: pretrained.PretrainedBert, output_dir: str, *, format_name: str
) -> bool:
  """Writes a model in a format, whole or not at all.

  Args:
    model: What to write.
    output_dir: A new or empty directory, or the one of an earlier call.
    format_name: Key of `FORMATS`.

  Returns:
    Whether it was written; not where an earlier call with the same arguments
    has done so.

  Raises:
    InputError: The directory holds something else or cannot be written.
  """
  return _write_once(
    output_dir,
    {"format": format_name, **_identity(model, model.weights)},
    lambda directory: FORMATS[format_name](model, directory),
  )


def export_classifier(
  model: pretrained.PretrainedBert,
  classifier: saved_model.Classifier,
  output_dir: str,
) -> bool:
  """Writes a fine-tuned model as a SavedModel; the rest is as of `export`."""
  arrays = {
    **model.weights,
    "output_weights": classifier.output_weights,
    "output_bias": classifier.output_bias,
  }
  return _write_once(
    output_dir,
    {
      "format": "saved_model of a classifier",
      **_identity(model, arrays),
      "labels": list(classifier.labels),
      "max_sequence_length": classifier.max_sequence_length,
    },
    lambda directory: saved_model.export_classifier(
      model, classifier, directory
    ),
  )


def _identity(
  model: pretrained.PretrainedBert, arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """Returns what tells a model's export from another's."""
  return {
    "weights_sha256": pretrained.fingerprint(arrays),
    "vocab_sha256": model.vocabulary.sha256,
    "lower_case": model.lower_case,
    **dataclasses.asdict(model.architecture),
  }


def _write_once(
  output_dir: str, record: dict[str, Any], write: Callable[[str], None]
) -> bool:
  output_dir = output_dir.rstrip(os.path.sep)
  if _is_written(output_dir, record):
    return False
  unfinished = f"{output_dir}.unfinished"
  with run_directory.writing(output_dir):
    if tf.io.gfile.exists(unfinished):
      tf.io.gfile.rmtree(unfinished)
    tf.io.gfile.makedirs(unfinished)
    write(unfinished)
    json_file.write(os.path.join(unfinished, _RECORD), record)
    if tf.io.gfile.exists(output_dir):
      tf.io.gfile.rmtree(output_dir)
    tf.io.gfile.rename(unfinished, output_dir)
  return True


def _is_written(output_dir: str, record: dict[str, Any]) -> bool:
  if not tf.io.gfile.exists(output_dir):
    return False
  if not tf.io.gfile.isdir(output_dir):
    raise errors.InputError(f"--output_dir={output_dir} is a file.")
  path = os.path.join(output_dir, _RECORD)
  if not tf.io.gfile.exists(path):
    if tf.io.gfile.listdir(output_dir):
      raise errors.InputError(
        f"--output_dir={output_dir} is not empty; name a new directory."
      )
    return False
  held = json_file.read(path)
  for name, value in record.items():
    if held.get(name) != value:
      raise errors.InputError(
        f"--output_dir={output_dir} holds another export: {name} is"
        f" {str(held.get(name))[:70]} there and {value} here; name a new"
        " directory."
      )
  return True
