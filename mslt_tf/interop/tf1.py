"""Google's published layout: bert_model.ckpt, bert_config.json, vocab.txt."""

import math
import os
import re
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from absl import logging

from mslt_tf import errors
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.interop import bert_config
from mslt_tf.interop import huggingface_tokenizer
from mslt_tf.interop import imported_weights
from mslt_tf.interop import json_file
from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import pretrained

_PREFIX = "bert_model.ckpt"
_CONFIG = "bert_config.json"
_VOCABULARY = "vocab.txt"
# Google's code knows one GELU, that of the tanh.
_ACTIVATIONS = {"gelu": "gelu_tanh"}
_FLOATS = (tf.float32, tf.float16, tf.bfloat16)
_LEAST_ITEM_BYTES = 2
# What TensorFlow's reader raises for a damaged file.
_UNREADABLE = (tf.errors.OpError, IndexError, ValueError, RuntimeError)
_LAYER = re.compile(r"^bert/encoder/layer_(\d+)/")


def export(model: pretrained.PretrainedBert, directory: str) -> None:
  """Writes a directory that google-research/bert's code starts from.

  It holds the exact GELU of a model to be Google's; a warning says so.
  """
  if model.architecture.activation != "gelu_tanh":
    logging.warning(
      "the model has the exact GELU; Google's code computes it by tanh, which"
      " changes the outputs by about 0.001"
    )
  json_file.write(
    os.path.join(directory, _CONFIG),
    bert_config.fields_of(model.architecture, activation="gelu"),
  )
  vocabulary_lib.save(model.vocabulary, os.path.join(directory, _VOCABULARY))
  names = sorted(architecture_lib.weight_shapes(model.architecture))
  tf.raw_ops.SaveV2(
    prefix=os.path.join(directory, _PREFIX),
    tensor_names=names,
    shape_and_slices=[""] * len(names),
    tensors=[model.weights[name] for name in names],
  )


def load(
  source: str,
  *,
  activation: str | None = None,
  lower_case: bool | None = None,
) -> pretrained.PretrainedBert:
  """Reads a checkpoint of google-research/bert's code, or one like it.

  Args:
    source: A directory with one checkpoint, or a checkpoint's path without
      `.index`. `bert_config.json` and `vocab.txt` are beside it.
    activation: `gelu_tanh` or `gelu_exact`; by default the former, which is
      what `gelu` is in Google's code.
    lower_case: By default so if no token has an upper-case letter.

  Returns:
    The model; a head that the checkpoint does not have is missing in its
    weights. The optimizer's state, where there is some, is left out.

  Raises:
    InputError: It is no BERT that can be had here, or a file is damaged.
  """
  prefix = _find_prefix(source)
  directory = os.path.dirname(prefix)
  path = os.path.join(directory, _CONFIG)
  architecture = bert_config.architecture_of(
    json_file.read(path), path, activations=_ACTIVATIONS, activation=activation
  )
  vocabulary = vocabulary_lib.load(os.path.join(directory, _VOCABULARY))
  imported_weights.check_vocabulary(architecture, vocabulary, path)
  if lower_case is None:
    lower_case = huggingface_tokenizer.is_uncased(vocabulary)
  return pretrained.PretrainedBert(
    architecture=architecture,
    lower_case=lower_case,
    vocabulary=vocabulary,
    weights=_read(prefix, architecture),
  )


def _find_prefix(source: str) -> str:
  if not tf.io.gfile.isdir(source):
    if not tf.io.gfile.exists(f"{source}.index"):
      raise errors.InputError(
        f"{source} is neither a directory nor a checkpoint: {source}.index is"
        " missing."
      )
    return source
  found = sorted(
    name.removesuffix(".index")
    for name in tf.io.gfile.listdir(source)
    if name.endswith(".index")
  )
  if len(found) != 1:
    raise errors.InputError(
      f"{source} holds {len(found)} checkpoints; name one, such as"
      f" {os.path.join(source, found[0] if found else _PREFIX)}."
    )
  return os.path.join(source, found[0])


def _read(
  prefix: str, architecture: architecture_lib.Architecture
) -> dict[str, np.ndarray]:
  try:
    reader = tf.train.load_checkpoint(prefix)
    shapes = {
      name: tuple(shape)
      for name, shape in reader.get_variable_to_shape_map().items()
    }
    types = reader.get_variable_to_dtype_map()
  except _UNREADABLE as error:
    raise _unreadable(prefix, error) from error
  _check_depth(shapes, architecture, prefix)
  wanted = imported_weights.check(architecture, shapes, prefix)
  _check_size(sum(math.prod(shapes[name]) for name in wanted), prefix)
  weights = {}
  for name in wanted:
    if types[name] not in _FLOATS:
      raise errors.InputError(
        f"{prefix}: {name} has dtype={types[name].name}; weights are floats."
      )
    try:
      array = reader.get_tensor(name)
    except _UNREADABLE as error:
      raise _unreadable(prefix, error) from error
    weights[name] = np.asarray(array, np.float32)
  imported_weights.check_finite(weights, prefix)
  return weights


def _check_depth(
  shapes: Mapping[str, tuple[int, ...]],
  architecture: architecture_lib.Architecture,
  prefix: str,
) -> None:
  depths = [
    int(match[1]) + 1 for name in shapes if (match := _LAYER.match(name))
  ]
  depth = max(depths, default=0)
  if depth > architecture.num_layers:
    raise errors.InputError(
      f"{prefix} has {depth} layers; its {_CONFIG} has"
      f" num_hidden_layers={architecture.num_layers}."
    )


def _check_size(num_values: int, prefix: str) -> None:
  """The reader would reserve whatever an index promises."""
  directory, base = os.path.split(prefix)
  num_bytes = sum(
    tf.io.gfile.stat(os.path.join(directory, name)).length
    for name in tf.io.gfile.listdir(directory or ".")
    if name.startswith(f"{base}.data-")
  )
  if num_bytes < _LEAST_ITEM_BYTES * num_values:
    raise errors.InputError(
      f"{prefix}.data-* cannot be read: {num_bytes} bytes do not hold the"
      f" {num_values} weights of the index."
    )


def _unreadable(prefix: str, error: Exception) -> errors.InputError:
  reason = errors.first_line(error)
  return errors.InputError(f"{prefix}.index cannot be read: {reason}")
