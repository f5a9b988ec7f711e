"""Exports are written whole; the binaries as a user meets them."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf import finished_model
from mslt_tf.interop import exports
from mslt_tf.interop import huggingface
from mslt_tf.models import pretrained

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(make_pretrained):
  return make_pretrained()


@pytest.fixture(scope="module")
def workdir(model, tmp_path_factory):
  """Of an imported model; read only."""
  directory = str(tmp_path_factory.mktemp("imported") / "model")
  finished_model.save_imported(model, directory)
  return directory


def run(binary, *arguments):
  return subprocess.run(
    [sys.executable, str(ROOT / "bin" / binary), *arguments],
    capture_output=True,
    text=True,
    cwd=os.path.sep,
    check=False,
  )


def test_an_export_is_written_once(model, tmp_path):
  output_dir = str(tmp_path / "exported")
  assert exports.export(model, output_dir, format_name="tf1")
  assert not exports.export(model, output_dir + "/", format_name="tf1")
  assert [path.name for path in tmp_path.iterdir()] == ["exported"]


def test_an_empty_directory_is_taken(model, tmp_path):
  assert exports.export(model, str(tmp_path), format_name="tf1")


def test_an_export_that_fails_leaves_no_directory(model, tmp_path, monkeypatch):
  def die(model, directory):
    pathlib.Path(directory, "half").touch()
    raise KeyboardInterrupt

  output_dir = tmp_path / "exported"
  monkeypatch.setitem(exports.FORMATS, "dying", die)
  with pytest.raises(KeyboardInterrupt):
    exports.export(model, str(output_dir), format_name="dying")
  assert not output_dir.exists()
  assert exports.export(model, str(output_dir), format_name="tf1")
  assert not (output_dir / "half").exists()
  assert [path.name for path in tmp_path.iterdir()] == ["exported"]


def test_what_is_there_is_not_written_over(model, make_pretrained, tmp_path):
  output_dir = str(tmp_path / "exported")
  exports.export(model, output_dir, format_name="tf1")
  with pytest.raises(
    errors.InputError, match="format is tf1 there and hugging"
  ):
    exports.export(model, output_dir, format_name="huggingface")
  other = make_pretrained(num_layers=2)
  with pytest.raises(errors.InputError, match="weights_sha256 is"):
    exports.export(other, output_dir, format_name="tf1")
  cased = dataclasses.replace(model, lower_case=False)
  with pytest.raises(
    errors.InputError, match="lower_case is True there and False here"
  ):
    exports.export(cased, output_dir, format_name="tf1")
  with pytest.raises(errors.InputError, match="is not empty"):
    exports.export(model, str(tmp_path), format_name="tf1")
  (tmp_path / "file").touch()
  with pytest.raises(errors.InputError, match="is a file"):
    exports.export(model, str(tmp_path / "file"), format_name="tf1")


def test_from_a_workdir_through_both_formats_and_back(model, workdir, tmp_path):
  for name in ("huggingface", "tf1"):
    exported = run(
      "export.py",
      f"--checkpoint={workdir}",
      f"--format={name}",
      f"--output_dir={tmp_path}/{name}",
    )
    assert exported.returncode == 0, exported.stderr
    imported = run(
      "import_checkpoint.py",
      f"--source={tmp_path}/{name}",
      f"--format={name}",
      f"--output_dir={tmp_path}/{name}_back",
    )
    assert imported.returncode == 0, imported.stderr
    assert "freshly" not in imported.stderr
    back = finished_model.load(f"{tmp_path}/{name}_back")
    assert back.architecture == model.architecture
    assert pretrained.fingerprint(back.weights) == pretrained.fingerprint(
      model.weights
    )


def test_missing_heads_are_fresh_and_told(model, tmp_path):
  huggingface.export_encoder(model, str(tmp_path))
  imported = run(
    "import_checkpoint.py",
    f"--source={tmp_path}",
    "--format=huggingface",
    f"--output_dir={tmp_path}/imported",
  )
  assert imported.returncode == 0, imported.stderr
  assert imported.stderr.count("\n") == 1
  assert "checkpoint has none: MLM head, NSP classifier" in imported.stderr
  back = finished_model.load(f"{tmp_path}/imported")
  for name, array in model.weights.items():
    if not name.startswith("cls/"):
      np.testing.assert_array_equal(back.weights[name], array)
  norm = "cls/predictions/transform/LayerNorm"
  np.testing.assert_array_equal(back.weights[f"{norm}/gamma"], np.ones(6))
  np.testing.assert_array_equal(back.weights[f"{norm}/beta"], np.zeros(6))
  kernel = back.weights["cls/predictions/transform/dense/kernel"]
  assert 0 < np.abs(kernel).max() <= 0.04  # Two deviations of 0.02.


def test_the_binary_offers_every_format():
  help_text = run("export.py", "--help").stdout
  assert f"<{'|'.join(exports.FORMATS)}>" in "".join(help_text.split())
  assert "python bin/export.py --checkpoint=" in help_text
  help_text = run("import_checkpoint.py", "--help").stdout
  assert "python bin/import_checkpoint.py --source=" in help_text


@pytest.mark.parametrize(
  ("binary", "arguments", "message"),
  [
    pytest.param(
      "export.py",
      ["--checkpoint=/none", "--format=tf1", "--output_dir=OUT"],
      "/none is no workdir of a run",
      marks=pytest.mark.slow,
    ),
    pytest.param(
      "export.py",
      ["--checkpoint=IN", "--format=tf1", "--output_dir=OUT", "--stage=7"],
      "stage=7 is not finished",
      marks=pytest.mark.slow,
    ),
    (
      "export.py",
      ["--checkpoint=IN", "--format=tf1", "--output_dir=OUT", "--task=rte"],
      "task=rte is of no effect on a model that is not fine-tuned",
    ),
    pytest.param(
      "export.py",
      ["--checkpoint=IN", "--format=tf1", "--output_dir=/proc/none/a"],
      "/proc/none/a cannot be written",
      marks=pytest.mark.slow,
    ),
    (
      "export.py",
      ["--checkpoint=IN", "--format=tf1", "--output_dir="],
      "--output_dir is empty",
    ),
    pytest.param(
      "import_checkpoint.py",
      ["--source=/none", "--format=tf1", "--output_dir=OUT"],
      "/none is neither a directory nor a checkpoint",
      marks=pytest.mark.slow,
    ),
    pytest.param(
      "import_checkpoint.py",
      ["--source=/none", "--format=huggingface", "--output_dir=OUT"],
      "/none/config.json cannot be read",
      marks=pytest.mark.slow,
    ),
    pytest.param(
      "import_checkpoint.py",
      ["--source=IN", "--format=huggingface", "--output_dir=OUT"],
      "config.json cannot be read",
      marks=pytest.mark.slow,
    ),
  ],
)
def test_a_wrong_flag_is_one_line(
  workdir, tmp_path, binary, arguments, message
):
  arguments = [
    each.replace("=IN", f"={workdir}").replace("=OUT", f"={tmp_path}/out")
    for each in arguments
  ]
  ended = run(binary, *arguments)
  assert ended.returncode == 1
  assert ended.stderr.startswith(f"{binary}: error: ")
  assert message in ended.stderr
  assert ended.stderr.count("\n") == 1
  assert not (tmp_path / "out").exists()
