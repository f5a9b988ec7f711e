"""Costs against the paper's counts, published sizes and sums by hand."""

import dataclasses

import pytest

from mslt_tf import costs
from mslt_tf import schedules

BASE = costs.Shape(
  vocab_size=30522,
  hidden_size=768,
  intermediate_size=3072,
  max_positions=512,
  num_segments=2,
  sequence_length=128,
  max_predictions=20,
)
LARGE = dataclasses.replace(BASE, hidden_size=1024, intermediate_size=4096)
# Small enough for sums by hand, and mutually different.
TINY = costs.Shape(
  vocab_size=11,
  hidden_size=3,
  intermediate_size=5,
  max_positions=13,
  num_segments=2,
  sequence_length=7,
  max_predictions=4,
)

BASE_MSLT = schedules.mslt(12, 1_000_000, num_growing_stages=4)
GONG = schedules.progressive_stacking(12, 400_000)
BASE_WORD_TABLE = 23_440_896  # 30522 rows of 768.


def test_ideal_speedup_of_mslt():
  cost = costs.schedule_cost(BASE, BASE_MSLT)
  assert [stage.ideal_speedup for stage in cost.stages] == pytest.approx(
    [4.0, 3.0, 2.4, 2.0, 1.0]
  )
  assert cost.ideal_speedup == pytest.approx(2.0)


def test_ideal_speedup_of_mslt_does_not_depend_on_the_size():
  large = schedules.mslt(24, 500_000, num_growing_stages=4)
  cost = costs.schedule_cost(LARGE, large)
  assert [stage.ideal_speedup for stage in cost.stages] == pytest.approx(
    [4.0, 3.0, 2.4, 2.0, 1.0]
  )
  assert cost.ideal_speedup == pytest.approx(2.0)


def test_ideal_speedup_of_stacking():
  cost = costs.schedule_cost(BASE, GONG)
  assert [stage.ideal_speedup for stage in cost.stages] == pytest.approx(
    [4.0, 2.0, 1.0]
  )
  # 1 / (0.125 / 4 + 0.175 / 2 + 0.7)
  assert cost.ideal_speedup == pytest.approx(1.2213740)


def test_the_baseline_is_as_fast_as_itself():
  cost = costs.schedule_cost(BASE, schedules.baseline(12, 5))
  assert cost.ideal_speedup == 1.0
  assert cost.speedup == 1.0


def test_the_heads_make_every_speedup_smaller():
  cost = costs.schedule_cost(BASE, BASE_MSLT)
  for stage in cost.stages[:-1]:
    assert 1 < stage.speedup < stage.ideal_speedup
  assert 1 < cost.speedup < cost.ideal_speedup


def test_parameters_of_base_are_the_published_ones():
  # google-research/bert's Base: encoder, embeddings and pooler.
  with_pooler = 109_482_240
  # Transform, its norm, output bias; then the NSP classifier.
  mlm, nsp = 590_592 + 1_536 + 30_522, 1_538
  stage = costs.stage_cost(
    BASE, schedules.baseline(12, 1).stages[0], num_layers=12
  )
  assert stage.total_parameters == with_pooler + mlm + nsp == 110_106_428
  assert stage.trained_parameters == 110_106_428
  assert stage.gradient_bytes == 440_425_712


def test_parameters_of_large_are_the_published_ones():
  with_pooler = 335_141_888
  mlm, nsp = 1_049_600 + 2_048 + 30_522, 2_050
  stage = costs.stage_cost(
    LARGE, schedules.baseline(24, 1).stages[0], num_layers=24
  )
  assert stage.total_parameters == with_pooler + mlm + nsp == 336_226_108


def test_parameters_of_the_parts_of_base():
  assert costs.layer_parameters(BASE) == 7_087_872
  assert costs.embedding_parameters(BASE) == 23_837_184
  assert (
    costs.embedding_parameters(BASE) - BASE_WORD_TABLE == (512 + 2 + 2) * 768
  )
  # Transform, its norm, output bias; pooler; NSP classifier.
  assert costs.head_parameters(BASE) == (
    590_592 + 1_536 + 30_522 + 590_592 + 1_538
  )


def test_parameters_of_a_tiny_model_by_hand():
  # Four 3x3 matrices with biases, 3x5 and 5x3 with biases, two norms.
  assert costs.layer_parameters(TINY) == 4 * 12 + 20 + 18 + 2 * 6
  # 11 words, 13 positions, 2 segments, a norm.
  assert costs.embedding_parameters(TINY) == 33 + 39 + 6 + 6
  # Transform, norm and 11 biases; pooler; two logits.
  assert costs.head_parameters(TINY) == 12 + 6 + 11 + 12 + 8


def test_flops_of_a_layer_term_by_term():
  assert costs.layer_forward_flops(TINY) == {
    "query_key_value": 378,  # 2 x 7 x 3 x 9
    "attention_scores": 294,  # 2 x 7 x 7 x 3
    "attention_context": 294,
    "attention_output": 126,  # 2 x 7 x 3 x 3
    "intermediate": 210,  # 2 x 7 x 3 x 5
    "output": 210,
  }


def test_flops_of_the_heads_term_by_term():
  assert costs.head_forward_flops(TINY) == {
    "mlm_transform": 72,  # 2 x 4 x 3 x 3
    "mlm_logits": 264,  # 2 x 4 x 3 x 11
    "pooler": 18,  # 2 x 1 x 3 x 3
    "nsp_logits": 12,  # 2 x 1 x 3 x 2
  }


def test_flops_of_a_stage_that_trains_everything():
  stage = schedules.Stage(2, 1, (None, None))
  cost = costs.stage_cost(TINY, stage, num_layers=2)
  assert cost.forward_flops == 2 * 1512 + 366
  assert cost.backward_flops == 2 * 3390
  assert cost.flops == 3 * 3390


def test_flops_of_a_stage_with_frozen_layers():
  stage = schedules.Stage(3, 1, (0, 1, 0), 2, True)
  cost = costs.stage_cost(TINY, stage, num_layers=3)
  assert cost.forward_flops == 3 * 1512 + 366
  # One layer and the heads twice, but neither the gradient of the table (264)
  # nor that of the lowest trained layer's input (378).
  assert cost.backward_flops == 2 * (1512 + 366) - 264 - 378


def test_a_word_table_trained_above_frozen_layers_costs_its_gradient():
  sizes = {"num_frozen_layers": 2, "source_layers": (0, 1, 0)}
  frozen = schedules.Stage(3, 1, freeze_embeddings=True, **sizes)
  words = schedules.Stage(3, 1, **sizes)
  frozen, words = (
    costs.stage_cost(TINY, stage, num_layers=3) for stage in (frozen, words)
  )
  assert words.backward_flops - frozen.backward_flops == 264
  assert words.trained_parameters - frozen.trained_parameters == 11 * 3


def test_mslt_trains_neither_the_table_nor_lower_layers_above_stage_1():
  cost = costs.schedule_cost(BASE, BASE_MSLT)
  layers, heads = 3 * 7_087_872, 1_214_780
  trained = [stage.trained_parameters for stage in cost.stages]
  assert trained[1:4] == [layers + heads] * 3
  assert layers + heads < BASE_WORD_TABLE
  assert trained[0] == layers + heads + 23_837_184
  assert trained[4] == 110_106_428
  # float32
  assert [stage.gradient_bytes for stage in cost.stages] == [
    4 * each for each in trained
  ]


def test_frozen_weights_still_belong_to_the_model():
  cost = costs.schedule_cost(BASE, BASE_MSLT)
  assert [stage.total_parameters for stage in cost.stages] == [
    46_315_580,
    67_579_196,
    88_842_812,
    110_106_428,
    110_106_428,
  ]


def test_flops_of_a_run_are_the_mean_over_its_steps():
  schedule = schedules.Schedule(
    (schedules.Stage(1, 30, (None,)), schedules.Stage(2, 70, (0, 0)))
  )
  cost = costs.schedule_cost(TINY, schedule)
  shallow, deep = 3 * (1512 + 366), 3 * (2 * 1512 + 366)
  assert cost.flops_per_example == pytest.approx(0.3 * shallow + 0.7 * deep)
  assert cost.speedup == pytest.approx(deep / (0.3 * shallow + 0.7 * deep))


def test_forward_flops_of_frozen_layers():
  # A layer of TINY has 378 for query, key and value, 294 each for scores and
  # context, 126 for the attention's output and 210 for each of the last two.
  stage = schedules.Stage(4, 1, (None,) * 4, 3, freeze_embeddings=True)
  cost = costs.stage_cost(TINY, stage, num_layers=4)
  assert cost.frozen_forward_flops == 3 * 1512
  whole = costs.stage_cost(
    TINY, schedules.baseline(4, 1).stages[0], num_layers=4
  )
  assert whole.frozen_forward_flops == 0
  assert whole.forward_flops == cost.forward_flops


def test_an_update_moves_48_bytes_a_weight():
  # LAMB reads the gradient for its norm; reads it and both moments, writes the
  # moments; writes the direction, reads it and the weight for two norms; reads
  # both and writes the weight: 12 numbers.
  assert sum(costs.update_bytes_per_weight().values()) == 12 * 4


def test_numbers_that_a_layer_keeps_of_an_example():
  # Eight times [7, 3], two times [7, 5], and two softmaxes of [7, 7] a head.
  kept = costs.kept_activations(TINY, 3)
  assert sum(kept.values()) == 8 * 21 + 2 * 35 + 2 * 49 * 3
