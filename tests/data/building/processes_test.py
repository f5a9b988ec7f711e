"""Tasks on processes: in order, few at a time, and none without its parent."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.building import processes

ROOT = os.path.abspath(os.path.join(__file__, "../../../.."))


def _reversed(text: str) -> tuple[str, int]:
  return text[::-1], os.getpid()


def _fail(kind: str) -> None:
  if kind == "die":
    os.kill(os.getpid(), signal.SIGKILL)
  if kind == "input":
    raise errors.InputError("input='a' is not b.")
  with tf.io.gfile.GFile("/nowhere/at/all", "wb") as file:
    file.write(b"x")


@pytest.fixture(scope="module")
def two():
  with processes.start(2) as started:
    yield started


def test_results_come_in_the_order_of_the_arguments(two):
  arguments = [f"{index}!" for index in range(23)]
  results = list(two.map(_reversed, arguments))
  expected = ["!" + str(index)[::-1] for index in range(23)]
  assert [text for text, _ in results] == expected
  assert os.getpid() not in {pid for _, pid in results}


def test_few_arguments_are_taken_ahead(two):
  taken = []

  def arguments():
    for index in range(50):
      taken.append(index)
      yield str(index)

  results = two.map(_reversed, arguments())
  next(results)
  assert len(taken) <= 5
  assert len(list(results)) == 49


def test_reading_ahead_gives_everything_once(two):
  found = two.read_ahead(
    lambda number: range(number, number + 3), range(0, 30, 3)
  )
  assert sorted(found) == list(range(30))


def test_reading_ahead_fails_as_its_function_does(two):
  def fail(number):
    yield number
    raise errors.InputError("input='a' is not b.")

  with pytest.raises(errors.InputError, match="is not b"):
    list(two.read_ahead(fail, [1]))


def test_who_stops_reading_leaves_no_thread(two):
  before = threading.active_count()
  for _ in two.read_ahead(range, [10**9, 10**9]):
    break
  deadline = time.monotonic() + 30
  while threading.active_count() > before and time.monotonic() < deadline:
    time.sleep(0.05)
  assert threading.active_count() == before


def test_an_error_does_not_wait_for_the_tasks_under_way():
  start = time.monotonic()
  with (
    pytest.raises(errors.InputError, match="is not b"),
    processes.start(2) as started,
  ):
    results = started.map(_first_fails, [0, 600, 600])
    list(results)
  assert time.monotonic() - start < 100


def _first_fails(seconds: float) -> None:
  if not seconds:
    raise errors.InputError("input='a' is not b.")
  time.sleep(seconds)


def test_one_process_is_this_one():
  with processes.start(1) as one:
    assert list(one.map(_reversed, ["ab"])) == [("ba", os.getpid())]


def test_errors_keep_their_message(two):
  with pytest.raises(errors.InputError, match="is not b"):
    list(two.map(_fail, ["input"]))
  with pytest.raises(OSError, match="/nowhere/at/all"):
    list(two.map(_fail, ["write"]))


def test_a_process_that_dies_is_told_of():
  with (
    processes.start(2) as started,
    pytest.raises(errors.LostWorkerError, match="--num_processes"),
  ):
    list(started.map(_fail, ["die"]))


def test_a_process_that_dies_before_the_first_result_is_told_of():
  with processes.start(2) as started:

    def arguments():
      yield "die"
      # Until the pool is known to be broken.
      deadline = time.monotonic() + 60
      while not started._executor._broken and time.monotonic() < deadline:
        time.sleep(0.05)
      yield "input"

    with pytest.raises(errors.LostWorkerError, match="--num_processes"):
      list(started.map(_fail, arguments()))


def test_processes_do_not_outlive_their_parent(tmp_path):
  program = tmp_path / "program.py"
  program.write_text(
    "import os, time\n"
    "from mslt_tf.data.building import processes\n"
    "def task(_):\n"
    "  print(os.getpid(), flush=True)\n"
    "  time.sleep(600)\n"
    "if __name__ == '__main__':\n"
    "  with processes.start(2) as started:\n"
    "    list(started.map(task, [1, 2]))\n"
  )
  parent = subprocess.Popen(
    [sys.executable, str(program)],
    env={**os.environ, "PYTHONPATH": ROOT},
    stdout=subprocess.PIPE,
    text=True,
  )
  children = [int(parent.stdout.readline()) for _ in range(2)]
  parent.kill()
  parent.wait()
  deadline = time.monotonic() + 60
  while any(map(_is_running, children)) and time.monotonic() < deadline:
    time.sleep(0.1)
  assert not any(map(_is_running, children))


def _is_running(pid: int) -> bool:
  try:
    with open(f"/proc/{pid}/stat") as file:
      return file.read().rsplit(")", 1)[1].split()[0] != "Z"
  except FileNotFoundError:
    return False
