"""Checkpoints that tf-models-official's programs start from.

Letters: D hidden, N heads, H head size (D / N).
"""

import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
import yaml
from absl import logging
from official.nlp.configs import bert
from official.nlp.configs import encoders
from official.nlp.data import pretrain_dataloader
from official.nlp.tasks import masked_lm

from mslt_tf.data import whole_files
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import pretrained
from mslt_tf.models import weights as weights_lib

# Google's name of each weight, by Model Garden's.
LAYER_WEIGHTS = {
  "self_attention/query/kernel": "attention/self/query/kernel",
  "self_attention/query/bias": "attention/self/query/bias",
  "self_attention/key/kernel": "attention/self/key/kernel",
  "self_attention/key/bias": "attention/self/key/bias",
  "self_attention/value/kernel": "attention/self/value/kernel",
  "self_attention/value/bias": "attention/self/value/bias",
  "self_attention/attention_output/kernel": "attention/output/dense/kernel",
  "self_attention/attention_output/bias": "attention/output/dense/bias",
  "self_attention_layer_norm/gamma": "attention/output/LayerNorm/gamma",
  "self_attention_layer_norm/beta": "attention/output/LayerNorm/beta",
  "intermediate/kernel": "intermediate/dense/kernel",
  "intermediate/bias": "intermediate/dense/bias",
  "output/kernel": "output/dense/kernel",
  "output/bias": "output/dense/bias",
  "output_layer_norm/gamma": "output/LayerNorm/gamma",
  "output_layer_norm/beta": "output/LayerNorm/beta",
}
_OTHER_WEIGHTS = {
  "word_embeddings/embeddings": "bert/embeddings/word_embeddings",
  "position_embedding/embeddings": "bert/embeddings/position_embeddings",
  "type_embeddings/embeddings": "bert/embeddings/token_type_embeddings",
  "embeddings/layer_norm/gamma": "bert/embeddings/LayerNorm/gamma",
  "embeddings/layer_norm/beta": "bert/embeddings/LayerNorm/beta",
  # Model Garden's encoder has a pooler, and each classifier one of its own;
  # BERT's is both.
  "pooler_transform/kernel": "bert/pooler/dense/kernel",
  "pooler_transform/bias": "bert/pooler/dense/bias",
  "next_sentence/pooler_dense/kernel": "bert/pooler/dense/kernel",
  "next_sentence/pooler_dense/bias": "bert/pooler/dense/bias",
  "next_sentence/logits/kernel": "cls/seq_relationship/output_weights",
  "next_sentence/logits/bias": "cls/seq_relationship/output_bias",
  **{
    f"cls/predictions/{name}": f"cls/predictions/{name}"
    for name in (
      "transform/dense/kernel",
      "transform/dense/bias",
      "transform/LayerNorm/gamma",
      "transform/LayerNorm/beta",
    )
  },
  "cls/predictions/output_bias/bias": "cls/predictions/output_bias",
}
_TRANSPOSED = {"next_sentence/logits/kernel"}


def export(model: pretrained.PretrainedBert, directory: str) -> None:
  """Writes a directory that Model Garden's `init_checkpoint` takes.

  It holds the encoder, the MLM head and the NSP classifier; `encoder.yaml` for
  `--config_file`; and `vocab.txt`.
  """
  if model.architecture.activation != "gelu_tanh":
    logging.warning(
      "the model has the exact GELU; Model Garden computes it by tanh, which"
      " changes the outputs by about 0.001"
    )
  config = encoder_config(model.architecture)
  network = _make_pretrainer(config)
  _fill(network, model.weights)
  # Programs look for the items; the classifier of the NSP head is none of them
  # and is found under the model alone. `save`, unlike `write`, lets them find
  # the checkpoint in its directory.
  checkpoint = tf.train.Checkpoint(model=network, **network.checkpoint_items)
  checkpoint.save(os.path.join(directory, "bert_model.ckpt"))
  settings = {"task": {"model": {"encoder": _plain(config)}}}
  whole_files.write(
    os.path.join(directory, "encoder.yaml"), yaml.safe_dump(settings).encode()
  )
  vocabulary_lib.save(model.vocabulary, os.path.join(directory, "vocab.txt"))


def encoder_config(
  architecture: architecture_lib.Architecture,
) -> encoders.EncoderConfig:
  """Returns Model Garden's description of an encoder."""
  return encoders.EncoderConfig(
    type="bert",
    bert=encoders.BertEncoderConfig(
      vocab_size=architecture.vocab_size,
      hidden_size=architecture.hidden_size,
      num_layers=architecture.num_layers,
      num_attention_heads=architecture.num_heads,
      intermediate_size=architecture.intermediate_size,
      max_position_embeddings=architecture.max_positions,
      type_vocab_size=architecture.num_segments,
      dropout_rate=architecture.hidden_dropout,
      attention_dropout_rate=architecture.attention_dropout,
      initializer_range=architecture.initializer_range,
    ),
  )


def googles_name(name: str) -> str:
  """Returns Google's name of a weight that Model Garden calls `name`.

  Raises:
    KeyError: BERT has no such weight.
  """
  prefix = "transformer/layer_"
  if not name.startswith(prefix):
    return _OTHER_WEIGHTS[name]
  index, suffix = name.removeprefix(prefix).split("/", maxsplit=1)
  return f"bert/encoder/layer_{index}/{LAYER_WEIGHTS[suffix]}"


def _make_pretrainer(config: encoders.EncoderConfig) -> tf.keras.Model:
  heads = [
    bert.ClsHeadConfig(
      inner_dim=config.bert.hidden_size, num_classes=2, name="next_sentence"
    )
  ]
  task = masked_lm.MaskedLMTask(
    masked_lm.MaskedLMConfig(
      model=bert.PretrainerConfig(encoder=config, cls_heads=heads),
      train_data=pretrain_dataloader.BertPretrainDataConfig(),
    )
  )
  network = task.build_model()
  # The heads have no weights before they are called.
  states = tf.zeros([1, 1, config.bert.hidden_size])
  network.masked_lm(states, masked_positions=tf.zeros([1, 1], tf.int32))
  for head in network.classification_heads:
    head(states)
  return network


def _fill(network: tf.keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
  for variable in network.weights:
    name = weights_lib.name_of(variable)
    array = arrays[googles_name(name)]
    if name in _TRANSPOSED:
      array = array.T
    # Model Garden's attention has [D, N, H] and [N, H, D] for [D, D].
    variable.assign(array.reshape(variable.shape))


def _plain(config: encoders.EncoderConfig) -> dict:
  """Returns the config without the kinds of encoder that it is not."""
  return {"type": config.type, config.type: config.get().as_dict()}
