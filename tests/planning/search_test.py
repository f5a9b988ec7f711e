"""What the search finds, and that it keeps its rules."""

import dataclasses

import pytest

from mslt_tf import costs
from mslt_tf import errors
from mslt_tf import schedules
from mslt_tf.planning import cluster as cluster_lib
from mslt_tf.planning import device_memory
from mslt_tf.planning import forecast
from mslt_tf.planning import search
from mslt_tf.planning import step_time

CLUSTER = cluster_lib.Cluster(
  num_devices=1,
  devices_per_machine=1,
  peak_flops_float32=1e12,
  achieved_share_float32=1.0,
  memory_bytes=1e12,
  memory_bandwidth=1e12,
  device_link_bandwidth=1e9,
  machine_link_bandwidth=1e9,
  link_latency=0.0,
  input_examples_per_second=1e9,
  price_per_machine_hour=2.0,
)
SETTING = forecast.Setting(
  model=device_memory.Model(
    costs.Shape(
      vocab_size=11,
      hidden_size=64,
      intermediate_size=256,
      max_positions=32,
      num_segments=2,
      sequence_length=32,
      max_predictions=1,
    ),
    num_heads=4,
    precision="float32",
  ),
  batch_size=5,
  num_micro_batches=1,
  cluster=CLUSTER,
  rates=step_time.Rates(1e9, 1e9, 1e9, 0.0),
)


def find(budget=None, **rules):
  return search.search(
    12,
    SETTING,
    rules=search.Rules(**rules),
    budget=budget or search.Budget(steps=1000),
  )


def test_by_default_the_papers_schedule_is_the_fastest():
  # Layers only, of a step of the full model: 0.2 (1/4 + 1/3 + 5/12 + 1/2 + 1).
  # With k = 3, 0.4/3 + 0.2 (4/9 + 5/9 + 1), and others are slower.
  best = find()[0]
  assert best.num_growing_stages == 4
  assert best.retraining_share == 0.2
  assert best.growing_shares == pytest.approx((0.2, 0.2, 0.2, 0.2))


def test_every_schedule_keeps_the_rules():
  found = find(retraining=0.3, layer=0.45, stage=0.1)
  assert {each.num_growing_stages for each in found} == {1, 2, 3, 4, 6}
  for each in found:
    assert each.layer_share >= 0.449
    steps = [stage.totals.steps for stage in each.result.stages]
    assert min(steps) >= 99
    if each.num_growing_stages > 1:
      assert steps[-1] >= 299
    assert sum(steps) == 1000


def test_the_rest_goes_to_the_cheapest_stage():
  (three,) = [
    each
    for each in find(retraining=0.2, layer=0.3, stage=0.1)
    if (each.num_growing_stages, each.retraining_share) == (3, 0.2)
  ]
  assert three.growing_shares == pytest.approx((0.6, 0.1, 0.1))


def test_nothing_but_the_baseline_trains_all_layers_in_all_steps():
  found = find(layer=1.0)
  assert [each.result.name for each in found] == ["baseline"]
  assert found[0].layer_share == 1.0


def test_steps_are_found_for_hours():
  baseline = next(
    each
    for each in find(search.Budget(hours=2.0))
    if each.num_growing_stages == 1
  )
  seconds = baseline.result.stages[0].step.seconds
  assert baseline.result.totals.steps == int(7200 / seconds)
  assert baseline.result.totals.hours <= 2.0


def test_money_buys_hours():
  # 2 an hour.
  by_cost = find(search.Budget(cost=4.0))[0]
  by_hours = find(search.Budget(hours=2.0))[0]
  assert by_cost.result.totals.steps == by_hours.result.totals.steps


def test_the_most_steps_come_first_under_a_budget():
  steps = [each.result.totals.steps for each in find(search.Budget(hours=2.0))]
  assert steps == sorted(steps, reverse=True)
  assert steps[0] > steps[-1]


def test_money_needs_a_price():
  free = dataclasses.replace(
    SETTING, cluster=dataclasses.replace(CLUSTER, price_per_machine_hour=0.0)
  )
  with pytest.raises(errors.InputError, match="price_per_machine_hour"):
    search.search(
      12, free, rules=search.Rules(), budget=search.Budget(cost=4.0)
    )


def test_a_budget_without_a_step_for_each_stage():
  with pytest.raises(errors.InputError, match="is too few"):
    find(search.Budget(hours=1e-9))


def test_share_of_the_least_trained_layer():
  mslt = schedules.mslt(12, 1000, num_growing_stages=4)
  assert search.layer_share(mslt) == pytest.approx(0.4)
  assert search.layer_share(schedules.baseline(12, 7)) == 1.0
  # The upper half is there in the last 70 % only.
  stacking = schedules.progressive_stacking(12, 1000)
  assert search.layer_share(stacking) == pytest.approx(0.7)


@pytest.mark.parametrize(
  ("rules", "message"),
  [
    ({"layer": 1.5}, "min_layer_share=1.5 must be between 0 and 1"),
    ({"retraining": -0.1}, "min_retraining_share=-0.1 must be between"),
    ({"stage": 0.0}, "min_stage_share=0.0 must be above 0"),
  ],
)
def test_impossible_rules(rules, message):
  with pytest.raises(errors.InputError, match=message):
    search.Rules(**rules)
