"""TensorBoard shows a run's schedule and lines runs up by their config."""

import tensorflow as tf
from tensorboard.plugins.hparams import plugin_data_pb2

from mslt_tf import config as config_lib
from mslt_tf import tensorboard_text

CONFIG = """
model:
  {vocab_size: 11, hidden_size: 6, num_layers: 2, num_heads: 2,
   intermediate_size: 10}
data: {directory: d, sequence_length: 8, max_predictions: 3, batch_size: 4}
schedule: {method: mslt, num_steps: 10, num_growing_stages: 2}
optimizer: {peak_learning_rate: 0.25, warmup_steps: 1}
"""


def values_of(folder):
  """Returns the summaries by tag."""
  values = {}
  for path in folder.glob("events*"):
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
      event = tf.compat.v1.Event.FromString(record)
      for value in event.summary.value:
        assert event.step == 0
        values[value.tag] = value
  return values


def hparams_of(folder):
  value = values_of(folder)["_hparams_/session_start_info"]
  content = value.metadata.plugin_data.content
  data = plugin_data_pb2.HParamsPluginData.FromString(content)
  assert data.session_start_info.group_name == "mine"
  return data.session_start_info.hparams


def write(folder, text=CONFIG):
  config = config_lib.load(text, source="test")
  tensorboard_text.write(str(folder), config, name="mine")


def test_the_schedule_is_there_as_text(tmp_path):
  write(tmp_path)
  text = tf.make_ndarray(values_of(tmp_path)["schedule"].tensor)
  lines = text.item().decode().splitlines()
  # TensorBoard shows what is indented as it stands.
  assert all(line.startswith("    ") for line in lines)
  assert lines[2].split()[:6] == ["2", "4-8", "2", "1", "frozen", "0"]


def test_fields_are_hyperparameters_with_values(tmp_path):
  write(tmp_path)
  hparams = hparams_of(tmp_path)
  assert hparams["schedule.layers"].string_value == "1 2 2"
  assert hparams["schedule.frozen_layers"].string_value == "0 1 0"
  assert hparams["model.hidden_size"].number_value == 6
  assert hparams["optimizer.peak_learning_rate"].number_value == 0.25
  assert hparams["model.lower_case"].bool_value is True


def test_baseline_and_mslt_have_the_same_columns(tmp_path):
  write(tmp_path / "mslt")
  mslt = "{method: mslt, num_steps: 10, num_growing_stages: 2}"
  assert mslt in CONFIG
  write(
    tmp_path / "baseline",
    CONFIG.replace(mslt, "{method: baseline, num_steps: 10}"),
  )
  baseline = hparams_of(tmp_path / "baseline")
  assert set(baseline) == set(hparams_of(tmp_path / "mslt"))
  assert baseline["schedule.layers"].string_value == "2"


def test_the_tab_has_a_column_for_held_out_loss(tmp_path):
  write(tmp_path)
  value = values_of(tmp_path)["_hparams_/experiment"]
  content = value.metadata.plugin_data.content
  experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
  assert experiment.metric_infos[0].name.tag == "eval/mlm_loss"
