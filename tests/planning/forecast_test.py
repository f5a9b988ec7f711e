"""Sums over the stages of a schedule."""

import dataclasses

import pytest

from mslt_tf import costs
from mslt_tf import errors
from mslt_tf import schedules
from mslt_tf.planning import cluster as cluster_lib
from mslt_tf.planning import device_memory
from mslt_tf.planning import forecast
from mslt_tf.planning import step_time

SHAPE = costs.Shape(
  vocab_size=11,
  hidden_size=3,
  intermediate_size=5,
  max_positions=13,
  num_segments=2,
  sequence_length=7,
  max_predictions=4,
)
CLUSTER = cluster_lib.Cluster(
  num_devices=2,
  devices_per_machine=1,
  peak_flops_float32=1e3,
  achieved_share_float32=1.0,
  memory_bytes=19_990,
  memory_bandwidth=1e9,
  device_link_bandwidth=1e9,
  machine_link_bandwidth=588.0,
  link_latency=0.0,
  input_examples_per_second=1e9,
  price_per_machine_hour=3.0,
)
SETTING = forecast.Setting(
  model=device_memory.Model(SHAPE, num_heads=3, precision="float32"),
  batch_size=12,
  num_micro_batches=1,
  cluster=CLUSTER,
  # Only the all-reduce takes time.
  rates=step_time.Rates(1e30, 1e30, 1e30, 0.0),
)
# 231 weights are trained in stage 1 and 147 in stage 2, or 4 bytes for each.
TWO_STAGES = schedules.mslt(2, 5000, num_growing_stages=2, retraining_share=0)


def test_hours_bytes_and_cost():
  result = forecast.forecast("mslt", TWO_STAGES, SETTING)
  first, second = (stage.totals for stage in result.stages)
  # Two devices send what they have: 588 bytes of stage 2 in a second.
  assert second.hours == pytest.approx(2500 / 3600)
  assert first.hours == pytest.approx(2500 * 231 / 147 / 3600)
  assert second.all_reduced_bytes == 2500 * 588
  assert second.sent_bytes == 2500 * 588
  assert second.examples == 30_000
  assert second.cost == pytest.approx(2500 / 3600 * 6)


def test_the_whole_is_the_sum_of_its_stages():
  result = forecast.forecast("mslt", TWO_STAGES, SETTING)
  assert result.totals.steps == 5000
  assert result.totals.examples == 60_000
  assert result.totals.hours == pytest.approx(2500 * (1 + 231 / 147) / 3600)


def test_by_how_much_a_stage_does_not_fit():
  second = forecast.forecast("mslt", TWO_STAGES, SETTING).stages[1]
  assert second.memory.num_bytes == 33_296
  assert second.excess_bytes == 13_306
  assert second.fitting_micro_batches == 2


def test_all_stages_fit_with_the_most_parts_of_any():
  result = forecast.forecast("mslt", TWO_STAGES, SETTING)
  assert [stage.fitting_micro_batches for stage in result.stages] == [3, 2]
  assert result.fitting_micro_batches == 3


def test_one_device_reduces_nothing():
  alone = dataclasses.replace(
    SETTING, cluster=dataclasses.replace(CLUSTER, num_devices=1)
  )
  totals = forecast.forecast("mslt", TWO_STAGES, alone).totals
  assert (totals.all_reduced_bytes, totals.sent_bytes) == (0, 0)


def test_parts_divide_the_examples_of_a_device():
  with pytest.raises(
    errors.InputError,
    match="num_micro_batches=4 does not divide the 6 examples",
  ):
    dataclasses.replace(SETTING, num_micro_batches=4)
