"""Contestants take turns in processes of their own, and tell what is wrong."""

import functools
import os
import pathlib

import pytest

from mslt_tf import errors
from mslt_tf.benchmark import contestants


class _Program(contestants.Peer):
  """Leaves in a file how many steps it was asked for, and by which process."""

  def __init__(self, path: str):
    self._path = path
    super().__init__(self._note)

  def _note(self) -> None:
    with open(self._path, "a") as file:
      file.write(f"{os.getpid()}\n")

  def matmul_flops_per_second(self) -> float:
    return 7.0


def _wrong() -> contestants.Program:
  raise errors.InputError("peers=a needs b.")


def _dead() -> contestants.Program:
  os._exit(3)


def test_each_part_runs_once_at_the_start_and_then_in_turns(tmp_path):
  paths = [str(tmp_path / name) for name in "ab"]
  makers = {path: functools.partial(_Program, path) for path in paths}
  with contestants.start(makers) as started:
    for contestant in started.values():
      assert contestant.parts == ("step",)
      wall, cpu = contestant.run("step", 3)
      assert 0 < wall < 30 and cpu >= 0
      assert contestant.peak_memory_bytes() > 1e6
      assert contestant.matmul_flops_per_second() == 7.0
  notes = [pathlib.Path(path).read_text().split() for path in paths]
  assert [len(note) for note in notes] == [1 + 3, 1 + 3]
  assert len({notes[0][0], notes[1][0], str(os.getpid())}) == 3


def test_what_a_program_wants_is_told():
  with (
    pytest.raises(errors.InputError, match=r"peers=a needs b\."),
    contestants.start({"a": _wrong}),
  ):
    pass


def test_a_process_that_dies_is_named():
  with (
    pytest.raises(errors.InputError, match="peer a ended"),
    contestants.start({"peer a": _dead}),
  ):
    pass
