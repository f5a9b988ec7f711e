"""The peer in transformers makes the same runs, from an exported model."""

import dataclasses
import json

import pytest

from mslt_tf import errors
from mslt_tf.benchmark import fine_tuning_peer
from mslt_tf.glue import own_tasks
from mslt_tf.glue import protocol as protocol_lib
from mslt_tf.interop import huggingface

PROTOCOL = protocol_lib.Protocol(
  batch_size=4,
  learning_rates=(0.01,),
  seeds=(1, 2),
  num_epochs=2,
  max_sequence_length=18,
)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
  folder = tmp_path_factory.mktemp("own")
  for name, number in (("train", 9), ("dev", 7)):
    rows = [f"w{index} w3\t{index % 2}" for index in range(number)]
    text = "\n".join(["text\tlabel", *rows]) + "\n"
    (folder / f"{name}.tsv").write_text(text)
  return own_tasks.make(str(folder / "train.tsv"), str(folder / "dev.tsv"))


def test_finished_runs_are_shown_and_not_made_again(
  make_pretrained, task, tmp_path
):
  pytest.importorskip("torch", reason="extra interop")
  pytest.importorskip("transformers", reason="extra interop")

  source = tmp_path / "source"
  source.mkdir()
  huggingface.export(make_pretrained(), str(source))

  def run(protocol):
    return fine_tuning_peer.run(
      [task],
      data_dir="",
      source=str(source),
      protocol=protocol,
      workdir=str(tmp_path / "runs"),
    )

  text = run(PROTOCOL)
  assert text.splitlines()[2].split()[0] == "hugging_face"
  results = sorted((tmp_path / "runs").glob("*/own/*/result.json"))
  assert len(results) == 2
  for path in results:
    metrics = json.loads(path.read_text())["metrics"]["dev"]
    # Of seven examples.
    assert metrics["accuracy"] * 7 == pytest.approx(
      round(metrics["accuracy"] * 7)
    )
  before = [path.stat().st_mtime_ns for path in results]
  assert run(PROTOCOL) == text
  assert [path.stat().st_mtime_ns for path in results] == before
  other = dataclasses.replace(PROTOCOL, dropout=0.3)
  with pytest.raises(errors.InputError, match="holds another run"):
    run(other)
  other = dataclasses.replace(PROTOCOL, precision="mixed_bfloat16")
  with pytest.raises(errors.InputError, match="holds another run"):
    run(other)
