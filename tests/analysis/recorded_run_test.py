"""A run is what its files say, and what they lack is told in a line."""

import copy
import math

import pytest

from mslt_tf.analysis import recorded_run

IDENTITY = {
  "model": {
    "vocab_size": 11,
    "hidden_size": 4,
    "num_layers": 2,
    "intermediate_size": 6,
    "max_positions": 9,
    "num_segments": 2,
  },
  "data": {
    "sequence_length": 5,
    "max_predictions": 3,
    "batch_size": 7,
    "fingerprint": "a",
  },
  "schedule": {
    "stages": [
      {"num_layers": 1, "num_steps": 20, "source_layers": [None]},
      {
        "num_layers": 2,
        "num_steps": 10,
        "source_layers": [0, 0],
        "num_frozen_layers": 1,
        "freeze_embeddings": True,
      },
    ],
    "initial_layers": None,
  },
  "optimizer": {"peak_learning_rate": 0.5},
}
SUMMARY = {
  "is_finished": True,
  "wall_seconds": 9.5,
  "train_seconds": 4.5,
  "unigram_mlm_loss": 6.25,
  "machine": {"cores": 2},
  "versions": {"python": "3.11"},
}


def record(step, loss=7.0, kind="eval", **more):
  return {
    "kind": kind,
    "step": step,
    "mlm_loss": loss,
    "wall_seconds": step / 10,
    **more,
  }


METRICS = {
  2: [
    record(25, 6.5, kind="train", examples_per_second=30.0),
    record(30, 6.0, train_seconds=2.0),
  ],
  1: [
    record(5, 8.0, kind="train", examples_per_second=10.0),
    record(10, 7.5, kind="train", examples_per_second=50.0),
    record(15, 7.2, kind="train", examples_per_second=20.0),
    record(10, 7.5),
    record(20, 7.0),
  ],
}


def make(identity=IDENTITY, summary=SUMMARY, metrics=METRICS):
  return recorded_run.from_files(
    "mine", identity=identity, summary=summary, metrics=metrics
  )


def test_evaluations_of_all_stages_follow_each_other():
  run = make()
  steps = [(each["step"], each["stage"]) for each in run.evaluations]
  assert steps == [(10, 1), (20, 1), (30, 2)]
  assert run.problems == ()


def test_a_finished_run_took_what_its_summary_says():
  run = make()
  assert (run.wall_seconds, run.train_seconds) == (9.5, 4.5)
  assert (run.step, run.num_steps, run.status) == (30, 30, "finished")
  assert run.unigram_mlm_loss == 6.25
  assert run.data_fingerprint == "a"
  assert (run.machine, run.versions) == ({"cores": 2}, {"python": "3.11"})


@pytest.mark.parametrize(
  ("training", "expected"),
  [({"eval_examples": 5}, 5), ({"eval_examples": None}, math.inf), ({}, None)],
)
def test_how_many_examples_are_evaluated_is_in_the_summarys_config(
  training, expected
):
  summary = {**SUMMARY, "config": {"training": training}}
  assert make(summary=summary).eval_examples == expected


def test_a_run_that_goes_on_took_what_its_last_record_says():
  run = make(summary=None, metrics={1: METRICS[1]})
  assert not run.is_finished
  assert (run.step, run.wall_seconds) == (20, 2.0)
  assert run.status == "at step 20 of 30"
  # The stage that has only begun is not missing.
  assert run.problems == ()


def test_a_stage_is_as_fast_as_its_median():
  assert make().examples_per_second == {1: 20.0, 2: 30.0}


def test_flops_grow_with_the_steps_of_each_stage():
  run = make()
  first, second = (stage.flops for stage in run.cost.stages)
  assert run.flops_at(0) == 0
  assert run.flops_at(8) == 7 * 8 * first
  assert run.flops_at(26) == 7 * (20 * first + 6 * second)
  # The head of 11 tokens, by hand: 3 positions of 4 numbers.
  layer = 2 * 5 * (4 * 12 + 2 * 5 * 4 + 4 * 4 + 2 * 4 * 6)
  heads = 2 * (3 * 4 * 4 + 3 * 4 * 11 + 4 * 4 + 4 * 2)
  assert first == 3 * (layer + heads)


def test_fields_that_runs_may_differ_in_are_flat():
  fields = make().identity
  assert fields["model.hidden_size"] == 4
  assert fields["optimizer.peak_learning_rate"] == 0.5
  assert not any(name.startswith("schedule") for name in fields)


def test_a_missing_stage_is_told_and_the_rest_is_there():
  run = make(metrics={2: METRICS[2]})
  assert run.problems == ("stage 1 has no metrics; its curve is missing",)
  assert [each["step"] for each in run.evaluations] == [30]


def test_the_missing_last_stage_of_a_finished_run_is_told():
  run = make(metrics={1: METRICS[1]})
  assert run.problems == ("stage 2 has no metrics; its curve is missing",)


def test_a_stage_without_an_evaluation_is_told():
  metrics = {1: METRICS[1][:1], 2: METRICS[2]}
  problem = "stage 1 has no evaluation; its curve is missing"
  assert make(metrics=metrics).problems == (problem,)


@pytest.mark.parametrize(
  ("summary", "problem"),
  [
    (None, "no evaluation yet; there are no losses to show"),
    (SUMMARY, "no evaluation; there are no losses to show"),
  ],
)
def test_a_run_without_metrics_is_one_line(summary, problem):
  run = make(summary=summary, metrics={})
  assert run.problems == (problem,)
  assert run.schedule is not None


def test_another_version_is_one_line_and_its_losses_are_there():
  identity = copy.deepcopy(IDENTITY)
  del identity["model"]["hidden_size"]
  identity["schedule"]["stages"][1]["depth"] = 3
  run = make(identity=identity)
  (problem,) = run.problems
  assert problem.startswith("identity.json is probably from another version")
  assert "'hidden_size' is missing" in problem
  assert "'depth'" in problem
  assert (run.shape, run.schedule, run.flops_at(5)) == (None, None, None)
  assert len(run.evaluations) == 3


def test_an_identity_that_is_no_mapping_is_one_line():
  (problem,) = make(identity=[1]).problems
  assert problem.startswith("identity.json is probably from another version")


def test_records_of_another_version_are_left_out_and_counted():
  broken = [record(10), {"kind": "eval", "step": 15}, record(20), [3]]
  run = make(summary=None, metrics={1: broken})
  assert [each["step"] for each in run.evaluations] == [10, 20]
  (problem,) = run.problems
  assert problem.startswith("stage_1/metrics.jsonl: 2 of 4 records lack step")


def test_a_loss_that_is_not_finite_is_not_drawn():
  run = make(summary=None, metrics={1: [record(10), record(20, float("nan"))]})
  assert [each["step"] for each in run.evaluations] == [10]
