"""Log lines that tell a person how far a long piece of work is."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from absl import logging

SECONDS_BETWEEN_LINES = 30

Item = TypeVar("Item")


def logged(
  items: Iterable[Item], what: str, *, total: int | None = None
) -> Iterator[Item]:
  """Yields `items`; logs their number now and then, and the time at the end.

  Args:
    items: what is worked on.
    what: the work and what is counted, such as "Reading documents".
    total: how many items there will be, if that is known.
  """
  logging.info("%s ...", what)
  start = last_line = time.monotonic()
  num_done = 0
  for num_done, item in enumerate(items, 1):
    yield item
    now = time.monotonic()
    if now - last_line >= SECONDS_BETWEEN_LINES:
      last_line = now
      logging.info("%s: %s", what, _state(num_done, total, now - start))
  seconds = time.monotonic() - start
  logging.info("%s: %s in %.1f s.", what, f"{num_done:,}", seconds)


def _state(num_done: int, total: int | None, seconds: float) -> str:
  if total is None:
    return f"{num_done:,} so far."
  minutes_left = seconds * (total - num_done) / num_done / 60
  return (
    f"{num_done:,} of {total:,}, about {max(1, round(minutes_left))} min left."
  )
