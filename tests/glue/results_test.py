"""Finished runs become medians, best rates and spreads."""

import json

import pytest

from mslt_tf import errors
from mslt_tf.glue import metrics
from mslt_tf.glue import protocol
from mslt_tf.glue import results
from mslt_tf.glue import tasks

PROTOCOL = protocol.Protocol(learning_rates=(3e-5, 2e-5), seeds=(1, 2, 3))
TASKS = (tasks.get("mnli"), tasks.get("mrpc"))
CONSTANTS = {
  "mrpc": {"dev": metrics.Constant("1", {"f1": 0.8, "accuracy": 0.7}, 408)},
  "mnli": {
    "dev_matched": metrics.Constant("neutral", {"accuracy": 0.35}, 9815),
    "dev_mismatched": metrics.Constant("neutral", {"accuracy": 0.33}, 9832),
  },
}


def mrpc(rate, seed, f1, checkpoint="a", accuracy=0.5):
  by_split = {"dev": {"f1": f1, "accuracy": accuracy}}
  return results.Result("mrpc", checkpoint, rate, seed, by_split)


def summarize(*found):
  return results.summarize(
    found, tasks=TASKS, protocol=PROTOCOL, constants=CONSTANTS
  )


def test_score_is_the_median_of_the_rate_whose_median_is_best():
  (summary,) = summarize(
    mrpc(2e-5, 1, 0.91),
    mrpc(2e-5, 2, 0.90),
    mrpc(2e-5, 3, 0.87),
    # One seed is better than all others, but not the rate.
    mrpc(3e-5, 1, 0.95),
    mrpc(3e-5, 2, 0.89),
    mrpc(3e-5, 3, 0.88),
  )
  assert summary.score == 0.90
  assert summary.best.learning_rate == 2e-5
  assert (summary.best.lowest, summary.best.highest) == (0.87, 0.91)
  # Deviations from the mean 0.8933: 0.0167, 0.0067, -0.0233.
  assert summary.best.deviation == pytest.approx(0.020817, abs=1e-6)
  assert [rate.learning_rate for rate in summary.rates] == [3e-5, 2e-5]
  assert [rate.median for rate in summary.rates] == [0.89, 0.90]
  assert summary.is_complete


def test_at_equal_medians_the_protocols_first_rate_wins():
  (summary,) = summarize(mrpc(2e-5, 1, 0.9), mrpc(3e-5, 1, 0.9))
  assert summary.best.learning_rate == 3e-5
  assert not summary.is_complete
  assert summary.best.deviation is None


def test_other_metrics_are_medians_at_the_best_rate():
  (summary,) = summarize(
    mrpc(2e-5, 1, 0.9, accuracy=0.81),
    mrpc(2e-5, 2, 0.9, accuracy=0.83),
    mrpc(2e-5, 3, 0.9, accuracy=0.88),
    mrpc(3e-5, 1, 0.1, accuracy=0.99),
  )
  assert summary.metrics == {"dev": {"f1": 0.9, "accuracy": 0.83}}


def test_both_dev_sets_of_mnli_make_one_score():
  (summary,) = summarize(
    results.Result(
      "mnli",
      "a",
      3e-5,
      1,
      {"dev_matched": {"accuracy": 0.8}, "dev_mismatched": {"accuracy": 0.9}},
    )
  )
  assert summary.score == pytest.approx(0.85)
  assert summary.constant_score == pytest.approx(0.34)


def test_summaries_follow_the_order_of_checkpoints_and_tasks():
  mnli = {s: {"accuracy": 0.8} for s in ("dev_matched", "dev_mismatched")}
  summaries = summarize(
    mrpc(2e-5, 1, 0.9, checkpoint="z"),
    mrpc(2e-5, 1, 0.9, checkpoint="a"),
    results.Result("mnli", "z", 2e-5, 1, mnli),
  )
  assert [(each.checkpoint, each.task.name) for each in summaries] == [
    ("z", "mnli"),
    ("z", "mrpc"),
    ("a", "mrpc"),
  ]


@pytest.mark.parametrize(
  # Two standard errors of an F1 of 0.8 on 408 examples are 0.0336.
  ("f1", "is_better"),
  [(0.7, False), (0.8, False), (0.8335, False), (0.8337, True), (0.9, True)],
)
def test_a_score_must_exceed_a_constant_answer(f1, is_better):
  (summary,) = summarize(mrpc(2e-5, 1, f1))
  assert summary.is_better_than_constant == is_better


def test_dict_holds_every_single_result_and_is_json():
  summaries = summarize(
    mrpc(2e-5, 2, 0.75), mrpc(3e-5, 1, 0.5), mrpc(2e-5, 1, 0.25)
  )
  (entry,) = json.loads(json.dumps(results.as_dict(summaries)))
  single = entry.pop("results")
  assert single == [
    {
      "learning_rate": rate,
      "seed": seed,
      "score": f1,
      "metrics": {"dev": {"f1": f1, "accuracy": 0.5}},
    }
    for rate, seed, f1 in ((3e-5, 1, 0.5), (2e-5, 1, 0.25), (2e-5, 2, 0.75))
  ]
  assert entry.pop("threshold") == pytest.approx(0.8336, abs=1e-4)
  assert entry == {
    "checkpoint": "a",
    "task": "mrpc",
    "metric": "f1",
    "score": 0.5,
    "learning_rate": 3e-5,
    "lowest": 0.5,
    "highest": 0.5,
    "deviation": None,
    "metrics": {"dev": {"f1": 0.5, "accuracy": 0.5}},
    "constant_score": 0.8,
    "is_better_than_constant": False,
    "num_results": 3,
    "num_expected": 6,
    "medians": [
      {"learning_rate": 3e-5, "score": 0.5},
      {"learning_rate": 2e-5, "score": 0.5},
    ],
  }


@pytest.mark.parametrize(
  ("found", "message"),
  [
    (
      [mrpc(2e-5, 1, 0.9), mrpc(2e-5, 1, 0.8)],
      "a, mrpc, rate 2e-05, seed 1: there are two results",
    ),
    ([mrpc(1e-5, 1, 0.9)], "a, mrpc, rate 1e-05, seed 1: no run of this"),
    ([mrpc(2e-5, 9, 0.9)], "a, mrpc, rate 2e-05, seed 9: no run of this"),
    (
      [results.Result("mrpc", "a", 2e-5, 1, {"dev": {"accuracy": 0.9}})],
      "task mrpc: no f1 of split dev",
    ),
    (
      [results.Result("rte", "a", 2e-5, 1, {"dev": {"accuracy": 0.9}})],
      "task=rte has results, but is none of mnli, mrpc",
    ),
  ],
)
def test_results_that_do_not_fit_are_named(found, message):
  with pytest.raises(errors.InputError, match=message):
    summarize(*found)


def test_what_was_written_is_read_back():
  written = json.loads(
    json.dumps(
      results.as_dict(
        summarize(mrpc(2e-5, 1, 0.9), mrpc(3e-5, 2, 0.8), mrpc(3e-5, 1, 0.8))
      )
    )
  )
  read = results.from_list(written, "results.json")
  assert results.as_dict(read) == written
  assert read[0].task == tasks.get("mrpc")


@pytest.mark.parametrize("content", [{"a": 1}, 3, [{"task": "rte"}], [[]]])
def test_another_form_is_refused(content):
  with pytest.raises(errors.InputError, match=r"runs/results.json is no"):
    results.from_list(content, "runs/results.json")
