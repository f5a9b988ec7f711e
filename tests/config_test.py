"""Configs are read strictly, overridden by field and written back equal."""

import dataclasses
import inspect
import re

import pytest

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import schedules

TEXT = """\
model:
  vocab_size: 97
  hidden_size: 12
  num_layers: 4
  num_heads: 3
  intermediate_size: 20
data:
  directory: shards
  sequence_length: 17
  max_predictions: 5
  batch_size: 7
schedule:
  method: mslt
  num_steps: 300
  num_growing_stages: 2
optimizer:
  peak_learning_rate: 0.01
  warmup_steps: 11
"""


def _load(text: str = TEXT, *overrides: str) -> config_lib.Config:
  return config_lib.load(text, source="run.yaml", overrides=overrides)


def _error(text: str = TEXT, *overrides: str) -> str:
  with pytest.raises(errors.InputError) as error:
    _load(text, *overrides)
  message = str(error.value)
  assert "\n" not in message
  start = "run.yaml: "
  assert message.startswith(start)
  return message.removeprefix(start)


def _replaced(old: str, new: str) -> str:
  assert TEXT.count(old) == 1
  return TEXT.replace(old, new)


def test_fields_are_read():
  config = _load()
  assert config.model.vocab_size == 97
  assert config.model.num_heads == 3
  assert config.data.directory == "shards"
  assert config.optimizer.warmup_steps == 11
  assert config.schedule == schedules.Schedule(
    (
      schedules.Stage(2, 120, (None, None)),
      schedules.Stage(4, 120, (0, 1, 0, 1), 2, True),
      schedules.Stage(4, 60, (0, 1, 2, 3)),
    )
  )


def test_choices_that_the_paper_leaves_open():
  config = _load()
  assert config.optimizer.curve == "run"
  assert config.optimizer.state_at_growth == "fresh"
  assert config.optimizer.adapt_norms_and_biases is False
  assert config.model.dropout_when_frozen is False
  # Position and segment embeddings are frozen with the word embeddings.
  assert [stage.freeze_embeddings for stage in config.schedule.stages] == [
    False,
    True,
    False,
  ]


def test_defaults_are_berts():
  model = _load().model
  assert model.max_positions == 512
  assert model.num_segments == 2
  assert model.activation == "gelu_tanh"
  assert model.hidden_dropout == 0.1
  assert model.attention_dropout == 0.1
  assert model.initializer_range == 0.02
  assert model.lower_case is True


def test_defaults_of_lamb():
  optimizer = _load().optimizer
  assert optimizer.weight_decay == 0.01
  assert optimizer.beta_1 == 0.9
  assert optimizer.beta_2 == 0.999
  assert optimizer.epsilon == 0.000001
  assert optimizer.clip_norm == 1.0


def test_defaults_of_methods():
  def defaults(method):
    return {
      name: parameter.default
      for name, parameter in inspect.signature(method).parameters.items()
      if parameter.default is not inspect.Parameter.empty
    }

  assert defaults(schedules.mslt) == {
    "retraining_share": 0.2,
    "initial_layers": None,
    "growing_shares": None,
    "new_layers": "copied",
    "freeze_embeddings": True,
  }
  assert defaults(schedules.progressive_stacking) == {
    "stage_shares": (0.125, 0.175, 0.7)
  }


@pytest.mark.parametrize(
  "old, new, message",
  [
    (
      "vocab_size",
      "vocabsize",
      "model.vocabsize is not a field; did you mean vocab_size?",
    ),
    (
      "batch_size",
      "examples",
      "data.examples is not a field; the fields are directory, train_files,"
      " heldout_files, sequence_length, max_predictions, batch_size,"
      " vocab_sha256.",
    ),
    ("model:", "models:", "models is not a field; did you mean model?"),
    (
      "num_growing_stages",
      "growing_stages",
      "schedule.growing_stages is not a field; did you mean"
      " num_growing_stages?",
    ),
    (
      "method: mslt\n",
      "method: mslt\n  extra_step: 5\n",
      "schedule.extra_step is not a field; did you mean extra_steps?",
    ),
  ],
)
def test_an_unknown_key_is_named_with_the_nearest(old, new, message):
  assert _error(_replaced(old, new)) == message


@pytest.mark.parametrize(
  "old, message",
  [
    ("  num_heads: 3\n", "model.num_heads is missing."),
    ("  warmup_steps: 11\n", "optimizer.warmup_steps is missing."),
    ("  num_growing_stages: 2\n", "schedule.num_growing_stages is missing."),
    (
      "  method: mslt\n",
      "schedule.method is missing; it is one of baseline,"
      " progressive_stacking, mslt, or schedule.stages spells the stages out.",
    ),
  ],
)
def test_a_missing_key_is_named(old, message):
  assert _error(_replaced(old, "")) == message


def test_a_missing_section_is_named():
  text = TEXT[: TEXT.index("optimizer:")]
  assert _error(text) == "optimizer is missing."


def test_training_may_be_left_out():
  assert _load().training == config_lib.TrainingConfig()


@pytest.mark.parametrize(
  "setting, message",
  [
    ("model.vocab_size=many", "'many' must be a whole number."),
    ("model.vocab_size='97'", "'97' must be a whole number."),
    ("model.vocab_size=97.0", "97.0 must be a whole number."),
    ("model.vocab_size=true", "True must be a whole number."),
    ("model.vocab_size=", "None must be a whole number."),
    ("model.vocab_size=[97]", "[97] must be a whole number."),
    ("model.lower_case=1", "1 must be true or false."),
    ("model.lower_case=on", "'on' must be true or false."),
    ("model.lower_case=yes", "'yes' must be true or false."),
    ("optimizer.weight_decay=true", "True must be a number."),
    ("optimizer.weight_decay=low", "'low' must be a number."),
    ("data.directory=5", "5 must be text."),
    ("data.train_files=[a, b]", "['a', 'b'] must be text."),
    ("training.eval_examples=all", "'all' must be a whole number."),
    ("model.activation=relu", "'relu' must be one of gelu_tanh, gelu_exact."),
    ("model.activation=[]", "[] must be one of gelu_tanh, gelu_exact."),
    ("schedule.method=[mslt]", "['mslt'] must be text."),
    (
      "schedule.method=MSLT",
      "'MSLT' must be one of baseline, progressive_stacking, mslt.",
    ),
  ],
)
def test_a_wrong_type_is_named(setting, message):
  field = setting.split("=")[0]
  assert _error(TEXT, setting) == f"{field}={message}"


@pytest.mark.parametrize(
  "text, expected",
  [
    ("1e-4", 0.0001),
    ("1E-4", 0.0001),
    ("2.5e-4", 0.00025),
    ("1e+1", 10.0),
    (".5", 0.5),
    ("1.", 1.0),
    ("3", 3.0),
  ],
)
def test_numbers_are_yaml_1_2s(text, expected):
  config = _load(TEXT, f"optimizer.peak_learning_rate={text}")
  assert config.optimizer.peak_learning_rate == expected
  assert isinstance(config.optimizer.peak_learning_rate, float)


def test_underscores_group_digits():
  assert _load(TEXT, "data.batch_size=1_024").data.batch_size == 1024


@pytest.mark.parametrize("text", ["1:30", "0x10", "010", "12e"])
def test_numbers_of_yaml_1_1_are_text(text):
  message = _error(TEXT, f"data.batch_size={text}")
  assert message == f"data.batch_size='{text}' must be a whole number."


@pytest.mark.parametrize("text", ["on", "no", "2024-01-01", "gs://a/b:c"])
def test_plain_text_is_text(text):
  assert _load(TEXT, f"data.directory={text}").data.directory == text


def test_shards_may_take_the_place_of_a_directory():
  config = _load(
    TEXT,
    "data.directory=null",
    "data.train_files=gs://bucket/*.tfrecord",
    "data.heldout_files=gs://bucket/0.tfrecord,gs://bucket/1.tfrecord",
  )
  assert config.data.directory is None
  assert config.data.train_files == "gs://bucket/*.tfrecord"
  assert config.data.heldout_files == (
    "gs://bucket/0.tfrecord,gs://bucket/1.tfrecord"
  )


@pytest.mark.parametrize(
  "settings, message",
  [
    (
      ["data.directory=null"],
      "data.directory is missing; data.train_files and data.heldout_files may"
      " take its place.",
    ),
    (
      ["data.train_files=a*"],
      "data.directory='shards' and data.train_files='a*' are both given; set"
      " one of them to null.",
    ),
    (
      ["data.heldout_files=b*"],
      "data.directory='shards' and data.heldout_files='b*' are both given; set"
      " one of them to null.",
    ),
    (
      ["data.directory=null", "data.train_files=a*"],
      "data.heldout_files is missing: with data.train_files, evaluation needs"
      " shards too; name some of the same, which are then not trained on.",
    ),
    (
      ["data.directory=null", "data.heldout_files=b*"],
      "data.train_files is missing; data.heldout_files needs it.",
    ),
    (
      [
        *["data.directory=null", "data.train_files=a", "data.heldout_files=b"],
        "data.vocab_sha256=abc",
      ],
      "data.vocab_sha256 goes with data.directory: the shards of"
      " data.train_files do not say which vocabulary they are made with.",
    ),
  ],
)
def test_data_are_given_in_exactly_one_way(settings, message):
  assert _error(TEXT, *settings) == message


def test_a_key_given_twice_is_refused():
  text = _replaced("  num_heads: 3\n", "  num_heads: 3\n  num_heads: 4\n")
  assert _error(text) == "line 6: num_heads is given twice."


def test_a_section_given_twice_is_refused():
  assert _error(TEXT + "model:\n") == "line 19: model is given twice."


def test_broken_yaml_is_refused():
  message = _error("model: {vocab_size: 97\ndata:")
  assert message == (
    "not valid YAML in line 2: expected ',' or '}', but got ':'."
  )


def test_a_character_that_yaml_forbids_is_refused():
  message = _error(_replaced("shards", "sha\0rds"))
  assert message.startswith("not valid YAML: unacceptable character #x0000")


@pytest.mark.parametrize("text", ["", "5", "- model\n", "some prose\n" * 99])
def test_what_is_no_mapping_is_refused(text):
  rule = (
    "the config must be a mapping with the fields model, data, schedule,"
    " optimizer, training."
  )
  assert _error(text) == rule
  assert _error(text, "model.vocab_size=5") == rule


def test_a_section_that_is_no_mapping_is_refused():
  assert _error(TEXT + "training: 5\n") == (
    "training=5 must be a mapping with the fields seed, precision, strategy,"
    " tpu, worker_timeout, num_micro_batches, steps_per_loop, eval_interval,"
    " eval_batch_size, eval_examples, checkpoint_interval, keep_checkpoints,"
    " xla, deterministic, largest_loss, max_recoveries, profile_steps,"
    " attention_sentence, reuse_frozen_states_gb."
  )
  assert _error(TEXT, "schedule=mslt") == "schedule='mslt' must be a mapping."


@pytest.mark.parametrize(
  "tag", ["!!python/object/apply:os.getcwd []", "!!python/name:os.getcwd ''"]
)
def test_python_tags_are_refused(tag):
  message = _error(_replaced("directory: shards", f"directory: {tag}"))
  assert message.startswith(
    "not valid YAML in line 8: could not determine a constructor for the tag"
  )


def test_overrides_replace_fields():
  config = _load(
    TEXT, "model.vocab_size=101", "training.seed=3", "data.directory=a=b"
  )
  assert config.model.vocab_size == 101
  assert config.training.seed == 3  # TEXT has no section `training`.
  assert config.data.directory == "a=b"


def test_the_last_override_wins():
  assert _load(TEXT, "data.batch_size=8", "data.batch_size=9") == _load(
    TEXT, "data.batch_size=9"
  )


def test_an_override_may_be_a_whole_section():
  config = _load(TEXT, "schedule={method: baseline, num_steps: 23}")
  assert config.schedule == schedules.baseline(4, 23)


def test_an_override_may_be_a_list():
  config = _load(
    _replaced("method: mslt", "method: progressive_stacking").replace(
      "  num_growing_stages: 2\n", ""
    ),
    "schedule.stage_shares=[0.25, 0.75]",
  )
  assert config.schedule.stage_ends == (75, 300)


@pytest.mark.parametrize(
  "override, message",
  [
    (
      "model.vocab_size",
      "--set=model.vocab_size must have the form section.field=value.",
    ),
    ("=5", "--set==5 must have the form section.field=value."),
    (
      "model..vocab_size=5",
      "--set=model..vocab_size=5 must have the form section.field=value.",
    ),
    (
      "model.vocab_size.x=5",
      "--set=model.vocab_size.x=5: model.vocab_size=97 has no fields.",
    ),
    (
      "model.vocab_size.x.y=5",
      "--set=model.vocab_size.x.y=5: model.vocab_size=97 has no fields.",
    ),
    ("model.vocabsize=5", "model.vocabsize is not a field; did you mean"),
    ("moddel.vocab_size=5", "moddel is not a field; did you mean model?"),
    ("vocab_size=5", "vocab_size is not a field; the fields are model, data,"),
    (
      "model.vocab_size={",
      "--set=model.vocab_size={: not valid YAML in line 1: expected the node",
    ),
    (
      "model={num_heads: 1, num_heads: 2}",
      "--set=model={num_heads: 1, num_heads: 2}: line 1: num_heads is given"
      " twice.",
    ),
  ],
)
def test_a_wrong_override_is_named(override, message):
  assert _error(TEXT, override).startswith(message)


@pytest.mark.parametrize(
  "setting, rule",
  [
    ("model.vocab_size=0", "above 0 and finite"),
    ("model.hidden_size=-12", "above 0 and finite"),
    ("model.num_layers=0", "at least 1 and below 1366"),
    ("model.num_layers=1366", "at least 1 and below 1366"),
    ("model.hidden_dropout=1.0", "at least 0 and below 1"),
    ("model.attention_dropout=-0.1", "at least 0 and below 1"),
    ("model.attention_dropout=.nan", "at least 0 and below 1"),
    ("model.initializer_range=0.0", "above 0 and finite"),
    ("data.batch_size=0", "above 0 and finite"),
    ("data.max_predictions=-1", "above 0 and finite"),
    ("optimizer.peak_learning_rate=.nan", "above 0 and finite"),
    ("optimizer.peak_learning_rate=.inf", "above 0 and finite"),
    ("optimizer.peak_learning_rate=1e999", "above 0 and finite"),
    ("optimizer.peak_learning_rate=-0.01", "above 0 and finite"),
    ("optimizer.warmup_steps=-1", "at least 0 and below inf"),
    ("optimizer.weight_decay=-.inf", "at least 0 and below inf"),
    ("optimizer.weight_decay=.inf", "at least 0 and below inf"),
    ("optimizer.beta_1=1.0", "at least 0 and below 1"),
    ("optimizer.beta_2=1.5", "at least 0 and below 1"),
    ("optimizer.epsilon=0.0", "above 0 and finite"),
    ("optimizer.clip_norm=0.0", "above 0 and finite"),
    ("training.seed=-1", "at least 0 and below 2147483648"),
    ("training.eval_examples=0", "above 0 and finite"),
    ("training.checkpoint_interval=0", "above 0 and finite"),
  ],
)
def test_a_value_out_of_range_is_named(setting, rule):
  field, text = setting.split("=")
  message = _error(TEXT, setting)
  assert message.startswith(f"{field}=")
  assert message.endswith(f" must be {rule}.")
  if text.startswith((".", "-.", "1e")):
    text = {".nan": "nan", "-.inf": "-inf"}.get(text, "inf")
  assert f"{field}={text} " in message


def test_limits_that_are_allowed():
  config = _load(
    TEXT,
    "model.hidden_dropout=0",
    "optimizer.warmup_steps=0",
    "optimizer.weight_decay=0",
    "optimizer.beta_1=0",
    "data.sequence_length=512",
  )
  assert config.model.hidden_dropout == 0.0
  assert config.optimizer.warmup_steps == 0


@pytest.mark.parametrize(
  "overrides, message",
  [
    (
      ["model.num_heads=5"],
      "model.hidden_size=12 is not divisible by model.num_heads=5.",
    ),
    (
      ["data.sequence_length=513"],
      "data.sequence_length=513 is more than model.max_positions=512.",
    ),
    (
      ["optimizer.warmup_steps=300"],
      "optimizer.warmup_steps=300 must be less than the run's 300 steps.",
    ),
    (
      ["schedule.num_growing_stages=3"],
      "schedule: num_layers=4 is not divisible by num_growing_stages=3.",
    ),
    (
      ["schedule.extra_steps=-5"],
      "schedule.extra_steps=-5 must be at least 0.",
    ),
    (["schedule={stages: 4}"], "schedule.stages=4 must be a list."),
    (
      ["schedule={stages: []}"],
      "schedule: stages=[] holds no stage; at least one is needed.",
    ),
    (
      ["schedule={stages: [{num_layers: 1, num_steps: 400}]}"],
      "schedule.stages[0].source_layers is missing.",
    ),
    (
      [
        "schedule={stages: [{num_layers: 1, num_steps: 400,"
        " source_layers: [one]}]}"
      ],
      "schedule.stages[0].source_layers[0]='one' must be a whole number.",
    ),
    (
      [
        "schedule={stages: [{num_layers: 1, num_steps: 0,"
        " source_layers: [null]}]}"
      ],
      "schedule: stage 1: num_steps=0 must be at least 1.",
    ),
    (
      [
        "schedule={stages: [{num_layers: 1, num_steps: 400,"
        " source_layers: [null]}]}"
      ],
      "schedule: the last stage has num_layers=1; model.num_layers=4.",
    ),
    (
      ["schedule.stages=[]"],
      "schedule.method is not a field; the fields are stages,"
      " initial_layers, extra_steps.",
    ),
  ],
)
def test_values_that_do_not_fit_together_are_named(overrides, message):
  assert _error(TEXT, *overrides) == message


STAGES = """\
schedule:
  stages:
  - {num_layers: 2, num_steps: 120, source_layers: [null, null]}
  - num_layers: 4
    num_steps: 120
    source_layers: [0, 1, 0, 1]
    num_frozen_layers: 2
    freeze_embeddings: true
  - {num_layers: 4, num_steps: 60, source_layers: [0, 1, 2, 3]}
"""


def _spelt_out() -> str:
  start, end = TEXT.index("schedule:"), TEXT.index("optimizer:")
  return TEXT[:start] + STAGES + TEXT[end:]


def test_stages_spelt_out_equal_the_methods():
  assert _load(_spelt_out()) == _load()


@pytest.mark.parametrize("text", [TEXT, _spelt_out()])
def test_extra_steps_append_a_stage_that_trains_everything(text):
  config = _load(text, "schedule.extra_steps=41")
  assert config.schedule.stages[:-1] == _load().schedule.stages
  assert config.schedule.stages[-1] == schedules.Stage(
    num_layers=4,
    num_steps=41,
    source_layers=(0, 1, 2, 3),
    num_frozen_layers=0,
    freeze_embeddings=False,
  )


def test_extra_steps_of_0_append_nothing():
  assert _load(TEXT, "schedule.extra_steps=0") == _load()


@pytest.mark.parametrize(
  "overrides",
  [
    [],
    ["training.eval_examples=13", "training.xla=off"],
    ["optimizer.epsilon=1e-12", "optimizer.peak_learning_rate=1e-4"],
    ["data.directory='1e5'"],
    ["data.directory='017'"],
    ["data.directory='true'"],
    ["data.directory='a: b #c'"],
    ["data.directory='" + "long/" * 40 + "'"],
    ["schedule={method: baseline, num_steps: 23, extra_steps: 5}"],
  ],
)
def test_a_written_config_is_read_back_equal(overrides):
  config = _load(TEXT, *overrides)
  assert _load(config_lib.to_yaml(config)) == config


def test_a_written_config_has_a_field_a_line():
  text = config_lib.to_yaml(_load())
  assert text.startswith("model:\n  vocab_size: 97\n  hidden_size: 12\n")
  assert "\n    source_layers: [0, 1, 0, 1]\n" in text


def test_to_dict_holds_plain_values_only():
  tree = config_lib.to_dict(_load())
  assert tree["schedule"]["stages"][1] == {
    "num_layers": 4,
    "num_steps": 120,
    "source_layers": [0, 1, 0, 1],
    "num_frozen_layers": 2,
    "freeze_embeddings": True,
  }
  assert list(tree) == ["model", "data", "schedule", "optimizer", "training"]


def test_states_that_change_from_pass_to_pass_cannot_be_reused():
  settings = (
    "training.reuse_frozen_states_gb=2",
    "model.dropout_when_frozen=true",
  )
  assert _error(TEXT, *settings) == (
    "training.reuse_frozen_states_gb=2.0 does not go with"
    " model.dropout_when_frozen=true, which gives an example other states in"
    " every pass."
  )
  settings = (
    "training.reuse_frozen_states_gb=2",
    "schedule={method: mslt, num_steps: 100, num_growing_stages: 2,"
    " freeze_embeddings: false}",
  )
  assert _error(TEXT, *settings) == (
    "training.reuse_frozen_states_gb=2.0 does not go with"
    " freeze_embeddings=false, which gives an example other states in every"
    " pass."
  )


@pytest.mark.parametrize(
  "setting",
  [
    "data.directory=elsewhere",
    "data={train_files: a*, heldout_files: b, sequence_length: 17,"
    " max_predictions: 5, batch_size: 7}",
    "training.steps_per_loop=3",
    "training.eval_interval=3",
    "training.eval_batch_size=3",
    "training.eval_examples=3",
    "training.checkpoint_interval=3",
    "training.keep_checkpoints=3",
    "training.profile_steps=[2, 3]",
    "training.xla=on",
    "training.deterministic=true",
    "training.reuse_frozen_states_gb=0.5",
  ],
)
def test_identity_leaves_out_how_the_run_is_carried_out(setting):
  changed = _load(TEXT, setting)
  assert changed != _load()
  assert config_lib.identity(changed) == config_lib.identity(_load())


@pytest.mark.parametrize(
  "setting",
  [
    "model.vocab_size=98",
    "model.dropout_when_frozen=true",
    "data.batch_size=8",
    "data.sequence_length=18",
    "schedule.num_steps=301",
    "optimizer.curve=stage",
    "optimizer.state_at_growth=carried",
    "training.seed=1",
  ],
)
def test_identity_holds_what_the_run_is(setting):
  assert config_lib.identity(_load(TEXT, setting)) != config_lib.identity(
    _load()
  )


def test_a_config_cannot_be_changed():
  with pytest.raises(dataclasses.FrozenInstanceError):
    _load().model.vocab_size = 5  # type: ignore[misc]


@pytest.mark.parametrize("steps", ["[3]", "[1, 2, 3]", "[0, 2]", "[3, 2]"])
def test_steps_to_profile_are_a_first_and_a_last(steps):
  assert _error(TEXT, f"training.profile_steps={steps}") == (
    f"training.profile_steps={steps} must be [first, last], counted from 1, or"
    " []."
  )


def test_one_step_can_be_profiled():
  config = _load(TEXT, "training.profile_steps=[5, 5]")
  assert config.training.profile_steps == (5, 5)


@dataclasses.dataclass(frozen=True)
class _Flat:
  rates: tuple[float, ...]
  size: int = 3


def test_a_config_may_be_one_dataclass_without_sections():
  loaded = config_lib.load_flat(
    _Flat, "rates: [1e-3, 2]", source="flat.yaml", overrides=["size=5"]
  )
  assert loaded == _Flat((0.001, 2.0), 5)


@pytest.mark.parametrize(
  ("text", "overrides", "message"),
  [
    ("{}", [], "flat.yaml: rates is missing."),
    ("rates: 1", [], "flat.yaml: rates=1 must be a list."),
    (
      "rates: []",
      ["sise=4"],
      "flat.yaml: sise is not a field; did you mean size?",
    ),
    ("[1]", [], "flat.yaml: the config must be a mapping"),
    ("rates: [1]", ["size"], "--set=size must have the form field=value."),
  ],
)
def test_what_such_a_config_cannot_be_is_named(text, overrides, message):
  with pytest.raises(errors.InputError, match=re.escape(message)):
    config_lib.load_flat(_Flat, text, source="flat.yaml", overrides=overrides)
