"""Metrics of predictions, and what a constant answer would score.

Where a metric is undefined, as a correlation with a constant is, it is 0: what
a model that says the same of every example has learnt.
"""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics as sklearn_metrics

from mslt_tf import errors
from mslt_tf.glue import tasks

# How far a metric must be above a constant answer's, in standard errors, to
# count as better.
_STANDARD_ERRORS = 2.0


@dataclasses.dataclass(frozen=True)
class Constant:
  """The constant answer that scores best, and how it scores.

  Attributes:
    answer: A label string, or the mean of a regression's labels.
    metrics: Its metrics.
    num_examples: How many examples these are of.
  """

  answer: str
  metrics: Mapping[str, float]
  num_examples: int


def evaluate(
  task: tasks.Task, labels: np.ndarray, predictions: np.ndarray
) -> dict[str, float]:
  """Returns the task's metrics, as fractions of 1.

  F1 is that of class 1 where there are two, else the mean over the classes.
  Matthews' correlation is 0 if labels or predictions are all the same, F1 if
  class 1 is neither predicted nor there. Pearson's and Spearman's are 0 if
  either side is constant or a prediction is not finite.

  Args:
    task: Says which metrics.
    labels: [N] class ids, or the values of a regression.
    predictions: [N] like the labels.

  Raises:
    errors.InputError: there is nothing to evaluate, or no label for it.
  """
  if labels.ndim != 1 or labels.shape != predictions.shape or not labels.size:
    raise errors.InputError(
      f"task {task.name}: predictions of shape {predictions.shape} cannot be"
      f" evaluated against labels of shape {labels.shape}."
    )
  with warnings.catch_warnings():
    # Of undefined metrics, whose value is said above.
    warnings.simplefilter("ignore")
    return {
      name: _METRICS[name](task, labels, predictions) for name in task.metrics
    }


def headline(
  task: tasks.Task, by_split: Mapping[str, Mapping[str, float]]
) -> float:
  """Returns the number of the paper's tables: the mean over the dev splits.

  Args:
    task: Says which metric.
    by_split: The metrics of each dev split, by its name.

  Raises:
    errors.InputError: a split or its metric is not there.
  """
  values = []
  for split in task.dev:
    value = by_split.get(split.name, {}).get(task.headline)
    if value is None or not math.isfinite(value):
      raise errors.InputError(
        f"task {task.name}: no {task.headline} of split {split.name}; there is"
        f" {value if value is not None else dict(by_split)}."
      )
    values.append(value)
  return sum(values) / len(values)


def constant(task: tasks.Task, labels: np.ndarray) -> Constant:
  """Returns the constant answer whose headline metric is the best.

  For accuracy it is the majority class. For F1 it is class 1, in QQP the
  smaller one. For correlations, which are 0 whatever the answer, it is the
  majority class or the mean.

  Args:
    task: Says which metric.
    labels: [N] class ids, or the values of a regression.
  """
  if task.is_regression:
    mean = float(np.mean(labels, dtype=np.float64))
    scores = evaluate(task, labels, np.full(labels.shape, mean))
    return Constant(f"{mean:.3g}", scores, labels.size)
  counts = np.bincount(labels, minlength=len(task.labels))
  scored = [
    evaluate(task, labels, np.full_like(labels, class_id))
    for class_id in range(len(task.labels))
  ]
  best = max(
    range(len(scored)),
    key=lambda class_id: (scored[class_id][task.headline], counts[class_id]),
  )
  return Constant(task.labels[best], scored[best], labels.size)


def threshold(task: tasks.Task, constants: Mapping[str, Constant]) -> float:
  """Returns what a headline must exceed to be better than a constant answer.

  That is the constant's own score and two standard errors of a sample of this
  size, so that a model that guesses is rarely called better.

  Args:
    task: Says which metric and which dev splits.
    constants: What `constant` says of each dev split, by its name.
  """
  values = []
  for split in task.dev:
    known = constants[split.name]
    score = known.metrics[task.headline]
    error = _standard_error(task, score, known.num_examples)
    values.append(score + _STANDARD_ERRORS * error)
  return sum(values) / len(values)


def _accuracy(task: tasks.Task, labels: Any, predictions: Any) -> float:
  del task
  return float(sklearn_metrics.accuracy_score(labels, predictions))


def _f1(task: tasks.Task, labels: Any, predictions: Any) -> float:
  average = "binary" if len(task.labels) == 2 else "macro"
  return float(
    sklearn_metrics.f1_score(
      labels, predictions, average=average, zero_division=0
    )
  )


def _matthews(task: tasks.Task, labels: Any, predictions: Any) -> float:
  del task
  if _is_constant(labels) or _is_constant(predictions):
    return 0.0
  return float(sklearn_metrics.matthews_corrcoef(labels, predictions))


def _pearson(task: tasks.Task, labels: Any, predictions: Any) -> float:
  del task
  return _correlation(stats.pearsonr, labels, predictions)


def _spearman(task: tasks.Task, labels: Any, predictions: Any) -> float:
  del task
  return _correlation(stats.spearmanr, labels, predictions)


def _correlation(function: Any, labels: Any, predictions: Any) -> float:
  is_defined = (
    np.isfinite(predictions).all()
    and not _is_constant(labels)
    and not _is_constant(predictions)
  )
  if not is_defined:
    return 0.0
  value = float(
    function(labels.astype(np.float64), predictions.astype(np.float64))[0]
  )
  return value if math.isfinite(value) else 0.0


_METRICS = {
  "accuracy": _accuracy,
  "f1": _f1,
  "matthews": _matthews,
  "pearson": _pearson,
  "spearman": _spearman,
}


def _is_constant(values: Any) -> bool:
  return bool((values == values[0]).all())


def _standard_error(task: tasks.Task, score: float, num_examples: int) -> float:
  """Returns the standard error of a constant or independent answer's score."""
  if task.headline == "accuracy":
    return math.sqrt(score * (1 - score) / num_examples)
  if task.headline == "f1":
    # Of one class, always answered: F1 = 2p / (1 + p), p the share of the
    # class; those of the other classes, 0, are averaged with it if they are
    # more than one.
    num_averaged = 1 if len(task.labels) == 2 else len(task.labels)
    of_class = num_averaged * score
    share = of_class / (2 - of_class)
    slope = 2 / (1 + share) ** 2 / num_averaged
    return slope * math.sqrt(share * (1 - share) / num_examples)
  # Any of the correlations between independent values.
  return 1 / math.sqrt(max(1, num_examples - 1))
