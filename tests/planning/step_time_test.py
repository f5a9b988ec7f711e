"""Times of a step against sums by hand."""

import dataclasses

import pytest

from mslt_tf import costs
from mslt_tf import errors
from mslt_tf.planning import cluster as cluster_lib
from mslt_tf.planning import step_time

CLUSTER = cluster_lib.Cluster(
  num_devices=4,
  devices_per_machine=2,
  peak_flops_float32=1000,
  achieved_share_float32=0.25,
  memory_bytes=1,
  memory_bandwidth=96,
  device_link_bandwidth=100,
  machine_link_bandwidth=30,
  link_latency=0.5,
  input_examples_per_second=0.1,
)
RATES = step_time.Rates(
  forward=100,
  frozen_forward=200,
  backward=50,
  update_seconds_per_weight=0.01,
)
STAGE = costs.StageCost(
  forward_flops=600,
  backward_flops=800,
  trained_parameters=50,
  total_parameters=90,
  gradient_bytes=200,
  ideal_speedup=1.0,
  speedup=1.0,
  frozen_forward_flops=400,
)


def time(**changes):
  return step_time.step_time(
    STAGE,
    rates=RATES,
    cluster=dataclasses.replace(CLUSTER, **changes),
    batch_size=8,
  )


def test_every_term():
  # Two examples a device.
  assert time() == step_time.StepTime(
    forward=4.0,  # 2 (600 - 400) / 100
    frozen_forward=4.0,  # 2 x 400 / 200
    backward=32.0,  # 2 x 800 / 50
    all_reduce=13.0,  # 2 x 3/4 x 200 bytes at 30 a second; 6 hops of 0.5 s
    update=0.5,  # 50 weights
    input_wait=0.0,  # 8 examples in 40 s, from two machines
    hidden_all_reduce=0.0,
  )
  assert time().seconds == 53.5


def test_a_slow_reader_is_waited_for():
  slow = time(input_examples_per_second=0.05)
  assert slow.input_wait == 26.5  # 80 s, less 53.5
  assert slow.seconds == 80.0


def test_overlap_hides_its_share_of_the_all_reduce():
  half = time(overlap=0.5)
  assert (half.all_reduce, half.hidden_all_reduce) == (6.5, 6.5)
  assert half.seconds == 47.0


def test_no_more_is_hidden_than_the_backward_pass_lasts():
  hidden = time(overlap=1.0, link_latency=10.0)
  # 10 s for the bytes, 60 s for the hops, of which 32 s are hidden.
  assert (hidden.all_reduce, hidden.hidden_all_reduce) == (38.0, 32.0)


def test_within_a_machine_its_own_links_count():
  # 2 x 1/2 x 200 bytes at 100 a second; 2 hops of 0.5 s.
  assert time(num_devices=2).all_reduce == 3.0


def test_one_device_sends_nothing():
  assert time(num_devices=1, devices_per_machine=1).all_reduce == 0.0
  assert step_time.sent_bytes(200, 1) == 0


def test_rates_by_the_data_sheet():
  assert step_time.rates_of(CLUSTER, "float32") == step_time.Rates(
    forward=250.0,
    frozen_forward=250.0,
    backward=250.0,
    update_seconds_per_weight=0.5,  # 48 bytes at 96 a second
  )


def test_a_batch_is_divided_evenly():
  with pytest.raises(
    errors.InputError,
    match=r"data\.batch_size=8 is not divisible by num_devices=3",
  ):
    time(num_devices=3)
