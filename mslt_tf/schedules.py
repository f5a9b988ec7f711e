"""Training methods as lists of stages.

A stage is a stretch of training at a fixed depth; a schedule is the tuple of
the stages of a run. Baseline, progressive stacking and multi-stage layerwise
training differ in nothing else.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

from mslt_tf import errors

# Gong et al. 2019 train for 50k, 70k and 280k steps.
GONG_STAGE_SHARES = (0.125, 0.175, 0.7)
# "Progressively Stacking 2.0" retrains all layers in its last 200k of 1M steps.
MSLT_RETRAINING_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage of a run.

  Attributes:
    num_layers: Encoder layers of the model in this stage.
    num_steps: Optimizer updates made in this stage.
    source_layers: For each layer, bottom first, the layer of the stage before
      that it starts as a copy of, or `None` for a random initialisation. What
      comes before the first stage is the initial checkpoint; without one all
      are `None` there.
    num_frozen_layers: The lowest layers that only run forward.
    freeze_embeddings: Whether word (and with them the tied output matrix),
      position and segment embeddings and their layer norm only run forward.
      `False` with frozen layers trains the word embeddings alone, as the output
      matrix: what is looked up takes no gradient.
  """

  num_layers: int
  num_steps: int
  source_layers: tuple[int | None, ...]
  num_frozen_layers: int = 0
  freeze_embeddings: bool = False

  @property
  def embeddings(self) -> Literal["trained", "frozen", "words"]:
    """What is trained of the embeddings: all, nothing, or the word table."""
    if self.freeze_embeddings:
      return "frozen"
    return "words" if self.num_frozen_layers else "trained"


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The stages of a run, in order. Raises `InputError` if they do not fit.

  Attributes:
    initial_layers: Depth of the model that the first stage starts from; `None`
      where it starts from random weights.
  """

  stages: tuple[Stage, ...]
  initial_layers: int | None = None

  def __post_init__(self):
    if not self.stages:
      raise errors.InputError(
        "stages=[] holds no stage; at least one is needed."
      )
    if self.initial_layers is not None and self.initial_layers < 1:
      raise errors.InputError(
        f"initial_layers={self.initial_layers} must be at least 1."
      )
    num_layers_before = self.initial_layers
    for number, stage in enumerate(self.stages, start=1):
      _check_stage(stage, number, num_layers_before)
      num_layers_before = stage.num_layers

  @property
  def num_steps(self) -> int:
    return self.stage_ends[-1]

  @property
  def stage_ends(self) -> tuple[int, ...]:
    """The run's step count at which each stage is finished."""
    return tuple(itertools.accumulate(stage.num_steps for stage in self.stages))

  @property
  def stage_starts(self) -> tuple[int, ...]:
    """The run's step count at which each stage begins."""
    return (0, *self.stage_ends[:-1])


def baseline(
  num_layers: int, num_steps: int, *, initial_layers: int | None = None
) -> Schedule:
  """Returns the ordinary schedule: all layers, all steps, one stage.

  Args:
    num_layers: Depth of the model.
    num_steps: Steps of the run.
    initial_layers: Of a model that is trained on; as many as `num_layers`.
  """
  if initial_layers is None:
    return Schedule((Stage(num_layers, num_steps, (None,) * num_layers),))
  if initial_layers != num_layers:
    raise errors.InputError(
      f"initial_layers={initial_layers} must be num_layers={num_layers}: a"
      " baseline does not grow."
    )
  stage = Stage(num_layers, num_steps, tuple(range(num_layers)))
  return Schedule((stage,), initial_layers)


def progressive_stacking(
  num_layers: int,
  num_steps: int,
  *,
  stage_shares: Sequence[float] = GONG_STAGE_SHARES,
) -> Schedule:
  """Returns the schedule of progressive stacking (Gong et al. 2019).

  Every stage doubles the model by putting a copy of all its layers on top, and
  trains everything.

  Args:
    num_layers: Depth of the last stage; divisible by 2 once per growth.
    num_steps: Steps of the whole run.
    stage_shares: The share of the steps that each stage gets; sums to 1.
  """
  steps_of_stages = _split_steps(
    num_steps, stage_shares, f"stage_shares={list(stage_shares)}"
  )
  num_growths = len(stage_shares) - 1
  depth, remainder = divmod(num_layers, 2**num_growths)
  if remainder or not depth:
    raise errors.InputError(
      f"num_layers={num_layers} cannot be reached by doubling"
      f" {num_growths} times; it must be {2**num_growths} or a multiple of"
      " that."
    )
  stages = []
  source_layers: tuple[int | None, ...] = (None,) * depth
  for steps in steps_of_stages:
    stages.append(Stage(len(source_layers), steps, source_layers))
    source_layers = tuple(range(len(source_layers))) * 2
  return Schedule(tuple(stages))


def mslt(
  num_layers: int,
  num_steps: int,
  *,
  num_growing_stages: int,
  retraining_share: float = MSLT_RETRAINING_SHARE,
  growing_shares: Sequence[float] | None = None,
  initial_layers: int | None = None,
  new_layers: Literal["copied", "random"] = "copied",
  freeze_embeddings: bool = True,
) -> Schedule:
  """Returns multi-stage layerwise training ("Progressively Stacking 2.0").

  Stage 1 trains N/k layers. Each of the stages 2 to k puts N/k layers on top,
  copies of the top N/k, and trains only those and the heads. A last stage
  retrains everything.

  A model that is there already, of j N/k layers, takes the place of the first j
  stages: k - j growing stages are left, and the last one.

  Args:
    num_layers: N, the depth of the finished model.
    num_steps: Steps of the whole run, retraining included.
    num_growing_stages: k; divides `num_layers`.
    retraining_share: Share of the steps in the last stage, where everything is
      trained; 0 leaves that stage out.
    growing_shares: The share of the steps that each growing stage gets; with
      `retraining_share` they sum to 1. `None` splits what that leaves evenly.
    initial_layers: Depth of the model that is there already: a multiple of N/k
      below N.
    new_layers: `random` puts freshly initialised layers on top.
    freeze_embeddings: Whether the tied word table is frozen with the layers;
      `false` trains it as the output matrix.
  """
  if num_growing_stages < 1:
    raise errors.InputError(
      f"num_growing_stages={num_growing_stages} must be at least 1."
    )
  if num_layers % num_growing_stages:
    raise errors.InputError(
      f"num_layers={num_layers} is not divisible by"
      f" num_growing_stages={num_growing_stages}."
    )
  if not 0 <= retraining_share < 1:
    raise errors.InputError(
      f"retraining_share={retraining_share} must be at least 0 and below 1."
    )
  added = num_layers // num_growing_stages
  depth = initial_layers or 0
  if initial_layers is not None and (
    not 0 < depth < num_layers or depth % added
  ):
    raise errors.InputError(
      f"initial_layers={initial_layers} must be a multiple of {added}, the"
      f" layers that a stage adds, and below num_layers={num_layers}; method"
      " baseline trains a model on at its depth."
    )
  num_growing = num_growing_stages - depth // added
  if growing_shares is None:
    growing_shares = [(1 - retraining_share) / num_growing] * num_growing
  if len(growing_shares) != num_growing:
    raise errors.InputError(
      f"growing_shares={list(growing_shares)} has {len(growing_shares)} shares;"
      f" the growing stages are {num_growing}."
    )
  shares = list(growing_shares)
  named = f"growing_shares={shares}"
  if retraining_share:
    shares.append(retraining_share)
    named += f" and retraining_share={retraining_share}"
  steps_of_stages = _split_steps(num_steps, shares, named)
  stages = []
  for steps in steps_of_stages[:num_growing]:
    stages.append(
      _layerwise_stage(depth, added, steps, new_layers, freeze_embeddings)
    )
    depth += added
  if retraining_share:
    stages.append(
      Stage(num_layers, steps_of_stages[-1], tuple(range(num_layers)))
    )
  return Schedule(tuple(stages), initial_layers)


def _layerwise_stage(
  before: int,
  added: int,
  num_steps: int,
  new_layers: Literal["copied", "random"],
  freeze_embeddings: bool,
) -> Stage:
  """Returns MSLT's stage that puts `added` layers on `before` frozen ones."""
  if not before:
    return Stage(added, num_steps, (None,) * added)
  sources: Sequence[int | None] = range(before - added, before)
  if new_layers == "random":
    sources = [None] * added
  return Stage(
    num_layers=before + added,
    num_steps=num_steps,
    source_layers=(*range(before), *sources),
    num_frozen_layers=before,
    freeze_embeddings=freeze_embeddings,
  )


def _split_steps(
  num_steps: int, shares: Sequence[float], named: str
) -> list[int]:
  """Returns the steps of each stage; borders are rounded, the sum is kept.

  Args:
    num_steps: Of the run.
    shares: Of each stage.
    named: What to call the shares in errors.
  """
  if not shares or not all(share > 0 for share in shares):
    raise errors.InputError(f"{named} must be one or more shares above 0.")
  if abs(sum(shares) - 1) > 1e-6:
    raise errors.InputError(f"{named} sum to {sum(shares):.9g}, not to 1.")
  inner = [round(num_steps * end) for end in itertools.accumulate(shares[:-1])]
  # The shares sum to 1 but for rounding, which must not cost a step.
  steps_of_stages = [
    end - start for start, end in itertools.pairwise([0, *inner, num_steps])
  ]
  for number, steps in enumerate(steps_of_stages, start=1):
    if steps < 1:
      raise errors.InputError(
        f"num_steps={num_steps} is too few: stage {number} of"
        f" {len(shares)} gets {steps} of them; the rule is at least 1."
      )
  return steps_of_stages


def _check_stage(stage: Stage, number: int, num_layers_before: int | None):
  """Raises `InputError` if a stage is impossible after the one before it."""
  where = f"stage {number}: "
  if stage.num_layers < 1:
    raise errors.InputError(
      f"{where}num_layers={stage.num_layers} must be at least 1."
    )
  if stage.num_steps < 1:
    raise errors.InputError(
      f"{where}num_steps={stage.num_steps} must be at least 1."
    )
  if len(stage.source_layers) != stage.num_layers:
    raise errors.InputError(
      f"{where}source_layers={list(stage.source_layers)} names"
      f" {len(stage.source_layers)} layers; num_layers={stage.num_layers}."
    )
  for layer, source in enumerate(stage.source_layers):
    if source is None:
      continue
    what = f"{where}source_layers[{layer}]={source} does not exist"
    if num_layers_before is None:
      raise errors.InputError(
        f"{what}; no stage comes before, so it must be null."
      )
    if not 0 <= source < num_layers_before:
      raise errors.InputError(
        f"{what}; the stage before has layers 0 to {num_layers_before - 1}."
      )
  if not 0 <= stage.num_frozen_layers <= stage.num_layers:
    raise errors.InputError(
      f"{where}num_frozen_layers={stage.num_frozen_layers} must be between 0"
      f" and num_layers={stage.num_layers}."
    )
  if None in stage.source_layers[: stage.num_frozen_layers]:
    raise errors.InputError(
      f"{where}num_frozen_layers={stage.num_frozen_layers} freezes layer"
      f" {stage.source_layers.index(None)}, whose weights are random."
    )
  if num_layers_before is None and stage.freeze_embeddings:
    raise errors.InputError(
      f"{where}freeze_embeddings=true freezes embeddings whose weights are"
      " random."
    )
