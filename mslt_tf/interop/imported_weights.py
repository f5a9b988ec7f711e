"""What an imported model must have, and what it gets where it has not.

The encoder must be whole. A head may be missing as a whole: a fresh one takes
its place.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from mslt_tf import errors
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import heads
from mslt_tf.models import pretrained
from mslt_tf.models import weights as weights_lib


def check(
  architecture: architecture_lib.Architecture,
  shapes: Mapping[str, tuple[int, ...]],
  path: str,
) -> list[str]:
  """Returns the names of the weights to read, from the shapes a file tells.

  Args:
    architecture: What its config tells.
    shapes: Of the file's arrays, by our names.
    path: For errors.

  Raises:
    InputError: A weight is missing or has another shape.
  """
  wanted = architecture_lib.encoder_shapes(architecture)
  for head, head_shapes in architecture_lib.head_shapes(architecture).items():
    missing = [name for name in head_shapes if name not in shapes]
    if missing and len(missing) < len(head_shapes):
      raise errors.InputError(
        f"{path}: the {head} is there in part; {missing[0]} is missing."
      )
    if not missing:
      wanted.update(head_shapes)
  missing = [name for name in wanted if name not in shapes]
  if missing:
    raise errors.InputError(
      f"{path}: {len(missing)} of {len(wanted)} weights are missing, such as"
      f" {missing[0]}; is it a BERT with the layers its config tells?"
    )
  for name, shape in wanted.items():
    if shapes[name] != shape:
      raise errors.InputError(
        f"{path}: {name} has shape {list(shapes[name])}; the config makes it"
        f" {list(shape)}."
      )
  return list(wanted)


def check_finite(weights: Mapping[str, np.ndarray], path: str) -> None:
  """Raises `InputError` where a weight is no number."""
  for name, array in weights.items():
    if not np.isfinite(array).all():
      raise errors.InputError(
        f"{path}: {name} holds values that are no number."
      )


def add_fresh_heads(
  model: pretrained.PretrainedBert, *, seed: int = 0
) -> pretrained.PretrainedBert:
  """Returns the model with a fresh head for each that is missing, and says so.

  A head's values depend on the seed alone.
  """
  weights = dict(model.weights)
  fresh = []
  for head, shapes in architecture_lib.head_shapes(model.architecture).items():
    if any(name not in weights for name in shapes):
      weights |= _fresh_head(head, model.architecture, seed)
      fresh.append(head)
  if not fresh:
    return model
  logging.info(
    "freshly initialised, for the checkpoint has none: %s", ", ".join(fresh)
  )
  facts = {**model.history.facts, "Heads not in the source": ", ".join(fresh)}
  return dataclasses.replace(
    model,
    weights=weights,
    history=dataclasses.replace(model.history, facts=facts),
  )


def _fresh_head(
  head: str, architecture: architecture_lib.Architecture, seed: int
) -> dict[str, np.ndarray]:
  sizes: dict[str, Any] = {
    "hidden_size": architecture.hidden_size,
    "initializer_range": architecture.initializer_range,
    "seed": seed,
  }
  layer: tf.keras.layers.Layer
  if head == "pooler":
    layer = heads.Pooler(**sizes)
  elif head == "NSP classifier":
    layer = heads.NextSentenceHead(**sizes)
  else:
    layer = heads.MaskedLMHead(
      vocab_size=architecture.vocab_size,
      activation=architecture.activation,
      **sizes,
    )
  return {weights_lib.name_of(each): each.numpy() for each in layer.weights}


def check_vocabulary(
  architecture: architecture_lib.Architecture,
  vocabulary: vocabulary_lib.Vocabulary,
  path: str,
) -> None:
  """Raises `InputError` unless there is a token for each row of the table."""
  if len(vocabulary) != architecture.vocab_size:
    raise errors.InputError(
      f"{path}: vocab_size={architecture.vocab_size}, but the vocabulary beside"
      f" it has {len(vocabulary)} tokens."
    )
