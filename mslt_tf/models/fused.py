"""Chains of elementwise operations as one kernel each, with their gradients.

TensorFlow runs operation after operation, each of which reads and writes whole
tensors; a chain compiled by XLA does so once. Only the chains are compiled: on
a CPU the matrix products between them are faster in oneDNN, and the chains
compile in seconds, once for all layers. Inside a step that is compiled as a
whole they become part of it.

Backward, a chain is computed again from its inputs, or from what is normalised
in it, so little between is kept. XLA's reductions are slow on a CPU. Sums over
rows, for the gradients of biases and norms, are products with a vector of ones,
and a softmax is TensorFlow's own.

All is computed in float32, whatever the type of the inputs. Letters: M rows, D
columns, B batch, N heads, S sequence.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator

import tensorflow as tf
from tensorflow.python.framework import ops

from mslt_tf.models import dropout as dropout_lib

LAYER_NORM_EPSILON = 1e-12  # As in the original BERT.


_is_plain = contextvars.ContextVar("_is_plain", default=False)


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
  """Within it, chains are traced as TensorFlow's own operations.

  For graphs that go elsewhere: a kernel is compiled anew for each shape, which
  a server would wait for at each new batch size or length, and a gradient of
  this module is not found where the module is not.
  """
  token = _is_plain.set(True)
  try:
    yield
  finally:
    _is_plain.reset(token)


@contextlib.contextmanager
def releasing_graphs() -> Iterator[None]:
  """At its end, graphs that were traced within it can be freed.

  TensorFlow 2.15 registers the gradient of each `tf.custom_gradient` in a graph
  under a name of its own and for ever. The gradient holds the graph, and this
  the variables that it reads: their memory, a stage's weights and moments,
  would never come back. Gradients of what was traced cannot be taken later.
  """
  gradients = ops.gradient_registry._registry  # There is no public way.
  before = set(gradients)
  try:
    yield
  finally:
    for name in gradients.keys() - before:
      if name.startswith("CustomGradient-"):
        del gradients[name]


def _kernel(function: Callable) -> Callable:
  compiled = tf.function(function, jit_compile=True, autograph=False)

  @functools.wraps(function)
  def call(*args):
    return (function if _is_plain.get() else compiled)(*args)

  return call


def _with_gradient(function: Callable) -> Callable:
  """Makes a function of one that returns its outputs and their gradient."""
  if _is_plain.get():
    return lambda *args: function(*args)[0]
  return tf.custom_gradient(function)


def gelu(inputs: tf.Tensor, bias: tf.Tensor, *, approximate: bool) -> tf.Tensor:
  """Returns the GELU of inputs [M, D] plus bias [D], in the inputs' type."""

  @_with_gradient
  def fused(inputs, bias):
    def gradient(upstream):
      to_inputs = _gelu_gradient(inputs, bias, upstream, approximate)
      return to_inputs, _sum_of_rows(to_inputs)

    return _gelu(inputs, bias, approximate), gradient

  return fused(inputs, bias)


@_kernel
def _gelu(inputs, bias, approximate):
  outputs = tf.nn.gelu(_float32(inputs) + bias, approximate=approximate)
  return tf.cast(outputs, inputs.dtype)


@_kernel
def _gelu_gradient(inputs, bias, upstream, approximate):
  biased = _float32(inputs) + bias
  with tf.GradientTape() as tape:
    tape.watch(biased)
    outputs = tf.nn.gelu(biased, approximate=approximate)
  to_inputs = tape.gradient(outputs, biased, _float32(upstream))
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

  @_with_gradient
  def fused(inputs, bias, residual, gamma, beta):
    outputs, normalised, inverse = _norm_of_sum(
      inputs, bias, residual, gamma, beta, key, rate
    )

    def gradient(upstream):
      to_inputs, to_residual, to_gamma = _norm_of_sum_gradient(
        normalised, inverse, gamma, key, rate, upstream
      )
      return (
        to_inputs,
        _sum_of_rows(to_inputs),
        to_residual,
        _sum_of_rows(to_gamma),
        _sum_of_rows(upstream),
      )

    return outputs, gradient

  return fused(inputs, bias, residual, gamma, beta)


@_kernel
def _norm_of_sum(inputs, bias, residual, gamma, beta, key, rate):
  """Returns the outputs, and for the gradient what `_normalised` returns."""
  factors = _factors(key, inputs, rate)
  summed = _float32(residual) + (_float32(inputs) + bias) * factors
  normalised, inverse = _normalised(summed)
  return [
    *[
      tf.cast(each, inputs.dtype)
      for each in (normalised * gamma + beta, normalised)
    ],
    inverse,
  ]


@_kernel
def _norm_of_sum_gradient(normalised, inverse, gamma, key, rate, upstream):
  """Returns the gradients to inputs and residual, and to each gamma's use."""
  factors = _factors(key, normalised, rate)
  dtype = normalised.dtype
  normalised, upstream = _float32(normalised), _float32(upstream)
  to_sum = _through_norm(upstream * gamma, normalised, inverse)
  return [
    tf.cast(each, dtype)
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

  @_with_gradient
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
  normalised, _ = _normalised(_float32(inputs))
  outputs = (normalised * gamma + beta) * _factors(key, inputs, rate)
  return tf.cast(outputs, dtype)


@_kernel
def _norm_gradient(inputs, gamma, key, rate, upstream):
  """Returns the gradients to inputs, and to each use of gamma and beta."""
  normalised, inverse = _normalised(_float32(inputs))
  to_outputs = _float32(upstream) * _factors(key, inputs, rate)
  to_inputs = _through_norm(to_outputs * gamma, normalised, inverse)
  return (
    tf.cast(to_inputs, inputs.dtype),
    to_outputs * normalised,
    to_outputs,
  )


def _normalised(inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns inputs [M, D] normalised, and their inverse deviation [M, 1]."""
  centred = inputs - _mean_of_columns(inputs)
  variance = _mean_of_columns(centred**2)
  inverse = tf.math.rsqrt(variance + LAYER_NORM_EPSILON)
  return centred * inverse, inverse


def _through_norm(
  to_normalised: tf.Tensor, normalised: tf.Tensor, inverse: tf.Tensor
) -> tf.Tensor:
  """Returns the gradient to what `_normalised` normalised."""
  mean = _mean_of_columns(to_normalised)
  share = _mean_of_columns(to_normalised * normalised)
  return inverse * (to_normalised - mean - normalised * share)


def _mean_of_columns(inputs: tf.Tensor) -> tf.Tensor:
  return _sum_of_columns(inputs) / inputs.shape[-1]


def _sum_of_columns(inputs: tf.Tensor) -> tf.Tensor:
  """Returns [..., 1], the sum over the columns of [..., D].

  XLA adds slices with all of a CPU's threads and its vector instructions, but
  what lies in a row number by number.
  """
  num_slices = 8
  if inputs.shape[-1] % num_slices == 0:
    inputs = tf.add_n(tf.split(inputs, num_slices, -1))
  return tf.reduce_sum(inputs, -1, keepdims=True)


def add_bias(inputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
  """Returns inputs [M, D] plus bias [D], of the inputs' type."""

  @_with_gradient
  def fused(inputs, bias):
    outputs = tf.nn.bias_add(inputs, tf.cast(bias, inputs.dtype))
    return outputs, lambda upstream: (upstream, _sum_of_rows(upstream))

  return fused(inputs, bias)


def add_bias_in_float32(inputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
  """Returns inputs [M, D] plus bias [D], in float32."""

  @_with_gradient
  def fused(inputs, bias):
    def gradient(upstream):
      return tf.cast(upstream, inputs.dtype), tf.raw_ops.BiasAddGrad(
        out_backprop=upstream
      )

    return _sum_with_bias(inputs, bias), gradient

  return fused(inputs, bias)


@_kernel
def _sum_with_bias(inputs, bias):
  return _float32(inputs) + bias


def attention(
  projected: tf.Tensor,
  bias: tf.Tensor,
  score_bias: tf.Tensor,
  *,
  num_heads: int,
  key: tf.Tensor | None = None,
  rate: float = 0.0,
) -> tf.Tensor:
  """Returns what every position gathers by attention, head beside head.

  Kept for the gradient are the softmax and what is left of it after dropout,
  not the scores. Where a softmax has to know the sum over a row of weights
  times their gradients, that is the context times its own (Dao et al. 2022,
  appendix B.2).

  Args:
    projected: [BS, 3D], queries, keys and values.
    bias: [3D], added to them.
    score_bias: float32 [B, 1, 1, S], without a gradient.
    num_heads: N.
    key: Of the mask of the weights' dropout, `Dropout.key`; `None` for none.
    rate: Of the dropout.

  Returns:
    [BS, D], of the type of `projected`.
  """
  key, rate = _mask_arguments(key, rate)
  scale = (projected.shape[-1] // 3 // num_heads) ** -0.5

  @_with_gradient
  def fused(projected, bias):
    # [B, N, S, H] each
    queries, keys, values = _split_heads(projected, bias, score_bias, num_heads)
    scores = tf.matmul(queries, keys, transpose_b=True)  # [B, N, S, S]
    # TensorFlow's softmax has all of a CPU's threads and vector instructions.
    scores = _scores(scores, score_bias, scale)
    # Told its rank, Grappler does not warn of it.
    softmax = tf.nn.softmax(tf.ensure_shape(scores, [None] * 4))
    if rate:
      softmax, weights = _dropped(softmax, projected.dtype, key, rate)
    else:
      # As in every frozen layer: nothing is written, or one copy where there is
      # a type to change.
      softmax = weights = tf.cast(softmax, projected.dtype)
    context = _join(tf.matmul(weights, values)[tf.newaxis])  # [BS, D]

    def gradient(upstream):
      to_context, products = _context_gradient(
        context, upstream, score_bias, num_heads
      )
      to_scores = _scores_gradient(
        softmax,
        tf.matmul(to_context, values, transpose_b=True),
        products,
        scale,
        key,
        rate,
      )
      to_heads = (
        tf.matmul(to_scores, keys),
        tf.matmul(to_scores, queries, transpose_a=True),
        tf.matmul(weights, to_context, transpose_a=True),
      )
      to_projected = _join(tf.stack(to_heads))
      return to_projected, _sum_of_rows(to_projected)

    return context, gradient

  return fused(projected, bias)


@_kernel
def _split_heads(projected, bias, score_bias, num_heads):
  """Returns three tensors [B, N, S, H]."""
  biased = tf.cast(_float32(projected) + bias, projected.dtype)
  return tf.unstack(_split(biased, 3, score_bias, num_heads))


@_kernel
def _scores(products, score_bias, scale):
  return _float32(products) * scale + score_bias


@_kernel
def _dropped(softmax, dtype, key, rate):
  """Returns the softmax in another type, before and after dropout."""
  before = tf.cast(softmax, dtype)
  after = tf.cast(_float32(before) * _factors(key, before, rate), dtype)
  return [before, after]


@_kernel
def _context_gradient(context, upstream, score_bias, num_heads):
  """Returns the gradient as [B, N, S, H], and its products with the context.

  The products, [B, N, S, 1], are summed over H.
  """
  products = _split(
    _float32(context) * _float32(upstream), 1, score_bias, num_heads
  )
  to_context = _split(upstream, 1, score_bias, num_heads)
  return to_context[0], _sum_of_columns(products[0])


@_kernel
def _scores_gradient(softmax, to_weights, products, scale, key, rate):
  to_softmax = _float32(to_weights) * _factors(key, softmax, rate)
  to_scores = _float32(softmax) * (to_softmax - products) * scale
  return tf.cast(to_scores, softmax.dtype)


def _split(inputs, num_parts, score_bias, num_heads):
  """Returns [BS, parts * D] as [parts, B, N, S, H]."""
  batch, length = tf.unstack(tf.gather(tf.shape(score_bias), [0, 3]))
  head_size = inputs.shape[-1] // num_parts // num_heads
  shape = [batch, length, num_parts, num_heads, head_size]
  return tf.transpose(tf.reshape(inputs, shape), [2, 0, 3, 1, 4])


def _join(heads):
  """Returns [parts, B, N, S, H] as [BS, parts * D]."""
  parts, _, num_heads, _, head_size = heads.shape
  return tf.reshape(
    tf.transpose(heads, [1, 3, 0, 2, 4]), [-1, parts * num_heads * head_size]
  )


def cross_entropy(
  logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the weighted sum of the losses and of right answers, both scalars.

  Args:
    logits: float32 [M, D].
    labels: int32 [M], the right columns.
    weights: float32 [M].
  """

  @_with_gradient
  def fused(logits):
    # TensorFlow's softmax has all of a CPU's threads and vector instructions.
    # Kept for the gradient is the softmax, not the logits.
    softmax = tf.nn.softmax(logits)
    best = tf.argmax(logits, -1, output_type=labels.dtype)

    def gradient(to_loss, _):
      return _cross_entropy_gradient(softmax, labels, weights * to_loss)

    # The largest probability is one over the sum of all exp(logit - largest).
    log_sum = _pick(logits, best) - tf.math.log(_pick(softmax, best))
    losses = log_sum - _pick(logits, labels)
    is_right = _float32(best == labels)
    sums = tf.reduce_sum(losses * weights), tf.reduce_sum(is_right * weights)
    return sums, gradient

  return fused(logits)


@_kernel
def _cross_entropy_gradient(softmax, labels, weights):
  to_logits = softmax - tf.one_hot(labels, softmax.shape[-1])
  return to_logits * weights[:, tf.newaxis]


def _pick(matrix: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
  """Returns [M], of every row of [M, D] the entry in the row's column."""
  return tf.gather(matrix, columns, batch_dims=1)


def _float32(tensor: tf.Tensor) -> tf.Tensor:
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
  return _float32(tf.matmul(ones, matrix)[0])
