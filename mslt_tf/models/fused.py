"""Chains of elementwise operations as one kernel each, with their gradients.

TensorFlow runs operation after operation, each of which reads and writes whole
tensors; a chain compiled by XLA does so once. Only the chains are compiled: on
a CPU the matrix products between them are faster in oneDNN, and the chains
compile in seconds, once for all layers. Inside a step that is compiled as a
whole they become part of it.

Backward, a chain is computed again from its inputs, so nothing between is kept.
Sums over rows, for the gradients of biases and norms, are products with a
vector of ones, which is faster than XLA's reductions on a CPU.

All is computed in float32, whatever the type of the inputs. Letters: M rows, D
columns, B batch, N heads, S sequence.
"""

from collections.abc import Callable

import tensorflow as tf

from mslt_tf.models import dropout as dropout_lib

LAYER_NORM_EPSILON = 1e-12  # As in the original BERT.


def _kernel(function: Callable) -> Callable:
  return tf.function(function, jit_compile=True, autograph=False)


def gelu(inputs: tf.Tensor, bias: tf.Tensor, *, approximate: bool) -> tf.Tensor:
  """Returns the GELU of inputs [M, D] plus bias [D], in the inputs' type."""

  @tf.custom_gradient
  def fused(inputs, bias):
    def gradient(upstream):
      to_inputs = _gelu_gradient(inputs, bias, upstream, approximate)
      return to_inputs, _sum_of_rows(to_inputs)

    return _gelu(inputs, bias, approximate), gradient

  return fused(inputs, bias)


@_kernel
def _gelu(inputs, bias, approximate):
  outputs = tf.nn.gelu(_exact(inputs) + bias, approximate=approximate)
  return tf.cast(outputs, inputs.dtype)


@_kernel
def _gelu_gradient(inputs, bias, upstream, approximate):
  biased = _exact(inputs) + bias
  with tf.GradientTape() as tape:
    tape.watch(biased)
    outputs = tf.nn.gelu(biased, approximate=approximate)
  to_inputs = tape.gradient(outputs, biased, _exact(upstream))
  return tf.cast(to_inputs, inputs.dtype)


def norm_of_sum(
  inputs: tf.Tensor,
  bias: tf.Tensor,
  residual: tf.Tensor,
  gamma: tf.Tensor,
  beta: tf.Tensor,
  *,
  key: tf.Tensor | None = None,
  rate: float = 0.0,
) -> tf.Tensor:
  """Returns the layer norm of the residual plus the dropped-out biased inputs.

  Args:
    inputs: [M, D].
    bias: [D], added to the inputs.
    residual: [M, D], of the type of the inputs.
    gamma: [D].
    beta: [D].
    key: Of the dropout's mask, `Dropout.key`; `None` for no dropout.
    rate: Of the dropout.

  Returns:
    [M, D], of the type of the inputs.
  """
  key, rate = _mask_arguments(key, rate)

  @tf.custom_gradient
  def fused(inputs, bias, residual, gamma, beta):
    def gradient(upstream):
      to_inputs, to_residual, to_gamma = _norm_of_sum_gradient(
        inputs, bias, residual, gamma, key, rate, upstream
      )
      return (
        to_inputs,
        _sum_of_rows(to_inputs),
        to_residual,
        _sum_of_rows(to_gamma),
        _sum_of_rows(upstream),
      )

    outputs = _norm_of_sum(inputs, bias, residual, gamma, beta, key, rate)
    return outputs, gradient

  return fused(inputs, bias, residual, gamma, beta)


def _sum_with_residual(inputs, bias, residual, factors):
  return _exact(residual) + (_exact(inputs) + bias) * factors


@_kernel
def _norm_of_sum(inputs, bias, residual, gamma, beta, key, rate):
  factors = _factors(key, inputs, rate)
  summed = _sum_with_residual(inputs, bias, residual, factors)
  normalised, _ = _normalised(summed)
  return tf.cast(normalised * gamma + beta, inputs.dtype)


@_kernel
def _norm_of_sum_gradient(inputs, bias, residual, gamma, key, rate, upstream):
  """Returns the gradients to inputs and residual, and to each gamma's use."""
  factors = _factors(key, inputs, rate)
  summed = _sum_with_residual(inputs, bias, residual, factors)
  normalised, inverse = _normalised(summed)
  upstream = _exact(upstream)
  to_sum = _through_norm(upstream * gamma, normalised, inverse)
  return [
    tf.cast(each, inputs.dtype)
    for each in (to_sum * factors, to_sum, upstream * normalised)
  ]


def norm(
  inputs: tf.Tensor,
  gamma: tf.Tensor,
  beta: tf.Tensor,
  *,
  dtype: tf.DType,
  key: tf.Tensor | None = None,
  rate: float = 0.0,
) -> tf.Tensor:
  """Returns the dropped-out layer norm of inputs [M, D], of type `dtype`.

  Args:
    inputs: [M, D].
    gamma: [D].
    beta: [D].
    dtype: Of the result.
    key: Of the dropout's mask, `Dropout.key`; `None` for no dropout.
    rate: Of the dropout.
  """
  key, rate = _mask_arguments(key, rate)

  @tf.custom_gradient
  def fused(inputs, gamma, beta):
    def gradient(upstream):
      to_inputs, to_gamma, to_beta = _norm_gradient(
        inputs, gamma, key, rate, upstream
      )
      return to_inputs, _sum_of_rows(to_gamma), _sum_of_rows(to_beta)

    return _norm(inputs, gamma, beta, dtype, key, rate), gradient

  return fused(inputs, gamma, beta)


@_kernel
def _norm(inputs, gamma, beta, dtype, key, rate):
  normalised, _ = _normalised(_exact(inputs))
  outputs = (normalised * gamma + beta) * _factors(key, inputs, rate)
  return tf.cast(outputs, dtype)


@_kernel
def _norm_gradient(inputs, gamma, key, rate, upstream):
  """Returns the gradients to inputs, and to each use of gamma and beta."""
  normalised, inverse = _normalised(_exact(inputs))
  to_outputs = _exact(upstream) * _factors(key, inputs, rate)
  to_inputs = _through_norm(to_outputs * gamma, normalised, inverse)
  return (
    tf.cast(to_inputs, inputs.dtype),
    to_outputs * normalised,
    to_outputs,
  )


def _normalised(inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns inputs [M, D] normalised, and their inverse deviation [M, 1]."""
  centred = inputs - tf.reduce_mean(inputs, -1, keepdims=True)
  variance = tf.reduce_mean(centred**2, -1, keepdims=True)
  inverse = tf.math.rsqrt(variance + LAYER_NORM_EPSILON)
  return centred * inverse, inverse


def _through_norm(
  to_normalised: tf.Tensor, normalised: tf.Tensor, inverse: tf.Tensor
) -> tf.Tensor:
  """Returns the gradient to what `_normalised` normalised."""
  mean = tf.reduce_mean(to_normalised, -1, keepdims=True)
  share = tf.reduce_mean(to_normalised * normalised, -1, keepdims=True)
  return inverse * (to_normalised - mean - normalised * share)


def add_bias(inputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
  """Returns inputs [M, D] plus bias [D], of the inputs' type."""

  @tf.custom_gradient
  def fused(inputs, bias):
    outputs = tf.nn.bias_add(inputs, tf.cast(bias, inputs.dtype))
    return outputs, lambda upstream: (upstream, _sum_of_rows(upstream))

  return fused(inputs, bias)


def attention_weights(
  scores: tf.Tensor,
  score_bias: tf.Tensor,
  *,
  scale: float,
  key: tf.Tensor | None = None,
  rate: float = 0.0,
) -> tf.Tensor:
  """Returns the dropped-out softmax of scaled and biased scores.

  Args:
    scores: [B, N, S, S].
    score_bias: float32 [B, 1, 1, S], without a gradient.
    scale: Of the scores.
    key: Of the dropout's mask, `Dropout.key`; `None` for no dropout.
    rate: Of the dropout.

  Returns:
    [B, N, S, S], of the type of the scores.
  """
  key, rate = _mask_arguments(key, rate)

  @tf.custom_gradient
  def fused(scores):
    def gradient(upstream):
      return _attention_weights_gradient(
        scores, score_bias, scale, key, rate, upstream
      )

    return _attention_weights(scores, score_bias, scale, key, rate), gradient

  return fused(scores)


@_kernel
def _attention_weights(scores, score_bias, scale, key, rate):
  weights = tf.nn.softmax(_exact(scores) * scale + score_bias)
  return tf.cast(weights * _factors(key, scores, rate), scores.dtype)


@_kernel
def _attention_weights_gradient(scores, score_bias, scale, key, rate, upstream):
  weights = tf.nn.softmax(_exact(scores) * scale + score_bias)
  to_weights = _exact(upstream) * _factors(key, scores, rate)
  mean = tf.reduce_sum(to_weights * weights, -1, keepdims=True)
  return tf.cast(weights * (to_weights - mean) * scale, scores.dtype)


def cross_entropy(
  logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the weighted sum of the losses and of right answers, both scalars.

  Args:
    logits: float32 [M, D].
    labels: int32 [M], the right columns.
    weights: float32 [M].
  """

  @tf.custom_gradient
  def fused(logits):
    def gradient(to_loss, _):
      return _cross_entropy_gradient(logits, labels, weights, to_loss)

    return _cross_entropy(logits, labels, weights), gradient

  return fused(logits)


@_kernel
def _cross_entropy(logits, labels, weights):
  losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
  is_right = tf.argmax(logits, -1, output_type=labels.dtype) == labels
  num_right = tf.reduce_sum(_exact(is_right) * weights)
  return tf.reduce_sum(losses * weights), num_right


@_kernel
def _cross_entropy_gradient(logits, labels, weights, to_loss):
  to_logits = tf.nn.softmax(logits) - tf.one_hot(labels, logits.shape[-1])
  return to_logits * (to_loss * weights)[:, tf.newaxis]


def _exact(tensor: tf.Tensor) -> tf.Tensor:
  return tf.cast(tensor, tf.float32)


def _mask_arguments(
  key: tf.Tensor | None, rate: float
) -> tuple[tf.Tensor, float]:
  """Returns what the kernels take, which is a tensor in any case."""
  if key is None or not rate:
    return tf.zeros([3], tf.uint32), 0.0
  return key, rate


def _factors(key: tf.Tensor, like: tf.Tensor, rate: float) -> tf.Tensor | float:
  return dropout_lib.factors(key, tf.shape(like), rate) if rate else 1.0


def _sum_of_rows(matrix: tf.Tensor) -> tf.Tensor:
  """Returns float32 [D], the sum over the rows of [M, D]."""
  ones = tf.ones([1, tf.shape(matrix)[0]], matrix.dtype)
  return _exact(tf.matmul(ones, matrix)[0])
