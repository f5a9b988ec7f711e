"""A pre-trained BERT as values, outside any run or file format."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mslt_tf import schedules
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.models import architecture as architecture_lib


@dataclasses.dataclass(frozen=True)
class StageRecord:
  """A stage that was trained, and what came of it.

  Attributes:
    results: `eval_mlm_loss` and its like at the stage's end, where known.
  """

  stage: schedules.Stage
  results: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class History:
  """Where a model comes from.

  Attributes:
    stages: In the order they were trained; none of an imported model.
    facts: What else a reader should know, such as {"batch size": "1,024"}.
  """

  stages: tuple[StageRecord, ...] = ()
  facts: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedBert:
  """Weights with all that is needed to use them.

  Attributes:
    lower_case: Whether text is lower-cased before it is split into tokens.
    weights: float32 arrays by the names of `architecture.weight_shapes`.
  """

  architecture: architecture_lib.Architecture
  lower_case: bool
  vocabulary: vocabulary_lib.Vocabulary
  weights: Mapping[str, np.ndarray]
  history: History = History()


def fingerprint(weights: Mapping[str, np.ndarray]) -> str:
  """Returns the sha256 of the weights: names, types, shapes and values."""
  digest = hashlib.sha256()
  for name in sorted(weights):
    array = np.ascontiguousarray(weights[name])
    digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
    digest.update(array.data)
  return digest.hexdigest()
