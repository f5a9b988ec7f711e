"""The queue with real, small commands."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
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


def make_job(name, *, seconds=0.0, status=0, **options):
  command = ("write.py", f"{name}.json", str(seconds), str(status))
  return jobs.Job(name, command, f"{name}.json", f"kept/{name}.json", **options)


def record(name):
  os.makedirs("kept", exist_ok=True)
  pathlib.Path(f"kept/{name}.json").write_text("{}")


def run(*queued, max_hours=None, num_parallel=1):
  kept = []
  with queue.alone("work") as lock:
    is_finished = queue.run(
      queue.to_do(queued),
      log_dir="logs",
      lock=lock,
      max_hours=max_hours,
      after_each=lambda: kept.append(sorted(pathlib.Path().glob("*.json"))),
      num_parallel=num_parallel,
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


def write_meeting():
  """A binary that ends well once the others of its kind are at work, too."""
  pathlib.Path("bin/meet.py").write_text(
    "import os, sys, time\n"
    "name, *others = sys.argv[1:]\n"
    "with open(name, 'w') as file:\n"
    "  print(*sorted(os.sched_getaffinity(0)), file=file)\n"
    "end = time.time() + 60\n"
    "while not all(map(os.path.exists, others)):\n"
    "  if time.time() > end: sys.exit(1)\n"
    "  time.sleep(0.01)\n"
    "open(name + '.json', 'w').write('{}')\n"
  )


def test_jobs_at_work_at_once_have_different_cores():
  write_meeting()
  cores = os.sched_getaffinity(0)
  is_finished, _ = run(
    jobs.Job("a", ("meet.py", "a", "b"), "a.json", "kept/a.json"),
    jobs.Job("b", ("meet.py", "b", "a"), "b.json", "kept/b.json"),
    num_parallel=2,
  )
  assert is_finished
  a, b = (set(pathlib.Path(name).read_text().split()) for name in "ab")
  assert len(a) == len(b) == len(cores) // 2
  assert not a & b
  assert os.sched_getaffinity(0) == cores


def write_times():
  """A binary that leaves when it began and ended, and its cores."""
  pathlib.Path("bin/times.py").write_text(
    "import json, os, sys, time\n"
    "start = time.time()\n"
    "time.sleep(0.5)\n"
    "cores = len(os.sched_getaffinity(0))\n"
    "with open(sys.argv[1], 'w') as file:\n"
    "  json.dump([start, time.time(), cores], file)\n"
  )


def make_timed_job(name, **options):
  path = f"{name}.json"
  return jobs.Job(name, ("times.py", path), path, f"kept/{path}", **options)


def times(name):
  return json.loads(pathlib.Path(f"{name}.json").read_text())


def test_a_job_that_needs_all_cores_is_at_work_alone_in_its_turn():
  write_times()
  run(
    make_timed_job("a"),
    make_timed_job("b", needs_all_cores=True),
    make_timed_job("c"),
    num_parallel=2,
  )
  a, b, c = map(times, "abc")
  assert a[1] < b[0]
  assert b[1] < c[0]
  num_cores = len(os.sched_getaffinity(0))
  assert [a[2], b[2], c[2]] == [num_cores // 2, num_cores, num_cores // 2]


def test_a_job_waits_for_what_it_needs_while_others_overtake_it():
  write_meeting()
  pathlib.Path("bin/copy.py").write_text(
    "import shutil, sys\nshutil.copy(*sys.argv[1:])\n"
  )
  is_finished, _ = run(
    jobs.Job("a", ("meet.py", "a", "c"), "a.json", "kept/a.json"),
    jobs.Job(
      "b",
      ("copy.py", "a.json", "b.json"),
      "b.json",
      "kept/b.json",
      needs=("a",),
    ),
    jobs.Job("c", ("meet.py", "c", "a"), "c.json", "kept/c.json"),
    num_parallel=2,
  )
  assert is_finished


def test_the_time_limit_asks_all_jobs_to_save():
  queued = [make_job(name, seconds=60) for name in "abc"]
  assert run(*queued, max_hours=4 / 3600, num_parallel=2) == (False, [])
  assert sorted(pathlib.Path().glob("*.saved")) == [
    pathlib.Path("a.json.saved"),
    pathlib.Path("b.json.saved"),
  ]


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


def test_sigterm_asks_all_jobs_at_work_to_save():
  logs = [pathlib.Path(f"logs/{name}.log") for name in "ab"]

  def kill_once_both_are_at_work():
    while not all(log.exists() and log.stat().st_size for log in logs):
      time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)

  killer = threading.Thread(target=kill_once_both_are_at_work, daemon=True)
  killer.start()
  with pytest.raises(errors.TerminatedError, match="run again to continue"):
    run(make_job("a", seconds=60), make_job("b", seconds=60), num_parallel=2)
  assert os.path.exists("a.json.saved")
  assert os.path.exists("b.json.saved")


def test_a_workdir_that_is_a_file_is_named():
  pathlib.Path("work").touch()
  with pytest.raises(errors.InputError) as error, queue.alone("work"):
    pass
  assert str(error.value) == "--workdir=work cannot be written: File exists."
