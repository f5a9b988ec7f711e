"""TensorFlow's profiler on chosen steps of a run."""

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from mslt_tf.training import run_directory


class StepProfile:
  """Watches the updates from a first to a last one, both included.

  TensorBoard shows what it writes with the package tensorboard-plugin-profile.
  """

  def __init__(
    self, steps: Sequence[int], event_dir: str, *, is_written: bool = True
  ):
    """Watches nothing yet.

    Args:
      steps: The first and the last update, counted from 1 over the run; empty
        for none.
      event_dir: Where profiles go.
      is_written: Whether this worker writes.
    """
    self._steps = tuple(steps)
    self._event_dir = event_dir
    self._is_written = is_written

  @property
  def borders(self) -> tuple[int, ...]:
    """Step counts at which training must return to Python."""
    if not self._steps:
      return ()
    first, last = self._steps
    return first - 1, last

  @contextlib.contextmanager
  def around(self, step: int) -> Iterator[None]:
    """Profiles what is done within, if the update after `step` is watched."""
    borders = self.borders
    if not (self._is_written and borders and borders[0] <= step < borders[1]):
      yield
      return
    with run_directory.writing(self._event_dir):
      tf.profiler.experimental.start(self._event_dir)
    try:
      yield
    finally:
      with run_directory.writing(self._event_dir):
        tf.profiler.experimental.stop()
