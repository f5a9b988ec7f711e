"""Runs the jobs one after another; what is finished is left as it is."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from absl import logging

from mslt_tf import errors
from mslt_tf import file_lock
from mslt_tf.reproduction import jobs as jobs_lib

_LOCK_FILE = "lock"


@contextlib.contextmanager
def alone(workdir: str) -> Iterator[int]:
  """Keeps others out of a workdir; SIGTERM raises `TerminatedError` in it.

  Yields:
    The lock, a file descriptor that jobs inherit: one that outlives a killed
    parent keeps others out until it has ended, too.

  Raises:
    errors.BusyError: Someone is at work there.
    errors.InputError: It cannot be made.
  """

  def stop(*_) -> None:
    raise errors.TerminatedError("stopped by SIGTERM; run again to continue.")

  with contextlib.ExitStack() as stack:
    try:
      os.makedirs(workdir, exist_ok=True)
      lock = stack.enter_context(
        file_lock.held(
          os.path.join(workdir, _LOCK_FILE),
          busy=f"--workdir={workdir}: another bin/reproduce is at work there,"
          " or a job that it began.",
        )
      )
    except OSError as error:
      raise errors.InputError(
        f"--workdir={workdir} cannot be written: {error.strerror}."
      ) from error
    handler_before = signal.signal(signal.SIGTERM, stop)
    stack.callback(signal.signal, signal.SIGTERM, handler_before)
    yield lock


def to_do(jobs: Sequence[jobs_lib.Job]) -> list[jobs_lib.Job]:
  """Returns the jobs that have to run, in their order.

  What is recorded need not be done again, unless another job needs its files.
  """
  found: list[jobs_lib.Job] = []
  needed: set[str] = set()
  for job in reversed(jobs):
    if job.is_finished() or (job.is_recorded() and job.name not in needed):
      continue
    needed.update(job.needs)
    found.append(job)
  return found[::-1]


def run(
  jobs: Sequence[jobs_lib.Job],
  *,
  log_dir: str,
  lock: int,
  max_hours: float | None,
  after_each: Callable[[], object],
) -> bool:
  """Runs jobs.

  A job that fails does not keep others from running, unless they need it.

  Args:
    jobs: In their order, such as `to_do` returns.
    log_dir: Where each writes what it says, in <name>.log.
    lock: What `alone` yields.
    max_hours: After which the job that runs is asked to stop and save; run
      again, it goes on.
    after_each: Called when a job has finished.

  Returns:
    Whether all are finished.

  Raises:
    errors.InputError: Jobs failed, a line for all of them.
  """
  deadline = None if max_hours is None else time.time() + 3600 * max_hours
  failures: dict[str, str] = {}
  is_in_time = True
  for number, job in enumerate(jobs, start=1):
    failed = [name for name in job.needs if name in failures]
    if failed:
      failures[job.name] = f"{job.name} needs {failed[0]}"
      continue
    seconds = None if deadline is None else deadline - time.time()
    if seconds is not None and seconds <= 0:
      is_in_time = False
      break
    logging.info("%d of %d: %s", number, len(jobs), job.name)
    start = time.time()
    log_path = os.path.join(log_dir, f"{job.name}.log")
    with running(job, log_path, lock) as process:
      try:
        status = process.wait(seconds)
      except subprocess.TimeoutExpired:
        is_in_time = False
        break
    if status or not job.is_finished():
      failures[job.name] = (
        f"{job.name} failed with status {status}, {log_path} says why, the"
        f" command was: {describe(job)}"
      )
      logging.error("%s", failures[job.name])
      continue
    logging.info("%s took %.0f s", job.name, time.time() - start)
    after_each()
  if failures:
    raise errors.InputError("; ".join(failures.values()))
  return is_in_time


@contextlib.contextmanager
def running(
  job: jobs_lib.Job, log_path: str, lock: int
) -> Iterator[subprocess.Popen]:
  """Starts a job; at the end of the context it is asked to stop and save."""
  os.makedirs(os.path.dirname(log_path), exist_ok=True)
  with open(log_path, "a", encoding="utf-8") as log:
    process = subprocess.Popen(
      [
        sys.executable,
        os.path.join("bin", job.command[0]),
        *job.command[1:],
      ],
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      pass_fds=[lock],
    )
    try:
      yield process
    finally:
      if process.poll() is None:
        process.terminate()
        process.wait()


def describe(job: jobs_lib.Job) -> str:
  """Returns the command of a job, to be pasted in the project's folder."""
  return f"python bin/{shlex.join(job.command)}"
