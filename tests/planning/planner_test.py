"""What the planner answers for configs, as text and as a tree for JSON."""

import dataclasses
import json
import pathlib

import pytest

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf.planning import cluster as cluster_lib
from mslt_tf.planning import planner
from mslt_tf.planning import search

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
CLUSTER = cluster_lib.load(
  (CONFIGS / "clusters" / "v100_32.yaml").read_text(), source="cluster"
)


def load(name, *overrides):
  return config_lib.load(
    (CONFIGS / f"{name}.yaml").read_text(), source=name, overrides=overrides
  )


def names(answer):
  return [each["name"] for each in answer.tree["schedules"]]


def test_every_cluster_file_can_be_read():
  files = sorted((CONFIGS / "clusters").glob("*.yaml"))
  assert len(files) >= 2
  for file in files:
    assert cluster_lib.load(file.read_text(), source=file.name).num_devices


def test_three_methods_side_by_side():
  answer = planner.compare(load("base_mslt"), CLUSTER, num_growing_stages=4)
  assert names(answer) == ["baseline", "stacking", "mslt"]
  hours = [each["totals"]["hours"] for each in answer.tree["schedules"]]
  assert hours == sorted(hours, reverse=True)
  # 480k steps in 41 h, by which the cluster file's share was fitted.
  assert hours[0] == pytest.approx(41 / 0.48, rel=0.01)


def test_another_schedule_stands_beside_the_three():
  answer = planner.compare(
    load("base_stacking_6_12"), CLUSTER, num_growing_stages=4
  )
  assert names(answer) == ["baseline", "stacking", "mslt", "config"]


def test_a_method_that_cannot_be_is_named():
  answer = planner.compare(load("base_mslt"), CLUSTER, num_growing_stages=5)
  assert names(answer) == ["baseline", "stacking", "config"]
  assert (
    "mslt is left out: num_layers=12 is not divisible by num_growing_stages=5."
    in answer.text
  )


def test_the_tree_is_json():
  answer = planner.compare(load("base_mslt"), CLUSTER, num_growing_stages=4)
  stage = json.loads(json.dumps(answer.tree))["schedules"][2]["stages"][1]
  assert stage["stage"]["num_frozen_layers"] == 3
  step = stage["step"]
  assert step["seconds"] == pytest.approx(
    sum(step.values()) - step["seconds"] - step["hidden_all_reduce"]
  )


def test_what_does_not_fit_says_by_how_much_and_what_does():
  config = load("large_mslt", "data.batch_size=32768")
  answer = planner.compare(config, CLUSTER, num_growing_stages=4)
  stages = answer.tree["schedules"][0]["stages"]
  assert stages[0]["fitting_micro_batches"] == 16
  excess = stages[0]["memory"]["num_bytes"] - 32e9
  assert stages[0]["excess_bytes"] == excess
  assert (
    f"{excess / 1e9:.3g} GB too much; training.num_micro_batches=16 fits."
    in answer.text
  )


def test_not_even_one_example_fits():
  small = cluster_lib.load(
    (CONFIGS / "clusters" / "v100_32.yaml").read_text(),
    source="cluster",
    overrides=["memory_bytes=2e9"],
  )
  answer = planner.compare(load("base_mslt"), small, num_growing_stages=4)
  assert "nor does a single example at a time." in answer.text


def test_measured_rates_replace_the_data_sheet():
  config = load("base_baseline", "data.batch_size=16")
  measured = {
    "stages": [
      {
        "stage": 1,
        "num_layers": 12,
        "num_frozen_layers": 0,
        "forward_seconds": 0.5,
        "backward_seconds": 0.9,
        "update_seconds": 0.25,
        "step_seconds": 1.65,
        "flops_per_step": 1118863835136,
        "peak_memory_bytes": 4.5e9,
      }
    ],
    "precision": "float32",
    "batch_size": 16,
    "matmul_flops_per_second": 1e12,
  }
  calibration = planner.calibrate(config, json.dumps(measured), source="file")
  alone = dataclasses.replace(CLUSTER, num_devices=1)
  answer = planner.compare(
    config, alone, num_growing_stages=4, calibration=calibration
  )
  step = answer.tree["schedules"][0]["stages"][0]["step"]
  assert step["forward"] == pytest.approx(0.5)
  assert step["seconds"] == pytest.approx(1.65)
  assert "stage 1 +0.0%" in answer.text
  assert "Its largest process held 4.5 GB" in answer.text
  assert "No stage of it has frozen layers" in answer.text
  assert "may differ" not in answer.text
  assert max(map(len, answer.text.splitlines())) <= 100


def test_numbers_of_devices():
  answer = planner.sweep(
    load("base_mslt"), CLUSTER, devices=[1, 64], num_growing_stages=4
  )
  one, many = (each["schedules"][0] for each in answer.tree["devices"])
  assert one["totals"]["all_reduced_bytes"] == 0
  assert one["totals"]["hours"] > 30 * many["totals"]["hours"]
  with pytest.raises(errors.InputError, match="not divisible by num_devices=3"):
    planner.sweep(load("base_mslt"), CLUSTER, devices=[3], num_growing_stages=4)


@pytest.mark.parametrize(
  ("rules", "limit"),
  [
    ({}, {}),
    ({}, {"max_hours": 20.0}),
    ({}, {"max_cost": 1e3}),
    # Six growing stages with shares of many digits, which sum to 1.
    ({"layer": 0.33333333, "retraining": 0.2, "stage": 0.01}, {}),
  ],
)
def test_the_schedule_found_is_one_for_a_config(rules, limit):
  answer = planner.search(
    load("base_mslt"), CLUSTER, rules=search.Rules(**rules), **limit
  )
  assert "Quality is not predicted" in answer.text
  printed = answer.text.split("The first, for a config:")[1]
  base = (CONFIGS / "base_baseline.yaml").read_text()
  before, after = base.split("schedule:\n  method: baseline")
  _, rest = after.split("\n\n", 1)
  config = config_lib.load(f"{before}{printed}\n{rest}", source="printed")
  best = answer.tree["found"][0]["result"]
  assert [stage.num_steps for stage in config.schedule.stages] == [
    stage["totals"]["steps"] for stage in best["stages"]
  ]


@pytest.mark.parametrize(
  ("limits", "message"),
  [
    ({"max_hours": 0.0}, "max_hours=0 must be above 0"),
    ({"max_cost": -1.0}, "max_cost=-1 must be above 0"),
    ({"max_hours": float("inf")}, "max_hours=inf must be above 0 and finite"),
    ({"max_hours": 1.0, "max_cost": 2.0}, "are both given"),
  ],
)
def test_impossible_budgets(limits, message):
  with pytest.raises(errors.InputError, match=message):
    planner.search(load("base_mslt"), CLUSTER, rules=search.Rules(), **limits)


def test_grown_models_are_not_searched():
  with pytest.raises(errors.InputError, match="initial_layers=6"):
    planner.search(load("grow_minilm"), CLUSTER, rules=search.Rules())


def test_the_check_prints_constants_residuals_and_both_readings_of_gong():
  answer = planner.check_paper(CLUSTER)
  for part in ("TFLOP/s", "residual", "2.135", "2.174", "1.22", "1.25", "1.33"):
    assert part in answer.text
  assert '"25 % speedup"' in answer.text
  assert '"25 % shorter"' in answer.text
  assert json.loads(json.dumps(answer.tree))["checks"]["the cluster file"]


def test_tables_fit_a_terminal_of_100_columns():
  texts = [
    planner.compare(load("large_mslt"), CLUSTER, num_growing_stages=4).text,
    planner.sweep(
      load("base_stacking_6_12"), CLUSTER, devices=[1, 1024],
      num_growing_stages=4,
    ).text,
    planner.search(load("large_mslt"), CLUSTER, rules=search.Rules()).text,
    planner.check_paper(CLUSTER).text,
  ]  # fmt: skip
  for text in texts:
    assert max(map(len, text.splitlines())) <= 100
