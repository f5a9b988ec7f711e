"""The tasks are those of GLUE, with its own numbers and names."""

import pytest

from mslt_tf import errors
from mslt_tf.glue import tasks


def test_row_counts_are_those_of_the_official_files():
  counts = {
    (task.name, split.name): split.num_rows
    for task in tasks.GLUE.values()
    for split in task.splits
  }
  assert counts == {
    ("cola", "train"): (8551,),
    ("cola", "dev"): (1043,),
    ("cola", "test"): (1063,),
    ("sst2", "train"): (67349,),
    ("sst2", "dev"): (872,),
    ("sst2", "test"): (1821,),
    ("mrpc", "train"): (3668,),
    ("mrpc", "dev"): (408,),
    ("mrpc", "test"): (1725,),
    ("stsb", "train"): (5749,),
    ("stsb", "dev"): (1500,),
    ("stsb", "test"): (1379,),
    ("qqp", "train"): (363849, 363846),
    ("qqp", "dev"): (40430,),
    ("qqp", "test"): (390965,),
    ("mnli", "train"): (392702,),
    ("mnli", "dev_matched"): (9815,),
    ("mnli", "dev_mismatched"): (9832,),
    ("mnli", "test_matched"): (9796,),
    ("mnli", "test_mismatched"): (9847,),
    ("qnli", "train"): (104743,),
    ("qnli", "dev"): (5463,),
    ("qnli", "test"): (5463,),
    ("rte", "train"): (2490,),
    ("rte", "dev"): (277,),
    ("rte", "test"): (3000,),
    ("wnli", "train"): (635,),
    ("wnli", "dev"): (71,),
    ("wnli", "test"): (146,),
    ("ax", "test"): (1104,),
  }


def test_headline_metrics_and_epochs_follow_the_protocol():
  assert {
    task.name: (task.headline, task.num_epochs) for task in tasks.GLUE.values()
  } == {
    "cola": ("matthews", 3),
    "sst2": ("accuracy", 3),
    "mrpc": ("f1", 3),
    "stsb": ("spearman", 10),
    "qqp": ("f1", 3),
    "mnli": ("accuracy", 3),
    "qnli": ("accuracy", 3),
    "rte": ("accuracy", 10),
    "wnli": ("accuracy", 3),
    "ax": ("matthews", 3),
  }


def test_test_sets_have_no_label_column():
  assert not [
    task.name
    for task in tasks.GLUE.values()
    for split in task.test
    if split.columns.label is not None
  ]


@pytest.mark.parametrize("name", ["SST-2", "sst2", "sst-2", "SST_2"])
def test_a_task_is_found_however_it_is_spelt(name):
  assert tasks.get(name).title == "SST-2"


def test_a_task_without_labels_is_a_regression_of_one_output():
  assert tasks.get("sts-b").is_regression
  assert tasks.get("sts-b").num_outputs == 1
  assert not tasks.get("mnli").is_regression
  assert tasks.get("mnli").num_outputs == 3


def test_a_task_that_does_not_exist_is_named_with_those_that_do():
  with pytest.raises(
    errors.InputError,
    match=r"task='cora' does not exist; .* cola, .* reviews\.",
  ):
    tasks.get("cora")


def test_a_split_that_a_task_has_not_is_named_with_those_it_has():
  with pytest.raises(
    errors.InputError,
    match="split='dev' is none of task mnli; it has train, dev_matched, ",
  ):
    tasks.get("mnli").split("dev")
