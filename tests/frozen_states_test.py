"""Frozen states that are stored change how long a run takes, nothing else."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import assembly
from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import frozen_states
from mslt_tf import outline
from mslt_tf import pretrain
from mslt_tf.data.reading import input_pipeline
from mslt_tf.data.reading import manifest
from mslt_tf.data.reading import stored_states
from mslt_tf.training import cluster
from mslt_tf.training import metrics
from mslt_tf.training import run_directory

# The second stage reads 14 batches of 40, the 199 examples 2.8 times.
CONFIG = """
model:
  vocab_size: 46
  hidden_size: 6
  num_layers: 3
  num_heads: 2
  intermediate_size: 10
  max_positions: 20
data: {directory: DATA, sequence_length: 16, max_predictions: 3, batch_size: 40}
schedule:
  stages:
    - {num_layers: 2, num_steps: 2, source_layers: [null, null]}
    - num_layers: 3
      num_steps: 14
      source_layers: [0, 1, 1]
      num_frozen_layers: 2
      freeze_embeddings: true
optimizer: {peak_learning_rate: 0.01, warmup_steps: 1}
training:
  deterministic: true
  steps_per_loop: 1
  eval_interval: 8
  eval_batch_size: 8
  checkpoint_interval: 6
"""
REUSE = "training.reuse_frozen_states_gb=0.001"


class KilledError(Exception):
  pass


@pytest.fixture(scope="module", autouse=True)
def determinism():
  """The runs switch it on; other tests draw random numbers without seeds."""
  yield
  from tensorflow.python.framework import config as tf_config

  tf_config.disable_op_determinism()


@pytest.fixture(scope="module")
def make_config(shards):
  def make(*overrides):
    return config_lib.load(
      CONFIG.replace("DATA", shards), source="test", overrides=overrides
    )

  return make


@pytest.fixture(scope="module")
def data(shards):
  return manifest.open_data(shards)


@pytest.fixture(scope="module")
def plain(make_config, tmp_path_factory):
  """The workdir of a run that computes them in every pass; read only."""
  workdir = str(tmp_path_factory.mktemp("runs") / "plain")
  assert pretrain.run(make_config(), workdir)
  return workdir


def _copy_first_stage(plain, workdir):
  """Makes a workdir of a run that ended there: nothing is frozen before."""
  ignored = shutil.ignore_patterns("stage_2", "summary.json")
  shutil.copytree(plain, workdir, ignore=ignored)


@pytest.fixture(scope="module")
def reusing(plain, make_config, tmp_path_factory):
  """The workdir of a run that stores them; read only."""
  workdir = str(tmp_path_factory.mktemp("runs") / "reusing")
  _copy_first_stage(plain, workdir)
  with pytest.MonkeyPatch.context() as patch:
    computed = _count_calls(patch, stored_states, "write")
    assert pretrain.run(make_config(REUSE), workdir)
  assert len(computed) == 1
  return workdir


@pytest.fixture(scope="module")
def killed(plain, make_config, tmp_path_factory):
  """The workdir of a run that died at step 15 of 16; read only."""
  workdir = str(tmp_path_factory.mktemp("runs") / "killed")
  _copy_first_stage(plain, workdir)
  with pytest.MonkeyPatch.context() as patch:
    _kill_at(patch, 15)
    with pytest.raises(KilledError):
      pretrain.run(make_config(REUSE), workdir)
  return workdir


@pytest.fixture(scope="module")
def model(make_config):
  return _make_model(make_config())


def _make_model(config):
  return assembly.make_model(config, outline.place_stages(config.schedule)[1])


def _prepare(model, data, directory, config, **kwargs):
  arguments = dict(
    config=config,
    data=data,
    strategy=tf.distribute.OneDeviceStrategy("CPU:0"),
    directory=str(directory),
    num_steps=14,
    use_xla=False,
    should_stop=lambda: False,
  )
  return frozen_states.prepare(model, **(arguments | kwargs))


def _all_states(stored, data):
  return stored.of_examples(tf.range(data.train.num_examples, dtype=tf.int64))


def _computed(model, data):
  """Returns the frozen states of all examples, computed at once."""
  batches = input_pipeline.train_batches_in_file_order(
    data, batch_size=data.train.num_examples
  )
  (features,) = batches
  return model(features).hidden_states[model.num_frozen_layers]


def _assert_same_run(workdir, expected):
  """Same weights to the bit, and same losses in what was logged."""
  here, there = map(run_directory.RunDirectory, (workdir, expected))
  assert here.is_finished(2)
  arrays = there.read_stage(2)
  for name, array in here.read_stage(2).items():
    np.testing.assert_array_equal(array, arrays[name], err_msg=name)
  assert _losses(here) == _losses(there)
  # What was stored went with the checkpoints.
  assert not os.path.exists(here.checkpoints(2))


def _losses(directory):
  """Returns the last losses logged at each step, trained and held out."""
  return {
    (record["kind"], record["step"]): (record["mlm_loss"], record["nsp_loss"])
    for record in metrics.read(directory.metrics(2))
  }


def _count_calls(patch, module, name):
  """Returns a list that gets an entry at each call of a function."""
  function, calls = getattr(module, name), []

  def counted(*args):
    calls.append(args)
    return function(*args)

  patch.setattr(module, name, counted)
  return calls


def _kill_at(patch, step):
  """Kills the run when it logs this step of training."""
  write = metrics.MetricsLog.write

  def write_or_die(self, kind, record):
    if record["step"] == step and kind == "train":
      raise KilledError
    write(self, kind, record)

  patch.setattr(metrics.MetricsLog, "write", write_or_die)


def test_a_run_is_the_same_to_the_bit(plain, reusing):
  _assert_same_run(reusing, plain)


def test_so_it_is_after_a_kill_while_they_are_computed(
  plain, make_config, tmp_path, monkeypatch
):
  workdir = str(tmp_path / "run")
  _copy_first_stage(plain, workdir)
  compute = frozen_states._compute

  def compute_and_die(*args):
    yield next(compute(*args))
    raise KilledError

  with monkeypatch.context() as patch:
    patch.setattr(frozen_states, "_compute", compute_and_die)
    with pytest.raises(KilledError):
      pretrain.run(make_config(REUSE), workdir)
  computed = _count_calls(monkeypatch, stored_states, "write")
  assert pretrain.run(make_config(REUSE), workdir)
  assert len(computed) == 1
  _assert_same_run(workdir, plain)


def test_so_it_is_after_a_kill_in_the_stage_and_they_are_not_computed_again(
  plain, killed, make_config, tmp_path, monkeypatch, caplog
):
  workdir = str(tmp_path / "run")
  shutil.copytree(killed, workdir)
  computed = _count_calls(monkeypatch, stored_states, "write")
  # From the checkpoint of step 12 less than a pass is left.
  with caplog.at_level("INFO", logger="absl"):
    assert pretrain.run(make_config(REUSE), workdir)
  assert "frozen states are read from" in caplog.text
  assert not computed
  _assert_same_run(workdir, plain)


@pytest.mark.slow
def test_a_run_goes_on_without_them_where_the_bound_is_now_too_low(
  plain, killed, make_config, tmp_path, caplog
):
  workdir = str(tmp_path / "run")
  shutil.copytree(killed, workdir)
  # 199 examples of 16 x 6 numbers of 4 bytes.
  limit = "training.reuse_frozen_states_gb=7.64e-05"
  with caplog.at_level("INFO", logger="absl"):
    assert pretrain.run(make_config(limit), workdir)
  assert (
    f"the frozen states of 199 examples take 7.64e-05 GB, more than {limit}"
  ) in caplog.text
  _assert_same_run(workdir, plain)


@pytest.mark.parametrize("is_reused", [True, False])
def test_the_time_to_compute_them_counts_as_training(
  is_reused, plain, reusing, make_config
):
  directory = run_directory.RunDirectory(reusing if is_reused else plain)
  before = directory.read_results(1)["train_seconds"]
  # Of a stage's first step, which compiles, nothing is counted.
  first = metrics.read(directory.metrics(2))[0]
  assert (first["train_seconds"] > before) == is_reused


@pytest.mark.parametrize(
  ("precision", "num_bytes", "num_parts"),
  [("float32", 4, 1), ("float32", 4, 2), ("mixed_bfloat16", 2, 1)],
)
def test_they_are_to_the_bit_what_a_step_computes(
  precision, num_bytes, num_parts, make_config, data, tmp_path
):
  config = make_config(
    REUSE,
    f"training.precision={precision}",
    f"training.num_micro_batches={num_parts}",
  )
  model = _make_model(config)
  stored = _prepare(model, data, tmp_path, config)
  size = os.path.getsize(tmp_path / "states.bin")
  assert size == 199 * 16 * 6 * num_bytes
  batches = input_pipeline.train_batches(
    data, batch_size=40, seed=0, num_parts=num_parts, states=stored
  )
  compute = tf.function(model.frozen_states, autograph=False)
  for features in batches.take(6 * num_parts):
    computed = compute(features)
    assert computed.dtype == features["frozen_states"].dtype
    np.testing.assert_array_equal(
      *(
        tf.cast(each, tf.float32)
        for each in (features["frozen_states"], computed)
      )
    )


def test_two_replicas_store_the_states_of_one(
  make_config, data, model, tmp_path
):
  strategy = cluster.connect("mirrored", timeout=60.0).strategy
  assert strategy.num_replicas_in_sync == 2
  config = make_config(REUSE)
  with strategy.scope():
    mirrored = _make_model(config)
  stored = _prepare(mirrored, data, tmp_path, config, strategy=strategy)
  np.testing.assert_allclose(
    _all_states(stored, data), _computed(model, data), atol=1e-5
  )


def test_states_of_other_weights_are_computed_again(
  make_config, data, model, tmp_path
):
  config = make_config(REUSE)
  _prepare(model, data, tmp_path, config)
  other = _make_model(make_config("training.seed=1"))
  stored = _prepare(other, data, tmp_path, config)
  # In one batch of another size, which rounds otherwise.
  np.testing.assert_allclose(
    _all_states(stored, data), _computed(other, data), atol=1e-5
  )


def test_none_are_stored_for_a_single_pass(
  make_config, data, model, tmp_path, caplog
):
  with caplog.at_level("INFO", logger="absl"):
    stored = _prepare(
      model, data, tmp_path / "none", make_config(REUSE), num_steps=4
    )
  assert stored is None
  assert "no more than one pass" in caplog.text
  assert not (tmp_path / "none").exists()


def test_none_are_stored_of_a_stage_that_trains_all(
  make_config, data, tmp_path
):
  config = make_config(REUSE)
  first = assembly.make_model(config, outline.place_stages(config.schedule)[0])
  assert _prepare(first, data, tmp_path / "none", config) is None
  assert not (tmp_path / "none").exists()


def test_none_are_left_where_the_program_is_asked_to_stop(
  make_config, data, model, tmp_path
):
  answers = iter([False, False, True])
  stored = _prepare(
    model,
    data,
    tmp_path,
    make_config(REUSE),
    should_stop=lambda: next(answers),
  )
  assert stored is None
  assert os.listdir(tmp_path) == []


def test_a_workdir_that_is_not_local_is_refused(make_config):
  with pytest.raises(errors.InputError) as caught:
    pretrain.run(make_config(REUSE), "gs://bucket/run")
  assert str(caught.value) == (
    "training.reuse_frozen_states_gb=0.001 needs a --workdir on a local disk;"
    " gs://bucket/run is none."
  )


def test_several_workers_are_refused(make_config):
  two = cluster.Cluster(tf.distribute.get_strategy(), num_workers=2)
  with pytest.raises(errors.InputError) as caught:
    pretrain._check_reuse(make_config(REUSE), "run", two)
  assert str(caught.value) == (
    "training.reuse_frozen_states_gb=0.001 is for one worker; there are 2."
  )
