"""Runs the jobs one after another; what is finished is left as it is."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from absl import logging

from mslt_tf import errors
from mslt_tf.reproduction import jobs as jobs_lib


def run(
  jobs: Sequence[jobs_lib.Job],
  *,
  log_dir: str,
  max_hours: float | None,
  after_each: Callable[[], object],
) -> bool:
  """Runs the jobs that are not finished.

  Args:
    jobs: In their order.
    log_dir: Where each writes what it says, in <name>.log.
    max_hours: After which the job that runs is asked to stop and save; run
      again, it goes on.
    after_each: Called when a job has finished.

  Returns:
    Whether all are finished.

  Raises:
    errors.InputError: A job fails; those before it keep their results.
  """
  deadline = None if max_hours is None else time.time() + 3600 * max_hours
  for number, job in enumerate(jobs, start=1):
    if job.is_finished():
      continue
    seconds = None if deadline is None else deadline - time.time()
    if seconds is not None and seconds <= 0:
      return False
    logging.info("%d of %d: %s", number, len(jobs), job.name)
    start = time.time()
    status = _run(job, os.path.join(log_dir, _file_name(job)), seconds)
    if status == errors.TerminatedError.exit_status:
      return False
    if status or not job.is_finished():
      raise errors.InputError(
        f"{job.name} failed with status {status};"
        f" {os.path.join(log_dir, _file_name(job))} says why. The command was:"
        f" python bin/{' '.join(job.command)}"
      )
    logging.info("%s took %.0f s", job.name, time.time() - start)
    after_each()
  return True


def command_line(job: jobs_lib.Job) -> list[str]:
  """Returns what starts a job; the current folder is the project's."""
  return [sys.executable, os.path.join("bin", job.command[0]), *job.command[1:]]


def _run(job: jobs_lib.Job, log_path: str, seconds: float | None) -> int:
  os.makedirs(os.path.dirname(log_path), exist_ok=True)
  with open(log_path, "a", encoding="utf-8") as log:
    process = subprocess.Popen(
      command_line(job),
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
    )
    try:
      return process.wait(seconds)
    except subprocess.TimeoutExpired:
      process.terminate()
      process.wait()
      return errors.TerminatedError.exit_status
    finally:
      if process.poll() is None:  # This process is ended: by Ctrl-C, say.
        process.terminate()
        process.wait()


def _file_name(job: jobs_lib.Job) -> str:
  return f"{job.name.replace(' ', '_')}.log"
