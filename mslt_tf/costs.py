"""What a schedule costs: FLOPs, matrix products, parameters and bytes.

Every figure is a sum of named terms. A matrix product of [m, k] by [k, n] has
2 m k n FLOPs. Elementwise work is left out: it is below 2 % of a BERT step.

Letters: S sequence, P predictions, D hidden, F intermediate, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence

from mslt_tf import schedules

# A training step's backward pass makes two products for each forward one: the
# gradient of either operand.
BACKWARD_PER_FORWARD = 2
BYTES_PER_PARAMETER = 4  # float32
NUM_SLOTS = 2  # LAMB's moments, each as large as its weight.
# What layers compute in, by `training.precision`.
COMPUTE_BYTES = {"float32": 4, "mixed_float16": 2, "mixed_bfloat16": 2}


@dataclasses.dataclass(frozen=True)
class Shape:
  """The sizes that costs depend on, depth and batch apart."""

  vocab_size: int
  hidden_size: int
  intermediate_size: int
  max_positions: int
  num_segments: int
  sequence_length: int
  max_predictions: int


@dataclasses.dataclass(frozen=True)
class StageCost:
  """What one step of a stage costs, per example where FLOPs are meant.

  Attributes:
    forward_flops: Of all layers and the heads.
    backward_flops: Of what the stage trains.
    trained_parameters: Weights that the stage updates.
    total_parameters: Weights of the stage's model.
    gradient_bytes: What one replica contributes to the all-reduce of a step.
    ideal_speedup: A step of the full model, everything trained, over a step of
      this stage; encoder layers only, as the paper counts.
    speedup: The same with the heads counted.
    frozen_forward_flops: The part of the forward FLOPs that is in frozen
      layers.
  """

  forward_flops: int
  backward_flops: int
  trained_parameters: int
  total_parameters: int
  gradient_bytes: int
  ideal_speedup: float
  speedup: float
  frozen_forward_flops: int

  @property
  def flops(self) -> int:
    return self.forward_flops + self.backward_flops


@dataclasses.dataclass(frozen=True)
class ScheduleCost:
  """The stages' costs and the whole run's, against the baseline's.

  The baseline makes as many steps, all of them of the full model.
  """

  stages: tuple[StageCost, ...]
  flops_per_example: float  # Mean over the run's steps.
  ideal_speedup: float
  speedup: float


def layer_forward_flops(shape: Shape) -> dict[str, int]:
  """FLOPs of one encoder layer's forward pass for one example."""
  s, d, f = shape.sequence_length, shape.hidden_size, shape.intermediate_size
  return {
    "query_key_value": 2 * s * d * 3 * d,
    "attention_scores": 2 * s * s * d,
    "attention_context": 2 * s * s * d,
    "attention_output": 2 * s * d * d,
    "intermediate": 2 * s * d * f,
    "output": 2 * s * f * d,
  }


def head_forward_flops(shape: Shape) -> dict[str, int]:
  """FLOPs of both heads' forward pass for one example."""
  d, p = shape.hidden_size, shape.max_predictions
  return {
    "mlm_transform": 2 * p * d * d,
    "mlm_logits": 2 * p * d * shape.vocab_size,
    "pooler": 2 * d * d,
    "nsp_logits": 2 * d * 2,
  }


def layer_parameters(shape: Shape) -> int:
  d, f = shape.hidden_size, shape.intermediate_size
  attention = 4 * (d * d + d)
  feed_forward = d * f + f + f * d + d
  norms = 2 * 2 * d
  return attention + feed_forward + norms


def embedding_parameters(shape: Shape) -> int:
  rows = shape.vocab_size + shape.max_positions + shape.num_segments
  return (rows + 2) * shape.hidden_size  # The two rows are the layer norm's.


def head_parameters(shape: Shape) -> int:
  """Weights of the heads; the output matrix is the word table's."""
  d = shape.hidden_size
  mlm = d * d + d + 2 * d + shape.vocab_size
  return mlm + (d * d + d) + (2 * d + 2)


def update_bytes_per_weight() -> dict[str, int]:
  """Bytes that LAMB moves through memory for each weight it updates."""
  number = BYTES_PER_PARAMETER
  return {
    "gradient_norm": number,  # Read for clipping.
    "moments": 5 * number,  # Gradient and both read, both written.
    "direction": number,
    "trust_ratio": 2 * number,  # Weight and direction read for their norms.
    "weight": 3 * number,  # It and the direction read, it written.
  }


def kept_activations(shape: Shape, num_heads: int) -> dict[str, int]:
  """Numbers that a trained layer keeps of one example for its gradients.

  They are what `models.encoder` keeps: chains between matrix products are
  computed again, and dropout's masks too.
  """
  s, d, f = shape.sequence_length, shape.hidden_size, shape.intermediate_size
  return {
    "input": s * d,
    "query_key_value": 3 * s * d,
    "attention_softmax": 2 * s * s * num_heads,  # Before and after dropout.
    "context": s * d,
    "attention_norm": 2 * s * d,  # What is normalised, and the output.
    "intermediate": 2 * s * f,  # Before and after the GELU.
    "output_norm": s * d,  # Its output is the next layer's input.
  }


def stage_cost(
  shape: Shape, stage: schedules.Stage, *, num_layers: int
) -> StageCost:
  """Returns the cost of a stage of a run whose full model has `num_layers`."""
  layer = sum(layer_forward_flops(shape).values())
  heads = sum(head_forward_flops(shape).values())
  trained_layers = stage.num_layers - stage.num_frozen_layers
  forward = stage.num_layers * layer + heads
  backward = (trained_layers * layer + heads) * BACKWARD_PER_FORWARD
  if stage.embeddings == "frozen":
    # The tied output matrix takes no gradient.
    backward -= head_forward_flops(shape)["mlm_logits"]
  if stage.embeddings != "trained" and trained_layers:
    # Nothing below the lowest trained layer wants that layer's input gradient.
    backward -= layer_forward_flops(shape)["query_key_value"]
  full = 1 + BACKWARD_PER_FORWARD
  full_step = full * (num_layers * layer + heads)
  trained = trained_layers * layer_parameters(shape) + head_parameters(shape)
  if stage.embeddings == "words":
    trained += shape.vocab_size * shape.hidden_size
  elif stage.embeddings == "trained":
    trained += embedding_parameters(shape)
  return StageCost(
    forward_flops=forward,
    backward_flops=backward,
    trained_parameters=trained,
    total_parameters=stage.num_layers * layer_parameters(shape)
    + head_parameters(shape)
    + embedding_parameters(shape),
    gradient_bytes=trained * BYTES_PER_PARAMETER,
    ideal_speedup=full
    * num_layers
    / (stage.num_layers + BACKWARD_PER_FORWARD * trained_layers),
    speedup=full_step / (forward + backward),
    frozen_forward_flops=stage.num_frozen_layers * layer,
  )


def schedule_cost(shape: Shape, schedule: schedules.Schedule) -> ScheduleCost:
  """Returns the cost of a run and its predicted speedup over the baseline."""
  num_layers = schedule.stages[-1].num_layers
  stages = tuple(
    stage_cost(shape, stage, num_layers=num_layers) for stage in schedule.stages
  )
  shares = [stage.num_steps / schedule.num_steps for stage in schedule.stages]
  return ScheduleCost(
    stages=stages,
    flops_per_example=sum(
      share * stage.flops for share, stage in zip(shares, stages, strict=True)
    ),
    ideal_speedup=_mean_speedup(shares, [s.ideal_speedup for s in stages]),
    speedup=_mean_speedup(shares, [s.speedup for s in stages]),
  )


def _mean_speedup(shares: Sequence[float], speedups: Sequence[float]) -> float:
  """The speedup of a run that spends these shares of its steps at each."""
  return 1 / sum(
    share / speedup for share, speedup in zip(shares, speedups, strict=True)
  )
