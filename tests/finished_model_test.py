"""The model of a workdir, of a run or imported."""

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
from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import pretrained
from mslt_tf.training import run_directory

CONFIG = """
model:
  vocab_size: 46
  hidden_size: 6
  num_layers: 2
  num_heads: 2
  intermediate_size: 10
  max_positions: 20
  activation: gelu_exact
data: {directory: DATA, sequence_length: 16, max_predictions: 3, batch_size: 4}
schedule: {method: mslt, num_steps: 3, num_growing_stages: 2}
optimizer:
  peak_learning_rate: 0.01
  warmup_steps: 1
  state_at_growth: carried
training: {steps_per_loop: 1, eval_examples: 7}
"""
SIZES = {
  "vocab_size": 46,
  "hidden_size": 6,
  "num_heads": 2,
  "intermediate_size": 10,
  "max_positions": 20,
  "activation": "gelu_exact",
}


@pytest.fixture(scope="module")
def finished(shards, tmp_path_factory):
  """A finished run of 1, 2 and 2 layers; read only."""
  workdir = str(tmp_path_factory.mktemp("runs") / "mslt")
  config = config_lib.load(CONFIG.replace("DATA", shards), source="test")
  assert pretrain.run(config, workdir)
  return workdir


@pytest.fixture
def copied(finished, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(finished, workdir)
  return workdir


@pytest.mark.parametrize(
  ("stage", "num_layers"), [(None, 2), (1, 1), (2, 2), (3, 2)]
)
def test_the_model_of_a_stage_has_that_stages_depth_and_weights(
  finished, vocab_file, stage, num_layers
):
  model = finished_model.load(finished, stage=stage)
  assert model.architecture == architecture_lib.Architecture(
    num_layers=num_layers, **SIZES
  )
  # The moments that the stage's file carries are no weights.
  assert (
    model.weights.keys()
    == architecture_lib.weight_shapes(model.architecture).keys()
  )
  held = run_directory.RunDirectory(finished).read_stage(stage or 3)
  for name, array in model.weights.items():
    np.testing.assert_array_equal(array, held[name])
  assert model.lower_case
  expected = pathlib.Path(vocab_file).read_text()
  assert model.vocabulary.content.decode() == expected


def test_history_tells_the_stages_and_the_data(finished, shards):
  history = finished_model.load(finished, stage=2).history
  assert [record.stage.num_layers for record in history.stages] == [1, 2]
  assert all(
    3 < record.results["eval_mlm_loss"] < 5 for record in history.stages
  )
  expected = {
    "batch size": "4",
    "sequence length": "16",
    "peak learning rate": "0.01",
    "steps planned": "3",
  }
  assert expected.items() <= history.facts.items()
  data = json.loads(pathlib.Path(shards, "manifest.json").read_text())
  assert history.facts["training documents"] == str(
    data["splits"]["train"]["num_documents"]
  )


def test_an_unfinished_run_gives_its_last_finished_stage(copied):
  shutil.rmtree(copied / "stage_3")
  (copied / "stage_2" / "weights.index").unlink()
  found = finished_model.find(str(copied))
  assert (found.number, found.architecture.num_layers) == (1, 1)


def test_the_data_may_be_gone(copied, tmp_path):
  config = (copied / "config.yaml").read_text()
  (copied / "config.yaml").write_text(
    "\n".join(
      f"  directory: {tmp_path}/gone" if "directory:" in line else line
      for line in config.split("\n")
    )
  )
  assert len(finished_model.load(str(copied)).vocabulary) == 46


def test_a_workdir_without_a_vocabulary_takes_a_given_one(copied, vocab_file):
  (copied / "vocab.txt").unlink()
  with pytest.raises(errors.InputError, match=r"vocab\.txt is missing; copy"):
    finished_model.load(str(copied))
  model = finished_model.load(str(copied), vocab_file=vocab_file)
  assert model.vocabulary.tokens[5] == "."


def _remove(name):
  return lambda workdir: (workdir / name).unlink()


def _remove_stages(workdir):
  for path in workdir.glob("stage_*"):
    shutil.rmtree(path)


def _shorten_vocabulary(workdir):
  lines = (workdir / "vocab.txt").read_text().split("\n")[:-2]
  (workdir / "vocab.txt").write_text("\n".join(lines) + "\n")


def _replace(name, old, new):
  def change(workdir):
    text = (workdir / name).read_text()
    assert old in text
    (workdir / name).write_text(text.replace(old, new))

  return change


@pytest.mark.parametrize(
  ("change", "stage", "message"),
  [
    (_remove("config.yaml"), None, "is no workdir of a run: it has no config"),
    (_remove_stages, None, "has no finished stage yet"),
    (_remove("stage_3/weights.index"), 3, "these are: 1, 2."),
    (lambda workdir: None, 4, "stage=4 is not finished"),
    (lambda workdir: None, 0, "stage=0 is not finished"),
    (_shorten_vocabulary, None, "has 45 tokens; the model"),
    (
      _replace("config.yaml", "hidden_size: 6", "hidden_size: 8"),
      1,
      "shape is",
    ),
    (_replace("config.yaml", "hidden_size: 6", "hidden: 6"), 1, "not a field"),
    (
      lambda workdir: (workdir / "config.yaml").write_text("schedule: {}\n"),
      None,
      "model is missing",
    ),
  ],
)
def test_what_is_wrong_is_one_clear_line(copied, change, stage, message):
  change(copied)
  with pytest.raises(errors.InputError) as error:
    finished_model.load(str(copied), stage=stage)
  assert message in str(error.value)
  assert "\n" not in str(error.value)


def test_a_foreign_directory_is_pointed_to_the_import(tmp_path):
  (tmp_path / "config.json").write_text("{}")
  with pytest.raises(errors.InputError, match=r"import_checkpoint\.py makes"):
    finished_model.load(str(tmp_path))


@pytest.fixture
def imported(make_pretrained):
  model = make_pretrained(activation="gelu_exact")
  history = pretrained.History(facts={"Imported from": "somewhere"})
  return dataclasses.replace(model, lower_case=False, history=history)


def test_an_imported_model_is_a_workdir_with_one_finished_stage(
  imported, tmp_path
):
  workdir = str(tmp_path / "imported")
  assert finished_model.save_imported(imported, workdir)
  back = finished_model.load(workdir)
  assert dataclasses.replace(back, weights={}) == dataclasses.replace(
    imported, weights={}
  )
  assert pretrained.fingerprint(back.weights) == pretrained.fingerprint(
    imported.weights
  )
  assert finished_model.find(workdir, stage=1).number == 1


def test_importing_again_does_nothing_and_another_model_is_refused(
  imported, tmp_path
):
  workdir = str(tmp_path)
  assert finished_model.save_imported(imported, workdir)
  elsewhere = pretrained.History(facts={"Imported from": "elsewhere"})
  assert not finished_model.save_imported(
    dataclasses.replace(imported, history=elsewhere), workdir
  )
  changed = {name: array + 1 for name, array in imported.weights.items()}
  with pytest.raises(
    errors.InputError, match=r"another run: imported\.weights"
  ):
    finished_model.save_imported(
      dataclasses.replace(imported, weights=changed), workdir
    )


def test_a_run_is_not_trained_into_an_imported_model(
  imported, shards, tmp_path
):
  finished_model.save_imported(imported, str(tmp_path))
  config = config_lib.load(CONFIG.replace("DATA", shards), source="test")
  with pytest.raises(errors.InputError, match="holds another run: imported is"):
    pretrain.run(config, str(tmp_path))
