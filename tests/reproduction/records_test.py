"""Small files of a workdir, kept and read again."""

import json
import os
import pathlib

import pytest

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf.reproduction import experiments
from mslt_tf.reproduction import jobs
from mslt_tf.reproduction import records

BASELINE = experiments.Run(experiments.BASELINE, 0)
MSLT = experiments.Run(experiments.MSLT, 1)
EVALUATION = {
  "kind": "eval",
  "step": 3000,
  "mlm_loss": 5.25,
  "wall_seconds": 90.0,
  "train_seconds": 60.0,
}


@pytest.fixture(autouse=True)
def in_project(monkeypatch):
  monkeypatch.chdir(pathlib.Path(__file__).parents[2])


@pytest.fixture
def places(tmp_path):
  return jobs.Places(str(tmp_path / "work"), str(tmp_path / "records"))


def write(path, content):
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(path, "w", encoding="utf-8") as file:
    file.write(json.dumps(content) + "\n")


def make_run(places, run, *, fingerprint="same", is_finished=True):
  """Writes what a run leaves, in its workdir."""
  text = pathlib.Path(jobs.CONFIG).read_text()
  config = config_lib.load(text, source="test", overrides=run.settings)
  tree = config_lib.to_dict(config)
  tree["data"]["directory"] = places.data
  identity = config_lib.identity(config)
  identity["data"]["fingerprint"] = fingerprint
  folder = places.run(run)
  write(f"{folder}/identity.json", identity)
  write(
    f"{folder}/summary.json",
    {
      "is_finished": is_finished,
      "config": tree,
      "unigram_mlm_loss": 6.5,
      "data_fingerprint": fingerprint,
    },
  )
  for number in range(1, len(config.schedule.stages) + 1):
    write(f"{folder}/stage_{number}/metrics.jsonl", EVALUATION)
    write(f"{folder}/stage_{number}/weights.index", "large")


def all_jobs(places):
  return jobs.all_jobs(places, inputs=["a"], glue_dir="")


def files_in(folder):
  return sorted(
    str(path.relative_to(folder))
    for path in pathlib.Path(folder).rglob("*")
    if path.is_file()
  )


def test_finished_runs_are_kept_without_weights_and_paths(places, tmp_path):
  make_run(places, BASELINE)
  make_run(places, MSLT, is_finished=False)
  records.keep(places, all_jobs(places))
  assert files_in(places.records) == [
    "runs/baseline_0/identity.json",
    "runs/baseline_0/stage_1/metrics.jsonl",
    "runs/baseline_0/stage_2/metrics.jsonl",
    "runs/baseline_0/summary.json",
  ]
  for name in files_in(places.records):
    content = pathlib.Path(places.records, name).read_text()
    assert str(tmp_path) not in content, name
  read = records.read(places.records)
  assert list(read.runs) == ["baseline_0"]
  assert read.runs["baseline_0"].is_finished
  assert read.runs["baseline_0"].problems == ()
  assert read.runs["baseline_0"].evaluations[-1]["mlm_loss"] == 5.25
  assert read.unigram_loss == 6.5


def test_a_new_workdir_takes_nothing_away_from_the_records(places, tmp_path):
  make_run(places, BASELINE)
  stages = [(3, 0, 600), (6, 3, 600), (9, 6, 600), (12, 9, 600), (12, 0, 600)]
  names = ("num_layers", "num_frozen_layers", "num_steps")
  benchmark = {
    "stages": [dict(zip(names, each, strict=True)) for each in stages],
    "batch_size": 64,
    "schedule_speedup": 1.75,
  }
  write(f"{places.workdir}/benchmark_mslt.json", benchmark)
  records.keep(places, all_jobs(places))
  elsewhere = jobs.Places(str(tmp_path / "elsewhere"), places.records)
  make_run(elsewhere, MSLT)
  records.keep(elsewhere, all_jobs(elsewhere))
  read = records.read(places.records)
  assert list(read.runs) == ["baseline_0", "mslt_1"]
  assert read.benchmark == {"mslt": benchmark}
  done = [job.name for job in all_jobs(elsewhere) if job.is_recorded()]
  assert done == ["benchmark_mslt", "baseline_0", "mslt_1"]


def test_of_attention_the_comparisons_are_kept(places):
  write(
    f"{places.workdir}/attention_mslt_0/attention.json",
    {"text": {"source": places.data}, "comparisons": [1, 2]},
  )
  records.keep(places, all_jobs(places))
  assert records.read(places.records).attention == {
    "mslt_0": {"comparisons": [1, 2]}
  }


def test_runs_on_different_data_are_not_mixed(places):
  make_run(places, BASELINE)
  make_run(places, MSLT, fingerprint="other")
  records.keep(places, all_jobs(places))
  with pytest.raises(errors.InputError) as error:
    records.read(places.records)
  assert str(error.value) == (
    f"{places.records}: baseline_0 and mslt_1 are trained on different data;"
    " remove the ones that are old."
  )


def test_a_damaged_record_is_named(places):
  write(f"{places.records}/data.json", {})
  pathlib.Path(places.records, "data.json").write_text("{")
  with pytest.raises(
    errors.InputError, match=rf"^{places.records}/data\.json cannot be read: "
  ):
    records.read(places.records)


def test_records_that_cannot_be_written_are_named(places):
  make_run(places, BASELINE)
  pathlib.Path(places.records).touch()
  with pytest.raises(errors.InputError) as error:
    records.keep(places, all_jobs(places))
  assert str(error.value) == (
    f"--records={places.records} cannot be written: File exists."
  )


def test_without_records_there_is_nothing(places):
  read = records.read(places.records)
  assert (read.runs, read.fine_tuning, read.attention) == ({}, [], {})


def test_a_manifest_that_cannot_be_read_is_told(places):
  os.makedirs(f"{places.data}/manifest.json")
  with pytest.raises(errors.InputError) as error:
    records.check_data(places)
  assert str(error.value) == (
    f"{places.data}/manifest.json cannot be read: Is a directory."
  )
