"""Rows become examples with the labels of their task."""

import collections

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.glue import examples
from mslt_tf.glue import rows
from mslt_tf.glue import tasks

PAIR = tasks.Columns("first", "second", "label")


def make(task_name, values, columns=PAIR, dropped=None):
  found = [rows.Row(line, each) for line, each in enumerate(values, start=2)]
  return examples.from_rows(
    tasks.get(task_name),
    columns,
    found,
    "f.tsv",
    collections.Counter() if dropped is None else dropped,
  )


def test_class_ids_are_the_places_of_the_labels():
  made = make(
    "mnli",
    [
      ("a", "b", "neutral"),
      ("c", "d", "contradiction"),
      ("", "f", "entailment"),
    ],
  )
  assert made.first == ["a", "c", ""]
  assert made.second == ["b", "d", "f"]
  np.testing.assert_array_equal(made.labels, np.array([1, 2, 0], np.int32))
  assert made.labels.dtype == np.int32
  assert len(made) == 3


def test_labels_of_a_regression_are_numbers():
  made = make("stsb", [("a", "b", "3.800"), ("c", "d", "5")])
  np.testing.assert_array_equal(made.labels, np.array([3.8, 5], np.float32))
  assert made.labels.dtype == np.float32


def test_single_texts_without_labels():
  made = make("sst2", [("a",), ("b",)], tasks.Columns("first"))
  assert made.first == ["a", "b"]
  assert made.second is None
  assert made.labels is None


def test_rows_without_an_agreed_label_are_left_out_and_counted():
  made = make("mnli", [("a", "b", "-"), ("c", "d", "neutral")])
  assert made.first == ["c"]
  assert made.dropped == {"label '-'": 1}


def test_an_unknown_label_is_named_with_its_line():
  with pytest.raises(
    errors.InputError,
    match=r"^f\.tsv, line 3: label 'maybe' is unknown; task rte has"
    r" 'entailment', 'not_entailment'\.$",
  ):
    make("rte", [("a", "b", "entailment"), ("c", "d", "maybe")])


@pytest.mark.parametrize("label", ["5.5", "-0.1", "nan", "", "four"])
def test_a_score_that_is_none_is_named_with_its_line(label):
  with pytest.raises(
    errors.InputError,
    match=rf"^f\.tsv, line 2: label '{label}' must be a number from 0 to 5\.$",
  ):
    make("stsb", [("a", "b", label)])


def test_a_file_without_examples_is_named():
  with pytest.raises(errors.InputError, match=r"^f\.tsv has no examples\.$"):
    make("rte", [])
  with pytest.raises(
    errors.InputError,
    match=r"^f\.tsv has no examples\. 4 rows with too few fields were left",
  ):
    make("qqp", [], dropped=collections.Counter({"too few fields": 4}))


def test_remark_tells_what_differs_from_the_official_file():
  task = tasks.get("wnli")
  made = examples.Examples(["a"] * 70, None, None, {"nothing in them": 1})
  assert examples.count_remark(task, task.split("dev"), made) == (
    "WNLI dev: left out 1 rows with nothing in them. WNLI dev: 70 examples,"
    " where the official file has 71."
  )


@pytest.mark.parametrize("count", [363849, 363846])
def test_no_remark_on_an_official_count(count):
  task = tasks.get("qqp")
  made = examples.Examples(["a"] * count, None, None)
  assert examples.count_remark(task, task.split("train"), made) == ""
