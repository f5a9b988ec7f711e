"""Named arrays in and out of a model.

A weight's name is its variable's, which is that of Google's published BERT
checkpoints, such as `bert/encoder/layer_0/attention/self/query/kernel`.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf


def name_of(variable: tf.Variable) -> str:
  return variable.name.removesuffix(":0")


def to_arrays(model: tf.keras.Model) -> dict[str, np.ndarray]:
  """Returns a copy of every weight by name."""
  return {name_of(variable): variable.numpy() for variable in model.weights}


def fill(model: tf.keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
  """Sets every weight of a model.

  Raises:
    ValueError: Where a weight is missing or has another shape. Names that the
      model does not have are left alone.
  """
  names = [name_of(variable) for variable in model.weights]
  missing = [name for name in names if name not in arrays]
  if missing:
    raise ValueError(
      f"{len(missing)} of {len(names)} weights are missing, such as"
      f" {missing[0]}."
    )
  for name, variable in zip(names, model.weights, strict=True):
    if arrays[name].shape != variable.shape:
      raise ValueError(
        f"{name} has shape {list(arrays[name].shape)}; the model's has"
        f" {variable.shape.as_list()}."
      )
  model.set_weights([arrays[name] for name in names])
