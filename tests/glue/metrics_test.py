"""Metrics equal computations by hand, and are defined everywhere."""

import dataclasses
import math

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.glue import metrics
from mslt_tf.glue import tasks

# Confusion: 3 true positives, 2 false positives, 1 false negative, 4 true
# negatives.
LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
PREDICTIONS = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])
ALL = dataclasses.replace(
  tasks.get("mrpc"), metrics=("accuracy", "f1", "matthews")
)


def test_metrics_of_two_classes():
  assert metrics.evaluate(ALL, LABELS, PREDICTIONS) == pytest.approx(
    {
      "accuracy": 0.7,
      "f1": 2 * 3 / (2 * 3 + 2 + 1),
      "matthews": (3 * 4 - 2 * 1) / math.sqrt(5 * 4 * 6 * 5),
    }
  )


def test_a_task_gets_its_own_metrics_only():
  assert metrics.evaluate(tasks.get("cola"), LABELS, LABELS) == {
    "matthews": 1.0,
    "accuracy": 1.0,
  }


def test_f1_of_three_classes_is_the_mean_over_them():
  task = dataclasses.replace(tasks.get("mnli"), metrics=("f1",))
  labels = np.array([0, 0, 1, 1, 2])
  predictions = np.array([0, 1, 1, 1, 0])
  # 2TP / (2TP + FP + FN): 2 / 4, 4 / 5, 0.
  assert metrics.evaluate(task, labels, predictions) == pytest.approx(
    {"f1": (0.5 + 0.8 + 0) / 3}
  )


def test_correlations():
  labels = np.array([0.0, 1.0, 3.0, 3.0, 5.0], np.float32)
  predictions = np.array([0.5, 0.1, 2.0, 9.0, 4.0], np.float32)
  # Ranks, ties shared: the labels' 1 2 3.5 3.5 5, the predictions' 2 1 3 5 4.
  pearson = np.corrcoef(labels, predictions)[0, 1]
  spearman = np.corrcoef([1, 2, 3.5, 3.5, 5], [2, 1, 3, 5, 4])[0, 1]
  assert metrics.evaluate(
    tasks.get("stsb"), labels, predictions
  ) == pytest.approx({"pearson": pearson, "spearman": spearman})


@pytest.mark.parametrize("value", [0, 1])
def test_matthews_of_a_constant_answer_is_0(value):
  predictions = np.full(10, value)
  assert metrics.evaluate(ALL, LABELS, predictions)["matthews"] == 0
  assert metrics.evaluate(ALL, predictions, LABELS)["matthews"] == 0


def test_f1_where_class_1_is_nowhere_is_0():
  nowhere = np.zeros(4, np.int32)
  assert metrics.evaluate(ALL, nowhere, nowhere)["f1"] == 0


@pytest.mark.parametrize(
  "predictions",
  [
    [2.0, 2.0, 2.0],
    [math.nan, 1.0, 2.0],
    [math.inf, 1.0, 2.0],
    [math.nan, math.nan, math.nan],
  ],
)
def test_undefined_correlations_are_0(predictions):
  labels = np.array([1.0, 2.0, 4.0], np.float32)
  assert metrics.evaluate(tasks.get("stsb"), labels, np.array(predictions)) == {
    "pearson": 0.0,
    "spearman": 0.0,
  }


def test_correlations_of_one_example_are_0():
  one = np.array([3.0])
  assert metrics.evaluate(tasks.get("stsb"), one, one)["pearson"] == 0


@pytest.mark.parametrize(
  ("labels", "predictions"),
  [(LABELS, LABELS[:9]), (LABELS[:0], LABELS[:0]), (LABELS, LABELS[:, None])],
)
def test_predictions_must_fit_the_labels(labels, predictions):
  with pytest.raises(
    errors.InputError, match="task mrpc: predictions of shape"
  ):
    metrics.evaluate(ALL, labels, predictions)


def test_headline_of_mnli_is_the_mean_of_both_dev_sets():
  by_split = {
    "dev_matched": {"accuracy": 0.84},
    "dev_mismatched": {"accuracy": 0.85},
  }
  assert metrics.headline(tasks.get("mnli"), by_split) == pytest.approx(0.845)


@pytest.mark.parametrize("value", [{}, {"accuracy": math.nan}])
def test_a_missing_headline_is_named(value):
  by_split = {"dev_matched": {"accuracy": 0.84}, "dev_mismatched": value}
  with pytest.raises(
    errors.InputError, match="no accuracy of split dev_mismatched"
  ):
    metrics.headline(tasks.get("mnli"), by_split)


def test_best_constant_for_accuracy_is_the_majority_class():
  labels = np.array([0] * 6 + [1] * 4)
  known = metrics.constant(tasks.get("rte"), labels)
  assert known == metrics.Constant("entailment", {"accuracy": 0.6}, 10)


def test_best_constant_for_f1_is_class_1_though_it_is_the_smaller():
  labels = np.array([0] * 6 + [1] * 4)
  known = metrics.constant(tasks.get("qqp"), labels)
  assert known.answer == "1"
  assert known.metrics == pytest.approx({"f1": 8 / 14, "accuracy": 0.4})


def test_best_constant_for_matthews_is_the_majority_class():
  labels = np.array([0] * 3 + [1] * 7)
  known = metrics.constant(tasks.get("cola"), labels)
  assert known.answer == "1"
  assert known.metrics == pytest.approx({"matthews": 0, "accuracy": 0.7})


def test_constant_of_a_regression_is_the_mean():
  known = metrics.constant(tasks.get("stsb"), np.array([1, 2, 4.5], np.float32))
  assert known.answer == "2.5"
  assert known.metrics == {"pearson": 0, "spearman": 0}


@pytest.mark.parametrize(
  ("task_name", "metric", "score", "num_examples", "expected"),
  [
    # Two standard errors of a share: 2 sqrt(0.6 * 0.4 / 150) = 0.08.
    ("rte", "accuracy", 0.6, 150, 0.68),
    # The share of class 1 is 0.5, where F1 is 2/3 and rises by 8/9 of it.
    ("mrpc", "f1", 2 / 3, 100, 2 / 3 + 2 * 8 / 9 * 0.05),
    ("cola", "matthews", 0.0, 401, 0.1),
    ("stsb", "spearman", 0.0, 1601, 0.05),
  ],
)
def test_threshold_is_two_standard_errors_above_the_constant(
  task_name, metric, score, num_examples, expected
):
  constants = {"dev": metrics.Constant("x", {metric: score}, num_examples)}
  task = tasks.get(task_name)
  assert metrics.threshold(task, constants) == pytest.approx(expected)


def test_threshold_of_f1_over_three_classes_fits_what_samples_show():
  task = dataclasses.replace(
    tasks.get("qqp"), labels=("a", "b", "c"), metrics=("f1",)
  )
  rng = np.random.default_rng(3)

  def score(labels):
    return metrics.evaluate(task, labels, np.zeros_like(labels))["f1"]

  draws = rng.choice(3, p=[0.6, 0.3, 0.1], size=[400, 500])
  scores = [score(labels) for labels in draws]
  known = metrics.Constant("a", {"f1": 0.25}, 500)
  # F1 of the first class is 1.2 / 1.6, and of the others 0.
  assert np.mean(scores) == pytest.approx(0.25, abs=0.001)
  assert metrics.threshold(task, {"dev": known}) - 0.25 == pytest.approx(
    2 * np.std(scores), rel=0.15
  )


@pytest.mark.parametrize("task_name", ["rte", "mrpc", "cola"])
def test_coins_are_rarely_better_than_a_constant(task_name):
  task = tasks.get(task_name)
  rng = np.random.default_rng(7)
  num_better = 0
  for _ in range(100):
    labels = (rng.random(120) < 0.6).astype(np.int32)
    coins = (rng.random(120) < 0.6).astype(np.int32)
    constants = {"dev": metrics.constant(task, labels)}
    score = metrics.evaluate(task, labels, coins)[task.headline]
    num_better += score > metrics.threshold(task, constants)
  assert num_better <= 7
