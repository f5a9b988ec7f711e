"""A pipeline of Apache Beam makes the data set that the local build makes."""

import dataclasses
import filecmp
import os
import re
import sys

import pytest

from mslt_tf import errors
from mslt_tf.data.building import beam_build
from mslt_tf.data.building import build


@pytest.fixture
def settings(vocab_file) -> build.Settings:
  return build.Settings(
    vocab_path=vocab_file,
    input_format="sentences",
    sequence_length=29,
    max_predictions=5,
    heldout_fraction=0.2,
    num_shards=3,
    dupe_factor=3,
    seed=7,
  )


def _differences(first, second) -> list[str]:
  names = sorted(os.listdir(first))
  assert names == sorted(os.listdir(second))
  _, different, failed = filecmp.cmpfiles(first, second, names, shallow=False)
  return different + failed


@pytest.mark.parametrize("vocab", ["given", "learnt"])
def test_the_data_set_is_the_same_byte_for_byte(
  text_file, settings, tmp_path, monkeypatch, vocab
):
  # Several groups, of few documents each.
  monkeypatch.setattr("mslt_tf.data.building.partition._GROUP_BYTES", 1)
  monkeypatch.setattr("mslt_tf.data.building.partition._GROUP_DOCUMENTS", 5)
  if vocab == "learnt":
    settings = build.Settings(
      **{**vars(settings), "vocab_path": None, "vocab_size": 70}
    )
  local = build.build([text_file], str(tmp_path / "local"), settings)
  result = beam_build.build(
    [text_file], str(tmp_path / "beam"), settings, runner="DirectRunner"
  )
  assert result.is_new
  assert result.manifest == local.manifest
  assert local.manifest["splits"]["train"]["num_groups"] >= 3
  assert _differences(tmp_path / "local", tmp_path / "beam") == []


@pytest.mark.slow
def test_two_worker_processes_make_the_same(text_file, settings, tmp_path):
  build.build([text_file], str(tmp_path / "local"), settings)
  beam_build.build(
    [text_file],
    str(tmp_path / "beam"),
    settings,
    runner="DirectRunner",
    runner_arguments=[
      "--direct_num_workers=2",
      "--direct_running_mode=multi_processing",
    ],
  )
  assert _differences(tmp_path / "local", tmp_path / "beam") == []


def test_what_is_there_is_not_built_again(text_file, settings, tmp_path):
  build.build([text_file], str(tmp_path), settings)
  result = beam_build.build(
    [text_file], str(tmp_path), settings, runner="DirectRunner"
  )
  assert not result.is_new


def test_an_error_of_a_step_is_one_line_and_leaves_nothing(settings, tmp_path):
  (tmp_path / "three.txt").write_text("w1 .\n\nw2 .\n\nw3 .\n")
  with pytest.raises(
    errors.InputError, match=r"3 different documents"
  ) as error:
    beam_build.build(
      [str(tmp_path / "three.txt")],
      str(tmp_path / "data"),
      settings,
      runner="DirectRunner",
    )
  assert "\n" not in str(error.value)
  assert "while running" not in str(error.value)
  assert os.listdir(tmp_path / "data") == [".lock"]


@pytest.mark.parametrize(
  "runner, message",
  [
    ("Foo", "Unexpected pipeline runner: Foo"),
    ("no.such.Runner", "No module named 'no'"),
    ("os.Runner", "has no attribute"),
    ("DataflowRunner", "apache_beam[gcp]"),
  ],
)
def test_a_runner_that_cannot_be_had_is_one_line_before_the_input_is_read(
  settings, tmp_path, monkeypatch, runner, message
):
  if runner == "DataflowRunner":
    # Where its extra is installed it would ask for a project.
    monkeypatch.setitem(
      sys.modules, "apache_beam.runners.dataflow.dataflow_runner", None
    )
  with pytest.raises(
    errors.InputError,
    match=f"^runner={runner} cannot be had: .*{re.escape(message)}",
  ) as error:
    beam_build.build(
      [str(tmp_path / "none.txt")],
      str(tmp_path / "data"),
      settings,
      runner=runner,
    )
  assert "\n" not in str(error.value)
  assert os.listdir(tmp_path) == []


def test_what_a_step_cannot_read_now_is_one_line(
  text_file, settings, tmp_path, monkeypatch
):
  def fail(*args):
    raise errors.UnavailableError("input='a' cannot be read: Denied")

  monkeypatch.setattr("mslt_tf.data.building.corpus.parse", fail)
  with pytest.raises(
    errors.UnavailableError, match=r"^input='a' cannot be read: Denied$"
  ):
    beam_build.build(
      [text_file], str(tmp_path), settings, runner="DirectRunner"
    )
  # As after every such error, what is unfinished is kept.
  assert sorted(os.listdir(tmp_path)) == [".lock", "unfinished"]


def test_fewer_heldout_examples_than_shards_are_an_error_of_what_was_given(
  text_file, settings, tmp_path
):
  # The training examples are enough, being made thirty times.
  settings = dataclasses.replace(
    settings, num_shards=300, heldout_fraction=0.5, dupe_factor=30
  )
  with pytest.raises(
    errors.InputError,
    match=r"^num_shards=300 and heldout_fraction=0.5 make 150 shards of held-ou"
    r"t data, which is more than the \d+ heldout examples that the input gives",
  ):
    beam_build.build(
      [text_file], str(tmp_path), settings, runner="DirectRunner"
    )
