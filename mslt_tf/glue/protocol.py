"""The paper's protocol of fine-tuning as a list of runs. Pure.

Paper, Section 4: batches of 32, four rates, three epochs or ten, five seeds,
the median on dev of the best rate.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Literal

from mslt_tf import errors
from mslt_tf.glue import tasks

# What may be a folder's name in a run's name.
_NAME = re.compile(r"[\w.+-]*\w[\w.+-]*")
_SEED_LIMIT = 2**31  # Of the dropout masks' seed.


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How each task is fine-tuned.

  Attributes:
    batch_size: Examples a step.
    learning_rates: The peak rates to try; at equal medians the first wins.
    seeds: Of the new weights, the order of the data and dropout.
    warmup_fraction: The share of the steps in which the rate rises.
    num_epochs: The same for all tasks; None for each task's own.
    max_sequence_length: In tokens; what is longer is cut.
    dropout: Of hidden states, attention and the pooled state.
    weight_decay: Of all but norms and biases.
    beta_1: AdamW's, of the mean gradient.
    beta_2: AdamW's, of the mean square.
    epsilon: AdamW's.
    clip_norm: Largest global norm of the gradients.
    precision: What matrix products are computed in; weights are float32.
  """

  batch_size: int = 32
  learning_rates: tuple[float, ...] = (5e-5, 4e-5, 3e-5, 2e-5)
  seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
  warmup_fraction: float = 0.1
  num_epochs: int | None = None
  max_sequence_length: int = 128
  dropout: float = 0.1
  weight_decay: float = 0.01
  beta_1: float = 0.9
  beta_2: float = 0.999
  epsilon: float = 1e-6
  clip_norm: float = 1.0
  precision: Literal["float32", "mixed_bfloat16"] = "float32"

  def __post_init__(self) -> None:
    for name in ("batch_size", "num_epochs", "max_sequence_length"):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise errors.InputError(f"{name}={value} must be 1 or more.")
    for name in ("warmup_fraction", "dropout", "beta_1", "beta_2"):
      value = getattr(self, name)
      if not 0 <= value < 1:
        raise errors.InputError(f"{name}={value} must be from 0 to below 1.")
    for name in ("epsilon", "clip_norm"):
      value = getattr(self, name)
      if not 0 < value < math.inf:
        raise errors.InputError(f"{name}={value} must be above 0.")
    if not 0 <= self.weight_decay < math.inf:
      raise errors.InputError(
        f"weight_decay={self.weight_decay} must be 0 or more."
      )
    _check_different("learning_rates", self.learning_rates)
    _check_different("seeds", self.seeds)
    for rate in self.learning_rates:
      if not 0 < rate < math.inf:
        raise errors.InputError(f"learning_rates: {rate} must be above 0.")
    for seed in self.seeds:
      if not 0 <= seed < _SEED_LIMIT:
        raise errors.InputError(
          f"seeds: {seed} must be from 0 to below {_SEED_LIMIT}."
        )

  @property
  def num_runs(self) -> int:
    """Runs of one task from one checkpoint."""
    return len(self.learning_rates) * len(self.seeds)


@dataclasses.dataclass(frozen=True)
class Run:
  """One fine-tuning.

  Attributes:
    task: The task's name.
    checkpoint: What is fine-tuned, by the name that tables show.
    learning_rate: The peak.
    seed: Of everything random.
    num_epochs: How often the training set is gone through.
    batch_size: Examples a step.
    warmup_fraction: The share of the steps in which the rate rises.
  """

  task: str
  checkpoint: str
  learning_rate: float
  seed: int
  num_epochs: int
  batch_size: int
  warmup_fraction: float

  @property
  def name(self) -> str:
    """A path such as `mslt/mrpc/rate_3e-05_seed_2`, of this run alone."""
    rate = f"{self.learning_rate:.12g}"
    return f"{self.checkpoint}/{self.task}/rate_{rate}_seed_{self.seed}"

  def num_steps(self, num_examples: int) -> int:
    """Returns the steps; each epoch ends with what is left of a batch."""
    return self.num_epochs * math.ceil(num_examples / self.batch_size)

  def num_warmup_steps(self, num_examples: int) -> int:
    """Returns the steps in which the rate rises, rounded up; never all."""
    num_steps = self.num_steps(num_examples)
    # Rounded first: 100 times 0.07 comes out a little above 7.
    num_warmup_steps = math.ceil(round(num_steps * self.warmup_fraction, 6))
    # The first one's rate is 0, so that a single step would train nothing.
    return min(num_warmup_steps, num_steps - 1)


def runs(
  protocol: Protocol,
  chosen: Sequence[tasks.Task],
  checkpoints: Sequence[str],
) -> list[Run]:
  """Returns all runs; those of a task and checkpoint stand together.

  Args:
    protocol: Rates, seeds and so on.
    chosen: The tasks, each with something to train on.
    checkpoints: Names of what is fine-tuned.

  Raises:
    errors.InputError: a name that is there twice or cannot be a folder's, or a
      task that has nothing to train on.
  """
  _check_different("task", [task.name for task in chosen])
  _check_different("checkpoint", checkpoints)
  for name in (*checkpoints, *(task.name for task in chosen)):
    if not _NAME.fullmatch(name):
      raise errors.InputError(
        f"name={name!r} must consist of letters, digits and . + - _ only."
      )
  for task in chosen:
    if task.train is None:
      raise errors.InputError(
        f"task={task.name} has nothing to train on; the model of"
        f" {task.answered_by} answers it."
      )
  return [
    Run(
      task.name,
      checkpoint,
      rate,
      seed,
      protocol.num_epochs or task.num_epochs,
      protocol.batch_size,
      protocol.warmup_fraction,
    )
    for task in chosen
    for checkpoint in checkpoints
    for rate in protocol.learning_rates
    for seed in protocol.seeds
  ]


def _check_different(name: str, values: Sequence) -> None:
  if not values:
    raise errors.InputError(f"{name}=[] must name at least one.")
  for value in values:
    if list(values).count(value) > 1:
      raise errors.InputError(f"{name}: {value!r} is given twice.")
