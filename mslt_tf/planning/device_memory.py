"""What a training step holds in a device's memory, as named terms."""

import dataclasses

from mslt_tf import costs
from mslt_tf import schedules

_FLOAT32 = costs.BYTES_PER_PARAMETER


@dataclasses.dataclass(frozen=True)
class DeviceMemory:
  """Bytes on one device.

  Attributes:
    weights: Float32, of all that is there, frozen or not.
    compute_copies: The layers' weights in the type of mixed precision.
    gradients: Of what is trained; twice with accumulation.
    table_gradients: The trained word table's two, of the rows that were looked
      up and of the tied product, before they are summed.
    slots: LAMB's two moments of what is trained.
    activations: What trained layers keep for their gradients, the logits of the
      heads, and what one layer works in.
    reserved: By the framework.
  """

  weights: int
  compute_copies: int
  gradients: int
  table_gradients: int
  slots: int
  activations: int
  reserved: float

  @property
  def num_bytes(self) -> float:
    return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class Model:
  """What memory depends on, batch and stage apart."""

  shape: costs.Shape
  num_heads: int
  precision: str  # As in `training.precision`.


def device_memory(
  model: Model,
  stage: schedules.Stage,
  cost: costs.StageCost,
  *,
  examples: int,
  num_micro_batches: int,
  reserved: float = 0.0,
) -> DeviceMemory:
  """Returns what a step of a stage needs.

  Args:
    model: Its sizes.
    stage: Its layers, frozen and trained.
    cost: The same stage's, for its weights.
    examples: A device's share of the batch.
    num_micro_batches: Parts that it goes through the model in.
    reserved: Bytes that the framework takes.
  """
  compute_bytes = costs.COMPUTE_BYTES[model.precision]
  layer_weights = stage.num_layers * costs.layer_parameters(model.shape)
  gradients = cost.gradient_bytes * (2 if num_micro_batches > 1 else 1)
  return DeviceMemory(
    weights=_FLOAT32 * cost.total_parameters,
    compute_copies=compute_bytes * layer_weights
    if model.precision != "float32"
    else 0,
    gradients=gradients,
    # Of the product with the tied table, and of the words looked up in it.
    table_gradients={"frozen": 0, "words": 1, "trained": 2}[stage.embeddings]
    * (_FLOAT32 * model.shape.vocab_size * model.shape.hidden_size),
    slots=costs.NUM_SLOTS * _FLOAT32 * cost.trained_parameters,
    activations=examples
    // num_micro_batches
    * _activation_bytes(model, stage, compute_bytes),
    reserved=reserved,
  )


def _activation_bytes(
  model: Model, stage: schedules.Stage, compute_bytes: int
) -> int:
  """Returns what one example needs."""
  shape = model.shape
  layer = sum(costs.kept_activations(shape, model.num_heads).values())
  trained = stage.num_layers - stage.num_frozen_layers
  # Logits, softmax and gradient are float32, as are the embeddings' sum, its
  # gradient and the words' rows.
  logits = 3 * _FLOAT32 * shape.max_predictions * shape.vocab_size
  embeddings = 3 * _FLOAT32 * shape.sequence_length * shape.hidden_size
  # One layer more is what a layer, frozen or not, works in.
  return compute_bytes * layer * (trained + 1) + logits + embeddings


def fitting_micro_batches(
  model: Model,
  stage: schedules.Stage,
  cost: costs.StageCost,
  *,
  examples: int,
  memory_bytes: float,
  reserved: float = 0.0,
) -> int | None:
  """Returns the fewest parts that a device's examples fit in; `None`: none."""
  for parts in range(1, examples + 1):
    if examples % parts:
      continue
    needed = device_memory(
      model,
      stage,
      cost,
      examples=examples,
      num_micro_batches=parts,
      reserved=reserved,
    )
    if needed.num_bytes <= memory_bytes:
      return parts
  return None
