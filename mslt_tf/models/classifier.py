"""BERT for fine-tuning: encoder and pooler, and a classifier on top.

Letters: B batch, S sequence, D hidden, C classes, or 1 of a regression.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import dropout as dropout_lib
from mslt_tf.models import encoder
from mslt_tf.models import fused
from mslt_tf.models import heads

# As Google's run_classifier names them.
OUTPUT_WEIGHTS = "output_weights"
OUTPUT_BIAS = "output_bias"


class Classifier(tf.keras.Model):
  """The encoder, its pooler and the classifier; all of it is trained."""

  def __init__(
    self,
    architecture: architecture_lib.Architecture,
    *,
    num_outputs: int,
    precision: str = "float32",
  ):
    """Makes all weights; they are to be filled.

    Args:
      architecture: Its dropouts are what training uses; the one of the hidden
        states is that of the pooled state too.
      num_outputs: C.
      precision: As of `bert.Bert`.
    """
    super().__init__(name="model")
    common: dict[str, Any] = {
      "initializer_range": architecture.initializer_range,
      "seed": 0,
      "precision": precision,
    }
    sizes = {"hidden_size": architecture.hidden_size, **common}
    self._dropout_rate = architecture.hidden_dropout
    self._last_site = 1 + encoder.DROPOUTS_PER_LAYER * architecture.num_layers
    self.embeddings = encoder.Embeddings(
      vocab_size=architecture.vocab_size,
      max_positions=architecture.max_positions,
      num_segments=architecture.num_segments,
      dropout_rate=architecture.hidden_dropout,
      **sizes,
    )
    self.encoder_layers = [
      encoder.EncoderLayer(
        index=index,
        num_heads=architecture.num_heads,
        intermediate_size=architecture.intermediate_size,
        activation=architecture.activation,
        hidden_dropout=architecture.hidden_dropout,
        attention_dropout=architecture.attention_dropout,
        **sizes,
      )
      for index in range(architecture.num_layers)
    ]
    self.pooler = heads.Pooler(**sizes)
    shape = [num_outputs, architecture.hidden_size]
    self.output_weights = self.add_weight(OUTPUT_WEIGHTS, shape, tf.float32)
    self.output_bias = self.add_weight(OUTPUT_BIAS, shape[:1], tf.float32)

  def call(
    self,
    features: Mapping[str, tf.Tensor],
    dropout: dropout_lib.Dropout | None = None,
  ) -> tf.Tensor:
    """Returns the logits, or the values of a regression, float32 [B, C].

    Args:
      features: `input_ids`, `input_mask`, `segment_ids` [B, S].
      dropout: Where masks come from; `None` runs as at inference.
    """
    score_bias = encoder.attention_bias(features["input_mask"])
    hidden = self.embeddings(
      features["input_ids"], features["segment_ids"], dropout
    )
    for layer in self.encoder_layers:
      hidden = layer(hidden, score_bias, dropout)
    pooled = self.pooler(hidden)  # [B, D]
    if dropout is not None:
      pooled = dropout(pooled, self._dropout_rate, self._last_site)
    table = tf.cast(self.output_weights, pooled.dtype)
    return fused.add_bias_in_float32(
      tf.matmul(pooled, table, transpose_b=True),
      tf.convert_to_tensor(self.output_bias),
    )


def fresh_output(
  architecture: architecture_lib.Architecture, *, num_outputs: int, seed: int
) -> dict[str, np.ndarray]:
  """Returns a classifier's weights [C, D] and bias [C] before training."""
  initializer = tf.keras.initializers.TruncatedNormal(
    stddev=architecture.initializer_range, seed=seed
  )
  shape = [num_outputs, architecture.hidden_size]
  return {
    OUTPUT_WEIGHTS: initializer(shape).numpy(),
    OUTPUT_BIAS: np.zeros(num_outputs, np.float32),
  }


def counts(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  """Returns over how many examples the loss is a mean, a scalar."""
  return {"loss": tf.reduce_sum(features["weights"])}


def sums(
  outputs: tf.Tensor,  # [B, C]
  features: Mapping[str, tf.Tensor],
  *,
  is_regression: bool,
) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
  """Returns the loss, and for classes the accuracy, as (sum, count) pairs.

  The loss is the cross-entropy, or the squared error.

  Args:
    features: `labels` [B], class ids or values, and `weights` [B], 0 for what
      only fills up a batch.
  """
  labels, weights = features["labels"], features["weights"]
  count = counts(features)["loss"]
  if is_regression:
    errors = tf.math.squared_difference(outputs[:, 0], labels)
    return {"loss": (tf.reduce_sum(errors * weights), count)}
  loss, num_right = heads.classification_sums(outputs, labels, weights)
  return {"loss": (loss, count), "accuracy": (num_right, count)}
