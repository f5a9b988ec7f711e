"""From workdirs, whole or damaged, to the files of a report."""

import json

import pytest

from mslt_tf import errors
from mslt_tf.analysis import report_files
from mslt_tf.analysis import workdirs

MODEL = {
  "vocab_size": 11,
  "hidden_size": 4,
  "num_layers": 2,
  "intermediate_size": 6,
  "max_positions": 9,
  "num_segments": 2,
}
DATA = {
  "sequence_length": 5,
  "max_predictions": 3,
  "batch_size": 7,
  "fingerprint": "a",
}
STAGES = [
  {"num_layers": 1, "num_steps": 20, "source_layers": [None]},
  {"num_layers": 2, "num_steps": 10, "source_layers": [0, 0]},
]


def write_run(folder, name, *, seconds=60.0, loss=6.0):
  """Writes the files of a finished run of two stages."""
  workdir = folder / name
  for number, steps in {1: (10, 20), 2: (30,)}.items():
    stage = workdir / f"stage_{number}"
    stage.mkdir(parents=True)
    (stage / "metrics.jsonl").write_text(
      "".join(
        json.dumps(
          {
            "kind": "eval",
            "step": step,
            "mlm_loss": loss + (30 - step) / 10,
            "wall_seconds": seconds * step / 30,
            "train_seconds": seconds * step / 60,
          }
        )
        + "\n"
        for step in steps
      )
    )
  schedule = {"stages": STAGES, "initial_layers": None}
  files = {
    "identity.json": {"model": MODEL, "data": DATA, "schedule": schedule},
    "summary.json": {
      "is_finished": True,
      "wall_seconds": seconds,
      "train_seconds": seconds / 2,
      "unigram_mlm_loss": 6.25,
      "versions": {"python": "3.11"},
      "machine": {"cores": 2},
    },
  }
  for file, content in files.items():
    (workdir / file).write_text(json.dumps(content))
  (workdir / "config.yaml").write_text("model: {}\n")
  return str(workdir)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs")
  write_run(folder, "slow", seconds=90.0)
  write_run(folder, "fast")
  return folder


def write(folder, names, output, fine_tuning=()):
  runs = workdirs.read_all([f"{folder}/{name}" for name in names])
  return report_files.write(runs, fine_tuning, str(output))


def test_all_files_are_written(folder, tmp_path):
  text, problems = write(folder, ["slow", "fast"], tmp_path)
  assert problems == []
  assert text.splitlines()[3].split()[:4] == ["fast", "30", "1:00", "1.50"]
  compared = json.loads((tmp_path / "comparison.json").read_text())
  assert list(compared["runs"]) == ["slow", "fast"]
  page = (tmp_path / "report.html").read_text()
  assert page.count("<svg") == 2
  assert page.count("<details>") == 2
  assert len(page) < 1_000_000
  for name in ("comparison", "schedules"):
    png = (tmp_path / f"{name}.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert f"({name}.png)" in (tmp_path / "report.md").read_text()


def test_damaged_runs_are_a_line_each_and_the_rest_is_drawn(folder, tmp_path):
  names = ["no_stage", "torn", "unreadable"]
  for name in names:
    write_run(tmp_path, name)
  (tmp_path / "no_stage/stage_1/metrics.jsonl").unlink()
  # A kill cut the last line off: nothing is wrong.
  with open(tmp_path / "torn/stage_2/metrics.jsonl", "a") as file:
    file.write('{"kind": "ev')
  (tmp_path / "unreadable/summary.json").write_text("{")
  (tmp_path / "empty").mkdir()
  paths = [tmp_path / name for name in [*names, "empty", "nowhere"]]
  runs = workdirs.read_all([f"{folder}/slow", *map(str, paths)])
  _, problems = report_files.write(
    runs, [str(tmp_path / "tuned")], str(tmp_path / "out")
  )
  starts = [
    "no_stage: stage 1 has no metrics; its curve is missing.",
    f"unreadable: {tmp_path}/unreadable/summary.json cannot be read",
    f"empty: {tmp_path}/empty holds no run: no identity.json, no metrics.",
    f"nowhere: {tmp_path}/nowhere is no directory.",
    f"{tmp_path}/tuned/results.json is missing: no result",
  ]
  assert len(problems) == len(starts)
  for problem, start in zip(problems, starts, strict=True):
    assert problem.startswith(start)
  compared = json.loads((tmp_path / "out/comparison.json").read_text())
  assert list(compared["runs"]) == ["slow", *names]
  page = (tmp_path / "out/report.html").read_text()
  assert "empty holds no run" in page


def test_a_report_of_planned_runs_has_no_curves(tmp_path):
  write_run(tmp_path, "planned")
  for name in (
    "summary.json",
    "stage_1/metrics.jsonl",
    "stage_2/metrics.jsonl",
  ):
    (tmp_path / "planned" / name).unlink()
  _, problems = write(tmp_path, ["planned"], tmp_path / "out")
  assert problems == [
    "planned: no evaluation yet; there are no losses to show."
  ]
  assert (tmp_path / "out/schedules.png").exists()
  assert not (tmp_path / "out/comparison.png").exists()


def test_workdirs_of_one_name_need_names(folder):
  twice = [f"{folder}/slow", f"{folder}/slow/"]
  with pytest.raises(errors.InputError, match="are both named slow"):
    workdirs.read_all(twice)
  runs = workdirs.read_all([f"a={folder}/slow", f"b={folder}/slow"])
  assert [run.name for run in runs] == ["a", "b"]


def test_a_workdir_without_a_path_is_refused():
  with pytest.raises(errors.InputError, match="'a=' must be WORKDIR or NAME="):
    workdirs.read_all(["a="])


def test_no_run_at_all_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match="there is no run"):
    workdirs.read_all([str(tmp_path), f"{tmp_path}/nowhere"])
