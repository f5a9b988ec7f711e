"""A run ends with the weights it would have had anyway."""

import functools
import json
import math
import os
import shutil
import signal
import time
import weakref

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import frozen_states
from mslt_tf import pretrain
from mslt_tf import stage_training
from mslt_tf.data.reading import input_pipeline
from mslt_tf.training import loop
from mslt_tf.training import loss_scale
from mslt_tf.training import metrics
from mslt_tf.training import run_directory

CONFIG = """
model:
  vocab_size: 46
  hidden_size: 6
  num_layers: 2
  num_heads: 2
  intermediate_size: 10
  max_positions: 20
data: {directory: DATA, sequence_length: 16, max_predictions: 3, batch_size: 4}
schedule: {method: mslt, num_steps: 10, num_growing_stages: 2}
optimizer: {peak_learning_rate: 0.01, warmup_steps: 1}
training:
  deterministic: true
  steps_per_loop: 1
  eval_interval: 3
  eval_batch_size: 7
  checkpoint_interval: 2
"""
EMBEDDINGS = "bert/embeddings/word_embeddings"


def shallow(num_steps, **schedule):
  """Overrides for a run where depth does not matter: most of it is tracing."""
  schedule = {"method": "baseline", "num_steps": num_steps, **schedule}
  return "model.num_layers=1", f"schedule={json.dumps(schedule)}"


class KilledError(Exception):
  pass


@pytest.fixture(scope="module", autouse=True)
def determinism():
  """The runs switch it on; other tests draw random numbers without seeds."""
  yield
  from tensorflow.python.framework import config as tf_config

  tf_config.disable_op_determinism()


@pytest.fixture
def make_config(shards):
  def make(*overrides):
    return config_lib.load(
      CONFIG.replace("DATA", shards), source="test", overrides=overrides
    )

  return make


@pytest.fixture(scope="module")
def finished(shards, tmp_path_factory):
  """The workdir of an uninterrupted MSLT run; read only."""
  workdir = str(tmp_path_factory.mktemp("runs") / "mslt")
  config = config_lib.load(CONFIG.replace("DATA", shards), source="test")
  assert pretrain.run(config, workdir)
  return workdir


def kill_at(monkeypatch, step, *, kind="train"):
  """Kills the run when it logs this step, before the log is written."""
  write = metrics.MetricsLog.write

  def write_or_die(self, record_kind, record):
    if record["step"] == step and record_kind == kind:
      raise KilledError
    write(self, record_kind, record)

  monkeypatch.setattr(metrics.MetricsLog, "write", write_or_die)


def wait_until(condition):
  """Another thread takes a signal."""
  end = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.01)


def copy_stages(finished, workdir, *, last):
  """Makes a workdir of a run that ended at a stage border."""
  later = [f"stage_{number}" for number in range(last + 1, 4)]
  ignored = shutil.ignore_patterns("summary.json", *later)
  shutil.copytree(finished, workdir, ignore=ignored)


def stage_arrays(workdir, number):
  return run_directory.RunDirectory(workdir).read_stage(number)


def assert_same_arrays(first, second):
  assert first.keys() == second.keys()
  for name, array in first.items():
    np.testing.assert_array_equal(array, second[name], err_msg=name)


def records_of(workdir, num_stages=3):
  directory = run_directory.RunDirectory(workdir)
  return [
    record
    for number in range(1, num_stages + 1)
    for record in metrics.read(directory.metrics(number))
  ]


def event_steps(workdir, tag):
  """Returns the steps at which TensorBoard shows a scalar."""
  steps = []
  pattern = os.path.join(workdir, "tensorboard", "events*")
  for path in tf.io.gfile.glob(pattern):
    for serialized in tf.data.TFRecordDataset(path).as_numpy_iterator():
      event = tf.compat.v1.Event.FromString(serialized)
      steps += [event.step for value in event.summary.value if value.tag == tag]
  return sorted(steps)


def test_a_run_makes_every_step_once_and_says_so(finished):
  records = records_of(finished)
  train = [record for record in records if record["kind"] == "train"]
  assert [record["step"] for record in train] == list(range(1, 11))
  assert [record["stage"] for record in train] == [1] * 4 + [2] * 4 + [3] * 2
  assert [record["num_layers"] for record in train] == [1] * 4 + [2] * 6
  evaluated = [record["step"] for record in records if record["kind"] == "eval"]
  # Every three steps and at the end of every stage.
  assert evaluated == [3, 4, 6, 8, 9, 10]
  assert event_steps(finished, "train/mlm_loss") == list(range(1, 11))
  assert event_steps(finished, "eval/mlm_loss") == [3, 4, 6, 8, 9, 10]


def test_the_rate_follows_one_curve_over_the_run(finished):
  rates = [
    record["learning_rate"]
    for record in records_of(finished)
    if record["kind"] == "train"
  ]
  # Update n is made at step n - 1: one step of warmup, then down to 0 at 10.
  expected = [0.0, *(0.01 * (1 - step / 10) for step in range(1, 10))]
  np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_the_summary_tells_where_the_run_stands(finished):
  summary = run_directory.RunDirectory(finished).read_json("summary.json")
  assert summary["is_finished"] is True
  assert summary["step"] == summary["num_steps"] == 10
  assert [stage["num_layers"] for stage in summary["stages"]] == [1, 2, 2]
  assert 0 < summary["train_seconds"] < summary["wall_seconds"]
  last = [r for r in records_of(finished) if r["kind"] == "eval"][-1]
  for name in ("mlm_loss", "mlm_accuracy", "nsp_accuracy"):
    assert summary[f"eval_{name}"] == last[name]
  assert summary["config"]["schedule"]["stages"][1]["num_frozen_layers"] == 1


def test_growth_copies_and_freezing_holds_across_stages(finished):
  first, second = stage_arrays(finished, 1), stage_arrays(finished, 2)
  frozen = [
    name
    for name in first
    if name.startswith(("bert/embeddings/", "bert/encoder/layer_0/"))
  ]
  assert len(frozen) == 5 + 16
  for name in frozen:
    np.testing.assert_array_equal(first[name], second[name], err_msg=name)
  for name in set(second) - set(frozen):
    if "layer_1" in name:
      before = first[name.replace("layer_1", "layer_0")]
    else:
      before = first[name]
    assert not np.array_equal(before, second[name]), name
  third = stage_arrays(finished, 3)
  for name in third:
    assert not np.array_equal(second[name], third[name]), name


def test_the_word_table_may_go_on_above_frozen_layers(make_config, tmp_path):
  schedule = (
    "schedule={method: mslt, num_steps: 4, num_growing_stages: 2,"
    " retraining_share: 0, freeze_embeddings: false, new_layers: random}"
  )
  assert pretrain.run(make_config(schedule), str(tmp_path))
  before, after = stage_arrays(str(tmp_path), 1), stage_arrays(str(tmp_path), 2)
  changed = {
    name for name in before if not np.array_equal(before[name], after[name])
  }
  assert EMBEDDINGS in changed
  assert not any("layer_0" in name for name in changed)
  assert not any("/embeddings/" in name for name in changed - {EMBEDDINGS})


def test_a_finished_run_is_left_alone(finished, make_config):
  before = os.stat(os.path.join(finished, "stage_3", "weights.index"))
  assert pretrain.run(make_config(), finished)
  after = os.stat(os.path.join(finished, "stage_3", "weights.index"))
  assert after.st_mtime_ns == before.st_mtime_ns
  assert len([r for r in records_of(finished) if r["kind"] == "train"]) == 10


def test_a_run_that_is_stopped_again_and_again_ends_with_the_same_weights(
  finished, make_config, tmp_path, monkeypatch
):
  workdir = str(tmp_path / "stopped")
  read_summary = functools.partial(
    run_directory.RunDirectory(workdir).read_json, "summary.json"
  )
  assert not pretrain.run(make_config(), workdir, max_seconds=1e-9)
  assert read_summary()["is_finished"] is False
  for step, kind, num_finished in (
    (4, "eval", 0),  # At a stage border, before its file.
    (5, "train", 1),  # In the first step of a grown stage.
    (8, "train", 1),  # Within a stage, two steps after a checkpoint.
  ):
    with monkeypatch.context() as patch:
      kill_at(patch, step, kind=kind)
      with pytest.raises(KilledError):
        pretrain.run(make_config(), workdir)
    assert len(read_summary()["stages"]) == num_finished
  assert pretrain.run(make_config(), workdir)
  assert_same_arrays(stage_arrays(workdir, 3), stage_arrays(finished, 3))
  train = [r["step"] for r in records_of(workdir) if r["kind"] == "train"]
  # The first step after a restart stands alone, as compiling is timed there.
  assert sorted(set(train)) == train == list(range(1, 11))
  assert event_steps(workdir, "train/mlm_loss") == train
  assert event_steps(workdir, "eval/mlm_loss") == [3, 4, 6, 8, 9, 10]


def test_a_run_is_alone_in_its_workdir(finished, make_config):
  with (
    run_directory.alone(finished),
    pytest.raises(errors.BusyError, match="another process is at work there"),
  ):
    pretrain.run(make_config(), finished)


def test_the_time_limit_holds_while_frozen_states_are_computed(
  make_config, tmp_path, monkeypatch
):
  answers = []

  def prepare(*_, should_stop, **__):
    answers.append(should_stop())

  monkeypatch.setattr(frozen_states, "prepare", prepare)
  workdir = str(tmp_path / "run")
  assert not pretrain.run(make_config(), workdir, max_seconds=1e-9)
  assert answers == [True]


def test_sigterm_ends_the_computing_of_frozen_states(
  make_config, tmp_path, monkeypatch
):
  answers = []

  def prepare(*_, should_stop, **__):
    answers.append(should_stop())
    os.kill(os.getpid(), signal.SIGTERM)
    wait_until(should_stop)

  monkeypatch.setattr(frozen_states, "prepare", prepare)
  with pytest.raises(errors.TerminatedError):
    pretrain.run(make_config(), str(tmp_path / "run"))
  assert answers == [False]


def test_optimizer_state_is_carried_through_growth_and_a_kill(
  make_config, tmp_path, monkeypatch
):
  config = make_config("optimizer.state_at_growth=carried")
  whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
  assert pretrain.run(config, whole)
  copy_stages(whole, killed, last=2)
  with monkeypatch.context() as patch:
    kill_at(patch, 10)
    with pytest.raises(KilledError):
      pretrain.run(config, killed)
  assert pretrain.run(config, killed)
  assert_same_arrays(stage_arrays(whole, 3), stage_arrays(killed, 3))
  # Stage 1 makes 4 updates, 2 another 4, 3 another 2; frozen ones rest in 2.
  counts = {
    number: stage_arrays(whole, number)[f"{EMBEDDINGS}/num_updates"]
    for number in (1, 2, 3)
  }
  assert counts == {1: 4, 2: 4, 3: 6}
  arrays = stage_arrays(whole, 3)
  layer_1 = "bert/encoder/layer_1/output/dense/kernel"
  # Layer 1 took over the 4 updates of the layer that it is a copy of.
  assert arrays[f"{layer_1}/num_updates"] == 4 + 4 + 2
  np.testing.assert_array_equal(
    stage_arrays(whole, 1)[f"{EMBEDDINGS}/m"],
    stage_arrays(whole, 2)[f"{EMBEDDINGS}/m"],
  )


def test_a_kill_before_the_summary_is_mended(
  finished, make_config, tmp_path, monkeypatch
):
  workdir = str(tmp_path / "killed")
  shutil.copytree(finished, workdir)
  os.remove(os.path.join(workdir, "summary.json"))
  assert pretrain.run(make_config(), workdir)
  directory = run_directory.RunDirectory(workdir)
  summary = directory.read_json("summary.json")
  whole = run_directory.RunDirectory(finished).read_json("summary.json")
  assert summary["is_finished"] is True
  # Starting a finished run again takes no time of the run's.
  assert summary["wall_seconds"] == whole["wall_seconds"]
  assert summary["train_seconds"] == whole["train_seconds"]


def test_time_that_a_kill_threw_away_was_spent(
  make_config, tmp_path, monkeypatch
):
  workdir = str(tmp_path / "killed")
  with monkeypatch.context() as patch:
    kill_at(patch, 2)
    with pytest.raises(KilledError):
      pretrain.run(make_config(), workdir)
  path = run_directory.RunDirectory(workdir).metrics(1)
  (record,) = metrics.read(path)
  with open(path, "w") as file:
    file.write(json.dumps({**record, "wall_seconds": 5000.0}) + "\n")
  assert not pretrain.run(make_config(), workdir, max_seconds=1e-9)
  summary = run_directory.RunDirectory(workdir).read_json("summary.json")
  assert summary["wall_seconds"] > 5000.0


def test_weights_ruined_by_the_last_update_finish_nothing(
  make_config, tmp_path
):
  config = make_config(*shallow(2), "optimizer.peak_learning_rate=1e38")
  with pytest.raises(errors.InputError, match="peak_learning_rate"):
    pretrain.run(config, str(tmp_path / "run"))
  assert not run_directory.RunDirectory(str(tmp_path / "run")).is_finished(1)


def test_a_changed_vocabulary_file_is_named(make_config, shards, tmp_path):
  data = tmp_path / "data"
  shutil.copytree(shards, data)
  (data / "vocab.txt").write_text("junk\n")
  with pytest.raises(errors.InputError, match=r"vocab\.txt"):
    pretrain.run(make_config(f"data.directory={data}"), str(tmp_path / "run"))


def test_another_vocabulary_of_the_same_size_is_refused(make_config, tmp_path):
  with pytest.raises(errors.InputError, match=f"vocab_sha256={'0' * 64}, but"):
    pretrain.run(
      make_config(f"data.vocab_sha256='{'0' * 64}'"), str(tmp_path / "run")
    )


def test_a_finished_run_continues_with_extra_steps(
  finished, make_config, tmp_path
):
  workdir = str(tmp_path / "continued")
  shutil.copytree(finished, workdir)
  assert pretrain.run(make_config("schedule.extra_steps=3"), workdir)
  assert_same_arrays(stage_arrays(workdir, 3), stage_arrays(finished, 3))
  train = [r for r in records_of(workdir, 4) if r["kind"] == "train"]
  assert [r["step"] for r in train] == list(range(1, 14))
  assert train[-1]["num_layers"] == 2
  # On the line from the peak at 0 to 0 at step 13.
  assert train[-1]["learning_rate"] == pytest.approx(0.01 / 13, rel=1e-4)
  # And once more.
  assert pretrain.run(make_config("schedule.extra_steps=[3, 1]"), workdir)
  summary = run_directory.RunDirectory(workdir).read_json("summary.json")
  assert summary["step"] == 14


def test_a_border_where_nothing_grows_and_all_is_carried_changes_nothing(
  make_config, tmp_path
):
  """The reproduction's baseline keeps its weights at one, half-way."""
  whole, divided = str(tmp_path / "whole"), str(tmp_path / "divided")
  pretrain.run(make_config(*shallow(7)), whole)
  carried = "optimizer.state_at_growth=carried"
  pretrain.run(make_config(*shallow(4, extra_steps=3), carried), divided)
  expected, actual = stage_arrays(whole, 1), stage_arrays(divided, 2)
  # What is carried stands beside the weights.
  assert_same_arrays(expected, {name: actual[name] for name in expected})


def test_an_unfinished_run_takes_no_extra_steps(make_config, tmp_path):
  workdir = str(tmp_path / "unfinished")
  assert not pretrain.run(make_config(), workdir, max_seconds=1e-9)
  with pytest.raises(errors.InputError, match=r"schedule\.stages"):
    pretrain.run(make_config("schedule.extra_steps=3"), workdir)


def test_progressive_stacking_runs_by_the_same_code(make_config, tmp_path):
  workdir = str(tmp_path / "run")
  config = make_config(
    "schedule={method: progressive_stacking, num_steps: 2,"
    " stage_shares: [0.5, 0.5]}"
  )
  assert pretrain.run(config, workdir)
  arrays = stage_arrays(workdir, 2)
  assert "bert/encoder/layer_1/output/dense/kernel" in arrays
  assert "bert/encoder/layer_2/output/dense/kernel" not in arrays


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("optimizer.peak_learning_rate=0.02", "optimizer.peak_learning_rate"),
    ("training.seed=1", "training.seed"),
    ("training.precision=mixed_bfloat16", "training.precision"),
    ("data.batch_size=8", "data.batch_size"),
  ],
)
def test_a_workdir_of_another_config_is_refused(
  override, message, finished, make_config
):
  with pytest.raises(errors.InputError) as caught:
    pretrain.run(make_config(override), finished)
  assert "holds another run" in str(caught.value)
  assert message in str(caught.value)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  "override",
  [
    "model.vocab_size=47",
    "data.sequence_length=12",
    "data.max_predictions=4",
    "model.lower_case=false",
  ],
)
def test_data_made_for_another_model_is_refused(
  override, make_config, tmp_path
):
  field = override.split("=")[0].split(".")[1]
  with pytest.raises(errors.InputError, match=field):
    pretrain.run(make_config(override), str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


def test_a_cut_off_shard_is_named(make_config, shards, tmp_path):
  data = tmp_path / "data"
  shutil.copytree(shards, data)
  shard = data / "train-00001-of-00002.tfrecord"
  shard.write_bytes(shard.read_bytes()[:-5])
  with pytest.raises(errors.InputError, match="train-00001-of-00002"):
    pretrain.run(make_config(f"data.directory={data}"), str(tmp_path / "run"))


def test_a_damaged_record_is_named(make_config, shards, tmp_path):
  data = tmp_path / "data"
  shutil.copytree(shards, data)
  shard = data / "train-00000-of-00002.tfrecord"
  content = bytearray(shard.read_bytes())
  content[len(content) // 2] ^= 0xFF
  shard.write_bytes(content)
  with pytest.raises(errors.InputError, match="train-00000-of-00002"):
    pretrain.run(make_config(f"data.directory={data}"), str(tmp_path / "run"))


def test_a_strange_first_loss_is_warned_of(make_config, tmp_path, caplog):
  config = make_config(*shallow(2), "model.initializer_range=2.0")
  pretrain.run(config, str(tmp_path / "run"))
  assert f"near {math.log(46):.2f}" in caplog.text


def stop_at(step, make_config, workdir, monkeypatch, *overrides):
  """Leaves the checkpoints of a run that died in this step."""
  with monkeypatch.context() as patch:
    kill_at(patch, step)
    with pytest.raises(KilledError):
      pretrain.run(make_config(*overrides), workdir)


def test_the_checkpoint_before_a_damaged_one_is_gone_back_to(
  finished, make_config, tmp_path, monkeypatch, caplog
):
  workdir = str(tmp_path / "damaged")
  copy_stages(finished, workdir, last=1)
  # Of stage 2, steps 5 to 8, one after every step.
  every_step = "training.checkpoint_interval=1"
  stop_at(8, make_config, workdir, monkeypatch, every_step)
  checkpoints = run_directory.RunDirectory(workdir).checkpoints(2)
  newest = os.path.join(checkpoints, "ckpt-7.data-00000-of-00001")
  os.truncate(newest, os.path.getsize(newest) // 2)
  with caplog.at_level("INFO", logger="absl"):
    assert pretrain.run(make_config(), workdir)
  assert "ckpt-7 is damaged" in caplog.text
  assert "resuming at step 6" in caplog.text
  assert_same_arrays(stage_arrays(workdir, 3), stage_arrays(finished, 3))


def test_a_missing_stage_file_is_named(finished, make_config, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(finished, workdir)
  os.remove(workdir / "stage_3" / "weights.index")
  os.remove(workdir / "stage_2" / "weights.index")
  with pytest.raises(errors.InputError) as caught:
    pretrain.run(make_config(), str(workdir))
  assert str(caught.value).startswith(
    f"{workdir}/stage_2/weights.index is missing, but stage 3 has begun"
  )
  # The files of stages before the last finished one are no longer needed.
  whole = tmp_path / "whole"
  shutil.copytree(finished, whole)
  os.remove(whole / "stage_1" / "weights.index")
  assert pretrain.run(make_config(), str(whole))


@pytest.fixture
def ruin_batch(monkeypatch):
  """Makes the loss of batch 5, for step 6 in stage 2, no number."""
  compute_sums = stage_training.sums_in_training

  def ruined(model, features, place, frozen_kernels, *, seed):
    sums = compute_sums(model, features, place, frozen_kernels, seed=seed)
    total, count = sums["mlm_loss"]
    factor = tf.where(place.batch_index == 5, math.nan, 1.0)
    return {**sums, "mlm_loss": (total * factor, count)}

  monkeypatch.setattr(stage_training, "sums_in_training", ruined)


def test_a_loss_that_is_no_number_ends_the_run_with_its_checkpoint(
  ruin_batch, make_config, tmp_path
):
  workdir = str(tmp_path / "run")
  with pytest.raises(errors.InputError) as caught:
    pretrain.run(make_config("training.checkpoint_interval=1"), workdir)
  message = str(caught.value)
  assert message.startswith("stage 2, step 6, batch 5: the loss is nan")
  assert "\n" not in message
  checkpoints = run_directory.RunDirectory(workdir).checkpoints(2)
  # Of the step before; no weights of the bad one are kept.
  assert sorted(os.listdir(checkpoints))[-1] == "ckpt-5.index"


@pytest.fixture
def first_batches(monkeypatch):
  """Notes from which batch on the data are read, each time."""
  noted = []
  train_batches = input_pipeline.train_batches

  def noting(*args, first_batch, **kwargs):
    noted.append(first_batch)
    return train_batches(*args, first_batch=first_batch, **kwargs)

  monkeypatch.setattr(input_pipeline, "train_batches", noting)
  return noted


RECOVERING = (
  "schedule={method: mslt, num_steps: 8, num_growing_stages: 2,"
  " retraining_share: 0}",
  "training.max_recoveries=1",
  "training.checkpoint_interval=3",
)


def test_a_run_goes_back_and_leaves_bad_batches_out(
  ruin_batch, first_batches, make_config, tmp_path, caplog
):
  workdir = str(tmp_path / "run")
  assert pretrain.run(make_config(*RECOVERING), workdir)
  # The stages', and after going back.
  assert first_batches == [0, 4, 6]
  # Stage 2 begins at step 4 with batch 4; a checkpoint is made there.
  assert "back to step 4, leaving out batches 4 to 5" in caplog.text
  train = [r for r in records_of(workdir, 2) if r["kind"] == "train"]
  assert [r["step"] for r in train] == list(range(1, 9))
  assert [r["batch_index"] for r in train] == [1, 2, 3, 4, *range(7, 11)]
  assert event_steps(workdir, "train/mlm_loss") == list(range(1, 9))


@pytest.mark.slow
def test_a_run_killed_after_it_went_back_goes_on_from_there(
  ruin_batch, make_config, tmp_path, monkeypatch
):
  whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
  assert pretrain.run(make_config(*RECOVERING), whole)
  stop_at(5, make_config, killed, monkeypatch, *RECOVERING)
  stop_at(7, make_config, killed, monkeypatch, *RECOVERING)
  assert pretrain.run(make_config(*RECOVERING), killed)
  assert_same_arrays(stage_arrays(whole, 2), stage_arrays(killed, 2))


def test_a_loss_above_the_bound_is_told(make_config, tmp_path):
  config = make_config(
    *shallow(9), "training.largest_loss=2", "training.max_recoveries=2"
  )
  with pytest.raises(errors.InputError) as caught:
    pretrain.run(config, str(tmp_path / "run"))
  # A fresh model's loss is near ln 46 + ln 2 = 4.5.
  assert "above training.largest_loss=2.0, after 2 recoveries" in str(
    caught.value
  )


def test_sigterm_saves_the_step_and_the_run_goes_on(
  finished, make_config, tmp_path, monkeypatch
):
  workdir = str(tmp_path / "terminated")
  copy_stages(finished, workdir, last=1)
  write = metrics.MetricsLog.write

  def write_and_terminate(self, kind, record):
    write(self, kind, record)
    if (kind, record["step"]) == ("train", 6):
      os.kill(os.getpid(), signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(metrics.MetricsLog, "write", write_and_terminate)
    with pytest.raises(errors.TerminatedError):
      pretrain.run(make_config("training.checkpoint_interval=100"), workdir)
  directory = run_directory.RunDirectory(workdir)
  # The next step sees it, or the one after that.
  (name,) = [
    name
    for name in os.listdir(directory.checkpoints(2))
    if name.endswith(".index")
  ]
  assert name in ("ckpt-7.index", "ckpt-8.index")
  assert directory.read_json("summary.json")["is_finished"] is False
  assert pretrain.run(make_config(), workdir)
  assert_same_arrays(stage_arrays(workdir, 3), stage_arrays(finished, 3))


def test_sigterm_in_a_stages_last_step_begins_no_other(
  make_config, tmp_path, monkeypatch, caplog
):
  write = metrics.MetricsLog.write

  def write_and_terminate(self, kind, record):
    write(self, kind, record)
    if (kind, record["step"]) == ("eval", 4):
      os.kill(os.getpid(), signal.SIGTERM)
      wait_until(lambda: "SIGTERM: finishing" in caplog.text)

  monkeypatch.setattr(metrics.MetricsLog, "write", write_and_terminate)
  caplog.set_level("INFO", logger="absl")
  with pytest.raises(errors.TerminatedError):
    pretrain.run(make_config(), str(tmp_path / "run"))
  directory = run_directory.RunDirectory(str(tmp_path / "run"))
  assert directory.is_finished(1)
  assert not os.path.exists(directory.stage(2))


def test_a_run_goes_on_with_other_devices(
  first_batches, make_config, tmp_path, monkeypatch
):
  overrides = (
    *shallow(10),
    "model.hidden_dropout=0",
    "model.attention_dropout=0",
    "training.checkpoint_interval=5",
  )
  workdir = str(tmp_path / "run")
  stop_at(10, make_config, workdir, monkeypatch, *overrides)
  one_device = records_of(workdir, 1)
  assert pretrain.run(
    make_config(
      *overrides,
      "training.strategy=mirrored",
      "training.num_micro_batches=2",
      "training.eval_batch_size=8",
    ),
    workdir,
  )
  summary = run_directory.RunDirectory(workdir).read_json("summary.json")
  assert summary["machine"]["replicas"] == 2
  # From the checkpoint of step 5 on: what one device did after it comes again.
  assert first_batches == [0, 5]
  two_devices = records_of(workdir, 1)
  again = [(record["kind"], record["step"]) for record in two_devices[6:]]
  assert again == [
    ("train", 6),
    ("eval", 6),
    ("train", 7),
    ("train", 8),
    ("train", 9),
    ("eval", 9),
    ("train", 10),
    ("eval", 10),
  ]
  assert len(one_device) == 6 + 6
  for before, after in zip(one_device, two_devices, strict=False):
    assert (before["kind"], before["step"]) == (after["kind"], after["step"])
    assert after["mlm_loss"] == pytest.approx(before["mlm_loss"], rel=1e-4)


@pytest.mark.slow
def test_two_replicas_resume_with_the_same_bits(
  make_config, tmp_path, monkeypatch
):
  overrides = ("training.strategy=mirrored", "training.eval_batch_size=8")
  whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
  assert pretrain.run(make_config(*overrides), whole)
  stop_at(8, make_config, killed, monkeypatch, *overrides)
  assert pretrain.run(make_config(*overrides), killed)
  assert_same_arrays(stage_arrays(whole, 3), stage_arrays(killed, 3))


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    (
      ["training.num_micro_batches=3"],
      "data.batch_size=4 is not divisible by 3",
    ),
    (
      ["training.strategy=mirrored", "training.num_micro_batches=4"],
      "data.batch_size=4 is not divisible by 8, which is 2 devices times",
    ),
    (["training.strategy=mirrored"], "training.eval_batch_size=7"),
    (["training.strategy=multi_worker_mirrored"], "TF_CONFIG"),
  ],
)
def test_a_batch_that_cannot_be_split_is_refused(
  overrides, message, make_config, tmp_path
):
  with pytest.raises(errors.InputError, match=message):
    pretrain.run(make_config(*overrides), str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "strategy", ["one_device", pytest.param("mirrored", marks=pytest.mark.slow)]
)
def test_a_stage_that_is_over_holds_no_memory(
  make_config, tmp_path, monkeypatch, strategy
):
  held = []
  num_alive = []
  run_stage = stage_training.StageTraining.run

  def run(self):
    num_alive.append(sum(each() is not None for each in held))
    held.append(weakref.ref(self))
    # A variable's memory is freed with the last reference to its handle.
    for variable in [*self._model.variables, *self._optimizer.variables()]:
      for part in self._cluster.strategy.experimental_local_results(variable):
        held.append(weakref.ref(part.handle))
    return run_stage(self)

  monkeypatch.setattr(stage_training.StageTraining, "run", run)
  config = make_config(
    *shallow(1, extra_steps=1),
    f"training.strategy={strategy}",
    "training.eval_batch_size=8",
  )
  assert pretrain.run(config, str(tmp_path / "run"))
  assert num_alive == [0, 0]
  assert len(held) > 100


def test_a_device_without_memory_for_its_share_is_told_what_to_set(
  make_config, tmp_path, monkeypatch
):
  def run_out(self, iterator, num_steps):
    message = "Graph execution error:\n\nat x\nOOM when allocating y\n[[z]]"
    raise tf.errors.ResourceExhaustedError(None, None, message)

  monkeypatch.setattr(loop.TrainingSteps, "__call__", run_out)
  with pytest.raises(errors.InputError) as caught:
    pretrain.run(make_config(), str(tmp_path / "run"))
  assert str(caught.value) == (
    "stage 1: memory is too small for data.batch_size=4 in"
    " training.num_micro_batches=1 parts on 1 device(s), or for"
    " training.eval_batch_size=7; more parts or a smaller eval_batch_size may"
    " help, and the run goes on with them from the last checkpoint. (OOM when"
    " allocating y)"
  )


def test_a_killed_run_in_float16_goes_on_with_its_loss_scale(
  first_batches, make_config, tmp_path, monkeypatch
):
  # So large that the first batches overflow, and it is halved.
  monkeypatch.setattr(loss_scale, "INITIAL_SCALE", 2.0**24)
  overrides = (*shallow(4), "training.precision=mixed_float16")
  whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
  assert pretrain.run(make_config(*overrides), whole)
  stop_at(4, make_config, killed, monkeypatch, *overrides)
  assert pretrain.run(make_config(*overrides), killed)
  assert_same_arrays(stage_arrays(whole, 1), stage_arrays(killed, 1))
  train = [r for r in records_of(killed, 1) if r["kind"] == "train"]
  assert [r["step"] for r in train] == [1, 2, 3, 4]
  num_skipped = train[-1]["skipped_steps"]
  assert num_skipped > 0
  assert train[-1]["loss_scale"] == 2.0 ** (24 - num_skipped)
  assert train[-1]["batch_index"] == 4 + num_skipped
  # Of the whole run, the killed one, and from its checkpoint at step 2.
  assert first_batches == [0, 0, 2 + num_skipped]


def test_the_start_tells_what_the_run_uses_and_warns_of_nothing(
  make_config, tmp_path, caplog
):
  config = make_config(*shallow(2))
  with caplog.at_level("INFO", logger="absl"):
    pretrain.run(config, str(tmp_path / "run"))
  assert "1 device(s) (CPU), batch of 4 as 1 x 1 x 4 examples" in caplog.text
  assert "GB are free" in caplog.text
  # As of a loss that is far from what a model without training has.
  assert "of the first batch" not in caplog.text


def test_a_damaged_stage_file_is_named(finished, make_config, tmp_path):
  workdir = tmp_path / "damaged"
  shutil.copytree(finished, workdir)
  os.remove(workdir / "stage_3" / "weights.index")
  data = workdir / "stage_2" / "weights.data-00000-of-00001"
  data.write_bytes(data.read_bytes()[:100])
  with pytest.raises(errors.InputError, match="stage_2/weights"):
    pretrain.run(make_config(), str(workdir))


def test_records_are_json_lines(finished):
  path = os.path.join(finished, "stage_1", "metrics.jsonl")
  with open(path) as file:
    first = json.loads(file.readline())
  assert first["mlm_loss"] == pytest.approx(math.log(46), abs=0.2)
  assert first["nsp_loss"] == pytest.approx(math.log(2), abs=0.2)
