"""The queue with real, small commands."""

import json
import os
import pathlib

import pytest

from mslt_tf import errors
from mslt_tf.reproduction import jobs
from mslt_tf.reproduction import queue

CONFIG = "configs/base_mslt.yaml"


@pytest.fixture(autouse=True)
def in_project(monkeypatch):
  monkeypatch.chdir(pathlib.Path(__file__).parents[2])


def make_job(tmp_path, name, config=CONFIG):
  path = str(tmp_path / f"{name}.json")
  flags = (
    f"--config={config}",
    "--cluster=configs/clusters/v100_32.yaml",
    f"--output={path}",
  )
  return jobs.Job(name, ("plan.py", *flags), path)


def run(tmp_path, *queued, max_hours=None):
  kept = []
  is_finished = queue.run(
    queued,
    log_dir=str(tmp_path / "logs"),
    max_hours=max_hours,
    after_each=lambda: kept.append(sorted(os.listdir(tmp_path))),
  )
  return is_finished, kept


def test_jobs_run_in_order_and_what_is_finished_is_left_alone(tmp_path):
  first, second, third = (make_job(tmp_path, name) for name in "abc")
  pathlib.Path(second.result).write_text('{"left": "alone"}')
  is_finished, kept = run(tmp_path, first, second, third)
  assert is_finished
  assert kept == [
    ["a.json", "b.json", "logs"],
    ["a.json", "b.json", "c.json", "logs"],
  ]
  assert json.loads(pathlib.Path(second.result).read_text()) == {
    "left": "alone"
  }
  assert run(tmp_path, first, second, third) == (True, [])


def test_a_job_that_fails_is_named_with_its_log_and_command(tmp_path):
  good, bad = make_job(tmp_path, "good"), make_job(tmp_path, "bad", "absent")
  with pytest.raises(errors.InputError) as error:
    run(tmp_path, good, bad)
  assert str(error.value) == (
    f"bad failed with status 1; {tmp_path}/logs/bad.log says why. The command"
    " was: python bin/plan.py --config=absent"
    " --cluster=configs/clusters/v100_32.yaml"
    f" --output={tmp_path}/bad.json"
  )
  assert good.is_finished()
  log = (tmp_path / "logs/bad.log").read_text()
  assert log == (
    "plan.py: error: --config=absent cannot be read: No such file or"
    " directory.\n"
  )


def test_no_job_begins_after_the_time_is_over(tmp_path):
  assert run(tmp_path, make_job(tmp_path, "a"), max_hours=0) == (False, [])
