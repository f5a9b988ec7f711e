"""The configs are the paper's experiment and differ only where they should."""

import pathlib

import pytest

from mslt_tf import config as config_lib
from mslt_tf import schedules
from mslt_tf.glue import protocol

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
# Protocols of fine-tuning; all others are runs of pre-training.
PROTOCOLS = {"glue", "quickstart_reviews", "reproduction_finetuning"}
NAMES = sorted({path.stem for path in CONFIGS.glob("*.yaml")} - PROTOCOLS)
METHODS = ("baseline", "stacking", "mslt")
TRIOS = sorted(
  {
    name.rpartition("_")[0]
    for name in NAMES
    if name.rpartition("_")[2] in METHODS
  }
)
PAPER = [name for name in NAMES if name.startswith(("base_", "large_"))]


def _load(name: str, *overrides: str) -> config_lib.Config:
  path = CONFIGS / f"{name}.yaml"
  return config_lib.load(
    path.read_text(encoding="utf-8"), source=str(path), overrides=overrides
  )


def _without_schedule(name: str) -> dict:
  tree = config_lib.to_dict(_load(name))
  del tree["schedule"]
  return tree


def _stage_table(name: str) -> list[tuple[int, int]]:
  return [
    (stage.num_layers, stage.num_steps) for stage in _load(name).schedule.stages
  ]


def test_the_configs_that_there_are():
  assert {
    "base_baseline",
    "base_baseline_480k",
    "base_mslt",
    "base_stacking",
    "base_stacking_6_12",
    "large_baseline",
    "large_baseline_230k",
    "large_mslt",
    "large_mslt_500k",
    "large_stacking",
    "small_baseline",
    "small_mslt",
    "small_stacking",
  } <= set(NAMES)
  assert {"base", "large", "small"} <= set(TRIOS)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_loads(name):
  _load(name)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_protocol_loads(name):
  path = CONFIGS / f"{name}.yaml"
  loaded = config_lib.load_flat(
    protocol.Protocol, path.read_text(encoding="utf-8"), source=str(path)
  )
  # The paper's is the default, too.
  assert (loaded == protocol.Protocol()) == (name == "glue")


@pytest.mark.parametrize("name", [*NAMES, *sorted(PROTOCOLS)])
def test_a_config_says_how_it_is_run(name):
  text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
  header = text.partition("\n\n")[0]
  assert all(line.startswith("#") for line in header.splitlines())
  assert f"--config=configs/{name}.yaml" in header


@pytest.mark.parametrize("name", NAMES)
def test_sections_stand_in_one_order(name):
  text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
  sections = [
    line.rstrip(":") for line in text.splitlines() if line[:1].isalpha()
  ]
  order = ["model", "data", "schedule", "optimizer", "training"]
  assert sections == order[: len(sections)]


@pytest.mark.parametrize("trio", TRIOS)
def test_a_trio_differs_only_in_its_schedule(trio):
  baseline, stacking, mslt = (
    _without_schedule(f"{trio}_{method}") for method in METHODS
  )
  assert baseline == stacking == mslt
  num_steps = {
    _load(f"{trio}_{method}").schedule.num_steps for method in METHODS
  }
  assert len(num_steps) == 1


@pytest.mark.parametrize(
  "name, parent, num_steps",
  [
    ("base_baseline_480k", "base_baseline", 480_000),
    ("large_mslt_500k", "large_mslt", 500_000),
    ("large_baseline_230k", "large_baseline", 230_000),
  ],
)
def test_a_same_time_config_differs_only_in_its_steps(name, parent, num_steps):
  assert _load(name).schedule.num_steps == num_steps
  assert _load(name) != _load(parent)
  assert _load(name) == _load(parent, f"schedule.num_steps={num_steps}")


def test_figure_3s_config_differs_from_stacking_only_in_its_shares():
  assert _load("base_stacking_6_12") == _load(
    "base_stacking", "schedule.stage_shares=[0.3, 0.7]"
  )


@pytest.mark.parametrize("name", PAPER)
def test_hyperparameters_are_the_papers(name):
  config = _load(name)
  model, data, optimizer = config.model, config.data, config.optimizer
  assert (
    model.num_layers,
    model.hidden_size,
    model.intermediate_size,
    model.num_heads,
  ) == ((12, 768, 3072, 12) if "base_" in name else (24, 1024, 4096, 16))
  assert model.vocab_size == 30522
  assert model.lower_case is True
  assert model.max_positions == 512
  assert model.num_segments == 2
  assert model.hidden_dropout == 0.1
  assert model.attention_dropout == 0.1
  assert model.activation == "gelu_tanh"
  assert data.sequence_length == 128
  assert data.max_predictions == 20
  assert data.batch_size == 1024
  assert optimizer.peak_learning_rate == 0.00088
  assert optimizer.warmup_steps == 10_000
  assert optimizer.weight_decay == 0.01
  assert optimizer.curve == "run"
  assert optimizer.state_at_growth == "fresh"


@pytest.mark.parametrize("name", NAMES)
def test_every_model_has_512_positions(name):
  assert _load(name).model.max_positions == 512


@pytest.mark.parametrize(
  "name, stages",
  [
    ("base_baseline", [(12, 1_000_000)]),
    ("base_stacking", [(3, 125_000), (6, 175_000), (12, 700_000)]),
    (
      "base_mslt",
      [
        (3, 200_000),
        (6, 200_000),
        (9, 200_000),
        (12, 200_000),
        (12, 200_000),
      ],
    ),
    ("base_baseline_480k", [(12, 480_000)]),
    ("base_stacking_6_12", [(6, 300_000), (12, 700_000)]),
    ("large_baseline", [(24, 1_000_000)]),
    ("large_stacking", [(6, 125_000), (12, 175_000), (24, 700_000)]),
    (
      "large_mslt",
      [
        (6, 200_000),
        (12, 200_000),
        (18, 200_000),
        (24, 200_000),
        (24, 200_000),
      ],
    ),
    (
      "large_mslt_500k",
      [
        (6, 100_000),
        (12, 100_000),
        (18, 100_000),
        (24, 100_000),
        (24, 100_000),
      ],
    ),
    ("large_baseline_230k", [(24, 230_000)]),
    ("small_baseline", [(12, 20_000)]),
    ("small_stacking", [(3, 2_500), (6, 3_500), (12, 14_000)]),
    (
      "small_mslt",
      [(3, 4_000), (6, 4_000), (9, 4_000), (12, 4_000), (12, 4_000)],
    ),
  ],
)
def test_depths_and_steps_of_the_stages(name, stages):
  assert _stage_table(name) == stages


def test_stage_3_of_base_mslt_in_full():
  assert _load("base_mslt").schedule.stages[2] == schedules.Stage(
    num_layers=9,
    num_steps=200_000,
    source_layers=(0, 1, 2, 3, 4, 5, 3, 4, 5),
    num_frozen_layers=6,
    freeze_embeddings=True,
  )


@pytest.mark.parametrize("name", PAPER)
def test_cased_runs_need_two_overrides(name):
  overrides = ["model.lower_case=false", "model.vocab_size=28996"]
  model = _load(name, *overrides).model
  assert model.lower_case is False
  assert model.vocab_size == 28996


def test_base_mslt_says_how_to_train_cased():
  text = (CONFIGS / "base_mslt.yaml").read_text(encoding="utf-8")
  assert "--set=model.lower_case=false --set=model.vocab_size=28996" in text
