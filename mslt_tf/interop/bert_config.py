"""The fields that `bert_config.json` and `config.json` share.

Google's file and Hugging Face's name the sizes of a BERT alike; they differ in
what an activation's name means.
"""

from collections.abc import Mapping
from typing import Any

from mslt_tf import errors
from mslt_tf.models import architecture as architecture_lib

_SIZES = {
  "vocab_size": "vocab_size",
  "hidden_size": "hidden_size",
  "num_hidden_layers": "num_layers",
  "num_attention_heads": "num_heads",
  "intermediate_size": "intermediate_size",
  "max_position_embeddings": "max_positions",
  "type_vocab_size": "num_segments",
}
# What a file may leave out, with the value it then has in both libraries.
_RATES = {
  "hidden_dropout_prob": ("hidden_dropout", 0.1),
  "attention_probs_dropout_prob": ("attention_dropout", 0.1),
  "initializer_range": ("initializer_range", 0.02),
}
# Sizes above these are of no BERT; they bound what a file makes us reserve.
_LARGEST = {"num_hidden_layers": 1365}
_LARGEST_SIZE = 2**24


def fields_of(
  architecture: architecture_lib.Architecture, *, activation: str
) -> dict[str, Any]:
  """Returns the file's fields; `activation` is its name there."""
  return {
    "hidden_act": activation,
    **{name: getattr(architecture, ours) for name, ours in _SIZES.items()},
    **{name: getattr(architecture, ours) for name, (ours, _) in _RATES.items()},
  }


def architecture_of(
  fields: Mapping[str, Any],
  path: str,
  *,
  activations: Mapping[str, str],
  activation: str | None = None,
) -> architecture_lib.Architecture:
  """Returns what a file tells.

  Args:
    fields: Its content.
    path: For errors.
    activations: Ours by the names that the file's library has for them.
    activation: Ours, whatever the file says.

  Raises:
    InputError: A field is missing or impossible.
  """
  sizes = {
    ours: _size(fields, name, path, default=2 if ours == "num_segments" else 0)
    for name, ours in _SIZES.items()
  }
  rates: dict[str, Any] = {
    ours: _rate(fields, name, path, default)
    for name, (ours, default) in _RATES.items()
  }
  if sizes["hidden_size"] % sizes["num_heads"]:
    raise errors.InputError(
      f"{path}: hidden_size={sizes['hidden_size']} is not divisible by"
      f" num_attention_heads={sizes['num_heads']}."
    )
  if sizes["num_segments"] < 2:
    raise errors.InputError(
      f"{path}: type_vocab_size={sizes['num_segments']}; a BERT has at least 2"
      " segments. Is it another kind of model?"
    )
  return architecture_lib.Architecture(
    **sizes,
    **rates,
    activation=activation or _activation(fields, path, activations),
  )


def _activation(
  fields: Mapping[str, Any], path: str, activations: Mapping[str, str]
) -> str:
  name = fields.get("hidden_act")
  if not isinstance(name, str) or name not in activations:
    raise errors.InputError(
      f"{path}: hidden_act={str(name)[:40]} must be one of"
      f" {', '.join(activations)}."
    )
  return activations[name]


def _size(
  fields: Mapping[str, Any], name: str, path: str, *, default: int
) -> int:
  value = fields.get(name, default)
  largest = _LARGEST.get(name, _LARGEST_SIZE)
  if type(value) is not int or not 0 < value <= largest:
    shown = str(value)[:40] if name in fields else "nothing"
    raise errors.InputError(
      f"{path}: {name}={shown} must be a whole number from 1 to {largest}."
    )
  return value


def _rate(
  fields: Mapping[str, Any], name: str, path: str, default: float
) -> float:
  value = fields.get(name, default)
  if type(value) not in (int, float) or not 0 <= value < 1:
    raise errors.InputError(
      f"{path}: {name}={str(value)[:40]} must be a number of at least 0 and"
      " below 1."
    )
  return float(value)
