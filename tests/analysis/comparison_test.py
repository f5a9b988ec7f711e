"""A comparison says what the runs' own files say."""

import math

import pytest

from mslt_tf.analysis import comparison
from mslt_tf.analysis import comparison_tables
from mslt_tf.analysis import recorded_run


def evaluation(step, loss, wall, train, stage=1):
  return {
    "stage": stage,
    "step": step,
    "mlm_loss": loss,
    "mlm_accuracy": 0.125,
    "nsp_accuracy": 0.5,
    "nsp_loss": 0.625,
    "wall_seconds": wall,
    "train_seconds": train,
  }


def make(name, evaluations, **more):
  last = evaluations[-1] if evaluations else {}
  given = {
    "step": last.get("step", 0),
    "wall_seconds": last.get("wall_seconds"),
    "train_seconds": last.get("train_seconds"),
    "is_finished": True,
    "data_fingerprint": "a",
    "unigram_mlm_loss": 6.25,
    "batch_size": 7,
    **more,
  }
  return recorded_run.RecordedRun(name, evaluations=tuple(evaluations), **given)


@pytest.fixture(scope="module")
def slow():
  return make(
    "slow",
    [
      evaluation(10, 7.0, 30.0, 20.0),
      evaluation(20, 6.5, 60.0, 40.0),
      evaluation(30, 6.0, 90.0, 60.0),
    ],
  )


@pytest.fixture(scope="module")
def fast():
  return make(
    "fast",
    [
      evaluation(10, 7.0, 20.0, 8.0),
      evaluation(20, 6.25, 40.0, 16.0, stage=2),
      evaluation(30, 5.75, 60.0, 24.0, stage=3),
    ],
  )


def test_speedups_are_against_the_first_run_at_equal_steps(slow, fast):
  compared = comparison.compare([slow, fast])
  assert compared["baseline"] == "slow"
  pair = compared["runs"]["fast"]["against_baseline"]["equal_steps"]
  assert pair["steps"] == 30
  assert (pair["speedup_wall"], pair["speedup_train"]) == (1.5, 2.5)
  assert (pair["mlm_loss"], pair["baseline_mlm_loss"]) == (5.75, 6.0)
  own = compared["runs"]["slow"]["against_baseline"]["equal_steps"]
  assert (own["speedup_wall"], own["speedup_train"]) == (1.0, 1.0)


def test_equal_steps_are_those_that_both_have_made(slow, fast):
  going = make("going", fast.evaluations[:2], is_finished=False)
  pair = comparison.compare([slow, going])["runs"]["going"]
  pair = pair["against_baseline"]["equal_steps"]
  assert pair["steps"] == 20
  assert pair["wall_seconds"] == 40.0
  assert pair["speedup_wall"] == 1.5  # 60 s over 40 s.


def test_loss_at_equal_time_is_interpolated(slow, fast):
  pairs = comparison.compare([slow, fast])["runs"]["fast"]
  pairs = pairs["against_baseline"]["equal_time"]
  assert pairs["wall"] == {
    "seconds": 60.0,
    "steps": 30,
    "mlm_loss": 5.75,
    "baseline_steps": 20,
    "baseline_mlm_loss": 6.5,
  }
  # At 24 s of training the slow run is a fifth of the way from 7.0 to 6.5.
  assert pairs["train"]["baseline_steps"] == pytest.approx(12)
  assert pairs["train"]["baseline_mlm_loss"] == pytest.approx(6.9)


def test_time_to_the_baselines_final_loss(slow, fast):
  pair = comparison.compare([slow, fast])["runs"]["fast"]
  pair = pair["against_baseline"]["baseline_loss"]
  # 6.0 lies in the middle between 6.25 at 40 s and 5.75 at 60 s.
  assert (pair["mlm_loss"], pair["steps"], pair["wall_seconds"]) == (6, 25, 50)
  assert pair["speedup_wall"] == pytest.approx(90 / 50)
  assert pair["speedup_train"] == pytest.approx(60 / 20)


def test_a_loss_that_is_never_reached_is_said_so(slow, fast):
  compared = comparison.compare([fast, slow])
  pair = compared["runs"]["slow"]["against_baseline"]["baseline_loss"]
  assert (pair["steps"], pair["wall_seconds"]) == (None, None)
  assert pair["lowest_mlm_loss"] == 6.0
  table = comparison_tables.pre_training(compared)[2]
  assert table.rows[1][:3] == ("slow", "5.750", "not reached; lowest 6.000")


def test_nothing_is_interpolated_across_a_missing_stage():
  run = make(
    "gap",
    [evaluation(10, 7.0, 1.0, 1.0), evaluation(30, 6.0, 3.0, 3.0, stage=3)],
  )
  assert comparison.value_at(run, "mlm_loss", 20, along="step") is None
  assert comparison.value_at(run, "mlm_loss", 30, along="step") == 6.0
  assert comparison.value_at(run, "mlm_loss", 31, along="step") is None


def test_a_run_without_time_has_no_speedup(slow):
  short = make("short", [evaluation(1, 7.0, 2.0, 0.0)])
  pair = comparison.compare([short, slow])["runs"]["short"]
  pair = pair["against_baseline"]["equal_steps"]
  assert (pair["speedup_wall"], pair["speedup_train"]) == (1.0, None)


def test_runs_on_other_data_are_left_out_and_told(slow, fast):
  other = make("other", fast.evaluations, data_fingerprint="b")
  compared = comparison.compare([slow, other, fast])
  assert list(compared["runs"]) == ["slow", "fast"]
  assert compared["problems"] == [
    "other: trained on other data than slow; its losses are left out."
  ]


def test_runs_evaluated_on_other_examples_are_left_out_and_told(slow, fast):
  few, many = [
    make(name, fast.evaluations, eval_examples=count)
    for name, count in (("few", 1024), ("many", math.inf))
  ]
  compared = comparison.compare([few, many])
  assert list(compared["runs"]) == ["few"]
  assert compared["problems"] == [
    "many: evaluated on other examples (training.eval_examples) than few; its"
    " losses are left out."
  ]
  # Where it is not known, it is taken to be the same.
  assert list(comparison.compare([slow, many])["runs"]) == ["slow", "many"]


def test_a_run_without_evaluations_leaves_the_rest(slow, fast):
  empty = make("empty", [], problems=("no evaluation yet",))
  compared = comparison.compare([empty, slow, fast])
  assert compared["baseline"] == "slow"
  assert compared["problems"] == ["empty: no evaluation yet."]


def test_no_comparable_run_makes_no_tables():
  compared = comparison.compare([make("empty", [])])
  assert (compared["baseline"], compared["runs"]) == (None, {})
  assert comparison_tables.pre_training(compared) == []


def test_who_learnt_more_than_token_frequencies_is_said(slow):
  weak = make("weak", [evaluation(10, 6.25, 1.0, 1.0)])
  assert comparison.learnt(comparison.compare([slow, weak])) == (
    "Token frequencies alone give a held-out MLM loss of 6.250; below it: slow."
  )
  unknown = make("x", slow.evaluations, unigram_mlm_loss=None)
  assert comparison.learnt(comparison.compare([unknown])) == ""


def test_the_main_table_has_a_row_a_run(slow, fast):
  table = comparison_tables.pre_training(comparison.compare([slow, fast]))[0]
  assert table.rows == (
    (
      *("slow", "30", "1:30", "1.00", "1:00", "1.00", "-"),
      *("6.000", "12.5%", "50.0%"),
    ),
    (
      *("fast", "30", "1:00", "1.50", "0:24", "2.50", "-"),
      *("5.750", "12.5%", "50.0%"),
    ),
  )


def test_only_fields_that_differ_are_shown(slow):
  first = make("a", slow.evaluations, identity={"m.x": 1, "m.y": 2})
  second = make("b", slow.evaluations, identity={"m.x": 1, "m.y": 3, "m.z": 4})
  table = comparison_tables.differences([first, second])
  assert table.rows == (("m.y", "2", "3"), ("m.z", "-", "4"))
