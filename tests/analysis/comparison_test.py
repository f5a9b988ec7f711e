"""A comparison says what the runs' own files say."""

import json

import pytest

from mslt_tf import errors
from mslt_tf.analysis import comparison


def write_run(
  folder, name, *, wall, train, mlm_loss, is_finished=True, data="a"
):
  """Writes the files of a run of two stages with three evaluations."""
  workdir = folder / name
  evaluations = {
    1: [(10, 6.9, 2.0), (20, 6.5, 4.0)],
    2: [(30, mlm_loss, wall)],
  }
  for number, records in evaluations.items():
    stage = workdir / f"stage_{number}"
    stage.mkdir(parents=True)
    lines = [
      {"kind": "train", "step": records[0][0], "mlm_loss": 9.0},
      *(
        {"kind": "eval", "step": step, "mlm_loss": loss, "wall_seconds": at}
        for step, loss, at in records
      ),
    ]
    (stage / "metrics.jsonl").write_text(
      "".join(json.dumps(line) + "\n" for line in lines)
    )
  (workdir / "summary.json").write_text(
    json.dumps(
      {
        "is_finished": is_finished,
        "step": 30,
        "wall_seconds": wall,
        "train_seconds": train,
        "eval_mlm_loss": mlm_loss,
        "eval_mlm_accuracy": 0.125,
        "eval_nsp_accuracy": 0.5,
        "unigram_mlm_loss": 6.25,
        "data_fingerprint": data,
        "stages": [{"stage": 1, "step": 20}, {"stage": 2, "step": 30}],
      }
    )
  )
  return str(workdir)


@pytest.fixture
def runs(tmp_path):
  workdirs = [
    write_run(tmp_path, "slow", wall=90.0, train=60.0, mlm_loss=6.0),
    write_run(tmp_path, "fast", wall=60.0, train=24.0, mlm_loss=6.5),
  ]
  return [comparison.read_run(workdir) for workdir in workdirs]


def test_speedups_are_against_the_first_run(runs):
  compared = comparison.compare(runs)
  assert compared["slow"]["speedup_wall"] == 1.0
  assert compared["fast"]["speedup_wall"] == 1.5
  assert compared["fast"]["speedup_train"] == 2.5
  assert compared["fast"]["eval_mlm_loss"] == 6.5
  assert compared["fast"]["steps"] == 30
  assert compared["unigram_mlm_loss"] == 6.25


def test_the_table_has_a_row_a_run_and_says_who_learnt(runs):
  lines = comparison.table(comparison.compare(runs)).splitlines()
  assert lines[1].split() == [
    *["slow", "30", "1:30", "1.00", "1:00", "1.00"],
    *["6.000", "12.5%", "50.0%"],
  ]
  assert lines[2].split()[:6] == ["fast", "30", "1:00", "1.50", "0:24", "2.50"]
  assert lines[-1].endswith("6.250; below it: slow.")


def test_evaluations_of_all_stages_follow_each_other(runs):
  assert [record["step"] for record in runs[0].evaluations] == [10, 20, 30]


def test_the_plot_is_a_picture(runs, tmp_path):
  path = tmp_path / "plot.png"
  comparison.plot(runs, str(path))
  assert path.read_bytes().startswith(b"\x89PNG")


def test_an_unfinished_run_is_refused(tmp_path):
  workdir = write_run(
    tmp_path, "half", wall=1.0, train=1.0, mlm_loss=7.0, is_finished=False
  )
  with pytest.raises(errors.InputError, match="half: the run is not finished"):
    comparison.read_run(workdir)


def test_a_folder_without_a_run_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match="holds no run"):
    comparison.read_run(str(tmp_path))


def test_runs_on_other_data_are_not_compared(runs, tmp_path):
  workdir = write_run(
    tmp_path, "other", wall=1.0, train=1.0, mlm_loss=7.0, data="b"
  )
  with pytest.raises(errors.InputError, match="other was trained on other"):
    comparison.compare([*runs, comparison.read_run(workdir)])
