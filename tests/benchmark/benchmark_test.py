"""The benchmark measures every stage and peer, and reports their ratios."""

import pytest

from mslt_tf import config as config_lib
from mslt_tf import costs
from mslt_tf import errors
from mslt_tf import outline
from mslt_tf.benchmark import benchmark
from mslt_tf.benchmark import hugging_face
from mslt_tf.benchmark import random_examples
from mslt_tf.benchmark import stage_program

CONFIG = """
model: {vocab_size: 90, hidden_size: 8, num_layers: 2, num_heads: 2,
  intermediate_size: 12, max_positions: 16}
data: {directory: none, sequence_length: 11, max_predictions: 3, batch_size: 6}
schedule: {method: mslt, num_steps: 30, num_growing_stages: 2,
  retraining_share: 0.2}
optimizer: {peak_learning_rate: 0.01, warmup_steps: 2}
"""


@pytest.fixture(scope="module")
def config() -> config_lib.Config:
  return config_lib.load(CONFIG, source="test", overrides=[])


def test_random_examples_are_full(config):
  features = random_examples.features(config)
  assert {name: value.shape for name, value in features.items()} == {
    "input_ids": (6, 11),
    "input_mask": (6, 11),
    "segment_ids": (6, 11),
    "masked_lm_positions": (6, 3),
    "masked_lm_ids": (6, 3),
    "masked_lm_weights": (6, 3),
    "next_sentence_labels": (6,),
  }
  positions = features["masked_lm_positions"]
  assert (positions[:, 1:] > positions[:, :-1]).all()
  assert positions.min() >= 1 and positions.max() < 11
  assert features["input_ids"].max() < 90
  assert features["input_mask"].all() and features["masked_lm_weights"].all()


def test_a_stages_parts_run_and_only_steps_train(config):
  program = stage_program.StageProgram(config, 2)
  assert list(program.parts) == ["forward", "gradients", "step"]
  head = program._model.next_sentence_head.output_bias
  before = head.numpy().tolist()
  program.parts["forward"](2)
  program.parts["gradients"](2)
  assert head.numpy().tolist() == before
  first = int(program._steps.step)
  program.parts["step"](3)
  assert int(program._steps.step) == first + 3
  assert head.numpy().tolist() != before


def _times(seconds: float) -> benchmark.Times:
  # The median is `seconds`, the middle half from 0.9 to 1.1 of it.
  return benchmark.Times(
    wall=tuple(seconds * each for each in (0.5, 0.9, 1.0, 1.1, 3.0)),
    cpu=tuple(2 * seconds * each for each in (1.0, 1.0, 1.0, 1.0, 9.0)),
  )


def test_ratios_are_of_medians(config):
  times = {
    (f"stage {stage}", part): _times(seconds)
    for stage, all_seconds in enumerate(
      [(0.1, 0.3, 0.4), (0.2, 0.4, 0.5), (0.3, 0.9, 1.0)], start=1
    )
    for part, seconds in zip(benchmark.PARTS, all_seconds, strict=True)
  }
  times["model_garden", "step"] = _times(2.5)
  names = {name for name, _ in times}
  result = benchmark._result(
    config, times, 1e6, dict.fromkeys(names, 7), dict.fromkeys(names, 0.5)
  )
  assert [row["step_seconds"] for row in result["stages"]] == [0.4, 0.5, 1.0]
  assert [row["speedup"] for row in result["stages"]] == [2.5, 2.0, 1.0]
  assert result["stages"][0]["step_spread"] == pytest.approx(0.1)
  assert result["stages"][2]["backward_seconds"] == pytest.approx(0.6)
  assert result["stages"][2]["update_seconds"] == pytest.approx(0.1)
  assert result["stages"][1]["examples_per_second"] == 12
  # 12 steps of either growing stage and 6 of retraining.
  assert result["schedule_speedup"] == pytest.approx(30 / (4.8 + 6 + 6))
  assert result["baseline_step_seconds"] == 1.0
  assert result["peers"] == {"model_garden": 0.4}
  assert result["backward_over_forward"] == pytest.approx(2.0)
  assert "model_garden: 2.500 s a step; ours takes 0.40" in (
    benchmark.summary(result)
  )
  elsewhere = {**result, "cores": 3, "processor": "abacus"}
  assert "GFLOP/s, 3 cores of abacus" in benchmark.summary(elsewhere)


def test_transformers_in_float16_is_refused():
  half = config_lib.load(
    CONFIG, source="test", overrides=["training.precision=mixed_float16"]
  )
  with pytest.raises(errors.InputError) as error:
    hugging_face.HuggingFace(half, is_compiled=False)
  assert str(error.value) == (
    "training.precision=mixed_float16: peers=hugging_face computes in float32"
    " or mixed_bfloat16."
  )


def test_without_a_stage_that_trains_everything_there_is_no_baseline(config):
  without = config_lib.load(
    CONFIG, source="test", overrides=["schedule.retraining_share=0"]
  )
  with pytest.raises(errors.InputError, match="the last stage has 1 frozen"):
    benchmark.run(without, peers=[], num_rounds=1, steps_per_turn=1)


def test_the_ideal_counts_flops_and_updated_weights(config):
  parts = zip(benchmark.PARTS, (0.3, 0.75, 1.0), strict=True)
  last = {("stage 3", part): _times(seconds) for part, seconds in parts}
  others = {
    (f"stage {stage}", part): _times(0.5)
    for stage in (1, 2)
    for part in benchmark.PARTS
  }
  names = {name for name, _ in last | others}
  result = benchmark._result(
    config, last | others, 1e6, dict.fromkeys(names, 7), dict.fromkeys(names, 1)
  )
  # A layer has 532 weights, the heads have 268, tables and their norm 880.
  first, second, third = costs.schedule_cost(
    outline.cost_shape(config), config.schedule
  ).stages
  assert [row["ideal_speedup"] for row in result["stages"]] == [
    pytest.approx(
      1 / (0.75 * first.flops / third.flops + 0.25 * (1680 / 2212))
    ),
    pytest.approx(
      1 / (0.75 * second.flops / third.flops + 0.25 * (800 / 2212))
    ),
    pytest.approx(1.0),
  ]


@pytest.mark.slow
def test_every_contestant_has_a_process(config):
  result = benchmark.run(
    config, peers=["model_garden"], num_rounds=2, steps_per_turn=2
  )
  assert len(result["stages"]) == 3
  for row in result["stages"]:
    assert 0 < row["step_seconds"] < 10
    assert row["peak_memory_bytes"] > 2e8
    assert row["compile_seconds"] > 0
  assert result["peers"]["model_garden"] > 0
  assert result["matmul_flops_per_second"] > 0
