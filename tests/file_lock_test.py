"""A second process is kept out until the first one has ended."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from mslt_tf import errors
from mslt_tf import file_lock

HOLD = """
import sys, time
from mslt_tf import file_lock
with file_lock.held(sys.argv[1], busy="busy"):
  print("held", flush=True)
  time.sleep(60)
"""


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path):
  path = str(tmp_path / "lock")
  with (
    file_lock.held(path, busy="first"),
    pytest.raises(errors.BusyError, match=r"^at work$"),
    file_lock.held(path, busy="at work"),
  ):
    pass
  with file_lock.held(path, busy="at work"):
    pass


def test_a_killed_process_holds_nothing(tmp_path):
  path = str(tmp_path / "lock")
  with subprocess.Popen(
    [sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True
  ) as process:
    assert process.stdout.readline() == "held\n"
    with (
      pytest.raises(errors.BusyError, match="busy"),
      file_lock.held(path, busy="busy"),
    ):
      pass
    process.send_signal(signal.SIGKILL)
  with file_lock.held(path, busy="busy"):
    assert os.path.exists(path)


def test_where_there_are_no_locks_work_goes_on(tmp_path, monkeypatch, caplog):
  def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(fcntl, "flock", refuse)
  caplog.set_level("WARNING", logger="absl")
  with file_lock.held(str(tmp_path / "lock"), busy="busy"):
    pass
  assert "no locks here (No locks available)" in caplog.text


def test_a_file_that_cannot_be_made_is_an_os_error(tmp_path):
  with (
    pytest.raises(FileNotFoundError),
    file_lock.held(str(tmp_path / "none/lock"), busy="busy"),
  ):
    pass
