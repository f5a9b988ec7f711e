"""The reproduction from text to tables."""

import dataclasses
import os
import tempfile
from collections.abc import Sequence

from mslt_tf import errors
from mslt_tf.analysis import curves
from mslt_tf.glue import tables
from mslt_tf.glue import tasks
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
  """All of it, or some of its jobs. The current folder is the project's."""

  def __init__(
    self, places: jobs_lib.Places, *, glue_dir: str, only: Sequence[str]
  ):
    """Decides what is to be done.

    Args:
      places: Where everything goes.
      glue_dir: GLUE's official files; "" leaves them out.
      only: Names of jobs, or of rows of the tables, to do these and what they
        need; none for all.

    Raises:
      errors.InputError: One does not exist, a package is not installed, or a
        folder of GLUE is missing.
    """
    self._places = places
    inputs = texts.inputs(places.reviews)
    for task in jobs_lib.GLUE_TASKS if glue_dir else ():
      name = tasks.get(task).title  # The folder's name, too.
      if not os.path.isdir(os.path.join(glue_dir, name)):
        raise errors.InputError(f"--glue_dir={glue_dir} has no folder {name}.")
    self._jobs = jobs_lib.all_jobs(places, inputs=inputs, glue_dir=glue_dir)
    self._data_job = self._jobs[0]
    if only:
      self._jobs = jobs_lib.select(self._jobs, only)

  def describe(self) -> str:
    """Returns the commands, with a mark at those that are to do.

    The text that the first one reads is written.
    """
    texts.write_reviews(self._places.reviews)
    to_do = queue.to_do(self._jobs)
    return "\n".join(
      f"{'to do' if job in to_do else 'done '}  {queue.describe(job)}"
      for job in self._jobs
    )

  def run(
    self, *, page: str, max_hours: float | None, num_parallel: int = 1
  ) -> str:
    """Runs what is not finished, and returns the tables as text.

    After each job its small files are in the records and the page is anew.

    Args:
      page: A Markdown file whose tables are replaced; "" for none.
      max_hours: After which it stops; run again, it goes on.
      num_parallel: How many jobs run at once, each on its share of the cores.

    Raises:
      errors.InputError: A job fails; the others are done.
    """
    with queue.alone(self._places.workdir) as lock:
      # What is wrong with records or page is told before hours of work.
      self._keep(page)
      texts.write_reviews(self._places.reviews)
      is_finished = queue.run(
        queue.to_do(self._jobs),
        log_dir=self._places.logs,
        lock=lock,
        max_hours=max_hours,
        after_each=lambda: self._keep(page),
        num_parallel=num_parallel,
      )
      text = tables.as_text(list(self._keep(page).values()))
    if not is_finished:
      text += "\n\nNot finished; the same command goes on."
    return text

  def check(self) -> tuple[str, bool]:
    """Repeats the beginnings of two runs, in a fresh folder of the workdir.

    Returns:
      A table, and whether the losses are as recorded.

    Raises:
      errors.InputError: There are no records, or a run fails.
    """
    recorded = check.recorded_losses(
      records_lib.read(self._places.records).runs
    )
    with queue.alone(self._places.workdir) as lock:
      texts.write_reviews(self._places.reviews)
      if not self._data_job.is_finished():
        queue.run(
          [self._data_job],
          log_dir=self._places.logs,
          lock=lock,
          max_hours=None,
          after_each=lambda: None,
        )
      records_lib.check_data(self._places)
      with tempfile.TemporaryDirectory(dir=self._places.workdir) as folder:
        os.symlink(
          os.path.abspath(self._places.data), os.path.join(folder, "data")
        )
        outcomes = check.run(
          jobs_lib.Places(folder, self._places.records),
          recorded,
          log_dir=self._places.logs,
          lock=lock,
        )
    return (
      tables.as_text([check.as_table(outcomes)]),
      all(each.is_repeated for each in outcomes),
    )

  def _keep(self, page: str) -> dict[str, tables.Table]:
    """Brings records and page up to date, and returns the tables."""
    # Before a run on other data is recorded, or even trained.
    records_lib.check_data(self._places)
    records_lib.keep(self._places, self._jobs)
    records = records_lib.read(self._places.records)
    self._draw(records)
    shown = result_tables.all_tables(records)
    if page:
      page_lib.update(page, shown)
    return shown

  def _draw(self, records: result_tables.Records) -> None:
    """Draws the main comparison's losses, of the first seed."""
    runs = [
      dataclasses.replace(run, name=each.title)
      for each in experiments.MAIN
      for run in list(records.finished(each).values())[:1]
    ]
    if runs:
      figure = curves.draw(runs, records.unigram_loss)
      figure.savefig(os.path.join(self._places.records, _CURVES_FILE), dpi=130)
