"""A stage's file is whole or absent, and a workdir belongs to one run."""

import os
import pathlib

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.training import run_directory

ARRAYS = {
  "bert/encoder/layer_0/output/dense/kernel": np.arange(15, dtype=np.float32)
  .reshape(5, 3),
  "bert/encoder/layer_0/output/dense/kernel/num_updates": np.asarray(
    7, np.int64
  ),
  "cls/predictions/output_bias": np.full([4], 0.5, np.float32),
}  # fmt: skip
RESULTS = {
  "step": 40,
  "batch_index": 41,
  "eval_mlm_loss": 3.25,
  "train_seconds": 0.5,
  "wall_seconds": 1.5,
}


@pytest.fixture
def directory(tmp_path) -> run_directory.RunDirectory:
  return run_directory.RunDirectory(str(tmp_path / "run"))


def _identity(**kwargs):
  identity = {
    "model": {"hidden_size": 12, "activation": "gelu_tanh"},
    "training": {"seed": 3},
    "schedule": {"stages": [_stage(2), _stage(4)]},
  }
  return identity | kwargs


def _stage(num_layers: int, num_steps: int = 20):
  return {
    "num_layers": num_layers,
    "num_steps": num_steps,
    "source_layers": [None] * num_layers,
    "freeze_embeddings": False,
  }


def _finish(directory, number: int) -> None:
  directory.finish_stage(number, arrays=ARRAYS, results=RESULTS)


def test_a_stages_arrays_come_back_as_they_were(directory):
  assert not directory.is_finished(2)
  _finish(directory, 2)
  assert directory.is_finished(2)
  assert not directory.is_finished(1)
  read = directory.read_stage(2)
  assert read.keys() == ARRAYS.keys()
  for name, array in ARRAYS.items():
    assert read[name].dtype == array.dtype
    np.testing.assert_array_equal(read[name], array)
  assert directory.read_results(2) == RESULTS


def test_a_finished_stage_is_these_files_and_has_no_checkpoints(directory):
  checkpoints = pathlib.Path(directory.checkpoints(2))
  checkpoints.mkdir(parents=True)
  (checkpoints / "ckpt-30.index").write_text("")
  _finish(directory, 2)
  assert sorted(os.listdir(directory.stage(2))) == [
    "results.json",
    "weights.data-00000-of-00001",
    "weights.index",
  ]


def test_a_write_that_was_cut_off_leaves_the_stage_unfinished(directory):
  _finish(directory, 1)
  stage = pathlib.Path(directory.stage(1))
  checkpoints = stage / "checkpoints"
  checkpoints.mkdir()
  # What a kill can leave: nothing renamed, or the data alone, and the file that
  # TensorFlow was writing to.
  (stage / "weights.index").rename(checkpoints / "weights.index")
  assert not directory.is_finished(1)
  (stage / "weights.data-00000-of-00001").rename(
    checkpoints / "weights.data-00000-of-00001"
  )
  (checkpoints / "weights.data-00000-of-00001.tempstate17").write_text("half")
  assert not directory.is_finished(1)
  # The next attempt overwrites what is left, and nothing of it stays.
  _finish(directory, 1)
  assert directory.is_finished(1)
  assert sorted(path.name for path in stage.iterdir()) == [
    "results.json",
    "weights.data-00000-of-00001",
    "weights.index",
  ]
  assert directory.read_stage(1).keys() == ARRAYS.keys()


@pytest.mark.parametrize(
  "name", ["weights.data-00000-of-00001", "weights.index"]
)
def test_a_kill_before_either_file_is_named_leaves_the_stage_unfinished(
  directory, monkeypatch, name
):
  rename = run_directory.tf.io.gfile.rename

  def rename_until_killed(source, target, overwrite=False):
    if target.endswith(name):
      raise KeyboardInterrupt
    rename(source, target, overwrite=overwrite)

  with monkeypatch.context() as patch:
    patch.setattr(run_directory.tf.io.gfile, "rename", rename_until_killed)
    with pytest.raises(KeyboardInterrupt):
      _finish(directory, 1)
  assert not directory.is_finished(1)
  _finish(directory, 1)
  assert directory.is_finished(1)


def _cut_in_half(path: pathlib.Path) -> None:
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])


def _turn_a_bit(path: pathlib.Path) -> None:
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


@pytest.mark.parametrize(
  "name, damage",
  [
    ("weights.index", _cut_in_half),
    ("weights.data-00000-of-00001", _cut_in_half),
    ("weights.data-00000-of-00001", _turn_a_bit),
    ("weights.data-00000-of-00001", os.remove),
    ("weights.index", lambda path: path.write_bytes(b"")),
  ],
  ids=["short index", "short data", "a bit", "no data", "empty index"],
)
def test_a_damaged_stage_file_is_an_error_that_names_it(
  directory, name, damage
):
  _finish(directory, 2)
  damage(pathlib.Path(directory.stage(2)) / name)
  with pytest.raises(errors.InputError) as caught:
    directory.read_stage(2)
  assert "stage_2/weights" in str(caught.value)
  assert "cannot be read" in str(caught.value)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", '{"step": ', None])
def test_damaged_or_missing_json_is_an_error_that_names_it(directory, content):
  _finish(directory, 1)
  path = pathlib.Path(directory.stage(1)) / "results.json"
  path.unlink()
  if content is not None:
    path.write_text(content)
  with pytest.raises(errors.InputError, match=r"stage_1/results\.json"):
    directory.read_results(1)


def test_text_is_replaced_as_a_whole(directory):
  directory.write_text("config.yaml", "first, and longer")
  directory.write_text("config.yaml", "second")
  path = pathlib.Path(directory.path)
  assert (path / "config.yaml").read_text() == "second"
  assert os.listdir(path) == ["config.yaml"]


def test_the_same_identity_opens_the_same_run(tmp_path):
  workdir = str(tmp_path / "run")
  first = run_directory.claim(workdir, _identity())
  second = run_directory.claim(workdir, _identity())
  assert first.path == second.path == workdir
  assert first.read_json("identity.json") == _identity()


@pytest.mark.parametrize(
  "change, expected",
  [
    (
      {"model": {"hidden_size": 16, "activation": "gelu_exact"}},
      "model.hidden_size is 12 there and 16 here",
    ),
    ({"training": {"seed": 4}}, "training.seed is 3 there and 4 here"),
    ({"training": {}}, "training.seed is 3 there and None here"),
    ({"data": {"x": 1}}, "data is None there and {'x': 1} here"),
    (
      {"schedule": {"stages": [_stage(2), _stage(4, 25)]}},
      r"schedule.stages\[1\].num_steps is 20 there and 25 here",
    ),
    (
      {"schedule": {"stages": [_stage(2), _stage(3)]}},
      r"schedule.stages\[1\].num_layers is 4 there and 3 here",
    ),
  ],
)
def test_another_identity_is_an_error_that_names_the_first_difference(
  tmp_path, change, expected
):
  workdir = str(tmp_path / "run")
  run_directory.claim(workdir, _identity())
  with pytest.raises(errors.InputError, match=expected) as caught:
    run_directory.claim(workdir, _identity(**change))
  assert workdir in str(caught.value)
  # And the run keeps its identity.
  run_directory.claim(workdir, _identity())


LONGER = {"schedule": {"stages": [_stage(2), _stage(4), _stage(4, 10)]}}


def test_a_finished_run_may_be_continued_with_stages_put_behind_it(tmp_path):
  workdir = str(tmp_path / "run")
  directory = run_directory.claim(workdir, _identity())
  _finish(directory, 1)
  _finish(directory, 2)
  run_directory.claim(workdir, _identity(**LONGER))
  # From now on it is the longer run.
  run_directory.claim(workdir, _identity(**LONGER))
  with pytest.raises(errors.InputError, match=r"schedule\.stages"):
    run_directory.claim(workdir, _identity())


def test_an_unfinished_run_may_not_be_continued(tmp_path):
  workdir = str(tmp_path / "run")
  directory = run_directory.claim(workdir, _identity())
  _finish(directory, 1)
  with pytest.raises(errors.InputError, match=r"schedule\.stages"):
    run_directory.claim(workdir, _identity(**LONGER))


@pytest.mark.parametrize(
  "change, field",
  [
    ({"training": {"seed": 4}}, "training.seed"),
    ({"schedule": {"stages": [_stage(2)]}}, "schedule.stages"),
    (
      {"schedule": {"stages": [_stage(2), _stage(5), _stage(5)]}},
      "schedule.stages",
    ),
  ],
)
def test_a_finished_run_may_not_be_changed_otherwise(tmp_path, change, field):
  workdir = str(tmp_path / "run")
  directory = run_directory.claim(workdir, _identity())
  _finish(directory, 1)
  _finish(directory, 2)
  with pytest.raises(errors.InputError, match=field):
    run_directory.claim(workdir, _identity(**(LONGER | change)))


def test_a_workdir_that_is_a_file_is_an_error(tmp_path):
  path = tmp_path / "run"
  path.write_text("")
  with pytest.raises(errors.InputError, match=f"--workdir={path} is a file"):
    run_directory.claim(str(path), _identity())


def test_a_workdir_has_one_process_at_a_time(tmp_path):
  workdir = str(tmp_path / "new" / "run")
  with (
    run_directory.alone(workdir),
    pytest.raises(
      errors.InputError, match=f"^--workdir={workdir}: another process is at"
    ),
    run_directory.alone(workdir),
  ):
    pass
  with run_directory.alone(workdir):
    assert run_directory.claim(workdir, _identity())


def test_no_process_works_in_a_file(tmp_path):
  path = tmp_path / "run"
  path.write_text("")
  with (
    pytest.raises(errors.InputError, match=f"--workdir={path} is a file"),
    run_directory.alone(str(path)),
  ):
    pass


def test_a_damaged_identity_is_an_error_that_names_it(tmp_path):
  workdir = str(tmp_path / "run")
  run_directory.claim(workdir, _identity())
  (tmp_path / "run" / "identity.json").write_text("{")
  with pytest.raises(errors.InputError, match=r"identity\.json"):
    run_directory.claim(workdir, _identity())


def test_a_place_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  workdir = str(tmp_path / "file" / "run")
  with pytest.raises(errors.InputError, match="cannot be written") as caught:
    run_directory.RunDirectory(workdir).write_json("summary.json", {})
  assert str(caught.value).startswith(f"{workdir}/summary.json cannot")
  assert "\n" not in str(caught.value)


def test_results_without_a_figure_are_named(directory):
  directory.write_json("stage_1/results.json", {**RESULTS, "step": 7})
  assert directory.read_results(1)["step"] == 7
  directory.write_json("stage_1/results.json", {"step": 7})
  with pytest.raises(errors.InputError, match=r"results\.json: batch_index is"):
    directory.read_results(1)


def test_workdirs_are_named_after_their_folders_or_before_them():
  assert run_directory.by_name("--runs", ["runs/mslt/", "other=runs/base"]) == {
    "mslt": "runs/mslt/",
    "other": "runs/base",
  }
  with pytest.raises(errors.InputError, match=r"^--runs: .* both named mslt"):
    run_directory.by_name("--runs", ["a/mslt", "b/mslt/"])
  for nameless in ("=runs/base", "a=", "", "/"):
    with pytest.raises(errors.InputError, match="WORKDIR or NAME=WORKDIR"):
      run_directory.by_name("--runs", [nameless])
