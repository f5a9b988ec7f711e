"""Shards go both ways between Model Garden's programs and these."""

import os
import random
import shutil

import numpy as np
import pytest
import tensorflow as tf
from official.nlp.data import create_pretraining_data
from official.nlp.data import pretrain_dataloader
from official.nlp.tools import tokenization

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import pretrain
from mslt_tf.analysis import report_files
from mslt_tf.analysis import workdirs
from mslt_tf.data.examples import features
from mslt_tf.data.reading import manifest
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
data: {sequence_length: 16, max_predictions: 3, batch_size: 4}
schedule: {method: baseline, num_steps: 3}
optimizer: {peak_learning_rate: 0.01, warmup_steps: 1}
training:
  deterministic: true
  steps_per_loop: 1
  eval_batch_size: 7
  eval_examples: 20
  checkpoint_interval: 1
"""


class KilledError(Exception):
  pass


@pytest.fixture(scope="module", autouse=True)
def determinism():
  """The runs switch it on; other tests draw random numbers without seeds."""
  yield
  from tensorflow.python.framework import config as tf_config

  tf_config.disable_op_determinism()


@pytest.fixture(scope="module")
def garden_shards(tmp_path_factory, text_file, vocab_file):
  """Three shards by Model Garden's program, in both namings of the features."""
  directory = tmp_path_factory.mktemp("garden")
  tokenizer = tokenization.FullTokenizer(vocab_file)
  instances = create_pretraining_data.create_training_instances(
    [text_file],
    tokenizer,
    max_seq_length=16,
    dupe_factor=1,
    short_seq_prob=0.1,
    masked_lm_prob=0.15,
    max_predictions_per_seq=3,
    rng=random.Random(0),
  )
  for naming in ("bert", "v2"):
    (directory / naming).mkdir()
    create_pretraining_data.write_instance_to_example_files(
      instances,
      tokenizer,
      max_seq_length=16,
      max_predictions_per_seq=3,
      output_files=[
        str(directory / naming / f"{index}.tfrecord") for index in range(3)
      ],
      gzip_compress=False,
      use_v2_feature_names=naming == "v2",
    )
  return directory


def make_config(directory, *overrides) -> config_lib.Config:
  return config_lib.load(
    CONFIG,
    source="test",
    overrides=[
      f"data.train_files={directory}/*.tfrecord",
      f"data.heldout_files={directory}/2.tfrecord",
      *overrides,
    ],
  )


@pytest.fixture(scope="module")
def finished(garden_shards, tmp_path_factory):
  """The workdir of an uninterrupted run; read only."""
  workdir = str(tmp_path_factory.mktemp("runs") / "bert")
  assert pretrain.run(make_config(garden_shards / "bert"), workdir)
  return workdir


def test_a_run_trains_on_model_gardens_shards(finished):
  summary = run_directory.RunDirectory(finished).read_json("summary.json")
  assert summary["is_finished"]
  # Near a guess, ln 46.
  assert summary["eval_mlm_loss"] == pytest.approx(3.83, abs=0.5)
  assert summary["unigram_mlm_loss"] is None


def die_at_step_2(log, kind, record):
  del log, kind
  if record["step"] == 2:
    raise KilledError


@pytest.mark.slow
def test_a_killed_run_on_the_other_naming_ends_with_the_same_weights(
  finished, garden_shards, tmp_path, monkeypatch
):
  workdir = str(tmp_path / "v2")
  config = make_config(garden_shards / "v2")
  with monkeypatch.context() as patch:
    patch.setattr(metrics.MetricsLog, "write", die_at_step_2)
    with pytest.raises(KilledError):
      pretrain.run(config, workdir)
  assert pretrain.run(config, workdir)
  expected = run_directory.RunDirectory(finished).read_stage(1)
  arrays = run_directory.RunDirectory(workdir).read_stage(1)
  assert arrays.keys() == expected.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_a_run_goes_on_where_the_shards_have_moved(
  finished, garden_shards, tmp_path
):
  shutil.copytree(garden_shards / "bert", tmp_path / "moved")
  assert pretrain.run(make_config(tmp_path / "moved"), finished)


@pytest.mark.parametrize(
  "override",
  ["data.train_files={shards}/0.tfrecord", "data.heldout_files={shards}/[12]*"],
)
def test_a_run_does_not_go_on_with_other_shards(
  override, finished, garden_shards
):
  shards = garden_shards / "bert"
  config = make_config(shards, override.format(shards=shards))
  with pytest.raises(errors.InputError, match=r"fingerprint"):
    pretrain.run(config, finished)


def test_a_run_ends_at_a_malformed_example_and_names_it(
  garden_shards, tmp_path
):
  shutil.copytree(garden_shards / "bert", tmp_path / "shards")
  path = str(tmp_path / "shards" / "1.tfrecord")
  records = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
  example = tf.train.Example.FromString(records[1])
  example.features.feature["masked_lm_ids"].int64_list.value[0] = 46
  with tf.io.TFRecordWriter(path) as writer:
    for record in (records[0], *[example.SerializeToString()] * 99):
      writer.write(record)
  with pytest.raises(errors.InputError) as caught:
    pretrain.run(make_config(tmp_path / "shards"), str(tmp_path / "run"))
  assert str(caught.value) == (
    f"{path!r}, record 2: masked_lm_ids has 46, which is not from 0 to 45, for"
    " vocab_size=46."
  )


def test_runs_without_the_loss_of_token_frequencies_are_compared(
  finished, tmp_path
):
  runs = workdirs.read_all([finished])
  text, problems = report_files.write(runs, [], str(tmp_path / "report"))
  assert problems == []
  assert "Token frequencies" not in text
  assert os.path.getsize(tmp_path / "report" / "comparison.png")


def load_in_model_garden(shards: str, *, use_v2_feature_names: bool):
  """Returns all batches of our training shards, in file order."""
  config = pretrain_dataloader.BertPretrainDataConfig(
    input_path=f"{shards}/train-*.tfrecord",
    global_batch_size=5,
    is_training=False,
    seq_length=16,
    max_predictions_per_seq=3,
    use_v2_feature_names=use_v2_feature_names,
    drop_remainder=False,
    deterministic=True,
    cycle_length=1,
  )
  loader = pretrain_dataloader.BertPretrainDataLoader(config)
  return loader.load().as_numpy_iterator()


def test_our_shards_are_read_by_model_garden(shards):
  data = manifest.open_data(shards)
  records = tf.data.TFRecordDataset([each.path for each in data.train.shards])
  ours = features.parse_batch(
    records.batch(data.train.num_examples).get_single_element(),
    sequence_length=16,
    max_predictions=3,
    vocab_size=46,
  )
  ours["next_sentence_labels"] = ours["next_sentence_labels"][:, tf.newaxis]
  batches = list(load_in_model_garden(shards, use_v2_feature_names=False))
  for name, array in ours.items():
    called = {"input_ids": "input_word_ids", "segment_ids": "input_type_ids"}
    theirs = np.concatenate([each[called.get(name, name)] for each in batches])
    np.testing.assert_array_equal(array, theirs, err_msg=name, strict=True)


def test_our_shards_do_not_have_model_gardens_second_names(shards):
  with pytest.raises(tf.errors.InvalidArgumentError, match="input_type_ids"):
    next(load_in_model_garden(shards, use_v2_feature_names=True))
