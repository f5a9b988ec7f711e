"""The queue with real, small commands."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from mslt_tf import errors
from mslt_tf.reproduction import jobs
from mslt_tf.reproduction import queue


@pytest.fixture(autouse=True)
def in_project(tmp_path, monkeypatch):
  """A project with one binary: it writes JSON after some time."""
  monkeypatch.chdir(tmp_path)
  pathlib.Path("bin").mkdir()
  pathlib.Path("bin/write.py").write_text(
    "import signal, sys, time\n"
    "path, seconds, status = sys.argv[1:]\n"
    "def stop(*_):\n"
    "  open(path + '.saved', 'w').close()\n"
    "  sys.exit(143)\n"
    "signal.signal(signal.SIGTERM, stop)\n"
    "print('at work', flush=True)\n"
    "time.sleep(float(seconds))\n"
    "if status == '0': open(path, 'w').write('{\"new\": 1}')\n"
    "sys.exit(int(status))\n"
  )


def make_job(name, *, seconds=0.0, status=0, needs=()):
  command = ("write.py", f"{name}.json", str(seconds), str(status))
  return jobs.Job(name, command, f"{name}.json", f"kept/{name}.json", needs)


def record(name):
  os.makedirs("kept", exist_ok=True)
  pathlib.Path(f"kept/{name}.json").write_text("{}")


def run(*queued, max_hours=None):
  kept = []
  with queue.alone("work") as lock:
    is_finished = queue.run(
      queue.to_do(queued),
      log_dir="logs",
      lock=lock,
      max_hours=max_hours,
      after_each=lambda: kept.append(sorted(pathlib.Path().glob("*.json"))),
    )
  return is_finished, [[path.name for path in each] for each in kept]


def test_jobs_run_in_order_and_what_is_finished_is_left_alone():
  pathlib.Path("b.json").write_text('{"left": "alone"}')
  queued = [make_job(name) for name in "abc"]
  assert run(*queued) == (
    True,
    [["a.json", "b.json"], ["a.json", "b.json", "c.json"]],
  )
  assert json.loads(pathlib.Path("b.json").read_text()) == {"left": "alone"}
  assert pathlib.Path("logs/a.log").read_text() == "at work\n"
  assert run(*queued) == (True, [])


def test_what_is_recorded_is_done_again_only_for_a_job_that_needs_its_files():
  for name in ("data", "first", "second"):
    record(name)
  queued = [
    make_job("data"),
    make_job("first", needs=("data",)),
    make_job("second", needs=("data",)),
    make_job("third", needs=("second",)),
  ]
  assert [job.name for job in queue.to_do(queued)] == [
    "data",
    "second",
    "third",
  ]
  assert queue.to_do(queued[:3]) == []


def test_a_job_that_fails_keeps_only_those_from_running_that_need_it():
  queued = [
    make_job("good"),
    make_job("bad", status=3),
    make_job("after_bad", needs=("bad",)),
    make_job("other", needs=("good",)),
  ]
  with pytest.raises(errors.InputError) as error:
    run(*queued)
  assert str(error.value) == (
    "bad failed with status 3, logs/bad.log says why, the command was: python"
    " bin/write.py bad.json 0.0 3; after_bad needs bad"
  )
  assert [job.is_finished() for job in queued] == [True, False, False, True]


def test_a_job_that_leaves_nothing_has_failed():
  job = make_job("empty")
  pathlib.Path("bin/write.py").write_text("")
  with pytest.raises(errors.InputError, match=r"^empty failed with status 0,"):
    run(job)


def test_no_job_begins_after_the_time_is_over():
  assert run(make_job("a"), max_hours=0) == (False, [])
  assert not os.path.exists("logs")


def test_a_failure_is_reported_though_the_time_is_over():
  queued = [make_job("bad", status=3), make_job("slow", seconds=60)]
  with pytest.raises(errors.InputError, match=r"^bad failed with status 3"):
    run(*queued, max_hours=2 / 3600)


def test_the_time_limit_asks_a_job_to_save():
  start = time.monotonic()
  assert run(make_job("slow", seconds=60), max_hours=2 / 3600) == (False, [])
  assert time.monotonic() - start < 30
  assert os.path.exists("slow.json.saved")


def test_two_cannot_work_in_one_place():
  with (
    queue.alone("work"),
    pytest.raises(errors.InputError) as error,
    queue.alone("work"),
  ):
    pass
  assert str(error.value) == (
    "--workdir=work: another bin/reproduce is at work there, or a job that it"
    " began."
  )


def test_a_job_that_outlives_its_parent_keeps_others_out():
  with queue.alone("work") as lock:
    child = subprocess.Popen(
      [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock]
    )
  with (
    pytest.raises(errors.InputError, match="is at work there"),
    queue.alone("work"),
  ):
    pass
  child.communicate(b"\n")
  with queue.alone("work"):
    pass


def test_sigterm_ends_the_job_too():
  with (
    pytest.raises(errors.TerminatedError, match="run again to continue"),
    queue.alone("work") as lock,
    queue.running(make_job("slow", seconds=60), "logs/slow.log", lock),
  ):
    while not os.path.getsize("logs/slow.log"):
      time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)
  assert os.path.exists("slow.json.saved")


def test_a_workdir_that_is_a_file_is_named():
  pathlib.Path("work").touch()
  with pytest.raises(errors.InputError) as error, queue.alone("work"):
    pass
  assert str(error.value) == "--workdir=work cannot be written: File exists."
