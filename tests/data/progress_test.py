"""Long work says how far it is; short work says two lines."""

import time

import pytest
from absl import logging

from mslt_tf.data import progress


@pytest.fixture
def lines(monkeypatch) -> list[str]:
  """What is logged."""
  logged: list[str] = []
  monkeypatch.setattr(
    logging, "info", lambda text, *values: logged.append(text % values)
  )
  return logged


@pytest.fixture
def clock(monkeypatch) -> list[float]:
  """The seconds that have passed, as the only item."""
  seconds = [0.0]
  monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
  return seconds


def test_short_work_is_two_lines(lines, clock):
  items = []
  for item in progress.logged("abc", "Reading letters"):
    items.append(item)
    clock[0] += 0.5
  assert items == ["a", "b", "c"]
  assert lines == ["Reading letters ...", "Reading letters: 3 in 1.5 s."]


def test_no_items_are_counted_as_none(lines, clock):
  assert list(progress.logged([], "Reading")) == []
  assert lines == ["Reading ...", "Reading: 0 in 0.0 s."]


def test_long_work_says_how_far_it_is(lines, clock):
  for _ in progress.logged(range(300), "Reading lines"):
    clock[0] += 0.25
  assert lines == [
    "Reading lines ...",
    "Reading lines: 120 so far.",
    "Reading lines: 240 so far.",
    "Reading lines: 300 in 75.0 s.",
  ]


def test_a_known_total_gives_the_time_left(lines, clock):
  for _ in progress.logged(range(12), "Shuffling shards", total=12):
    clock[0] += 31.0
  assert lines[1] == "Shuffling shards: 1 of 12, about 6 min left."
  assert lines[9] == "Shuffling shards: 9 of 12, about 2 min left."
  assert lines[-1] == "Shuffling shards: 12 in 372.0 s."
