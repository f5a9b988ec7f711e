"""Tasks of one's own are made of files and a few values."""

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.glue import own_tasks
from mslt_tf.glue import reading


def write(folder, name, content):
  path = folder / name
  path.write_text(content, encoding="utf-8")
  return str(path)


def read(task, split_name):
  return reading.read(task, task.split(split_name))


def test_single_texts_from_csv(tmp_path):
  train = write(tmp_path, "train.csv", 'kind,body\nham,"a, b"\nspam,c\nham,d\n')
  dev = write(tmp_path, "dev.csv", "body,kind\ne,spam\n")
  task = own_tasks.make(train, dev, name="mail", text="body", label="kind")
  assert task.labels == ("ham", "spam")
  assert task.headline == "accuracy"
  found = read(task, "train")
  assert found.first == ["a, b", "c", "d"]
  np.testing.assert_array_equal(found.labels, [0, 1, 0])
  np.testing.assert_array_equal(read(task, "dev").labels, [1])


def test_pairs_with_numbers_from_json_lines(tmp_path):
  train = write(
    tmp_path,
    "t.jsonl",
    '{"a": "x", "b": "y", "s": 3}\n{"a":"z","b":"","s":-1.5}',
  )
  task = own_tasks.make(
    train, train, text="a", second_text="b", label="s", label_type="regression"
  )
  assert task.is_regression
  assert task.headline == "spearman"
  found = read(task, "dev")
  assert found.second == ["y", ""]
  np.testing.assert_array_equal(found.labels, np.array([3, -1.5], np.float32))


def test_files_without_a_header_have_columns_by_place(tmp_path):
  train = write(tmp_path, "train.tsv", "x\tno\ny\tyes\n")
  task = own_tasks.make(train, train, text="0", label="1", has_header=False)
  assert read(task, "train").first == ["x", "y"]
  assert task.labels == ("no", "yes")


@pytest.mark.parametrize(
  ("written", "expected"),
  [
    (["10", "9", "-1"], ("-1", "9", "10")),
    (["b", "10", "9", "a"], ("10", "9", "a", "b")),
    (["yes", "no", "yes"], ("no", "yes")),
  ],
)
def test_labels_are_those_of_the_training_file_sorted(
  tmp_path, written, expected
):
  rows = "".join(f"t\t{label}\n" for label in written)
  train = write(tmp_path, "train.tsv", "text\tlabel\n" + rows)
  assert own_tasks.make(train, train).labels == expected


def test_given_labels_keep_their_order(tmp_path):
  train = write(tmp_path, "train.tsv", "text\tlabel\na\tno\n")
  task = own_tasks.make(train, train, labels=["yes", "no"], headline="f1")
  np.testing.assert_array_equal(read(task, "train").labels, [1])
  assert task.headline == "f1"


def test_format_can_be_said(tmp_path):
  train = write(tmp_path, "train.data", "text,label\na,1\nb,2\n")
  task = own_tasks.make(train, train, file_format="csv")
  assert read(task, "train").first == ["a", "b"]


def test_a_label_that_only_dev_has_is_named_with_its_line(tmp_path):
  train = write(tmp_path, "train.tsv", "text\tlabel\na\tno\nb\tyes\n")
  dev = write(tmp_path, "dev.tsv", "text\tlabel\na\tno\nb\tmaybe\n")
  with pytest.raises(
    errors.InputError, match=r"dev\.tsv, line 3: label 'maybe' is unknown"
  ):
    read(own_tasks.make(train, dev), "dev")


@pytest.mark.parametrize(
  ("values", "message"),
  [
    (
      {"label_type": "numbers"},
      "label_type='numbers' must be one of classes, ",
    ),
    ({"name": "rte"}, "task=rte is the name of a known task"),
    ({"name": "SST-2"}, "task=SST-2 is the name of a known task"),
    ({"headline": "pearson"}, "headline='pearson' must be one of accuracy, f1"),
    (
      {"label_type": "regression", "labels": ["1", "2"]},
      "labels=1,2 must be empty, as label_type=regression",
    ),
    ({"labels": ["no"]}, "labels=no must be two or more different ones"),
    ({"labels": ["no", "no"]}, "labels=no,no must be two or more different"),
    ({"label": "text"}, "labels=a must be two or more .* those of .*train.tsv"),
    ({"label": "kind"}, "train.tsv, line 1: no column 'kind'; the header has"),
    ({"has_header": False}, "text='text' must be a column's place from 0"),
  ],
)
def test_values_that_do_not_fit_are_named(tmp_path, values, message):
  train = write(tmp_path, "train.tsv", "text\tlabel\na\tno\na\tyes\n")
  with pytest.raises(errors.InputError, match=message):
    own_tasks.make(train, train, **values)


def test_numbers_taken_for_classes_are_told(tmp_path):
  rows = "".join(f"t\t{number}\n" for number in range(1001))
  train = write(tmp_path, "train.tsv", "text\tlabel\n" + rows)
  with pytest.raises(
    errors.InputError, match=r"1,001 different labels; .* label_type=regression"
  ):
    own_tasks.make(train, train)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("missing.tsv", "missing.tsv"),
    ("train.xml", "train.xml does not end in one of .tsv, .txt, .csv"),
  ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, message):
  path = str(tmp_path / name)
  with pytest.raises(errors.InputError, match=message):
    own_tasks.make(path, path)
