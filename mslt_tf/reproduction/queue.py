"""Runs the jobs in their order; what is finished is left as it is."""

import contextlib
import dataclasses
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence, Set

from absl import logging

from mslt_tf import errors
from mslt_tf import file_lock
from mslt_tf.reproduction import jobs as jobs_lib

_LOCK_FILE = "lock"
_SECONDS_BETWEEN_LOOKS = 0.1


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
  num_parallel: int = 1,
) -> bool:
  """Runs jobs.

  A job that fails does not keep others from running, unless they need it.

  Args:
    jobs: In their order, such as `to_do` returns.
    log_dir: Where each writes what it says, in <name>.log.
    lock: What `alone` yields.
    max_hours: After which the jobs at work are asked to stop and save; run
      again, they go on.
    after_each: Called when a job has finished.
    num_parallel: How many are at work at once, each on its share of the cores,
      at most as many. One that needs all cores is at work alone.

  Returns:
    Whether all are finished.

  Raises:
    errors.InputError: Jobs failed, a line for all of them.
  """
  deadline = math.inf if max_hours is None else time.time() + 3600 * max_hours
  waiting = list(jobs)
  failures: dict[str, str] = {}
  pool = _Pool(num_parallel, log_dir, lock)
  try:
    while True:
      for job, status, seconds in pool.take_ended():
        if status == 0 and job.is_finished():
          logging.info("%s took %.0f s", job.name, seconds)
          after_each()
          continue
        failures[job.name] = (
          f"{job.name} failed with status {status},"
          f" {pool.log_path(job)} says why, the command was: {describe(job)}"
        )
        logging.error("%s", failures[job.name])
      for job in list(waiting):
        if failed := [name for name in job.needs if name in failures]:
          failures[job.name] = f"{job.name} needs {failed[0]}"
          waiting.remove(job)
      is_finished = not waiting and not pool.jobs
      if is_finished or time.time() >= deadline:
        break
      while ready := pool.next(waiting):
        number = jobs.index(ready) + 1
        logging.info("%d of %d: %s", number, len(jobs), ready.name)
        waiting.remove(ready)
        pool.start(ready)
      time.sleep(_SECONDS_BETWEEN_LOOKS)
  finally:
    pool.stop()
  if failures:
    raise errors.InputError("; ".join(failures.values()))
  return is_finished


@contextlib.contextmanager
def running(
  job: jobs_lib.Job, log_path: str, lock: int
) -> Iterator[subprocess.Popen]:
  """Starts a job; at the end of the context it is asked to stop and save."""
  process = _start(job, log_path, lock)
  try:
    yield process
  finally:
    _stop([process])


def describe(job: jobs_lib.Job) -> str:
  """Returns the command of a job, to be pasted in the project's folder."""
  return f"python bin/{shlex.join(job.command)}"


@dataclasses.dataclass(frozen=True)
class _Active:
  """A job at work; cores are None for all."""

  job: jobs_lib.Job
  cores: Set[int] | None
  process: subprocess.Popen
  start: float


class _Pool:
  """The jobs at work, each on its share of the cores."""

  def __init__(self, num_parallel: int, log_dir: str, lock: int):
    self._shares = _shares_of_cores(num_parallel)
    self._log_dir = log_dir
    self._lock = lock
    self._active: list[_Active] = []

  @property
  def jobs(self) -> list[jobs_lib.Job]:
    return [each.job for each in self._active]

  def log_path(self, job: jobs_lib.Job) -> str:
    return os.path.join(self._log_dir, f"{job.name}.log")

  def next(self, waiting: Sequence[jobs_lib.Job]) -> jobs_lib.Job | None:
    """Returns the one that can start now; None if there is none."""
    is_full = len(self._active) == len(self._shares)
    if is_full or any(job.needs_all_cores for job in self.jobs):
      return None
    unfinished = {job.name for job in (*waiting, *self.jobs)}
    for job in waiting:
      if unfinished.isdisjoint(job.needs):
        # Nothing overtakes one that waits for all cores.
        return None if job.needs_all_cores and self._active else job
    return None

  def start(self, job: jobs_lib.Job) -> None:
    taken = [each.cores for each in self._active]
    free = [share for share in self._shares if share not in taken]
    cores = None if job.needs_all_cores else free[0]
    with _on(cores):
      process = _start(job, self.log_path(job), self._lock)
    self._active.append(_Active(job, cores, process, time.time()))

  def take_ended(self) -> list[tuple[jobs_lib.Job, int, float]]:
    """Returns those that have ended, with exit status and seconds."""
    ended = [each for each in self._active if each.process.poll() is not None]
    self._active = [each for each in self._active if each not in ended]
    return [
      (each.job, each.process.returncode, time.time() - each.start)
      for each in ended
    ]

  def stop(self) -> None:
    """Asks all to stop and save, and waits for it."""
    _stop([each.process for each in self._active])


def _shares_of_cores(num_parallel: int) -> list[Set[int] | None]:
  if num_parallel == 1:
    return [None]
  cores = sorted(os.sched_getaffinity(0))
  size = len(cores) // num_parallel
  return [
    set(cores[number * size : (number + 1) * size])
    for number in range(num_parallel)
  ]


@contextlib.contextmanager
def _on(cores: Set[int] | None) -> Iterator[None]:
  """Keeps the processes that are started inside to some cores."""
  if cores is None:
    yield
    return
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, cores)
  try:
    yield
  finally:
    os.sched_setaffinity(0, before)


def _start(job: jobs_lib.Job, log_path: str, lock: int) -> subprocess.Popen:
  os.makedirs(os.path.dirname(log_path), exist_ok=True)
  with open(log_path, "a", encoding="utf-8") as log:
    return subprocess.Popen(
      [sys.executable, os.path.join("bin", job.command[0]), *job.command[1:]],
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      pass_fds=[lock],
    )


def _stop(processes: Sequence[subprocess.Popen]) -> None:
  """Asks processes to stop and save, and waits for it."""
  for process in processes:
    if process.poll() is None:
      process.terminate()
  for process in processes:
    process.wait()
