"""BERT for pre-training, with its lower part frozen where a stage says so.

Letters: B batch, S sequence, P predictions, D hidden, V vocabulary.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from mslt_tf.data.examples import features as features_lib
from mslt_tf.models import dropout as dropout_lib
from mslt_tf.models import encoder
from mslt_tf.models import heads


@dataclasses.dataclass(frozen=True)
class Outputs:
  """What a forward pass yields.

  Attributes:
    hidden_states: Of the embeddings and of every layer, each [B, S, D]. Where
      the frozen part's came with the features, its last and those above.
    pooled: [B, D].
    masked_lm_logits: float32 [B, P, V].
    next_sentence_logits: float32 [B, 2].
  """

  hidden_states: list[tf.Tensor]
  pooled: tf.Tensor
  masked_lm_logits: tf.Tensor
  next_sentence_logits: tf.Tensor


class Bert(tf.keras.Model):
  """The encoder and both pre-training heads of one stage.

  The frozen part is outside backpropagation: its layers are `trainable=False`,
  a `stop_gradient` stands above it and on the tied output matrix, and it runs
  as at inference unless `dropout_when_frozen`. With frozen layers but
  `freeze_embeddings=False` the word table is trained, as the output matrix
  alone, and what is looked up in it belongs to the frozen part.
  """

  def __init__(
    self,
    *,
    vocab_size: int,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    intermediate_size: int,
    max_positions: int = 512,
    num_segments: int = 2,
    activation: str = "gelu_tanh",
    hidden_dropout: float = 0.1,
    attention_dropout: float = 0.1,
    initializer_range: float = 0.02,
    num_frozen_layers: int = 0,
    freeze_embeddings: bool = False,
    dropout_when_frozen: bool = False,
    seed: int = 0,
    precision: str = "float32",
  ):
    """Makes all weights; their values depend on `seed` and their names.

    Args:
      precision: `float32`, `mixed_bfloat16` or `mixed_float16`. Weights are
        float32 in all three, and so is the type of their gradients, which
        mixed precision sums over tokens in its own.
    """
    super().__init__(name="model")
    common: dict[str, Any] = {
      "initializer_range": initializer_range,
      "seed": seed,
      "precision": precision,
    }
    self.num_frozen_layers = num_frozen_layers
    self.freeze_embeddings = freeze_embeddings
    self.dropout_when_frozen = dropout_when_frozen
    self.embeddings = encoder.Embeddings(
      vocab_size=vocab_size,
      hidden_size=hidden_size,
      max_positions=max_positions,
      num_segments=num_segments,
      dropout_rate=hidden_dropout,
      train_words_only=num_frozen_layers > 0,
      **common,
    )
    self.encoder_layers = [
      encoder.EncoderLayer(
        index=index,
        hidden_size=hidden_size,
        num_heads=num_heads,
        intermediate_size=intermediate_size,
        activation=activation,
        hidden_dropout=hidden_dropout,
        attention_dropout=attention_dropout,
        **common,
      )
      for index in range(num_layers)
    ]
    self.pooler = heads.Pooler(hidden_size=hidden_size, **common)
    self.masked_lm_head = heads.MaskedLMHead(
      vocab_size=vocab_size,
      hidden_size=hidden_size,
      activation=activation,
      **common,
    )
    self.next_sentence_head = heads.NextSentenceHead(
      hidden_size=hidden_size, **common
    )
    self.embeddings.trainable = not freeze_embeddings
    for layer in self.encoder_layers[:num_frozen_layers]:
      layer.trainable = False

  def call(
    self,
    features: Mapping[str, tf.Tensor],
    dropout: dropout_lib.Dropout | None = None,
    frozen_kernels: Mapping[str, Any] | None = None,
  ) -> Outputs:
    """Runs forward.

    Args:
      features: `input_ids`, `input_mask`, `segment_ids` [B, S] and
        `masked_lm_positions` [B, P]. With `frozen_states` [B, S, D], what the
        method of that name returned, the frozen part is not run.
      dropout: Where masks come from; `None` runs as at inference.
      frozen_kernels: What the method returns, where that is at hand.
    """
    frozen_kernels = frozen_kernels or self.frozen_kernels()
    score_bias = encoder.attention_bias(features["input_mask"])
    word_embeddings = frozen_kernels.get("word_embeddings")
    if word_embeddings is None:
      word_embeddings = tf.convert_to_tensor(self.embeddings.word_embeddings)
    if features_lib.FROZEN_STATES in features:
      hidden_states = [tf.stop_gradient(features[features_lib.FROZEN_STATES])]
    else:
      hidden_states = self._lower_states(
        features, score_bias, dropout, frozen_kernels
      )
    hidden = hidden_states[-1]
    for layer in self.encoder_layers[self.num_frozen_layers :]:
      hidden = layer(hidden, score_bias, dropout)
      hidden_states.append(hidden)
    pooled = self.pooler(hidden)
    return Outputs(
      hidden_states=hidden_states,
      pooled=pooled,
      masked_lm_logits=self.masked_lm_head(
        hidden, features["masked_lm_positions"], word_embeddings
      ),
      next_sentence_logits=self.next_sentence_head(pooled),
    )

  def frozen_states(
    self,
    features: Mapping[str, tf.Tensor],
    frozen_kernels: Mapping[str, Any] | None = None,
  ) -> tf.Tensor:
    """Returns what the last frozen layer hands on, [B, S, D].

    It is the same whenever an example is passed, unless `dropout_when_frozen`
    or the word embeddings are trained.
    The arguments are those of `call`.
    """
    return self._lower_states(
      features,
      encoder.attention_bias(features["input_mask"]),
      None,
      frozen_kernels or self.frozen_kernels(),
    )[-1]

  def _lower_states(
    self,
    features: Mapping[str, tf.Tensor],
    score_bias: tf.Tensor,
    dropout: dropout_lib.Dropout | None,
    frozen_kernels: Mapping[str, Any],
  ) -> list[tf.Tensor]:
    """Returns the states of the embeddings and of every frozen layer."""
    frozen_dropout = dropout if self.dropout_when_frozen else None
    is_frozen = self.freeze_embeddings or self.num_frozen_layers > 0
    hidden = self.embeddings(
      features["input_ids"],
      features["segment_ids"],
      frozen_dropout if is_frozen else dropout,
    )
    if is_frozen:
      hidden = tf.stop_gradient(hidden)
    hidden_states = [hidden]
    for layer in self.encoder_layers[: self.num_frozen_layers]:
      hidden = layer(
        hidden, score_bias, frozen_dropout, frozen_kernels[layer.name]
      )
      hidden = tf.stop_gradient(hidden)
      hidden_states.append(hidden)
    return hidden_states

  def frozen_kernels(self) -> dict[str, Any]:
    """Returns what products use of the frozen part, in the compute type.

    It is the same in all steps of a stage. Keys are names of layers, with what
    `EncoderLayer.kernels` returns, and `word_embeddings`, the tied table.
    """
    kernels: dict[str, Any] = {
      layer.name: layer.kernels()
      for layer in self.encoder_layers[: self.num_frozen_layers]
    }
    if self.freeze_embeddings:
      kernels["word_embeddings"] = tf.cast(
        self.embeddings.word_embeddings, self.embeddings.compute_dtype
      )
    return tf.nest.map_structure(tf.stop_gradient, kernels)


def pretraining_counts(
  features: Mapping[str, tf.Tensor],
) -> dict[str, tf.Tensor]:
  """Returns over how much each loss is a mean, as float32 scalars.

  `mlm_loss` counts predictions of weight 1; `nsp_loss` counts examples but for
  those that only fill up a batch, all of whose features are zero. No forward
  pass is needed to know them.
  """
  return {
    "mlm_loss": tf.reduce_sum(features["masked_lm_weights"]),
    "nsp_loss": tf.reduce_sum(_example_weights(features)),
  }


def pretraining_sums(
  outputs: Outputs, features: Mapping[str, tf.Tensor]
) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
  """Returns losses and accuracies as (sum, count) pairs of scalars.

  Keys: `mlm_loss`, `mlm_accuracy`, `nsp_loss`, `nsp_accuracy`; an accuracy has
  its loss's count. Quotients of sums over many batches or devices are the exact
  means.
  """
  mlm_loss, mlm_right = heads.classification_sums(
    outputs.masked_lm_logits,
    features["masked_lm_ids"],
    features["masked_lm_weights"],
  )
  nsp_loss, nsp_right = heads.classification_sums(
    outputs.next_sentence_logits,
    features["next_sentence_labels"],
    _example_weights(features),
  )
  counts = pretraining_counts(features)
  return {
    "mlm_loss": (mlm_loss, counts["mlm_loss"]),
    "mlm_accuracy": (mlm_right, counts["mlm_loss"]),
    "nsp_loss": (nsp_loss, counts["nsp_loss"]),
    "nsp_accuracy": (nsp_right, counts["nsp_loss"]),
  }


def _example_weights(features: Mapping[str, tf.Tensor]) -> tf.Tensor:
  # Every example begins with `[CLS]`, which is no padding.
  return tf.cast(features["input_mask"][:, 0], tf.float32)  # [B]
