"""Attention of real workdirs, from checkpoint to pictures and JSON."""

import json
import shutil

import numpy as np
import pytest

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import finished_model
from mslt_tf import pretrain
from mslt_tf.analysis import attention_report

CONFIG = """
model:
  vocab_size: 46
  hidden_size: 6
  num_layers: 4
  num_heads: 2
  intermediate_size: 10
  max_positions: 20
data: {directory: DATA, sequence_length: 16, max_predictions: 3, batch_size: 4}
schedule: {method: mslt, num_steps: 6, num_growing_stages: 2}
optimizer: {peak_learning_rate: 0.01, warmup_steps: 1}
training: {steps_per_loop: 2, eval_examples: 4}
"""
SENTENCE = "w1 w2 w3 ."
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory):
  """MSLT of 2, 4 and again 4 layers; read only."""
  folder = tmp_path_factory.mktemp("runs")
  shutil.copytree(shards, folder / "data")
  text = CONFIG.replace("DATA", str(folder / "data"))
  config = config_lib.load(text, source="test")
  assert pretrain.run(config, str(folder / "mslt"))
  return folder / "mslt"


@pytest.fixture
def imported(make_pretrained, tmp_path):
  finished_model.save_imported(make_pretrained(), str(tmp_path / "imported"))
  return tmp_path / "imported"


def write(workdir, output_dir, **fields):
  request = attention_report.Request(checkpoint=str(workdir), **fields)
  return attention_report.write(request, str(output_dir))


def names_in(folder):
  return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def compared(run, tmp_path_factory):
  folder = tmp_path_factory.mktemp("compared")
  lines = write(
    run, folder, sentence=SENTENCE, is_compared=True, num_examples=11
  )
  return folder, lines, json.loads((folder / "attention.json").read_text())


def test_all_figures_are_written(compared):
  folder, lines, _ = compared
  pictures = [
    "attention.png",
    "attention_divergence.png",
    "attention_shares.png",
    "attention_stages.png",
  ]
  assert names_in(folder) == sorted(["attention.json", *pictures])
  for name in pictures:
    assert (folder / name).read_bytes().startswith(PNG)
    assert str(folder / name) in lines


def test_frozen_layers_have_the_same_maps_until_retraining(compared):
  *_, figures = compared
  growth, retraining = figures["comparisons"]
  assert (growth["before"], growth["after"]) == (1, 2)
  assert growth["same_layer"] == [
    {"layer": 0, "heads": [0, 0]},
    {"layer": 1, "heads": [0, 0]},
  ]
  assert (retraining["before"], retraining["after"]) == (2, 3)
  assert [each["layer"] for each in retraining["same_layer"]] == [0, 1, 2, 3]
  for each in retraining["same_layer"]:
    assert all(0 < value < 1 for value in each["heads"])


def test_copies_are_held_against_what_they_are_copies_of(compared):
  *_, figures = compared
  for comparison in figures["comparisons"]:
    for kind in ("grown", "copies"):
      pairs = [(each["copy_of"], each["layer"]) for each in comparison[kind]]
      assert pairs == [(0, 2), (1, 3)]
      heads = np.array([each["heads"] for each in comparison[kind]])
      assert heads.shape == (2, 2)
      assert (heads > 0).all()


def test_shares_are_of_every_stage_and_add_up_to_1_at_most(compared):
  *_, figures = compared
  assert [each["stage"] for each in figures["stages"]] == [1, 2, 3]
  for stage, depth in zip(figures["stages"], (2, 4, 4), strict=True):
    shares = np.array([stage["shares"][name] for name in stage["shares"]])
    assert shares.shape == (3, depth, 2)
    assert (shares > 0).all()
    assert (shares.sum(0) < 1).all()
  assert figures["text"]["examples"] == 11


def test_the_main_numbers_are_told(compared):
  _, lines, figures = compared
  other_heads = figures["comparisons"][0]["other_heads"]
  (line,) = [line for line in lines if line.startswith("stages 1 and 2")]
  assert "the same layer 0.0000" in line
  assert f"two heads of a layer {other_heads:.4f}" in line


def test_a_stage_is_drawn_alone_with_chosen_heads(run, tmp_path):
  write(
    run,
    tmp_path,
    stage=1,
    sentence=SENTENCE,
    second_sentence="w9",
    heads=((1, 0),),
    num_examples=0,
    image_format="svg",
  )
  assert names_in(tmp_path) == ["attention.svg", "attention_heads.svg"]


def test_an_imported_model_is_drawn_and_measured_on_text(imported, tmp_path):
  write(imported, tmp_path / "drawn", sentence=SENTENCE)
  assert names_in(tmp_path / "drawn") == ["attention.png"]
  # Of the characters that end lines in Unicode only this one does here.
  text = "w1 w2\u2028w4\nw3\n"
  write(imported, tmp_path / "measured", text=text, text_source="x")
  figures = json.loads((tmp_path / "measured/attention.json").read_text())
  assert figures["text"] == {"source": "x", "examples": 2, "queries": 8}
  assert figures["comparisons"] == []


def test_a_stage_that_is_missing_is_left_out_and_told(run, tmp_path):
  shutil.copytree(run, tmp_path / "run")
  shutil.rmtree(tmp_path / "run/stage_2")
  # What it was is still in the config, its results are not needed.
  (tmp_path / "run/stage_2").mkdir()
  shutil.copy(run / "stage_2/results.json", tmp_path / "run/stage_2")
  lines = write(
    tmp_path / "run", tmp_path / "out", is_compared=True, num_examples=3
  )
  assert lines[0] == "stage 2 is missing, left out"
  figures = json.loads((tmp_path / "out/attention.json").read_text())
  (comparison,) = figures["comparisons"]
  assert (comparison["before"], comparison["after"]) == (1, 3)


def test_data_that_are_gone_are_told_with_what_takes_their_place(run, tmp_path):
  shutil.copytree(run, tmp_path / "run")
  path = tmp_path / "run/config.yaml"
  path.write_text(path.read_text().replace(f"{run.parent}/data", "/no/data"))
  with pytest.raises(errors.InputError, match=r"/no/data.*--input=FILE"):
    write(tmp_path / "run", tmp_path / "out", sentence=SENTENCE)
  write(tmp_path / "run", tmp_path / "out", text="w1\n")
  assert "attention.json" in names_in(tmp_path / "out")


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"stage": 4}, "stage=4 is not finished"),
    ({"stage": 1, "is_compared": True}, "needs two finished stages"),
    ({"sentence": "w1 " * 19}, "20 positions"),
    ({"sentence": "w1", "heads": ((4, 0),)}, "heads=4:0 is not in the model"),
    ({"sentence": "w1", "heads": ((0, 2),)}, "heads=0:2 is not in the model"),
    ({"num_examples": 0}, "nothing to draw"),
    ({"second_sentence": "w1"}, "--second_sentence needs --sentence"),
    ({"heads": ((0, 0),)}, "--heads needs --sentence"),
  ],
)
def test_what_cannot_be_drawn_is_told(run, tmp_path, fields, message):
  with pytest.raises(errors.InputError, match=message):
    write(run, tmp_path / "out", **fields)
  assert not (tmp_path / "out").exists()


def test_an_imported_model_has_no_stage_to_compare(imported, tmp_path):
  with pytest.raises(errors.InputError, match="imported model"):
    write(imported, tmp_path / "out", sentence="w1", is_compared=True)


def test_heads_are_a_layer_and_a_head():
  assert attention_report.parse_heads(["0:3", "11:5"]) == ((0, 3), (11, 5))
  for wrong in ("3", "0:", "a:1", "0:-1"):
    with pytest.raises(errors.InputError, match=f"heads={wrong}"):
      attention_report.parse_heads([wrong])
