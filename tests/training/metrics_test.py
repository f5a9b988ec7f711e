"""A resumed run's metrics are those of a run that was never killed."""

import os
import pathlib

import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.training import metrics


def _open(path: pathlib.Path, step: int) -> metrics.MetricsLog:
  return metrics.MetricsLog(
    jsonl_path=str(path / "stage_1" / "metrics.jsonl"),
    event_dir=str(path / "tensorboard"),
    step=step,
  )


def _write(log: metrics.MetricsLog, *steps: int) -> None:
  for step in steps:
    log.write("train", {"step": step, "loss": step / 2, "name": "x"})


def _events(path: pathlib.Path) -> list[tuple[int, str, float]]:
  """Reads the scalars of all event files: step, tag and value."""
  scalars = []
  for file in sorted(path.glob("tensorboard/events*")):
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
      event = tf.compat.v1.Event.FromString(record)
      for value in event.summary.value:
        scalars.append(
          (event.step, value.tag, float(tf.make_ndarray(value.tensor)))
        )
  return sorted(scalars)


def _records(path: pathlib.Path) -> list[dict]:
  return metrics.read(str(path / "stage_1" / "metrics.jsonl"))


def test_a_record_is_a_line_and_its_numbers_are_scalars(tmp_path):
  log = _open(tmp_path, 0)
  log.write("train", {"step": 3, "loss": 1.5, "num_layers": 2, "name": "x"})
  log.write("eval", {"step": 3, "loss": 2.5})
  log.close()
  lines = (tmp_path / "stage_1" / "metrics.jsonl").read_text().splitlines()
  assert lines == [
    '{"kind": "train", "step": 3, "loss": 1.5, "num_layers": 2, "name": "x"}',
    '{"kind": "eval", "step": 3, "loss": 2.5}',
  ]
  assert _events(tmp_path) == [
    (3, "eval/loss", 2.5),
    (3, "train/loss", 1.5),
    (3, "train/num_layers", 2.0),
  ]


def test_records_can_be_read_while_the_log_is_open(tmp_path):
  log = _open(tmp_path, 0)
  _write(log, 1, 2)
  assert [record["step"] for record in _records(tmp_path)] == [1, 2]
  assert [step for step, *_ in _events(tmp_path)] == [1, 2]
  log.close()


def test_a_log_that_is_opened_again_drops_later_records(tmp_path):
  log = _open(tmp_path, 0)
  _write(log, 1, 4, 6, 8)
  log.close()
  log = _open(tmp_path, 4)
  assert [record["step"] for record in _records(tmp_path)] == [1, 4]
  assert [step for step, *_ in _events(tmp_path)] == [1, 4]
  _write(log, 5, 7)
  log.close()
  assert [record["step"] for record in _records(tmp_path)] == [1, 4, 5, 7]
  assert _events(tmp_path) == [
    (1, "train/loss", 0.5),
    (4, "train/loss", 2.0),
    (5, "train/loss", 2.5),
    (7, "train/loss", 3.5),
  ]
  assert not list(tmp_path.rglob("*.unfinished"))


def test_a_third_start_drops_from_all_files(tmp_path):
  for step, written in ((0, (1, 3)), (3, (4, 6)), (2, (9,))):
    log = _open(tmp_path, step)
    _write(log, *written)
    log.close()
  assert [record["step"] for record in _records(tmp_path)] == [1, 9]
  assert [step for step, *_ in _events(tmp_path)] == [1, 9]


def test_a_log_opened_where_it_ended_keeps_everything(tmp_path):
  log = _open(tmp_path, 0)
  _write(log, 1, 4)
  log.close()
  (file,) = tmp_path.glob("tensorboard/events*")
  before = file.read_bytes()
  _open(tmp_path, 4).close()
  assert file.read_bytes() == before
  assert [record["step"] for record in _records(tmp_path)] == [1, 4]


@pytest.mark.parametrize("num_bytes", [1, 5, 20])
def test_a_line_and_an_event_that_were_cut_off_are_dropped(tmp_path, num_bytes):
  log = _open(tmp_path, 0)
  _write(log, 1, 4, 6)
  log.close()
  (file,) = tmp_path.glob("tensorboard/events*")
  for path in (tmp_path / "stage_1" / "metrics.jsonl", file):
    path.write_bytes(path.read_bytes()[:-num_bytes])
  # As if the run had gone on behind the cut.
  log = _open(tmp_path, 6)
  assert [record["step"] for record in _records(tmp_path)] == [1, 4]
  assert [step for step, *_ in _events(tmp_path)] == [1, 4]
  _write(log, 7)
  log.close()
  assert [record["step"] for record in _records(tmp_path)] == [1, 4, 7]
  assert [step for step, *_ in _events(tmp_path)] == [1, 4, 7]


def test_a_kill_while_events_are_dropped_shows_no_event_twice(
  tmp_path, monkeypatch
):
  log = _open(tmp_path, 0)
  _write(log, 1, 4, 6)
  log.close()
  rename = tf.io.gfile.rename

  def rename_no_events(source, target, overwrite=False):
    if "tfevents" in target:
      raise KeyboardInterrupt
    rename(source, target, overwrite=overwrite)

  with monkeypatch.context() as patch:
    patch.setattr(metrics.tf.io.gfile, "rename", rename_no_events)
    with pytest.raises(KeyboardInterrupt):
      _open(tmp_path, 4)
  # TensorBoard reads whatever has this in its name.
  assert len(list(tmp_path.rglob("*tfevents*"))) == 1
  _open(tmp_path, 4).close()
  assert [step for step, *_ in _events(tmp_path)] == [1, 4]
  assert not list(tmp_path.rglob("*unfinished*"))


def test_reading_stops_at_a_line_that_was_cut_off(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n{"step": 2}\n{"step":')
  assert metrics.read(str(path)) == [{"step": 1}, {"step": 2}]


def test_a_damaged_line_is_an_error_that_names_file_and_line(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
  with pytest.raises(errors.InputError, match=f"{path}:2"):
    metrics.read(str(path))


@pytest.fixture
def now(monkeypatch):
  """Time that stands still until it is set: `now[0] = seconds`."""
  time = [100.0]
  monkeypatch.setattr(metrics.time, "monotonic", lambda: time[0])
  return time


def test_the_clock_counts_from_the_start_of_the_process(now):
  clock = metrics.Clock(started=90.0)
  assert clock.wall_seconds == 10.0
  now[0] = 103.5
  assert clock.wall_seconds == 13.5
  assert clock.train_seconds == 0.0
  clock.add_train_seconds(1.25)
  clock.add_train_seconds(2.0)
  assert clock.train_seconds == 3.25


def test_a_tick_changes_no_reading(now):
  clock = metrics.Clock(started=90.0)
  clock.tick()
  assert clock.wall_seconds == 10.0
  now[0] = 105.0
  clock.tick()
  assert clock.wall_seconds == 15.0


def test_a_clock_goes_on_from_an_earlier_start(now):
  clock = metrics.Clock(started=100.0)
  clock.resume(wall_seconds=50.0, train_seconds=30.0)
  now[0] = 104.0
  clock.add_train_seconds(3.0)
  assert (clock.wall_seconds, clock.train_seconds) == (54.0, 33.0)


def test_a_checkpoint_carries_the_time_up_to_its_tick(now, tmp_path):
  clock = metrics.Clock(started=90.0)
  clock.add_train_seconds(4.0)
  now[0] = 110.0
  clock.tick()
  path = tf.train.Checkpoint(clock=clock).write(os.path.join(tmp_path, "c"))
  now[0] = 500.0  # Lost with what was made behind the checkpoint.

  now[0] = 1000.0
  later = metrics.Clock(started=990.0)
  tf.train.Checkpoint(clock=later).read(path).assert_consumed()
  assert (later.wall_seconds, later.train_seconds) == (30.0, 4.0)


def test_a_stages_own_events_count_from_its_start(tmp_path):
  def open_stage(step):
    return metrics.MetricsLog(
      jsonl_path=str(tmp_path / "stage_2" / "metrics.jsonl"),
      event_dir=str(tmp_path / "tensorboard"),
      step=step,
      stage_event_dir=str(tmp_path / "of_stage" / "tensorboard"),
      stage_start=100,
    )

  log = open_stage(100)
  _write(log, 103, 107)
  log.close()
  # A kill, and on from step 105: what came later is made again.
  log = open_stage(105)
  _write(log, 107)
  log.close()
  assert _events(tmp_path) == [
    (103, "train/loss", 51.5),
    (107, "train/loss", 53.5),
  ]
  assert _events(tmp_path / "of_stage") == [
    (3, "train/loss", 51.5),
    (7, "train/loss", 53.5),
  ]
