"""Hugging Face's names of BERT's weights, and Google's, which are ours.

Two things differ beside the names: PyTorch keeps a dense layer's matrix as
[outputs, inputs], and the tied output matrix has a name of its own.
"""

import dataclasses
import re
from collections.abc import Iterable

from mslt_tf import errors

# Of the tied weights and of a buffer; a file need not have them.
DECODER = "cls.predictions.decoder.weight"
DECODER_BIAS = "cls.predictions.decoder.bias"
_BUFFER = "embeddings.position_ids"

_OF_HEADS = {
  "cls/predictions/output_bias": "cls.predictions.bias",
  "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
  "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
}
# The first releases called a norm's weights as TensorFlow does.
_OLD_NORM = {"gamma": "weight", "beta": "bias"}


@dataclasses.dataclass(frozen=True)
class Names:
  """Which array of a file each name means.

  Attributes:
    places: The file's name of each weight by its name here, `bert.` in front.
    left_out: Names of the file that are no weights of BERT's encoder and
      pre-training heads, such as those of a classifier.
  """

  places: dict[str, str]
  left_out: list[str]


def to_hugging_face(name: str) -> str:
  """Returns the name, in transformers, of a weight of ours."""
  if name in _OF_HEADS:
    return _OF_HEADS[name]
  name = re.sub(r"/layer_(\d+)/", r"/layer/\1/", name)
  name = re.sub(r"LayerNorm/gamma$", "LayerNorm/weight", name)
  name = re.sub(r"LayerNorm/beta$", "LayerNorm/bias", name)
  name = re.sub(r"/kernel$", "/weight", name)
  name = re.sub(r"_embeddings$", "_embeddings/weight", name)
  return name.replace("/", ".")


def is_transposed(name: str) -> bool:
  """Whether PyTorch keeps this weight of ours the other way round."""
  return name.endswith("/kernel")


def resolve(names: Iterable[str], path: str) -> Names:
  """Sorts out the names of a file, with or without `bert.`, old or new.

  Raises:
    InputError: Two names of the file mean the same weight.
  """
  places: dict[str, str] = {}
  left_out = []
  for name in sorted(names):
    meant = _modern(name)
    if meant.removeprefix("bert.") == _BUFFER:
      continue
    if not meant.startswith(("bert.", "cls.")):
      left_out.append(name)
      continue
    if meant in places:
      raise errors.InputError(
        f"{path}: {places[meant]} and {name} are the same weight."
      )
    places[meant] = name
  return Names(places, left_out)


def _modern(name: str) -> str:
  prefix, _, last = name.rpartition(".")
  if prefix.endswith("LayerNorm") and last in _OLD_NORM:
    name = f"{prefix}.{_OLD_NORM[last]}"
  if name.startswith(("embeddings.", "encoder.", "pooler.")):
    return f"bert.{name}"
  return name
