"""The formats that a model is imported from."""

import dataclasses
import os

from mslt_tf import errors
from mslt_tf.interop import huggingface
from mslt_tf.interop import imported_weights
from mslt_tf.interop import tf1
from mslt_tf.models import pretrained


def load(
  source: str,
  *,
  format_name: str,
  activation: str | None = None,
  lower_case: bool | None = None,
  allow_pickle: bool = False,
) -> pretrained.PretrainedBert:
  """Reads a model from elsewhere, with fresh heads where it has none.

  Args:
    source: A directory, or the prefix of a TF1 checkpoint.
    format_name: `huggingface` or `tf1`.
    activation: `gelu_tanh` or `gelu_exact`, whatever the source says.
    lower_case: Whatever the source says.
    allow_pickle: Whether a `pytorch_model.bin` is read.

  Raises:
    InputError: It is no BERT that can be had here, or a file is damaged.
  """
  if format_name == "huggingface":
    model = huggingface.load(
      source,
      activation=activation,
      lower_case=lower_case,
      allow_pickle=allow_pickle,
    )
  elif format_name == "tf1":
    model = tf1.load(source, activation=activation, lower_case=lower_case)
  else:
    raise errors.InputError(f"format={format_name} must be huggingface or tf1.")
  name = os.path.basename(source.rstrip(os.path.sep))
  history = pretrained.History(
    facts={"Imported from": f"{name} ({format_name})"}
  )
  return imported_weights.add_fresh_heads(
    dataclasses.replace(model, history=history)
  )
