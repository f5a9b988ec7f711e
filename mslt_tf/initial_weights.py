"""The weights that a run starts from, where they are not random.

They are checked once against the run and kept in its workdir as stage 0, from
where the first stage is filled as every other one is from the stage before. The
run then needs their source no more.
"""

import dataclasses

import tensorflow as tf

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import finished_model
from mslt_tf.data.reading import manifest
from mslt_tf.models import pretrained
from mslt_tf.training import run_directory

STAGE = 0
_SOURCE_STAGE = "source_stage"
# What must be the same in both; shapes do not show the number of heads.
_SAME = (
  "vocab_size",
  "hidden_size",
  "num_heads",
  "intermediate_size",
  "max_positions",
  "num_segments",
  "activation",
)


@dataclasses.dataclass(frozen=True)
class InitialWeights:
  """Where the weights are, and their sha256.

  Attributes:
    source: Its stage; `None` where it is gone and the workdir has the weights.
  """

  sha256: str
  source: finished_model.FinishedStage | None


def read(
  config: config_lib.Config,
  workdir: str,
  data: manifest.Data,
) -> InitialWeights | None:
  """Returns what `model.initial_checkpoint` names; `None` if it names nothing.

  A source that is gone is not missed where the workdir has its weights, nor
  does it matter what stages it has finished since.

  Raises:
    InputError: It cannot be read, or does not fit the run.
  """
  source = config.model.initial_checkpoint
  if source is None:
    return None
  directory = run_directory.RunDirectory(workdir)
  if not tf.io.gfile.exists(source) and directory.is_finished(STAGE):
    return InitialWeights(directory.read_results(STAGE)["sha256"], None)
  if not tf.io.gfile.exists(source):
    raise errors.InputError(f"model.initial_checkpoint={source} is missing.")
  number = config.model.initial_stage
  if number is None and directory.is_finished(STAGE):
    number = directory.read_results(STAGE).get(_SOURCE_STAGE)
  stage = finished_model.find(source, stage=number)
  _check(config, stage, data)
  return InitialWeights(pretrained.fingerprint(stage.read_weights()), stage)


def keep(
  initial: InitialWeights | None, directory: run_directory.RunDirectory
) -> None:
  """Writes the weights into the workdir, unless they are there."""
  if initial is None or directory.is_finished(STAGE):
    return
  if initial.source is None:
    raise ValueError("The weights are neither given nor in the workdir.")
  directory.finish_stage(
    STAGE,
    # Read once more, rather than held as long as the run takes.
    arrays=initial.source.read_weights(),
    results={
      "step": 0,
      "batch_index": 0,
      "wall_seconds": 0.0,
      "train_seconds": 0.0,
      "sha256": initial.sha256,
      _SOURCE_STAGE: initial.source.number,
    },
  )


def _check(
  config: config_lib.Config,
  stage: finished_model.FinishedStage,
  data: manifest.Data,
) -> None:
  source = config.model.initial_checkpoint
  for name in _SAME:
    here, there = getattr(config.model, name), getattr(stage.architecture, name)
    if here != there:
      raise errors.InputError(
        f"model.{name}={here}; in model.initial_checkpoint={source} it is"
        f" {there}."
      )
  if config.model.lower_case != stage.lower_case:
    raise errors.InputError(
      f"model.lower_case={config.model.lower_case}; in"
      f" model.initial_checkpoint={source} it is {stage.lower_case}."
    )
  depth = stage.architecture.num_layers
  if config.schedule.initial_layers != depth:
    raise errors.InputError(
      f"schedule.initial_layers={config.schedule.initial_layers}; stage"
      f" {stage.number} of model.initial_checkpoint={source} has {depth}"
      " layers."
    )
  if data.vocab_sha256 is None:
    return  # Shards made elsewhere do not say.
  there = stage.read_vocabulary().sha256
  if there != data.vocab_sha256:
    raise errors.InputError(
      f"{data.source} is made with another vocabulary than"
      f" model.initial_checkpoint={source}; build it with"
      f" --vocab={source}/{finished_model.VOCABULARY_FILE}."
    )
