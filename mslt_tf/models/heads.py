"""BERT's two pre-training heads, and their losses as sums over examples.

Letters: B batch, P predictions, D hidden, V vocabulary. Logits are float32 in
every precision.
"""

import tensorflow as tf

from mslt_tf.models import encoder
from mslt_tf.models import fused


class MaskedLMHead(encoder.NamedWeights):
  """Transform, layer norm and product with the word embeddings, plus a bias."""

  def __init__(
    self,
    *,
    vocab_size: int,
    hidden_size: int,
    activation: str,
    initializer_range: float,
    seed: int,
    precision: str = "float32",
  ):
    super().__init__(
      prefix="cls/predictions",
      initializer_range=initializer_range,
      seed=seed,
      precision=precision,
    )
    self._activation = encoder.ACTIVATIONS[activation]
    self.transform = self._dense("transform/dense", hidden_size, hidden_size)
    self.norm = self._layer_norm("transform/LayerNorm", hidden_size)
    self.output_bias = self._vector("output_bias", vocab_size)

  def call(
    self,
    hidden: tf.Tensor,  # [B, S, D]
    positions: tf.Tensor,  # [B, P]
    word_embeddings: tf.Tensor,  # [V, D]
  ) -> tf.Tensor:
    """Returns the logits [B, P, V] at the masked positions.

    The tied table is an argument, not an attribute: Keras would otherwise count
    it among the head's trainable variables in a stage that freezes it.
    """
    vocab_size, hidden_size = word_embeddings.shape
    masked = tf.gather(hidden, positions, batch_dims=1)  # [B, P, D]
    masked = tf.reshape(masked, [-1, hidden_size])  # [BP, D]
    kernel, bias = self.transform
    masked = self._activation(
      encoder.product(masked, kernel), tf.convert_to_tensor(bias)
    )
    masked = fused.norm(
      masked, *map(tf.convert_to_tensor, self.norm), dtype=masked.dtype
    )
    logits = _logits(masked, word_embeddings, self.output_bias)  # [BP, V]
    return tf.reshape(logits, [-1, positions.shape[1], vocab_size])


class Pooler(encoder.NamedWeights):
  """Dense layer and tanh over the hidden state of `[CLS]`."""

  def __init__(
    self,
    *,
    hidden_size: int,
    initializer_range: float,
    seed: int,
    precision: str = "float32",
  ):
    super().__init__(
      prefix="bert/pooler",
      initializer_range=initializer_range,
      seed=seed,
      precision=precision,
    )
    self.dense = self._dense("dense", hidden_size, hidden_size)

  def call(self, hidden: tf.Tensor) -> tf.Tensor:
    """Returns the pooled state [B, D] of hidden states [B, S, D]."""
    return tf.tanh(encoder.dense(hidden[:, 0], *self.dense))


class NextSentenceHead(encoder.NamedWeights):
  """Two logits of the pooled state; the second says: a random next sentence."""

  def __init__(
    self,
    *,
    hidden_size: int,
    initializer_range: float,
    seed: int,
    precision: str = "float32",
  ):
    super().__init__(
      prefix="cls/seq_relationship",
      initializer_range=initializer_range,
      seed=seed,
      precision=precision,
    )
    self.output_weights = self._matrix("output_weights", [2, hidden_size])
    self.output_bias = self._vector("output_bias", 2)

  def call(self, pooled: tf.Tensor) -> tf.Tensor:
    """Returns the logits [B, 2] of pooled states [B, D]."""
    return _logits(pooled, self.output_weights, self.output_bias)


def _logits(states: tf.Tensor, table, bias) -> tf.Tensor:
  """Returns states [M, D] times table [C, D], transposed, plus bias [C]."""
  logits = tf.matmul(states, tf.cast(table, states.dtype), transpose_b=True)
  return fused.add_bias_in_float32(logits, tf.convert_to_tensor(bias))


def classification_sums(
  logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the summed loss and the number of right answers, both scalars.

  Args:
    logits: [..., C].
    labels: Whole numbers [...], the right classes.
    weights: [...], 1 for what counts and 0 for padding.
  """
  return fused.cross_entropy(
    tf.reshape(tf.cast(logits, tf.float32), [-1, logits.shape[-1]]),
    tf.reshape(labels, [-1]),
    tf.reshape(weights, [-1]),
  )
