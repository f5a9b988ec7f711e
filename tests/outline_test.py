"""What a run is told to do and cost, before it starts."""

import dataclasses
import pathlib

import pytest

from mslt_tf import config as config_lib
from mslt_tf import outline
from mslt_tf import schedules

ROOT = pathlib.Path(__file__).parents[1]

TEXT = """\
model:
  vocab_size: 11
  hidden_size: 3
  num_layers: 3
  num_heads: 1
  intermediate_size: 5
  max_positions: 13
data: {directory: d, sequence_length: 7, max_predictions: 4, batch_size: 2}
schedule:
  stages:
  - {num_layers: 1, num_steps: 10, source_layers: [null]}
  - num_layers: 3
    num_steps: 30
    source_layers: [0, 0, 0]
    num_frozen_layers: 2
    freeze_embeddings: true
  - {num_layers: 3, num_steps: 20, source_layers: [0, 1, 2]}
optimizer: {peak_learning_rate: 0.01, warmup_steps: 5}
"""
# FLOPs of one example in one step: a layer's forward pass has 1512, that of the
# heads 366; a backward pass has twice as many. Stage 2 runs three
# layers forward and one backward, without the gradients of the table (264) and
# of the lowest trained layer's input (378).
STAGE_1 = 3 * (1512 + 366)
STAGE_2 = 3 * 1512 + 366 + 2 * (1512 + 366) - 264 - 378
STAGE_3 = 3 * (3 * 1512 + 366)


def _config() -> config_lib.Config:
  return config_lib.load(TEXT, source="run.yaml")


def _base_mslt() -> str:
  path = ROOT / "configs" / "base_mslt.yaml"
  config = config_lib.load(path.read_text(encoding="utf-8"), source=str(path))
  return outline.describe_run(config)


@pytest.mark.parametrize(
  "source_layers, expected",
  [
    ((None, None, None), "new"),
    ((0, 1, 2, 3, 4, 5, 3, 4, 5), "0-5 3-5"),
    ((0, 1, 2, 0, 1, 2), "0-2 0-2"),
    ((0, 1, 2, 3), "0-3"),
    ((0,), "0"),
    ((2, 1, 0), "2 1 0"),
    ((0, 0, 0), "0 0 0"),
    ((0, 1, None, None, 1), "0-1 new 1"),
    ((None, 0, None), "new 0 new"),
  ],
)
def test_source_layers_are_told_as_ranges(source_layers, expected):
  assert outline.format_sources(source_layers) == expected


def test_stages_are_placed_in_the_run():
  stages = outline.place_stages(_config().schedule)
  assert [(each.number, each.start, each.end) for each in stages] == [
    (1, 0, 10),
    (2, 10, 40),
    (3, 40, 60),
  ]
  assert stages[1].stage == schedules.Stage(3, 30, (0, 0, 0), 2, True)


@pytest.mark.parametrize(
  "step, expected",
  [
    (0, 10 + (30 * STAGE_2 + 20 * STAGE_3) / STAGE_1),
    (4, 6 + (30 * STAGE_2 + 20 * STAGE_3) / STAGE_1),
    # The step that ends a stage is as dear as that stage's.
    (10, (30 * STAGE_2 + 20 * STAGE_3) / STAGE_1),
    (11, 29 + 20 * STAGE_3 / STAGE_2),
    (40, 20 * STAGE_3 / STAGE_2),
    (41, 19),
    (60, 0),
  ],
)
def test_remaining_steps_are_counted_in_the_last_ones_cost(step, expected):
  assert outline.remaining_steps(_config(), step) == pytest.approx(expected)


def test_a_baselines_remaining_steps_are_its_steps():
  config = config_lib.load(
    TEXT,
    source="run.yaml",
    overrides=["schedule={method: baseline, num_steps: 60}"],
  )
  assert outline.remaining_steps(config, 13) == pytest.approx(47)


def test_a_stage_is_described_in_a_line():
  first, second, _ = outline.place_stages(_config().schedule)
  assert outline.describe_stage(first, 3) == (
    "stage 1 of 3: 1 layers, all trained; steps 0 to 10"
  )
  assert outline.describe_stage(second, 3) == (
    "stage 2 of 3: 3 layers, 2 of them and the embeddings frozen; steps 10 to"
    " 40"
  )


def test_the_described_config_is_read_back():
  text = outline.describe_run(_config())
  config = text[: text.index("\nstage ")]
  assert config_lib.load(config, source="printed") == _config()


def test_base_mslts_stage_table_is_the_papers():
  lines = _base_mslt().splitlines()
  header = next(i for i, line in enumerate(lines) if line.startswith("stage "))
  rows = [line.split() for line in lines[header + 1 : header + 6]]
  # Stage, steps, layers, frozen, embeddings, copied from, trained weights.
  told = [row[:-4] for row in rows]
  assert told == [
    ["1", "0-200,000", "3", "0", "trained", "new", "46,315,580"],
    [
      "2",
      "200,000-400,000",
      "6",
      "3",
      "frozen",
      "0-2",
      "0-2",
      "22,478,396",
    ],
    [
      "3",
      "400,000-600,000",
      "9",
      "6",
      "frozen",
      "0-5",
      "3-5",
      "22,478,396",
    ],
    [
      "4",
      "600,000-800,000",
      "12",
      "9",
      "frozen",
      "0-8",
      "6-8",
      "22,478,396",
    ],
    [
      "5",
      "800,000-1,000,000",
      "12",
      "0",
      "trained",
      "0-11",
      "110,106,428",
    ],
  ]
  assert [row[-1] for row in rows] == ["4.00", "3.00", "2.40", "2.00", "1.00"]
  # Four bytes a trained weight.
  assert [row[-4] for row in rows] == [
    "185.3", "89.91", "89.91", "89.91", "440.4",
  ]  # fmt: skip


def test_base_mslts_whole_run_is_told():
  text = _base_mslt()
  assert "1,000,000 steps, 1,024,000,000 examples" in text
  assert "(2.00 counting encoder layers only)" in text
  # 0.2 M steps of 185,262,320, three times 89,913,584 and 440,425,712 bytes.
  assert "each sends 179,086 GB of gradients" in text


def test_the_disk_that_a_run_needs():
  # Of Base MSLT, weights a stage: 3 layers, 6, 9, 12 and 12; and three
  # checkpoints of the last with both moments.
  sizes = [46_315_580, 67_579_196, 88_842_812, 110_106_428, 110_106_428]
  expected = 4 * (sum(sizes) + 3 * 3 * 110_106_428)
  path = ROOT / "configs" / "base_mslt.yaml"
  config = config_lib.load(path.read_text(encoding="utf-8"), source=str(path))
  assert outline.disk_bytes(config) == expected
  carried = config_lib.load(
    path.read_text(encoding="utf-8"),
    source=str(path),
    overrides=["optimizer.state_at_growth=carried"],
  )
  assert outline.disk_bytes(carried) == expected + 4 * 2 * sum(sizes)
  # A model of 3 layers takes the place of the first stage, and its room.
  over_a_model = config_lib.load(
    path.read_text(encoding="utf-8"),
    source=str(path),
    overrides=[
      "model.initial_checkpoint=somewhere",
      "schedule.initial_layers=3",
    ],
  )
  assert outline.disk_bytes(over_a_model) == expected


def test_the_disk_that_frozen_states_need():
  def frozen_states_bytes(method, precision, num_examples=None):
    path = ROOT / "configs" / f"base_{method}.yaml"
    config = config_lib.load(
      path.read_text(encoding="utf-8"),
      source=str(path),
      overrides=[
        "training.reuse_frozen_states_gb=2.5",
        f"training.precision={precision}",
      ],
    )
    without = dataclasses.replace(
      config,
      training=dataclasses.replace(config.training, reuse_frozen_states_gb=0.0),
    )
    return outline.disk_bytes(config, num_examples) - outline.disk_bytes(
      without
    )

  # Ten thousand examples of 128 x 768 numbers.
  assert frozen_states_bytes("mslt", "mixed_bfloat16", 10_000) == 1_966_080_000
  # They would take 3.9 GB: none are stored.
  assert frozen_states_bytes("mslt", "float32", 10_000) == 0
  assert frozen_states_bytes("mslt", "float32") == 2_500_000_000
  assert frozen_states_bytes("baseline", "float32") == 0
