"""The sizes of a BERT, and the names and shapes of the weights they make.

Letters: D hidden, F intermediate, V vocabulary.
"""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
  """What must be known of a BERT beside its weights to run it.

  Attributes:
    activation: `gelu_tanh` is Google's BERT (`gelu_new` in Hugging Face),
      `gelu_exact` is Hugging Face's `gelu`.
  """

  vocab_size: int
  hidden_size: int
  num_layers: int
  num_heads: int
  intermediate_size: int
  max_positions: int = 512
  num_segments: int = 2
  activation: str = "gelu_tanh"
  hidden_dropout: float = 0.1
  attention_dropout: float = 0.1
  initializer_range: float = 0.02


def of(sizes: Any, **changes: Any) -> Architecture:
  """Returns what attributes of these names say, such as those of a config.

  Args:
    sizes: Has an attribute for each of the fields.
    changes: Values of fields that are others here.
  """
  fields = {
    field.name: getattr(sizes, field.name)
    for field in dataclasses.fields(Architecture)
  }
  return Architecture(**(fields | changes))


def encoder_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of embeddings and encoder layers by Google's names."""
  d, f = architecture.hidden_size, architecture.intermediate_size
  embeddings = {
    "word_embeddings": (architecture.vocab_size, d),
    "position_embeddings": (architecture.max_positions, d),
    "token_type_embeddings": (architecture.num_segments, d),
    **_norm("LayerNorm", d),
  }
  layer = {
    **_dense("attention/self/query", d, d),
    **_dense("attention/self/key", d, d),
    **_dense("attention/self/value", d, d),
    **_dense("attention/output/dense", d, d),
    **_norm("attention/output/LayerNorm", d),
    **_dense("intermediate/dense", d, f),
    **_dense("output/dense", f, d),
    **_norm("output/LayerNorm", d),
  }
  shapes = {
    f"bert/embeddings/{name}": shape for name, shape in embeddings.items()
  }
  for index in range(architecture.num_layers):
    for name, shape in layer.items():
      shapes[f"bert/encoder/layer_{index}/{name}"] = shape
  return shapes


def head_shapes(
  architecture: Architecture,
) -> dict[str, dict[str, tuple[int, ...]]]:
  """Returns for each head the shapes of its weights by Google's names."""
  d = architecture.hidden_size
  return {
    "pooler": _dense("bert/pooler/dense", d, d),
    "MLM head": {
      **_dense("cls/predictions/transform/dense", d, d),
      **_norm("cls/predictions/transform/LayerNorm", d),
      "cls/predictions/output_bias": (architecture.vocab_size,),
    },
    "NSP classifier": {
      "cls/seq_relationship/output_weights": (2, d),
      "cls/seq_relationship/output_bias": (2,),
    },
  }


def weight_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of all weights, the heads included."""
  shapes = encoder_shapes(architecture)
  for head in head_shapes(architecture).values():
    shapes.update(head)
  return shapes


def num_parameters(architecture: Architecture) -> int:
  return sum(map(math.prod, weight_shapes(architecture).values()))


def _dense(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
  return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
  return {f"{name}/gamma": (size,), f"{name}/beta": (size,)}
