"""A protocol becomes the runs of the paper, under stable names."""

import pytest

from mslt_tf import errors
from mslt_tf.glue import protocol
from mslt_tf.glue import tasks


def test_the_papers_protocol():
  runs = protocol.runs(
    protocol.Protocol(), [tasks.get("mrpc"), tasks.get("rte")], ["mslt", "base"]
  )
  assert len(runs) == 2 * 2 * 4 * 5
  assert {run.learning_rate for run in runs} == {5e-5, 4e-5, 3e-5, 2e-5}
  assert len({run.seed for run in runs}) == 5
  assert {run.batch_size for run in runs} == {32}
  assert {run.warmup_fraction for run in runs} == {0.1}
  assert {(run.task, run.num_epochs) for run in runs} == {
    ("mrpc", 3),
    ("rte", 10),
  }
  assert protocol.Protocol().num_runs == 20


def test_runs_that_can_share_a_compiled_step_stand_together():
  runs = protocol.runs(
    protocol.Protocol(learning_rates=(3e-5, 2e-5), seeds=(7,), num_epochs=2),
    [tasks.get("cola"), tasks.get("stsb")],
    ["a", "b"],
  )
  assert [run.name for run in runs] == [
    "a/cola/rate_3e-05_seed_7",
    "a/cola/rate_2e-05_seed_7",
    "b/cola/rate_3e-05_seed_7",
    "b/cola/rate_2e-05_seed_7",
    "a/stsb/rate_3e-05_seed_7",
    "a/stsb/rate_2e-05_seed_7",
    "b/stsb/rate_3e-05_seed_7",
    "b/stsb/rate_2e-05_seed_7",
  ]
  assert {run.num_epochs for run in runs} == {2}


def test_names_are_all_different():
  runs = protocol.runs(
    protocol.Protocol(learning_rates=(1e-5, 1.0000001e-5), seeds=(1, 11)),
    [tasks.get("cola"), tasks.get("rte")],
    ["a", "b"],
  )
  assert len({run.name for run in runs}) == len(runs) == 16


@pytest.mark.parametrize(
  ("num_examples", "num_steps", "num_warmup_steps"),
  [
    (3668, 345, 35),  # 115 batches an epoch, the last of 20
    (320, 30, 3),
    (1, 3, 1),
  ],
)
def test_steps(num_examples, num_steps, num_warmup_steps):
  run = protocol.Run("mrpc", "a", 3e-5, 1, 3, 32, 0.1)
  assert run.num_steps(num_examples) == num_steps
  assert run.num_warmup_steps(num_examples) == num_warmup_steps


def test_a_single_step_is_no_warmup():
  run = protocol.Run("mrpc", "a", 3e-5, 1, 1, 32, 0.1)
  assert (run.num_steps(32), run.num_warmup_steps(32)) == (1, 0)


def test_warmup_is_not_a_step_longer_by_the_error_of_a_product():
  run = protocol.Run("mrpc", "a", 3e-5, 1, 1, 4, warmup_fraction=0.07)
  assert run.num_steps(400) == 100
  assert run.num_warmup_steps(400) == 7


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"batch_size": 0}, "batch_size=0 must be 1 or more"),
    ({"num_epochs": 0}, "num_epochs=0 must be 1 or more"),
    ({"warmup_fraction": 1.0}, "warmup_fraction=1.0 must be from 0 to below 1"),
    ({"dropout": 1.0}, "dropout=1.0 must be from 0 to below 1"),
    ({"max_sequence_length": 0}, "max_sequence_length=0 must be 1 or more"),
    ({"epsilon": 0.0}, "epsilon=0.0 must be above 0"),
    ({"weight_decay": -0.1}, "weight_decay=-0.1 must be 0 or more"),
    ({"seeds": (-1,)}, "seeds: -1 must be from 0 to below 2147483648"),
    ({"seeds": ()}, r"seeds=\[\] must name at least one"),
    ({"seeds": (1, 2, 1)}, "seeds: 1 is given twice"),
    ({"learning_rates": ()}, r"learning_rates=\[\] must name at least one"),
    ({"learning_rates": (1e-5, 1e-5)}, "learning_rates: 1e-05 is given twice"),
    ({"learning_rates": (0.0,)}, "learning_rates: 0.0 must be above 0"),
  ],
)
def test_a_protocol_that_cannot_be_is_named(fields, message):
  with pytest.raises(errors.InputError, match=message):
    protocol.Protocol(**fields)


@pytest.mark.parametrize(
  ("task_names", "checkpoints", "message"),
  [
    (["cola"], ["a", "a"], "checkpoint: 'a' is given twice"),
    (["cola", "cola"], ["a"], "task: 'cola' is given twice"),
    ([], ["a"], r"task=\[\] must name at least one"),
    (["cola"], ["a/b"], "name='a/b' must consist of letters"),
    (["cola"], [".."], r"name='\.\.' must consist of letters"),
    (["ax"], ["a"], "task=ax has nothing to train on; the model of mnli"),
  ],
)
def test_runs_that_cannot_be_are_named(task_names, checkpoints, message):
  with pytest.raises(errors.InputError, match=message):
    protocol.runs(
      protocol.Protocol(), [tasks.get(name) for name in task_names], checkpoints
    )
