"""The model that a workdir holds: of a finished stage, or imported.

A workdir with a model in it:
  config.yaml            its section `model`; of a run, everything else too
  vocab.txt
  imported.json          of an imported model: where it comes from
  stage_<N>/weights.*    of each finished stage; an imported model has stage 1
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import strict_yaml
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import pretrained
from mslt_tf.training import run_directory

CONFIG_FILE = "config.yaml"
VOCABULARY_FILE = "vocab.txt"
DATA_FILE = "data.json"
_FACTS_FILE = "imported.json"

_STAGE = re.compile(r"^stage_([1-9]\d*)/?$")


@dataclasses.dataclass(frozen=True)
class FinishedStage:
  """A stage whose weights are there, not read yet."""

  directory: run_directory.RunDirectory
  number: int
  architecture: architecture_lib.Architecture
  lower_case: bool
  history: pretrained.History

  def read_weights(self) -> dict[str, np.ndarray]:
    """Returns the weights by name, the optimizer's state left out.

    Raises:
      InputError: They cannot be read or are not those of the config.
    """
    arrays = self.directory.read_stage(self.number)
    shapes = architecture_lib.weight_shapes(self.architecture)
    for name, shape in shapes.items():
      if name not in arrays or arrays[name].shape != shape:
        found = list(arrays[name].shape) if name in arrays else "missing"
        raise errors.InputError(
          f"{self.directory.stage(self.number)}: {name} is {found}; by"
          f" {CONFIG_FILE} its shape is {list(shape)}."
        )
    return {name: arrays[name] for name in shapes}

  def read_vocabulary(
    self, vocab_file: str | None = None
  ) -> vocabulary_lib.Vocabulary:
    """Returns the vocabulary of the workdir, or of a file given instead.

    Raises:
      InputError: There is none, or it has another size than the model's.
    """
    path = vocab_file or os.path.join(self.directory.path, VOCABULARY_FILE)
    if not tf.io.gfile.exists(path):
      raise errors.InputError(
        f"{path} is missing; copy the vocabulary of the data there."
      )
    vocabulary = vocabulary_lib.load(path)
    if len(vocabulary) != self.architecture.vocab_size:
      raise errors.InputError(
        f"{path} has {len(vocabulary)} tokens; the model in"
        f" {self.directory.path} has {self.architecture.vocab_size}."
      )
    return vocabulary


def find(workdir: str, *, stage: int | None = None) -> FinishedStage:
  """Looks a finished stage up.

  Args:
    workdir: Of a run, finished or not, or of an imported model.
    stage: Its number, from 1; by default the last finished one.

  Raises:
    InputError: `workdir` is none, or the stage is not finished.
  """
  directory = run_directory.RunDirectory(workdir)
  model, config = _read_config(workdir)
  finished = _finished_stages(directory)
  if not finished:
    raise errors.InputError(f"{workdir} has no finished stage yet.")
  number = finished[-1] if stage is None else stage
  if number not in finished:
    raise errors.InputError(
      f"stage={stage} is not finished in {workdir}; these are:"
      f" {', '.join(map(str, finished))}."
    )
  architecture = architecture_lib.of(model)
  if config is None:
    history = _imported_history(directory)
  elif number > len(config.schedule.stages):
    raise errors.InputError(
      f"{workdir}: stage {number} is not in the schedule of {CONFIG_FILE}."
    )
  else:
    architecture = dataclasses.replace(
      architecture, num_layers=config.schedule.stages[number - 1].num_layers
    )
    history = _history(directory, config, number)
  return FinishedStage(
    directory=directory,
    number=number,
    architecture=architecture,
    lower_case=model.lower_case,
    history=history,
  )


def load(
  workdir: str, *, stage: int | None = None, vocab_file: str | None = None
) -> pretrained.PretrainedBert:
  """Reads the model of a finished stage.

  Args:
    workdir: Of a run, finished or not, or of an imported model.
    stage: Its number, from 1; by default the last finished one.
    vocab_file: The vocabulary, for a workdir that has none.

  Raises:
    InputError: Something of it is missing or does not fit the rest.
  """
  found = find(workdir, stage=stage)
  return pretrained.PretrainedBert(
    architecture=found.architecture,
    lower_case=found.lower_case,
    vocabulary=found.read_vocabulary(vocab_file),
    weights=found.read_weights(),
    history=found.history,
  )


def save_imported(model: pretrained.PretrainedBert, workdir: str) -> bool:
  """Writes an imported model as a workdir with one finished stage.

  Returns:
    Whether it was written; not where it is there already.

  Raises:
    InputError: The workdir holds a run or another model.
  """
  section = {
    **dataclasses.asdict(model.architecture),
    "lower_case": model.lower_case,
  }
  identity = {
    "imported": {
      "weights_sha256": pretrained.fingerprint(model.weights),
      "vocab_sha256": model.vocabulary.sha256,
    },
    "model": section,
  }
  directory = run_directory.claim(workdir, identity)
  if directory.is_finished(1):
    return False
  with run_directory.writing(workdir):
    vocabulary_lib.save(
      model.vocabulary, os.path.join(workdir, VOCABULARY_FILE)
    )
  directory.write_json(_FACTS_FILE, dict(model.history.facts))
  directory.write_text(CONFIG_FILE, strict_yaml.dump({"model": section}))
  directory.finish_stage(
    1,
    arrays=model.weights,
    results={
      "step": 0,
      "batch_index": 0,
      "wall_seconds": 0.0,
      "train_seconds": 0.0,
    },
  )
  return True


def _read_config(
  workdir: str,
) -> tuple[config_lib.ModelConfig, config_lib.Config | None]:
  """Returns the model's section, and the whole config where there is one."""
  path = os.path.join(workdir, CONFIG_FILE)
  if not tf.io.gfile.exists(path):
    hint = ""
    for name in ("config.json", "bert_config.json"):
      if tf.io.gfile.exists(os.path.join(workdir, name)):
        hint = "; bin/import_checkpoint.py makes a workdir of it"
    raise errors.InputError(
      f"{workdir} is no workdir of a run: it has no {CONFIG_FILE}{hint}."
    )
  try:
    with tf.io.gfile.GFile(path) as file:
      text = file.read()
  except (tf.errors.OpError, UnicodeDecodeError) as error:
    reason = errors.first_line(error)
    raise errors.InputError(f"{path} cannot be read: {reason}") from error
  model = config_lib.load_model(text, source=path)
  if set(strict_yaml.load(text)) == {"model"}:
    return model, None
  return model, config_lib.load(text, source=path)


def _finished_stages(directory: run_directory.RunDirectory) -> list[int]:
  numbers = [
    int(match[1])
    for name in tf.io.gfile.listdir(directory.path)
    if (match := _STAGE.match(name))
  ]
  return sorted(number for number in numbers if directory.is_finished(number))


def _imported_history(
  directory: run_directory.RunDirectory,
) -> pretrained.History:
  facts = directory.read_json(_FACTS_FILE)
  if not isinstance(facts, dict):
    raise errors.InputError(
      f"{directory.path}/{_FACTS_FILE} is no JSON object."
    )
  return pretrained.History(
    facts={str(name): str(value) for name, value in facts.items()}
  )


def _history(
  directory: run_directory.RunDirectory,
  config: config_lib.Config,
  number: int,
) -> pretrained.History:
  """Returns what a run's files tell of its stages up to `number`."""
  facts = {
    "method": "masked language model and next sentence prediction",
    "batch size": f"{config.data.batch_size:,}",
    "sequence length": f"{config.data.sequence_length:,}",
    "predictions of a sequence": f"at most {config.data.max_predictions:,}",
    "optimizer": "LAMB",
    "peak learning rate": f"{config.optimizer.peak_learning_rate:g}",
    "warmup steps": f"{config.optimizer.warmup_steps:,}",
    "weight decay": f"{config.optimizer.weight_decay:g}",
    "steps planned": f"{config.schedule.num_steps:,}",
    "precision": config.training.precision,
    "seed": f"{config.training.seed}",
  }
  if config.model.initial_checkpoint is not None:
    facts["started from"] = (
      f"{os.path.basename(config.model.initial_checkpoint.rstrip('/'))},"
      f" {config.schedule.initial_layers} layers"
    )
  if tf.io.gfile.exists(os.path.join(directory.path, DATA_FILE)):
    facts |= _data_facts(directory.read_json(DATA_FILE))
  stages = tuple(
    pretrained.StageRecord(stage, directory.read_results(index))
    for index, stage in enumerate(config.schedule.stages[:number], start=1)
  )
  return pretrained.History(stages, facts)


def _data_facts(data: Mapping[str, Any]) -> dict[str, str]:
  facts = {}
  for name, value in data.items():
    if value is not None:
      facts[name.replace("_", " ")] = (
        f"{value:,}" if isinstance(value, int) else str(value)
      )
  return facts
