"""Rates from a benchmark's file, whose times are made from known rates."""

import json

import pytest

from mslt_tf import costs
from mslt_tf import errors
from mslt_tf.planning import calibration

SHAPE = costs.Shape(
  vocab_size=11,
  hidden_size=3,
  intermediate_size=5,
  max_positions=13,
  num_segments=2,
  sequence_length=7,
  max_predictions=4,
)
# FLOPs of one example: a layer 1512, the heads 72 + 264 + 18 + 12 = 366.
# Backward twice that; above frozen layers without the logits' product with the
# table, 264, and the gradient to the lowest input, 378.
FROZEN = {
  "stage": 1,
  "num_layers": 3,
  "num_frozen_layers": 2,
  "flops_per_step": 10 * (3 * 1512 + 366 + 2 * (1512 + 366) - 264 - 378),
  # 18,780 FLOPs at 100 a second, 30,240 at 400, and backward 31,140 at 50.
  "forward_seconds": 187.8 + 75.6,
  "backward_seconds": 622.8,
  "update_seconds": 1.0,
  "step_seconds": 887.2,
  "peak_memory_bytes": 900,
}
WHOLE = {
  "stage": 2,
  "num_layers": 3,
  "num_frozen_layers": 0,
  "flops_per_step": 10 * 3 * (3 * 1512 + 366),
  "forward_seconds": 490.2,
  "backward_seconds": 1960.8,
  # 427 weights: three layers of 98, the heads' 49, the embeddings' 84.
  "update_seconds": 42.7,
  "step_seconds": 2493.7,
  "peak_memory_bytes": 1000,
}
RESULT = {
  "stages": [FROZEN, WHOLE],
  "precision": "float32",
  "batch_size": 10,
  "matmul_flops_per_second": 500.0,
}


def calibrate(result):
  text = result if isinstance(result, str) else json.dumps(result)
  return calibration.calibrate(
    text, source="file", shape=SHAPE, precision="float32"
  )


def test_rates_are_found():
  rates = calibrate(RESULT).rates
  assert rates.forward == pytest.approx(100.0)
  assert rates.frozen_forward == pytest.approx(400.0)
  assert rates.backward == pytest.approx(50.0)
  assert rates.update_seconds_per_weight == pytest.approx(0.1)


def test_a_stage_may_train_the_word_table_above_frozen_layers():
  # The gradient of the logits' product with the table comes on top.
  flops = FROZEN["flops_per_step"] + 10 * 264
  words = {**FROZEN, "freeze_embeddings": False, "flops_per_step": flops}
  assert calibrate({**RESULT, "stages": [words, WHOLE]}).largest_stage


def test_shares_are_of_the_best_product():
  assert calibrate(RESULT).shares == pytest.approx(
    {"forward": 0.2, "frozen_forward": 0.8, "backward": 0.1}
  )


def test_residuals_are_what_the_rates_do_not_explain():
  frozen, whole = calibrate(RESULT).residuals
  assert whole.predicted == pytest.approx(whole.measured)
  # 147 trained weights take 14.7 s by the rates; 1 s was measured.
  assert frozen.predicted - frozen.measured == pytest.approx(13.7)


def test_the_stage_that_took_most_memory():
  result = calibrate(RESULT)
  assert result.memory_bytes == 1000
  assert result.largest_stage.num_frozen_layers == 0


def test_without_frozen_layers_they_are_as_fast_as_trained_ones():
  rates = calibrate({**RESULT, "stages": [WHOLE]}).rates
  assert rates.frozen_forward == rates.forward


@pytest.mark.parametrize(
  ("result", "message"),
  [
    ("x", "file is not JSON"),
    ("[]", "file is no file of bin/benchmark.py: batch_size is missing"),
    ({**RESULT, "stages": []}, "file: stages must be a list, not empty"),
    ({**RESULT, "stages": [{}]}, "backward_seconds is missing"),
    (
      {**RESULT, "stages": [{**WHOLE, "forward_seconds": 0}]},
      "file: forward_seconds=0 must be a number above 0",
    ),
    ({**RESULT, "batch_size": "x"}, "batch_size='x' must be a number above 0"),
    ({**RESULT, "stages": [FROZEN]}, "file: no stage trains everything"),
    (
      {**RESULT, "precision": "mixed_bfloat16"},
      "file: precision=mixed_bfloat16; the config has"
      " training.precision=float32",
    ),
    (
      {**RESULT, "stages": [{**WHOLE, "num_layers": 3.0}]},
      "file: num_layers=3.0 must be a whole number up to 1,048,576",
    ),
    (
      {**RESULT, "stages": [{**WHOLE, "num_layers": 1 << 40}]},
      "must be a whole number up to 1,048,576",
    ),
    (
      {**RESULT, "batch_size": 11},
      "stage 1 has flops_per_step=80160; of the config's model it would be"
      " 88176",
    ),
  ],
)
def test_files_that_say_nothing_of_the_model(result, message):
  with pytest.raises(errors.InputError) as caught:
    calibrate(result)
  assert message in str(caught.value)
