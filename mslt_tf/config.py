"""The configuration of a run: frozen dataclasses read strictly from YAML.

An unknown key, a missing one, a duplicate, a wrong type or an impossible value
is an `InputError` that names the file and the field.
"""

import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from mslt_tf import errors
from mslt_tf import schedules
from mslt_tf import strict_yaml

_T = TypeVar("_T")
_METHODS: dict[str, Callable[..., schedules.Schedule]] = {
  "baseline": schedules.baseline,
  "progressive_stacking": schedules.progressive_stacking,
  "mslt": schedules.mslt,
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The shape of the finished model and what its layers do.

  Attributes:
    max_positions: Rows of the position table. More than the sequence length in
      training, so that a run may be continued on longer sequences.
    activation: `gelu_tanh` is Google's BERT (`gelu_new` in Hugging Face),
      `gelu_exact` is Hugging Face's `gelu`.
    lower_case: Whether the vocabulary is uncased.
    dropout_when_frozen: Whether frozen layers and embeddings keep dropout on.
    initial_checkpoint: Workdir of a finished run or of an imported model, whose
      weights the first stage starts from; `schedule.initial_layers` tells its
      depth.
    initial_stage: Which of its stages; `null` takes the last finished one.
  """

  vocab_size: int
  hidden_size: int
  num_layers: int
  num_heads: int
  intermediate_size: int
  max_positions: int = 512
  num_segments: int = 2
  activation: Literal["gelu_tanh", "gelu_exact"] = "gelu_tanh"
  hidden_dropout: float = 0.1
  attention_dropout: float = 0.1
  initializer_range: float = 0.02
  lower_case: bool = True
  dropout_when_frozen: bool = False
  initial_checkpoint: str | None = None
  initial_stage: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """What is read: a directory, or shards made elsewhere.

  Attributes:
    directory: The output directory of create_pretraining_data.py.
    train_files: Instead of `directory`: globs, separated by commas, of the
      TFRecord files that BERT's or Model Garden's create_pretraining_data.py
      wrote.
    heldout_files: Globs of those that evaluation reads. What `train_files`
      matches too is not trained on.
    batch_size: Examples of one update, over all devices.
    vocab_sha256: Of the vocabulary file that the data must be made with; `null`
      takes any of the right size. Only a `directory` says which it is.
  """

  directory: str | None = None
  train_files: str | None = None
  heldout_files: str | None = None
  sequence_length: int
  max_predictions: int
  batch_size: int
  vocab_sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """LAMB and its learning rate.

  Attributes:
    warmup_steps: Linear warmup from 0; then linear decay to 0.
    curve: `run` is one curve over the whole run; `stage` is a warmup and decay
      in every stage, the warmup in proportion to the stage's steps.
    clip_norm: Largest global norm of the gradients.
    adapt_norms_and_biases: LAMB's layer adaptation of norms and biases too.
    state_at_growth: `fresh` starts every stage with empty moments; `carried`
      takes them, and each variable's step count, from the stage before.
  """

  peak_learning_rate: float
  warmup_steps: int
  curve: Literal["run", "stage"] = "run"
  weight_decay: float = 0.01
  beta_1: float = 0.9
  beta_2: float = 0.999
  epsilon: float = 1e-6
  clip_norm: float = 1.0
  adapt_norms_and_biases: bool = False
  state_at_growth: Literal["fresh", "carried"] = "fresh"


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
  """How the run is carried out; `seed` and `precision` are of its identity.

  Attributes:
    precision: What matrix products are computed in; weights are float32.
      `mixed_float16` scales the loss. Of float32, TensorFlow itself makes TF32
      on GPUs since Ampere, and bfloat16 on TPUs.
    strategy: `one_device`, `mirrored` (all GPUs of a machine),
      `multi_worker_mirrored` (the machines in the variable `TF_CONFIG`), `tpu`;
      `auto` takes the workers of `TF_CONFIG`, otherwise all GPUs.
    tpu: Name or address of a Cloud TPU; empty for one of this machine.
    worker_timeout: Seconds that a worker waits for the others at the start.
    num_micro_batches: Parts that a device's share of a batch goes through the
      model in, one after another: the same update in less memory.
    steps_per_loop: Steps between two returns to Python, where progress is
      logged and the wall-time limit is looked at.
    eval_interval: Steps between evaluations; one also ends every stage.
    eval_examples: Held-out examples an evaluation reads; `null` reads all.
    checkpoint_interval: Steps between checkpoints.
    keep_checkpoints: Checkpoints of the current stage that are kept.
    xla: Whether forward and backward are compiled; `auto` compiles them on GPU
      and TPU, not on CPU. LAMB's kernels always are.
    deterministic: Bit-equal results on the same device, at some cost in speed.
    largest_loss: Of MLM and NSP together. A step above it, or one that is not
      finite, ends the run; `null` allows any that is finite.
    max_recoveries: How many times in a stage the run does not end there but
      goes back to its last checkpoint and leaves out the batches since.
    profile_steps: `[first, last]`, the updates that TensorFlow's profiler
      watches; it writes to `tensorboard/`, a profile a return to Python.
    attention_sentence: Whose attention, in all heads, becomes an image in
      TensorBoard at the end of every stage; empty for none.
    reuse_frozen_states_gb: Disk for what a stage's frozen part makes of the
      training examples, so that it is computed once a stage and not once a
      pass; 0 computes it again. Only where all fit and there is more than one
      pass, on one worker with a local workdir.
  """

  seed: int = 0
  precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
  strategy: Literal[
    "auto", "one_device", "mirrored", "multi_worker_mirrored", "tpu"
  ] = "auto"
  tpu: str = ""
  worker_timeout: float = 600.0
  num_micro_batches: int = 1
  steps_per_loop: int = 100
  eval_interval: int = 10_000
  eval_batch_size: int = 256
  eval_examples: int | None = None
  checkpoint_interval: int = 1_000
  keep_checkpoints: int = 2
  xla: Literal["auto", "on", "off"] = "auto"
  deterministic: bool = False
  largest_loss: float | None = None
  max_recoveries: int = 0
  profile_steps: tuple[int, ...] = ()
  attention_sentence: str = ""
  reuse_frozen_states_gb: float = 0.0


@dataclasses.dataclass(frozen=True)
class Config:
  """A run. `schedule` is resolved: its stages are spelt out."""

  model: ModelConfig
  data: DataConfig
  schedule: schedules.Schedule
  optimizer: OptimizerConfig
  training: TrainingConfig = TrainingConfig()

  def __post_init__(self):
    _check(self)


def load(text: str, *, source: str, overrides: Sequence[str] = ()) -> Config:
  """Reads a config.

  Args:
    text: YAML text.
    source: What to call the text in errors, such as its path.
    overrides: `section.field=value` settings that replace fields of the text;
      values are YAML.

  Raises:
    InputError: naming `source` and the field.
  """
  return _load(_config, text, source, overrides)


def load_model(text: str, *, source: str) -> ModelConfig:
  """Reads the section `model` of a config, whatever else is in it.

  Raises:
    InputError: naming `source` and the field.
  """

  def build(tree):
    if not isinstance(tree, Mapping) or "model" not in tree:
      raise errors.InputError("model is missing.")
    model = _construct(ModelConfig, tree["model"], "model")
    _check_model(model)
    return model

  return _load(build, text, source)


def load_flat(
  target: Callable[..., _T],
  text: str,
  *,
  source: str,
  overrides: Sequence[str] = (),
  flag: str = "--set",
) -> _T:
  """Reads a dataclass from YAML text that has its fields and no sections.

  Args:
    target: The dataclass.
    text: YAML text.
    source: What to call the text in errors, such as its path.
    overrides: `field=value` settings that replace fields of the text.
    flag: What gives them, for errors.

  Raises:
    InputError: naming `source` and the field.
  """
  return _load(
    lambda tree: _construct(target, tree, ""),
    text,
    source,
    overrides,
    flag=flag,
    form="field=value",
  )


def _load(
  build: Callable[[Any], _T],
  text: str,
  source: str,
  overrides: Sequence[str] = (),
  *,
  flag: str = "--set",
  form: str = "section.field=value",
) -> _T:
  try:
    tree = strict_yaml.load(text)
    for override in overrides:
      _override(tree, override, flag=flag, form=form)
    return build(tree)
  except errors.InputError as error:
    raise errors.InputError(f"{source}: {error}") from error


def to_dict(config: Config) -> dict[str, Any]:
  """Returns the resolved config as plain dicts, lists and scalars."""
  return _plain(dataclasses.asdict(config))


def to_yaml(config: Config) -> str:
  """Returns YAML text that `load` reads back to an equal config."""
  return strict_yaml.dump(to_dict(config))


def identity(config: Config) -> dict[str, Any]:
  """Returns the part that may not change between two starts of a run."""
  tree = to_dict(config)
  # Where the data lies may change; the caller adds what they are.
  for name in ("directory", "train_files", "heldout_files"):
    del tree["data"][name]
  # So may where the weights come from.
  for name in ("initial_checkpoint", "initial_stage"):
    del tree["model"][name]
  tree["training"] = {
    "seed": config.training.seed,
    "precision": config.training.precision,
  }
  return tree


def _config(tree: Any) -> Config:
  fields = typing.get_type_hints(Config)
  _check_keys(tree, fields, "", required=set(fields) - {"training"})
  sections = {
    name: _construct(fields[name], tree[name], name)
    for name in tree
    if name != "schedule"
  }
  num_layers = sections["model"].num_layers
  _check_range("model.num_layers", num_layers)
  return Config(schedule=_schedule(tree["schedule"], num_layers), **sections)


def _schedule(tree: Any, num_layers: int) -> schedules.Schedule:
  """Builds a schedule from a method with its arguments, or from its stages.

  Either form takes `extra_steps`: a number, or a list of them, each a further
  stage at the last depth that trains everything.
  """
  if not isinstance(tree, Mapping):
    raise errors.InputError(f"schedule={tree!r} must be a mapping.")
  tree = dict(tree)
  extra_steps = tree.pop("extra_steps", [])
  extra_steps = _convert(
    extra_steps if isinstance(extra_steps, list) else [extra_steps],
    tuple[int, ...],
    "schedule.extra_steps",
  )
  for steps in extra_steps:
    if steps < 0:
      raise errors.InputError(
        f"schedule.extra_steps={steps} must be at least 0."
      )
  try:
    if "stages" in tree:
      schedule = _spelt_out(tree)
    else:
      schedule = _by_method(tree, num_layers)
  except errors.InputError as error:
    if str(error).startswith("schedule"):
      raise
    raise errors.InputError(f"schedule: {error}") from error
  depth = schedule.stages[-1].num_layers
  extra = [
    schedules.Stage(depth, steps, tuple(range(depth)))
    for steps in extra_steps
    if steps
  ]
  return schedules.Schedule((*schedule.stages, *extra), schedule.initial_layers)


def _spelt_out(tree: Mapping[str, Any]) -> schedules.Schedule:
  _check_keys(tree, ["stages", "initial_layers", "extra_steps"], "schedule.")
  if not isinstance(tree["stages"], list):
    raise errors.InputError(
      f"schedule.stages={tree['stages']!r} must be a list."
    )
  stages = [
    _construct(schedules.Stage, stage, f"schedule.stages[{index}]")
    for index, stage in enumerate(tree["stages"])
  ]
  initial_layers = _convert(
    tree.get("initial_layers"), int | None, "schedule.initial_layers"
  )
  return schedules.Schedule(tuple(stages), initial_layers)


def _by_method(tree: Mapping[str, Any], num_layers: int) -> schedules.Schedule:
  if "method" not in tree:
    raise errors.InputError(
      f"schedule.method is missing; it is one of {', '.join(_METHODS)}, or"
      " schedule.stages spells the stages out."
    )
  name = _convert(tree["method"], str, "schedule.method")
  if name not in _METHODS:
    raise errors.InputError(
      f"schedule.method={name!r} must be one of {', '.join(_METHODS)}."
    )
  parameters = inspect.signature(_METHODS[name]).parameters
  allowed = ["method", *parameters, "extra_steps"]
  allowed.remove("num_layers")
  _check_keys(tree, allowed, "schedule.")
  arguments = {key: value for key, value in tree.items() if key != "method"}
  return _construct(
    _METHODS[name], arguments, "schedule", num_layers=num_layers
  )


def _construct(
  target: Callable[..., Any], tree: Any, path: str, **given: Any
) -> Any:
  """Calls a dataclass or function with the checked entries of a mapping.

  `path` is where the mapping stands, "" for all of the config.
  """
  prefix = f"{path}." if path else ""
  parameters = inspect.signature(target).parameters
  hints = typing.get_type_hints(target)
  allowed = [name for name in parameters if name not in given]
  required = {
    name
    for name in allowed
    if parameters[name].default is inspect.Parameter.empty
  }
  _check_keys(tree, allowed, prefix, required=required)
  values = {
    name: _convert(value, hints[name], f"{prefix}{name}")
    for name, value in tree.items()
  }
  return target(**given, **values)


def _convert(value: Any, hint: Any, path: str) -> Any:
  """Returns the value as the hinted type, or raises; converts no strings."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is Literal:
    if value not in arguments:
      raise errors.InputError(
        f"{path}={value!r} must be one of {', '.join(arguments)}."
      )
    return value
  if origin in (types.UnionType, typing.Union):
    if value is None and type(None) in arguments:
      return None
    (hint,) = (each for each in arguments if each is not type(None))
    return _convert(value, hint, path)
  if origin is not None and issubclass(origin, Sequence):
    if not isinstance(value, list):
      raise errors.InputError(f"{path}={value!r} must be a list.")
    return tuple(
      _convert(each, arguments[0], f"{path}[{index}]")
      for index, each in enumerate(value)
    )
  if isinstance(value, int) and abs(value) > _LARGEST_WHOLE_NUMBER:
    raise errors.InputError(
      f"{path} has {len(str(abs(value)))} digits; the largest whole number is"
      f" {_LARGEST_WHOLE_NUMBER}."
    )
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if hint is float and is_number:
    return float(value)
  if type(value) is not hint:
    kind = {int: "a whole number", float: "a number", bool: "true or false"}
    raise errors.InputError(
      f"{path}={value!r} must be {kind.get(hint, 'text')}."
    )
  return value


def _check_keys(tree, allowed, prefix, *, required=()):
  if not isinstance(tree, Mapping):
    what = f"{prefix.rstrip('.')}={tree!r}" if prefix else "the config"
    raise errors.InputError(
      f"{what} must be a mapping with the fields {', '.join(allowed)}."
    )
  for key in tree:
    if key not in allowed:
      near = difflib.get_close_matches(str(key), list(allowed), n=1)
      hint = (
        f"did you mean {near[0]}?"
        if near
        else f"the fields are {', '.join(allowed)}."
      )
      raise errors.InputError(f"{prefix}{key} is not a field; {hint}")
  for key in allowed:
    if key in required and key not in tree:
      raise errors.InputError(f"{prefix}{key} is missing.")


def _override(tree: Any, override: str, *, flag: str, form: str) -> None:
  path, equals, text = override.partition("=")
  *sections, field = path.split(".")
  if not equals or not all([*sections, field]):
    raise errors.InputError(f"{flag}={override} must have the form {form}.")
  if not isinstance(tree, dict):
    return  # The config itself is wrong; its own check says so.
  for depth, section in enumerate(sections, start=1):
    tree = tree.setdefault(section, {})
    if not isinstance(tree, dict):
      what = ".".join(sections[:depth])
      raise errors.InputError(
        f"{flag}={override}: {what}={tree!r} has no fields."
      )
  try:
    tree[field] = strict_yaml.load(text)
  except errors.InputError as error:
    raise errors.InputError(f"{flag}={override}: {error}") from error


def _plain(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _plain(each) for key, each in value.items()}
  if isinstance(value, tuple | list):
    return [_plain(each) for each in value]
  return value


def _check(config: Config) -> None:
  """Raises `InputError` for values that no run could have."""
  model, data = config.model, config.data
  _check_model(model)
  for section in ("data", "optimizer", "training"):
    for name, value in dataclasses.asdict(getattr(config, section)).items():
      _check_range(f"{section}.{name}", value)
  _check_start(config)
  _check_sources(data)
  _check_reuse(config)
  _check_profile(config.training.profile_steps)
  if data.sequence_length > model.max_positions:
    raise errors.InputError(
      f"data.sequence_length={data.sequence_length} is more than"
      f" model.max_positions={model.max_positions}."
    )
  depth = config.schedule.stages[-1].num_layers
  if depth != model.num_layers:
    raise errors.InputError(
      f"schedule: the last stage has num_layers={depth};"
      f" model.num_layers={model.num_layers}."
    )
  num_steps = config.schedule.num_steps
  if config.optimizer.warmup_steps >= num_steps:
    raise errors.InputError(
      f"optimizer.warmup_steps={config.optimizer.warmup_steps} must be less"
      f" than the run's {num_steps} steps."
    )


def _check_model(model: ModelConfig) -> None:
  for name, value in dataclasses.asdict(model).items():
    _check_range(f"model.{name}", value)
  if model.hidden_size % model.num_heads:
    raise errors.InputError(
      f"model.hidden_size={model.hidden_size} is not divisible by"
      f" model.num_heads={model.num_heads}."
    )


def _check_start(config: Config) -> None:
  """An initial checkpoint and its depth go together."""
  checkpoint = config.model.initial_checkpoint
  depth = config.schedule.initial_layers
  if checkpoint is None and depth is not None:
    raise errors.InputError(
      f"schedule.initial_layers={depth} needs model.initial_checkpoint."
    )
  if checkpoint is not None and depth is None:
    raise errors.InputError(
      f"model.initial_checkpoint={checkpoint} needs schedule.initial_layers,"
      " the depth of that model."
    )
  if config.model.initial_stage is not None and checkpoint is None:
    raise errors.InputError(
      f"model.initial_stage={config.model.initial_stage} needs"
      " model.initial_checkpoint."
    )


def _check_reuse(config: Config) -> None:
  """Stored states are those of a frozen part that runs as at inference."""
  limit = config.training.reuse_frozen_states_gb
  what = None
  if config.model.dropout_when_frozen:
    what = "model.dropout_when_frozen=true"
  elif any(stage.embeddings == "words" for stage in config.schedule.stages):
    what = "freeze_embeddings=false"
  if limit and what:
    raise errors.InputError(
      f"training.reuse_frozen_states_gb={limit} does not go with {what}, which"
      " gives an example other states in every pass."
    )


def _check_profile(steps: Sequence[int]) -> None:
  if steps and (len(steps) != 2 or not 1 <= steps[0] <= steps[1]):
    raise errors.InputError(
      f"training.profile_steps={list(steps)} must be [first, last], counted"
      " from 1, or []."
    )


def _check_sources(data: DataConfig) -> None:
  """Raises `InputError` unless the data are given in exactly one way."""
  if data.directory is None:
    if data.train_files is None and data.heldout_files is None:
      raise errors.InputError(
        "data.directory is missing; data.train_files and data.heldout_files may"
        " take its place."
      )
    if data.train_files is None:
      raise errors.InputError(
        "data.train_files is missing; data.heldout_files needs it."
      )
    if data.heldout_files is None:
      raise errors.InputError(
        "data.heldout_files is missing: with data.train_files, evaluation needs"
        " shards too; name some of the same, which are then not trained on."
      )
    if data.vocab_sha256 is not None:
      raise errors.InputError(
        "data.vocab_sha256 goes with data.directory: the shards of"
        " data.train_files do not say which vocabulary they are made with."
      )
    return
  for name in ("train_files", "heldout_files"):
    if getattr(data, name) is not None:
      raise errors.InputError(
        f"data.directory={data.directory!r} and"
        f" data.{name}={getattr(data, name)!r} are both given; set one of them"
        " to null."
      )


_LARGEST_WHOLE_NUMBER = 2**53  # That floats hold exactly.
# Numbers are above 0 except for these: at least the first, below the second.
_RANGES = {
  # The dropouts of a model are numbered below 2^12, three a layer.
  "model.num_layers": (1, 1366),
  # Every example has two.
  "model.num_segments": (2, math.inf),
  "model.hidden_dropout": (0, 1),
  "model.attention_dropout": (0, 1),
  "optimizer.warmup_steps": (0, math.inf),
  "optimizer.weight_decay": (0, math.inf),
  "optimizer.beta_1": (0, 1),
  "optimizer.beta_2": (0, 1),
  "training.seed": (0, 2**31),
  # The dropout masks of a batch's parts are told apart below these.
  "training.num_micro_batches": (1, 2**12),
  "training.max_recoveries": (0, math.inf),
  "training.reuse_frozen_states_gb": (0, math.inf),
}


def _check_range(path: str, value: Any) -> None:
  if isinstance(value, bool) or not isinstance(value, int | float):
    return
  if path in _RANGES:
    low, high = _RANGES[path]
    if not low <= value < high:
      rule = f"at least {low} and below {high}"
      raise errors.InputError(f"{path}={value} must be {rule}.")
  elif not 0 < value < math.inf:
    raise errors.InputError(f"{path}={value} must be above 0 and finite.")
