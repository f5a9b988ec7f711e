"""A checkpoint is whole or does not count, whatever happened to its files."""

import contextlib
import os
import pathlib
import resource

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.training import checkpoints


class _Run:
  """A kernel [3, 5] and a counter, saved under the counter's value."""

  def __init__(self, directory, *, keep=3, shape=(3, 5), **more):
    self.kernel = tf.Variable(tf.zeros(shape))
    self.step = tf.Variable(0, dtype=tf.int64)
    self.directory = pathlib.Path(directory)
    self.checkpoints = checkpoints.Checkpoints(
      str(directory),
      tf.train.Checkpoint(kernel=self.kernel, step=self.step, **more),
      keep=keep,
    )

  def save(self, *steps: int) -> None:
    for step in steps:
      self.kernel.assign(tf.fill(self.kernel.shape, step + 0.5))
      self.step.assign(step)
      self.checkpoints.save(step)

  def restored_step(self) -> int:
    """Restores the newest good one and checks that it is all of one step."""
    self.checkpoints.restore(self.checkpoints.newest_good())
    step = int(self.step.numpy())
    np.testing.assert_array_equal(
      self.kernel.numpy(), np.full([3, 5], step + 0.5)
    )
    return step

  def names(self) -> set[str]:
    return set(os.listdir(self.directory))


@pytest.fixture
def run(tmp_path) -> _Run:
  return _Run(tmp_path / "checkpoints")


def _files(*steps: int) -> set[str]:
  return {
    f"ckpt-{step}.{suffix}"
    for step in steps
    for suffix in ("index", "data-00000-of-00001")
  }


def test_what_is_saved_comes_back_in_another_process_of_the_run(run):
  run.save(4)
  assert _Run(run.directory).restored_step() == 4
  assert run.names() == _files(4)


def test_a_checkpoint_that_is_not_the_newest_can_be_restored(run):
  run.save(4, 6)
  run.checkpoints.restore(4)
  assert int(run.step.numpy()) == 4


def test_one_that_is_there_is_not_written_over(run):
  run.save(4)
  written = run.directory / "ckpt-4.data-00000-of-00001"
  before = written.stat().st_mtime_ns
  run.checkpoints.save(4)
  again = _Run(run.directory)
  again.restored_step()
  again.checkpoints.save(4)
  assert written.stat().st_mtime_ns == before


def test_data_that_a_kill_left_without_an_index_are_removed(run):
  run.save(4)
  (run.directory / "ckpt-3.data-00000-of-00001").write_bytes(b"left")
  run.save(6)
  assert run.names() == _files(4, 6)


def test_without_checkpoints_there_is_no_newest(run):
  assert run.checkpoints.newest_good() is None
  run.directory.mkdir()
  assert run.checkpoints.newest_good() is None


def test_numbers_are_ordered_as_numbers(tmp_path):
  run = _Run(tmp_path, keep=2)
  run.save(8, 9, 10)
  assert run.checkpoints.newest_good() == 10
  assert run.names() == _files(9, 10)


# A bracket has a meaning in a file pattern.
@pytest.mark.parametrize("name", ["checkpoints", "rate[3]*"])
def test_only_so_many_are_kept(tmp_path, name):
  run = _Run(tmp_path / name, keep=1)
  run.save(2, 3)
  assert run.names() == _files(3)


def _cut_in_half(path: pathlib.Path) -> None:
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])


def _turn_a_byte(path: pathlib.Path) -> None:
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 255
  path.write_bytes(content)


_DATA, _INDEX = "ckpt-{}.data-00000-of-00001", "ckpt-{}.index"
_DAMAGES = pytest.mark.parametrize(
  ("name", "damage"),
  [
    pytest.param(_DATA, _cut_in_half, id="short data"),
    pytest.param(_DATA, _turn_a_byte, id="another byte of data"),
    pytest.param(_DATA, os.remove, id="no data"),
    pytest.param(_INDEX, _cut_in_half, id="short index"),
    pytest.param(_INDEX, _turn_a_byte, id="another byte of index"),
    pytest.param(_INDEX, lambda path: path.write_bytes(b""), id="empty index"),
    pytest.param(
      _INDEX, lambda path: path.write_bytes(b"no index\n" * 50), id="no index"
    ),
  ],
)


@_DAMAGES
def test_the_newest_that_is_whole_is_taken(run, caplog, name, damage):
  run.save(4, 6, 9)
  damage(run.directory / name.format(9))
  assert run.restored_step() == 6
  assert f"{run.directory}/ckpt-9 is damaged, an older" in caplog.text
  assert "ckpt-6 is" not in caplog.text


@_DAMAGES
def test_it_is_an_error_that_none_is_whole(run, name, damage):
  run.save(4, 9)
  for step in (4, 9):
    damage(run.directory / name.format(step))
  with pytest.raises(errors.InputError) as caught:
    run.checkpoints.newest_good()
  assert str(caught.value).startswith(
    f"{run.directory}: none of the 2 checkpoints can be read"
  )
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_ones_do_not_drive_out_those_saved_after(tmp_path, keep):
  _Run(tmp_path).save(4, 8, 9)
  for step in (8, 9):
    _turn_a_byte(tmp_path / _DATA.format(step))
  resumed = _Run(tmp_path, keep=keep)
  assert resumed.restored_step() == 4
  resumed.save(6)
  assert _Run(tmp_path).restored_step() == 6
  assert resumed.names() == _files(*[4, 6][-keep:])


def test_a_damaged_one_is_replaced_when_its_number_comes_again(run):
  run.save(4, 6)
  _turn_a_byte(run.directory / _DATA.format(6))
  assert run.restored_step() == 4
  run.save(6)
  assert run.restored_step() == 6


def test_what_a_kill_left_neither_counts_nor_stands_in_the_way(run):
  run.save(4)
  unfinished = run.directory / "unfinished"
  unfinished.mkdir()
  (unfinished / "ckpt-6.data-00000-of-00001").write_bytes(b"half")
  (unfinished / "ckpt-6.index").write_bytes(b"half")
  (run.directory / _DATA.format(6)).write_bytes(b"without an index")
  assert run.restored_step() == 4
  run.save(6)
  assert run.restored_step() == 6
  assert run.names() == _files(4, 6)


@pytest.mark.parametrize("num_renamed", [0, 1])
def test_a_kill_while_saving_leaves_the_one_before(
  run, monkeypatch, num_renamed
):
  run.save(4)
  rename = tf.io.gfile.rename
  renamed = []

  def rename_until_killed(source, target, overwrite=False):
    if len(renamed) == num_renamed:
      raise KeyboardInterrupt
    renamed.append(target)
    rename(source, target, overwrite=overwrite)

  with monkeypatch.context() as patch:
    patch.setattr(checkpoints.tf.io.gfile, "rename", rename_until_killed)
    with pytest.raises(KeyboardInterrupt):
      run.save(6)
  assert run.restored_step() == 4
  run.save(6)
  assert run.restored_step() == 6
  assert run.names() == _files(4, 6)


@contextlib.contextmanager
def _largest_file(num_bytes: int):
  """Lets no file of this process grow above that, as on a disk that is full."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_be_written_whole_is_one_line(tmp_path):
  ballast = tf.Variable(tf.zeros([50_000]))  # 200,000 bytes.
  run = _Run(tmp_path, ballast=ballast)
  run.save(4)
  with (
    _largest_file(100_000),
    pytest.raises(errors.InputError, match=r"ckpt-6 cannot be wri") as caught,
  ):
    run.save(6)
  assert "\n" not in str(caught.value)
  assert _Run(tmp_path, ballast=ballast).restored_step() == 4
  run.save(9)
  assert run.restored_step() == 9
  assert run.names() == _files(4, 9)


@pytest.mark.parametrize(
  ("owner", "name"),
  [(tf.train.Checkpoint, "write"), (tf.io.gfile, "rename")],
  ids=["the write", "the rename"],
)
def test_an_error_of_the_file_system_leaves_the_one_before(
  run, monkeypatch, owner, name
):
  def refuse(*args, **kwargs):
    raise tf.errors.ResourceExhaustedError(
      None, None, "No space left on device\nand a trace"
    )

  run.save(4)
  with monkeypatch.context() as patch:
    patch.setattr(owner, name, refuse)
    with pytest.raises(errors.InputError) as caught:
      run.save(6)
  assert str(caught.value) == (
    f"{run.directory}/ckpt-6 cannot be written: No space left on device"
  )
  assert run.restored_step() == 4


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  run = _Run(tmp_path / "file" / "checkpoints")
  with pytest.raises(errors.InputError, match="ckpt-4 cannot be") as caught:
    run.save(4)
  assert "\n" not in str(caught.value)


def test_a_variable_that_is_not_in_the_checkpoint_is_an_error(run):
  run.save(4)
  larger = _Run(run.directory, bias=tf.Variable([1.0, 2.0]))
  with pytest.raises(errors.InputError, match="cannot be restored") as caught:
    larger.checkpoints.restore(4)
  assert str(caught.value).startswith(f"{run.directory}/ckpt-4: ")
  assert "\n" not in str(caught.value)


def test_a_variable_of_another_shape_is_an_error(run):
  run.save(4)
  with pytest.raises(errors.InputError, match="cannot be restored") as caught:
    _Run(run.directory, shape=(5, 3)).checkpoints.restore(4)
  assert "\n" not in str(caught.value)


def test_a_checkpoint_that_is_not_there_is_an_error(run):
  run.save(4)
  with pytest.raises(errors.InputError, match="ckpt-6: the checkpoint cannot"):
    run.checkpoints.restore(6)
