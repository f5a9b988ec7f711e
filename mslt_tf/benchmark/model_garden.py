"""tf-models-official's BERT as a program that can be timed."""

import tensorflow as tf
import tensorflow_addons as tfa
from official.nlp.configs import bert
from official.nlp.configs import encoders
from official.nlp.data import pretrain_dataloader
from official.nlp.tasks import masked_lm

from mslt_tf import config as config_lib
from mslt_tf.benchmark import contestants
from mslt_tf.benchmark import random_examples


class ModelGarden(contestants.Peer):
  """tf-models-official's encoder and pre-training step, TFA's LAMB."""

  def __init__(self, config: config_lib.Config):
    tf.keras.mixed_precision.set_global_policy(config.training.precision)
    model = config.model
    encoder = encoders.BertEncoderConfig(
      vocab_size=model.vocab_size,
      hidden_size=model.hidden_size,
      num_layers=model.num_layers,
      num_attention_heads=model.num_heads,
      intermediate_size=model.intermediate_size,
      max_position_embeddings=model.max_positions,
      type_vocab_size=model.num_segments,
      dropout_rate=model.hidden_dropout,
      attention_dropout_rate=model.attention_dropout,
    )
    task = masked_lm.MaskedLMTask(
      masked_lm.MaskedLMConfig(
        model=bert.PretrainerConfig(
          encoder=encoders.EncoderConfig(type="bert", bert=encoder),
          cls_heads=[
            bert.ClsHeadConfig(
              inner_dim=model.hidden_size,
              num_classes=2,
              dropout_rate=model.hidden_dropout,
              name="next_sentence",
            )
          ],
        ),
        train_data=pretrain_dataloader.BertPretrainDataConfig(),
      )
    )
    network = task.build_model()
    metrics = task.build_metrics(training=True)
    optimizer = tfa.optimizers.LAMB(
      1e-4,
      weight_decay=config.optimizer.weight_decay,
      exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"],
    )
    batch = random_examples.features(config)
    batch["input_word_ids"] = batch.pop("input_ids")
    batch["input_type_ids"] = batch.pop("segment_ids")
    tensors = {name: tf.constant(value) for name, value in batch.items()}

    @tf.function(
      jit_compile=config.training.xla == "on" or None, autograph=False
    )
    def step():
      return task.train_step(tensors, network, optimizer, metrics)

    super().__init__(lambda: step()[task.loss].numpy())
