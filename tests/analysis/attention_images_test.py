"""Attention in TensorBoard, at the ends of a run's stages."""

import dataclasses
import pathlib

import pytest
import tensorflow as tf

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import pretrain
from mslt_tf.analysis import attention_images
from mslt_tf.data.reading import manifest

CONFIG = """
model:
  vocab_size: 46
  hidden_size: 6
  num_layers: 2
  num_heads: 2
  intermediate_size: 10
  max_positions: 16
data: {directory: DATA, sequence_length: 16, max_predictions: 3, batch_size: 4}
schedule: {method: baseline, num_steps: 2, extra_steps: 1}
optimizer: {peak_learning_rate: 0.01, warmup_steps: 1}
training:
  {steps_per_loop: 2, eval_examples: 4, attention_sentence: SENTENCE}
"""


def load(shards, sentence):
  text = CONFIG.replace("DATA", shards).replace("SENTENCE", sentence)
  return config_lib.load(text, source="test")


def images(folder):
  """Returns step, width and height of every image."""
  found = []
  for path in sorted(pathlib.Path(folder).glob("events.*")):
    for event in tf.compat.v1.train.summary_iterator(str(path)):
      for value in event.summary.value:
        if value.tag == attention_images.TAG:
          width, height, png = value.tensor.string_val
          assert png.startswith(b"\x89PNG")
          found.append((event.step, int(width), int(height)))
  return found


def test_every_stage_ends_with_an_image_at_the_runs_step(shards, tmp_path):
  workdir = str(tmp_path / "run")
  assert pretrain.run(load(shards, "w1 w2"), workdir)
  # The smallest picture, 4.5 by 3 inches with 150 dots each.
  expected = [(2, 675, 450), (3, 675, 450)]
  assert images(tmp_path / "run/tensorboard") == expected


def test_what_cannot_be_drawn_is_told_before_the_run(shards, tmp_path):
  with pytest.raises(
    errors.InputError, match=r"training\.attention_sentence.*16 positions"
  ):
    pretrain.run(load(shards, "w1 " * 15), str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


def test_a_vocabulary_is_needed(shards):
  data = dataclasses.replace(manifest.open_data(shards), vocab_file=None)
  with pytest.raises(errors.InputError, match="without a vocabulary"):
    attention_images.check(load(shards, "w1"), data)


def test_without_a_sentence_no_vocabulary_is_needed(shards):
  data = dataclasses.replace(manifest.open_data(shards), vocab_file=None)
  attention_images.check(load(shards, "''"), data)  # Raises nothing.
