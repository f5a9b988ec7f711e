"""Hugging Face's model directories: written for and read from transformers."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from mslt_tf import errors
from mslt_tf.interop import bert_config
from mslt_tf.interop import huggingface_names
from mslt_tf.interop import huggingface_tokenizer
from mslt_tf.interop import imported_weights
from mslt_tf.interop import json_file
from mslt_tf.interop import model_card
from mslt_tf.interop import safetensors_file
from mslt_tf.interop import torch_file
from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import pretrained

_ACTIVATION_NAMES = {"gelu_tanh": "gelu_new", "gelu_exact": "gelu"}
_ACTIVATIONS = {
  "gelu": "gelu_exact",
  "gelu_python": "gelu_exact",
  "gelu_new": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
}
# Fields of config.json with the one value that this BERT has; a file may leave
# them out.
_FIXED: dict[str, Any] = {
  "position_embedding_type": "absolute",
  "is_decoder": False,
  "add_cross_attention": False,
  "layer_norm_eps": 1e-12,
  "tie_word_embeddings": True,
  "pad_token_id": 0,
}
# transformers calls every weight unexpected that a class has no place for. Its
# classes for BERT, with the heads each has.
_HEADS = {
  "BertForPreTraining": ("pooler", "MLM head", "NSP classifier"),
  "BertForMaskedLM": ("MLM head",),
  "BertModel": ("pooler",),
}


@dataclasses.dataclass(frozen=True)
class _Arrays:
  """What a file of weights holds, before it is read."""

  path: str
  shapes: Mapping[str, tuple[int, ...]]
  read: Callable[[str], np.ndarray]


def export(
  model: pretrained.PretrainedBert,
  directory: str,
  *,
  class_name: str = "BertForPreTraining",
) -> None:
  """Writes a directory that transformers loads.

  Args:
    model: What to write.
    directory: Where; it exists.
    class_name: Class of transformers; the weights that it has no place for are
      left out. `BertForPreTraining` leaves nothing out.
  """
  architecture = model.architecture
  json_file.write(
    os.path.join(directory, "config.json"),
    {
      "architectures": [class_name],
      "model_type": "bert",
      **bert_config.fields_of(
        architecture, activation=_ACTIVATION_NAMES[architecture.activation]
      ),
      **_FIXED,
      "dtype": "float32",
      "torch_dtype": "float32",  # What it was called before transformers 5.
    },
  )
  huggingface_tokenizer.write(
    model.vocabulary,
    directory,
    lower_case=model.lower_case,
    max_positions=architecture.max_positions,
  )
  safetensors_file.write(
    os.path.join(directory, "model.safetensors"),
    _to_hugging_face(model, class_name),
  )
  model_card.write(
    model, os.path.join(directory, "README.md"), class_name=class_name
  )


def load(
  source: str,
  *,
  activation: str | None = None,
  lower_case: bool | None = None,
  allow_pickle: bool = False,
) -> pretrained.PretrainedBert:
  """Reads a directory that transformers wrote.

  Args:
    source: The directory.
    activation: `gelu_tanh` or `gelu_exact`, whatever `config.json` says.
    lower_case: Whatever the tokenizer's files say.
    allow_pickle: Whether `pytorch_model.bin` is read where there is no
      `model.safetensors`.

  Returns:
    The model; a head that the file does not have is missing in its weights.

  Raises:
    InputError: It is no BERT that can be had here, or a file is damaged.
  """
  path = os.path.join(source, "config.json")
  fields = json_file.read(path)
  _check_kind(fields, path)
  architecture = bert_config.architecture_of(
    fields, path, activations=_ACTIVATIONS, activation=activation
  )
  vocabulary, lower_case = huggingface_tokenizer.read(
    source, lower_case=lower_case
  )
  imported_weights.check_vocabulary(architecture, vocabulary, path)
  weights = _from_hugging_face(
    _open_arrays(source, allow_pickle=allow_pickle), architecture
  )
  return pretrained.PretrainedBert(
    architecture=architecture,
    lower_case=lower_case,
    vocabulary=vocabulary,
    weights=weights,
  )


def _check_kind(fields: Mapping[str, Any], path: str) -> None:
  kind = fields.get("model_type", "bert")
  if kind != "bert":
    raise errors.InputError(
      f"{path}: model_type={str(kind)[:40]}; only bert can be imported."
    )
  for name, value in _FIXED.items():
    found = fields.get(name, value)
    if found != value and found is not None:
      raise errors.InputError(
        f"{path}: {name}={str(found)[:40]}; a BERT that can be imported has"
        f" {name}={value}."
      )


def _to_hugging_face(
  model: pretrained.PretrainedBert, class_name: str
) -> dict[str, np.ndarray]:
  names = list(architecture_lib.encoder_shapes(model.architecture))
  head_shapes = architecture_lib.head_shapes(model.architecture)
  for head in _HEADS[class_name]:
    names += head_shapes[head]
  arrays = {}
  for name in names:
    place = huggingface_names.to_hugging_face(name)
    if class_name == "BertModel":
      place = place.removeprefix("bert.")
    array = model.weights[name]
    # The tied output matrix is left out: transformers makes it of the table.
    arrays[place] = array.T if huggingface_names.is_transposed(name) else array
  return arrays


def _open_arrays(source: str, *, allow_pickle: bool) -> _Arrays:
  path = os.path.join(source, "model.safetensors")
  if tf.io.gfile.exists(path):
    entries = safetensors_file.read_entries(path)
    return _Arrays(
      path,
      {name: entry.shape for name, entry in entries.items()},
      lambda name: safetensors_file.read_float32(path, entries[name]),
    )
  if tf.io.gfile.exists(path + ".index.json"):
    raise errors.InputError(
      f"{path}.index.json: weights in several files cannot be imported; save"
      " the model with a larger max_shard_size."
    )
  pickled = os.path.join(source, "pytorch_model.bin")
  if not tf.io.gfile.exists(pickled):
    raise errors.InputError(f"{path} is missing.")
  if not allow_pickle:
    raise errors.InputError(
      f"{pickled} is a pickle, and {path} is missing; --allow_pickle reads it,"
      " by torch's weights-only loader."
    )
  tensors = torch_file.load(pickled)
  return _Arrays(
    pickled,
    {name: tuple(tensor.shape) for name, tensor in tensors.items()},
    lambda name: torch_file.to_float32(tensors[name], pickled),
  )


def _from_hugging_face(
  arrays: _Arrays, architecture: architecture_lib.Architecture
) -> dict[str, np.ndarray]:
  names = huggingface_names.resolve(arrays.shapes, arrays.path)
  places = {
    name: names.places[place]
    for name in architecture_lib.weight_shapes(architecture)
    if (place := huggingface_names.to_hugging_face(name)) in names.places
  }
  _check_rest(arrays, names, set(places.values()))
  shapes = {
    name: arrays.shapes[place][::-1]
    if huggingface_names.is_transposed(name)
    else arrays.shapes[place]
    for name, place in places.items()
  }
  wanted = imported_weights.check(architecture, shapes, arrays.path)
  weights = {}
  for name in wanted:
    array = arrays.read(places[name])
    if huggingface_names.is_transposed(name):
      array = np.ascontiguousarray(array.T)
    weights[name] = array
  imported_weights.check_finite(weights, arrays.path)
  _check_tied(arrays, names, weights)
  return weights


def _check_rest(
  arrays: _Arrays, names: huggingface_names.Names, used: set[str]
) -> None:
  """What is of no use here is told; what belongs to the encoder is wrong."""
  tied = {huggingface_names.DECODER, huggingface_names.DECODER_BIAS}
  left_out = list(names.left_out)
  for meant, name in names.places.items():
    if name in used or meant in tied:
      continue
    if meant.startswith("bert."):
      raise errors.InputError(
        f"{arrays.path}: {name[:100]} is no weight of the BERT that the config"
        " tells."
      )
    left_out.append(name)
  if left_out:
    logging.info(
      "%d arrays left out that pre-training has no use for, such as %s",
      len(left_out),
      min(left_out)[:100],
    )


def _check_tied(
  arrays: _Arrays,
  names: huggingface_names.Names,
  weights: Mapping[str, np.ndarray],
) -> None:
  """The output matrix and bias, where given, must be those they are tied to."""
  for place, name in (
    (huggingface_names.DECODER, "bert/embeddings/word_embeddings"),
    (huggingface_names.DECODER_BIAS, "cls/predictions/output_bias"),
  ):
    if place not in names.places or name not in weights:
      continue
    if arrays.shapes[names.places[place]] != weights[
      name
    ].shape or not np.array_equal(
      arrays.read(names.places[place]), weights[name]
    ):
      raise errors.InputError(
        f"{arrays.path}: {names.places[place]} differs from {name}, which it is"
        " tied to in BERT."
      )


export_masked_lm = functools.partial(export, class_name="BertForMaskedLM")
export_encoder = functools.partial(export, class_name="BertModel")
