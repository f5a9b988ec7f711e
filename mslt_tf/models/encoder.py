"""BERT's embeddings and encoder layers.

Letters: B batch, S sequence, D hidden, N heads, H head size (D / N), F
intermediate. Every weight has the name and shape of Google's published BERT
checkpoints.

In mixed precision the matrix products, the residual stream and what a layer
hands on are of the compute type. Norms, GELU, softmax and the bias of its
scores are float32: BERT with LAMB did not converge otherwise
(`transformer_encoder_block.py` of Model Garden).
"""

import functools
import zlib
from collections.abc import Callable, Sequence

import tensorflow as tf

from mslt_tf.models import dropout as dropout_lib
from mslt_tf.models import fused

# Added to the attention score of a padding token: its weight underflows to 0.
MASKED_SCORE = -10_000.0
DROPOUTS_PER_LAYER = 3


# Functions of a product [M, F] and the bias [F] to add to it.
ACTIVATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
  "gelu_tanh": functools.partial(fused.gelu, approximate=True),
  "gelu_exact": functools.partial(fused.gelu, approximate=False),
}


class NamedWeights(tf.keras.layers.Layer):
  """A layer whose weights are named in full and initialised by their names.

  A weight's initial value depends on the seed and its name alone, not on which
  other weights exist. Weights are float32 whatever the layer computes in.
  """

  def __init__(
    self,
    *,
    prefix: str,
    initializer_range: float,
    seed: int,
    precision: str = "float32",
  ):
    """Makes no weights yet.

    Args:
      precision: Name of a Keras policy: `float32`, `mixed_bfloat16` or
        `mixed_float16`.
    """
    super().__init__(
      name=prefix.rsplit("/", maxsplit=1)[-1],
      dtype=tf.keras.mixed_precision.Policy(precision),
    )
    self._prefix = prefix
    self._initializer_range = initializer_range
    self._seed = seed
    self._trains_weights = True

  def _matrix(self, name: str, shape: list[int]) -> tf.Variable:
    full_name = f"{self._prefix}/{name}"
    seed = zlib.crc32(f"{self._seed}:{full_name}".encode()) & 0x7FFFFFFF
    return self._weight(
      name,
      shape,
      tf.keras.initializers.TruncatedNormal(
        stddev=self._initializer_range, seed=seed
      ),
    )

  def _vector(self, name: str, size: int, value: str = "zeros") -> tf.Variable:
    return self._weight(name, [size], value)

  def _weight(self, name: str, shape: list[int], initializer) -> tf.Variable:
    return self.add_weight(
      name=f"{self._prefix}/{name}",
      shape=shape,
      initializer=initializer,
      trainable=self._trains_weights,
      # Norms want their weights in float32, and of a table a few rows are to
      # be cast, not the whole: each use casts for itself.
      experimental_autocast=False,
    )

  def _dense(self, name: str, inputs: int, outputs: int) -> list[tf.Variable]:
    kernel = self._matrix(f"{name}/kernel", [inputs, outputs])
    return [kernel, self._vector(f"{name}/bias", outputs)]

  def _layer_norm(self, name: str, size: int) -> list[tf.Variable]:
    gamma = self._vector(f"{name}/gamma", size, "ones")
    return [gamma, self._vector(f"{name}/beta", size)]


def product(inputs: tf.Tensor, kernel) -> tf.Tensor:
  """Returns inputs [M, I] times kernel [I, O], of their type."""
  return tf.matmul(inputs, tf.cast(kernel, inputs.dtype))


def dense(inputs: tf.Tensor, kernel, bias) -> tf.Tensor:
  """Returns inputs [M, I] times kernel [I, O] plus bias [O], of their type."""
  return fused.add_bias(product(inputs, kernel), tf.convert_to_tensor(bias))


def attention_bias(input_mask: tf.Tensor) -> tf.Tensor:
  """Turns a mask [B, S], 0 for padding, into a score bias [B, 1, 1, S]."""
  is_padding = 1.0 - tf.cast(input_mask, tf.float32)
  return (is_padding * MASKED_SCORE)[:, tf.newaxis, tf.newaxis, :]


class Embeddings(NamedWeights):
  """Sum of word, position and segment embeddings, normalised."""

  def __init__(
    self,
    *,
    vocab_size: int,
    hidden_size: int,
    max_positions: int,
    num_segments: int,
    dropout_rate: float,
    initializer_range: float,
    seed: int,
    precision: str = "float32",
    train_words_only: bool = False,
  ):
    super().__init__(
      prefix="bert/embeddings",
      initializer_range=initializer_range,
      seed=seed,
      precision=precision,
    )
    self._dropout_rate = dropout_rate
    self.word_embeddings = self._matrix(
      "word_embeddings", [vocab_size, hidden_size]
    )
    self._trains_weights = not train_words_only
    self.position_embeddings = self._matrix(
      "position_embeddings", [max_positions, hidden_size]
    )
    self.segment_embeddings = self._matrix(
      "token_type_embeddings", [num_segments, hidden_size]
    )
    self.norm = self._layer_norm("LayerNorm", hidden_size)

  def call(
    self,
    input_ids: tf.Tensor,  # [B, S]
    segment_ids: tf.Tensor,  # [B, S]
    dropout: dropout_lib.Dropout | None,
  ) -> tf.Tensor:
    shape = tf.shape(input_ids)
    embedded = tf.gather(self.word_embeddings, input_ids)  # [B, S, D]
    embedded += self.position_embeddings[tf.newaxis, : shape[1]]
    embedded += tf.gather(self.segment_embeddings, segment_ids)
    hidden_size = embedded.shape[-1]
    embedded = fused.norm(
      tf.reshape(embedded, [-1, hidden_size]),
      *map(tf.convert_to_tensor, self.norm),
      dtype=tf.as_dtype(self.compute_dtype),
      key=dropout.key(0) if dropout is not None else None,
      rate=self._dropout_rate,
    )
    return tf.reshape(embedded, [shape[0], shape[1], hidden_size])


class EncoderLayer(NamedWeights):
  """Self-attention and feed-forward network, each with residual and norm."""

  def __init__(
    self,
    *,
    index: int,
    hidden_size: int,
    num_heads: int,
    intermediate_size: int,
    activation: str,
    hidden_dropout: float,
    attention_dropout: float,
    initializer_range: float,
    seed: int,
    precision: str = "float32",
  ):
    super().__init__(
      prefix=f"bert/encoder/layer_{index}",
      initializer_range=initializer_range,
      seed=seed,
      precision=precision,
    )
    d = hidden_size
    self._hidden_size, self._num_heads = hidden_size, num_heads
    self._activation = ACTIVATIONS[activation]
    self._hidden_dropout = hidden_dropout
    self._attention_dropout = attention_dropout
    self._first_site = 1 + index * DROPOUTS_PER_LAYER
    self.query = self._dense("attention/self/query", d, d)
    self.key = self._dense("attention/self/key", d, d)
    self.value = self._dense("attention/self/value", d, d)
    self.attention_output = self._dense("attention/output/dense", d, d)
    self.attention_norm = self._layer_norm("attention/output/LayerNorm", d)
    self.intermediate = self._dense("intermediate/dense", d, intermediate_size)
    self.output_dense = self._dense("output/dense", intermediate_size, d)
    self.output_norm = self._layer_norm("output/LayerNorm", d)

  def call(
    self,
    hidden: tf.Tensor,  # [B, S, D]
    score_bias: tf.Tensor,  # [B, 1, 1, S]
    dropout: dropout_lib.Dropout | None,
    kernels: Sequence[tf.Tensor] | None = None,
  ) -> tf.Tensor:
    """Returns the layer's output [B, S, D].

    Args:
      dropout: `None` for none.
      kernels: What `kernels` returns, where that is at hand.
    """
    attention, attention_output, intermediate, output = (
      kernels or self.kernels()
    )
    shape = tf.shape(hidden)
    # The CPU's matrix product is at its best on plain matrices.
    flat = tf.reshape(hidden, [-1, self._hidden_size])  # [BS, D]
    context = fused.attention(
      tf.matmul(flat, attention),
      tf.concat([bias for _, bias in self._heads()], 0),
      score_bias,
      num_heads=self._num_heads,
      key=self._key(dropout, 0),
      rate=self._attention_dropout,
    )  # [BS, D]
    flat = self._add_and_norm(
      tf.matmul(context, attention_output),
      self.attention_output,
      flat,
      self.attention_norm,
      self._key(dropout, 1),
    )
    inner = self._activation(
      tf.matmul(flat, intermediate), tf.convert_to_tensor(self.intermediate[1])
    )  # [BS, F]
    flat = self._add_and_norm(
      tf.matmul(inner, output),
      self.output_dense,
      flat,
      self.output_norm,
      self._key(dropout, 2),
    )
    return tf.reshape(flat, shape)

  def kernels(self) -> list[tf.Tensor]:
    """Returns the kernels of the layer's four products, in its compute type.

    Query, key and value are one product, [D, 3D]; the weights stay three
    tensors, since LAMB's trust ratio is per tensor.
    """
    *heads, output, inner, outer = [
      tf.cast(kernel, self.compute_dtype)
      for kernel, _ in (
        *self._heads(),
        self.attention_output,
        self.intermediate,
        self.output_dense,
      )
    ]
    return [tf.concat(heads, 1), output, inner, outer]

  def _heads(self):
    return self.query, self.key, self.value

  def _add_and_norm(self, inputs, dense_layer, residual, norm, key):
    """Returns the norm [BS, D] of a residual plus dropped-out biased inputs."""
    return fused.norm_of_sum(
      inputs,
      tf.convert_to_tensor(dense_layer[1]),
      residual,
      *map(tf.convert_to_tensor, norm),
      key=key,
      rate=self._hidden_dropout,
    )

  def _key(self, dropout: dropout_lib.Dropout | None, site: int):
    return None if dropout is None else dropout.key(self._first_site + site)
