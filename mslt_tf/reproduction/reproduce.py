"""The reproduction from text to tables."""

import os
import tempfile
from collections.abc import Sequence

from mslt_tf.analysis import curves
from mslt_tf.glue import tables
from mslt_tf.reproduction import check
from mslt_tf.reproduction import experiments
from mslt_tf.reproduction import jobs as jobs_lib
from mslt_tf.reproduction import page as page_lib
from mslt_tf.reproduction import queue
from mslt_tf.reproduction import records as records_lib
from mslt_tf.reproduction import result_tables
from mslt_tf.reproduction import texts

_CURVES_FILE = "curves.png"


class Reproduction:
  """All of it, or some of its runs."""

  def __init__(self, workdir: str, *, glue_dir: str, only: Sequence[str]):
    """Decides what is to be done.

    Args:
      workdir: Where data, runs and logs go; the current folder is the
        project's.
      glue_dir: GLUE's official files; "" leaves them out.
      only: Names of runs; none for all jobs.

    Raises:
      errors.InputError: One does not exist, or a package is not installed.
    """
    self._workdir = jobs_lib.Workdir(workdir)
    inputs = texts.inputs(self._workdir.reviews)
    self._jobs = jobs_lib.all_jobs(
      self._workdir, inputs=inputs, glue_dir=glue_dir
    )
    self._data_job = jobs_lib.data_job(self._workdir, inputs)
    if only:
      self._jobs = [
        self._data_job,
        *(
          jobs_lib.pretraining_job(self._workdir, run)
          for run in experiments.get_runs(only)
        ),
      ]

  @property
  def _log_dir(self) -> str:
    return os.path.join(self._workdir.path, "logs")

  def describe(self) -> str:
    """Returns the commands, with a mark at those that are done."""
    return "\n".join(
      f"{'done' if job.is_finished() else 'to do'}  python bin/"
      + " ".join(_quoted(part) for part in job.command)
      for job in self._jobs
    )

  def run(self, records: str, *, page: str, max_hours: float | None) -> str:
    """Runs what is not finished, and returns the tables as text.

    After each job its small files are in the records and the page is anew.

    Args:
      records: Where they are kept.
      page: A Markdown file whose tables are replaced; "" for none.
      max_hours: After which it stops; run again, it goes on.

    Raises:
      errors.InputError: A job fails.
    """
    texts.write_reviews(self._workdir.reviews)
    is_finished = queue.run(
      self._jobs,
      log_dir=self._log_dir,
      max_hours=max_hours,
      after_each=lambda: self._keep(records, page),
    )
    shown = self._keep(records, page)
    text = tables.as_text(list(shown.values()))
    if not is_finished:
      text += "\n\nNot finished; the same command goes on."
    return text

  def check(self, records: str) -> tuple[str, bool]:
    """Repeats the beginnings of two runs, in a fresh folder of the workdir.

    Returns:
      A table, and whether the losses are as recorded.

    Raises:
      errors.InputError: There are no records, or a run fails.
    """
    recorded = records_lib.read(records).runs
    texts.write_reviews(self._workdir.reviews)
    queue.run(
      [self._data_job],
      log_dir=self._log_dir,
      max_hours=None,
      after_each=lambda: None,
    )
    with tempfile.TemporaryDirectory(dir=self._workdir.path) as folder:
      os.symlink(
        os.path.abspath(self._workdir.data), os.path.join(folder, "data")
      )
      outcomes = check.run(jobs_lib.Workdir(folder), recorded, self._log_dir)
    return (
      tables.as_text([check.as_table(outcomes)]),
      all(each.is_repeated for each in outcomes),
    )

  def _keep(self, records: str, page: str) -> dict[str, tables.Table]:
    """Brings records and page up to date, and returns the tables."""
    records_lib.keep(self._workdir, records)
    read = records_lib.read(records)
    self._draw(read, os.path.join(records, _CURVES_FILE))
    shown = result_tables.all_tables(read)
    if page:
      with open(page, encoding="utf-8") as file:
        text = file.read()
      filled = page_lib.fill(text, shown, source=page)
      with open(page, "w", encoding="utf-8") as file:
        file.write(filled)
    return shown

  def _draw(self, read: result_tables.Records, path: str) -> None:
    """Draws the main comparison's losses, of the first seed."""
    runs = [run for each in experiments.MAIN for run in read.finished(each)[:1]]
    if runs:
      figure = curves.draw(runs, read.unigram_loss)
      figure.savefig(path, dpi=130)


def _quoted(part: str) -> str:
  return f"'{part}'" if set(part) & set("{}[]*, ") else part
