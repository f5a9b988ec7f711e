"""Runs that start from a finished run's model, or an imported one."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import finished_model
from mslt_tf import pretrain
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.training import run_directory

CONFIG = """
model:
  vocab_size: 46
  hidden_size: 6
  num_layers: 4
  num_heads: 2
  intermediate_size: 10
  max_positions: 20
  initial_checkpoint: SOURCE
data: {directory: DATA, sequence_length: 16, max_predictions: 3, batch_size: 4}
schedule:
  method: mslt
  num_steps: 4
  num_growing_stages: 2
  retraining_share: 0.5
  initial_layers: 2
optimizer: {peak_learning_rate: 0.01, warmup_steps: 1}
training:
  deterministic: true
  steps_per_loop: 1
  eval_interval: 3
  eval_examples: 7
  checkpoint_interval: 1
"""
LAYER = "bert/encoder/layer_{}/intermediate/dense/kernel"
EMBEDDINGS = "bert/embeddings/word_embeddings"
HEAD = "cls/predictions/transform/dense/kernel"


@pytest.fixture(scope="module", autouse=True)
def determinism():
  """The runs switch it on; other tests draw random numbers without seeds."""
  yield
  from tensorflow.python.framework import config as tf_config

  tf_config.disable_op_determinism()


@pytest.fixture(scope="module")
def source(make_pretrained, tmp_path_factory):
  """An imported model of two layers; read only."""
  workdir = str(tmp_path_factory.mktemp("imported") / "model")
  finished_model.save_imported(make_pretrained(num_layers=2), workdir)
  return workdir


@pytest.fixture
def make_config(shards, source):
  def make(*overrides, source=source):
    text = CONFIG.replace("DATA", shards).replace("SOURCE", source)
    return config_lib.load(text, source="test", overrides=overrides)

  return make


@pytest.fixture(scope="module")
def grown(shards, source, tmp_path_factory):
  """The workdir of an uninterrupted run of MSLT over the model; read only."""
  workdir = str(tmp_path_factory.mktemp("runs") / "grown")
  text = CONFIG.replace("DATA", shards).replace("SOURCE", source)
  assert pretrain.run(config_lib.load(text, source="test"), workdir)
  return workdir


def stage_arrays(workdir, number):
  return run_directory.RunDirectory(workdir).read_stage(number)


def test_mslt_grows_an_imported_model(grown, source):
  imported = finished_model.load(source).weights
  first, last = stage_arrays(grown, 1), stage_arrays(grown, 2)
  assert LAYER.format(3) in first
  # What was there only ran forward; the copies on top and the heads trained.
  for name in (EMBEDDINGS, LAYER.format(0), LAYER.format(1)):
    np.testing.assert_array_equal(first[name], imported[name])
    assert (last[name] != imported[name]).any()
  for layer in (2, 3):
    before = imported[LAYER.format(layer - 2)]
    moved = np.abs(first[LAYER.format(layer)] - before).max()
    assert 0 < moved < 0.1 * np.abs(before).max()
  assert (first[HEAD] != imported[HEAD]).any()
  summary = json.loads(pathlib.Path(grown, "summary.json").read_text())
  assert summary["is_finished"]
  assert [stage["num_layers"] for stage in summary["stages"]] == [4, 4]


def test_the_grown_model_is_a_checkpoint_in_turn(grown):
  model = finished_model.load(grown)
  assert model.architecture.num_layers == 4
  assert model.history.facts["started from"] == "model, 2 layers"


def test_a_run_goes_on_when_its_source_is_gone(make_config, source, tmp_path):
  copy = str(tmp_path / "model")
  shutil.copytree(source, copy)
  workdir = str(tmp_path / "run")
  config = make_config(
    "model.num_layers=2",
    "schedule={method: baseline, num_steps: 2, initial_layers: 2}",
    source=copy,
  )
  assert not pretrain.run(config, workdir, max_seconds=0)
  shutil.rmtree(copy)
  assert pretrain.run(config, workdir)
  for name, array in finished_model.load(source).weights.items():
    np.testing.assert_array_equal(stage_arrays(workdir, 0)[name], array)


@pytest.mark.slow
def test_a_run_goes_on_when_its_source_has_finished_another_stage(
  make_config, grown, tmp_path
):
  source, workdir = tmp_path / "source", str(tmp_path / "run")
  ignored = shutil.ignore_patterns("stage_2")
  shutil.copytree(grown, source, ignore=ignored)
  config = make_config(
    "schedule={method: baseline, num_steps: 2, initial_layers: 4}",
    source=str(source),
  )
  assert not pretrain.run(config, workdir, max_seconds=0)
  shutil.copytree(pathlib.Path(grown, "stage_2"), source / "stage_2")
  assert pretrain.run(config, workdir)
  for name, array in stage_arrays(grown, 1).items():
    np.testing.assert_array_equal(stage_arrays(workdir, 0)[name], array)


def test_a_source_that_was_never_there_is_told(make_config, tmp_path):
  config = make_config(source=f"{tmp_path}/none")
  with pytest.raises(errors.InputError, match=r"checkpoint=.*/none is missing"):
    pretrain.run(config, str(tmp_path / "run"))


def test_a_run_does_not_take_other_initial_weights(
  make_config, make_pretrained, source, grown, tmp_path
):
  model = make_pretrained(num_layers=2)
  changed = {name: array + 1 for name, array in model.weights.items()}
  other = str(tmp_path / "other")
  finished_model.save_imported(
    dataclasses.replace(model, weights=changed), other
  )
  with pytest.raises(errors.InputError, match="initial_weights_sha256 is"):
    pretrain.run(make_config(source=other), grown)
  # The same weights may lie elsewhere.
  moved = str(tmp_path / "moved")
  shutil.copytree(source, moved)
  assert pretrain.run(make_config(source=moved), grown)


def test_a_stage_of_a_run_is_trained_on_longer_sequences(
  grown, shards, tmp_path
):
  """The same depth once more, as for the positions from 128 to 512."""
  config = config_lib.load(
    CONFIG.replace("DATA", shards).replace("SOURCE", grown),
    source="test",
    overrides=[
      "model.initial_stage=1",
      "schedule={method: baseline, num_steps: 2, initial_layers: 4}",
      "optimizer.peak_learning_rate=1e-9",
    ],
  )
  workdir = str(tmp_path / "run")
  assert pretrain.run(config, workdir)
  for name, array in stage_arrays(grown, 1).items():
    np.testing.assert_allclose(
      stage_arrays(workdir, 1)[name], array, atol=1e-6, err_msg=name
    )


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("model.hidden_size=8", "model.hidden_size=8; in model.initial_checkpoint"),
    ("model.num_heads=3", "model.num_heads=3; in model.initial_checkpoint"),
    ("model.activation=gelu_exact", "model.activation=gelu_exact; in"),
    ("model.max_positions=21", "model.max_positions=21; in"),
    (
      "schedule={method: mslt, num_steps: 5, num_growing_stages: 4,"
      " initial_layers: 1}",
      "schedule.initial_layers=1; stage 1 of model.initial_checkpoint",
    ),
    ("model.initial_stage=2", "stage=2 is not finished"),
  ],
)
def test_a_model_of_another_shape_is_refused(
  make_config, tmp_path, override, message
):
  with pytest.raises(errors.InputError) as error:
    pretrain.run(make_config(override), str(tmp_path / "run"))
  assert message in str(error.value)
  assert not (tmp_path / "run").exists()


def test_another_vocabulary_is_refused(make_config, make_pretrained, tmp_path):
  model = make_pretrained(num_layers=2)
  tokens = (*model.vocabulary.tokens[:-1], "other")
  source = str(tmp_path / "source")
  finished_model.save_imported(
    dataclasses.replace(model, vocabulary=vocabulary_lib.Vocabulary(tokens)),
    source,
  )
  with pytest.raises(errors.InputError, match="made with another vocabulary"):
    pretrain.run(make_config(source=source), str(tmp_path / "run"))


def test_another_case_is_refused(make_config, make_pretrained, tmp_path):
  model = dataclasses.replace(make_pretrained(num_layers=2), lower_case=False)
  source = str(tmp_path / "source")
  finished_model.save_imported(model, source)
  with pytest.raises(errors.InputError, match=r"model\.lower_case=True; in"):
    pretrain.run(make_config(source=source), str(tmp_path / "run"))


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("model.initial_checkpoint=null", "schedule.initial_layers=2 needs"),
    (
      "schedule={method: baseline, num_steps: 4}",
      "needs schedule.initial_layers",
    ),
    (
      "schedule={method: baseline, num_steps: 4, initial_layers: 2}",
      "initial_layers=2 must be num_layers=4",
    ),
    (
      "schedule={method: progressive_stacking, num_steps: 40,"
      " initial_layers: 2}",
      "initial_layers is not a field",
    ),
    ("schedule.initial_layers=4", "initial_layers=4 must be a multiple of 2"),
    ("schedule.initial_layers=0", "initial_layers=0 must be a multiple of 2"),
    ("schedule.initial_layers=two", "initial_layers='two' must be a whole"),
  ],
)
def test_a_schedule_that_does_not_fit_is_refused(
  make_config, override, message
):
  with pytest.raises(errors.InputError) as error:
    make_config(override)
  assert message in str(error.value)


def test_a_stage_needs_a_checkpoint(make_config):
  with pytest.raises(errors.InputError, match=r"initial_stage=1 needs"):
    make_config(
      "model.initial_stage=1",
      "model.initial_checkpoint=null",
      "schedule={method: baseline, num_steps: 4}",
    )
