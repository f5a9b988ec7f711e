"""Fused chains give what the operations one by one give, gradients too."""

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf.models import dropout
from mslt_tf.models import fused

M, D = 7, 12
B, N, S, H = 2, 3, 5, 4
RATE = 0.4
# As `Dropout.key` gives it. A tensor cannot be made while tests are collected.
KEY = np.array([3, 2, 8], np.uint32)


def _random(seed: int, *shape: int, offset: float = 0.0) -> tf.Tensor:
  values = np.random.default_rng(seed).normal(size=shape) + offset
  return tf.constant(values, tf.float32)


def _tensor(key) -> tf.Tensor | None:
  return None if key is None else tf.constant(key)


def _mask(like: tf.Tensor, key) -> tf.Tensor:
  if key is None:
    return tf.ones_like(like)
  return dropout.factors(tf.constant(key), like.shape, RATE)


def _plain_norm(inputs, gamma, beta):
  mean, variance = tf.nn.moments(inputs, [-1], keepdims=True)
  return tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, 1e-12)


def _assert_same(actual, expected, inputs, **tolerance):
  """Compares functions of tensors, and their gradients to all of them."""
  results = []
  for function in (actual, expected, tf.function(actual, autograph=False)):
    with tf.GradientTape() as tape:
      tape.watch(inputs)
      outputs = function(*inputs)
      # Each output has another upstream gradient.
      upstream = tf.reshape(
        tf.linspace(-1.0, 2.0, tf.size(outputs)), outputs.shape
      )
      total = tf.reduce_sum(tf.cast(outputs, tf.float32) * upstream)
    results.append([outputs, *tape.gradient(total, inputs)])
  for other in (results[1], results[2]):
    for one, two in zip(results[0], other, strict=True):
      assert one.dtype == two.dtype
      np.testing.assert_allclose(
        tf.cast(one, tf.float32),
        tf.cast(two, tf.float32),
        **(dict(rtol=2e-5, atol=2e-5) | tolerance),
      )


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu(approximate):
  _assert_same(
    lambda x, bias: fused.gelu(x, bias, approximate=approximate),
    lambda x, bias: tf.nn.gelu(x + bias, approximate=approximate),
    [_random(0, M, D), _random(1, D)],
  )


@pytest.mark.parametrize("key", [None, KEY])
def test_norm_of_sum(key):
  _assert_same(
    lambda x, bias, residual, gamma, beta: fused.norm_of_sum(
      x, bias, residual, gamma, beta, key=_tensor(key), rate=RATE
    ),
    lambda x, bias, residual, gamma, beta: _plain_norm(
      residual + (x + bias) * _mask(x, key), gamma, beta
    ),
    [
      _random(0, M, D),
      _random(1, D),
      _random(2, M, D),
      _random(3, D, offset=1.0),
      _random(4, D),
    ],
  )


@pytest.mark.parametrize("key", [None, KEY])
def test_norm(key):
  _assert_same(
    lambda x, gamma, beta: fused.norm(
      x, gamma, beta, dtype=tf.float32, key=_tensor(key), rate=RATE
    ),
    lambda x, gamma, beta: _plain_norm(x, gamma, beta) * _mask(x, key),
    [_random(0, M, D), _random(1, D, offset=1.0), _random(2, D)],
  )


def test_norm_in_another_type_is_rounded_once():
  inputs = [_random(0, M, D), _random(1, D, offset=1.0), _random(2, D)]
  output = fused.norm(*inputs, dtype=tf.bfloat16)
  assert output.dtype == tf.bfloat16
  np.testing.assert_allclose(
    tf.cast(output, tf.float32), _plain_norm(*inputs), 2**-8, 1e-6
  )


@pytest.mark.parametrize("key", [None, KEY])
def test_attention(key):
  score_bias = tf.constant([[[[0.0] * S]], [[[0.0] * 3 + [-10_000.0] * 2]]])

  def plain(projected, bias):
    heads = tf.reshape(projected + bias, [B, S, 3, N, H])
    queries, keys, values = tf.unstack(heads, axis=2)  # [B, S, N, H]
    scores = tf.einsum("bsnh,btnh->bnst", queries, keys) / np.sqrt(H)
    weights = tf.nn.softmax(scores + score_bias)
    weights *= _mask(weights, key)
    context = tf.einsum("bnst,btnh->bsnh", weights, values)
    return tf.reshape(context, [B * S, N * H])

  _assert_same(
    lambda projected, bias: fused.attention(
      projected, bias, score_bias, num_heads=N, key=_tensor(key), rate=RATE
    ),
    plain,
    [_random(0, B * S, 3 * N * H), _random(1, 3 * N * H)],
  )


def test_add_bias():
  _assert_same(
    fused.add_bias,
    lambda x, bias: x + bias,
    [_random(0, M, D), _random(1, D)],
  )


def test_add_bias_in_float32():
  _assert_same(
    fused.add_bias_in_float32,
    lambda x, bias: x + bias,
    [_random(0, M, D), _random(1, D)],
  )
  half = tf.cast(_random(0, M, D), tf.bfloat16)
  output = fused.add_bias_in_float32(half, _random(1, D))
  assert output.dtype == tf.float32
  np.testing.assert_array_equal(
    output, tf.cast(half, tf.float32) + _random(1, D)
  )


def test_cross_entropy_of_logits_far_apart():
  logits = tf.constant([[0.0, 300.0, -500.0], [-1e4, -1e4, 0.0]])
  labels = tf.constant([2, 0])
  with tf.GradientTape() as tape:
    tape.watch(logits)
    loss, _ = fused.cross_entropy(logits, labels, tf.constant([1.0, 0.5]))
  assert float(loss) == 800.0 + 0.5 * 1e4
  np.testing.assert_allclose(
    tape.gradient(loss, logits), [[0, 1, -1], [-0.5, 0, 0.5]]
  )


def test_cross_entropy():
  labels = tf.constant([3, 0, 11, 5, 5, 1, 2])
  weights = tf.constant([1.0, 1.0, 0.0, 1.0, 0.5, 0.0, 1.0])
  logits = _random(0, M, D)
  is_right = np.argmax(logits, -1) == labels.numpy()
  _, num_right = fused.cross_entropy(logits, labels, weights)
  assert float(num_right) == float((is_right * weights.numpy()).sum())

  def plain(logits):
    chosen = tf.gather(tf.nn.log_softmax(logits), labels, batch_dims=1)
    return -tf.reduce_sum(chosen * weights)[tf.newaxis]

  _assert_same(
    lambda logits: fused.cross_entropy(logits, labels, weights)[0][tf.newaxis],
    plain,
    [logits],
  )


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision_is_rounded_at_the_end(dtype):
  inputs = [_random(0, M, D), _random(2, M, D)]
  halves = [tf.cast(each, dtype) for each in inputs]
  exact = [tf.cast(each, tf.float32) for each in halves]
  vectors = [_random(3, D, offset=1.0), _random(4, D)]
  bias = _random(1, D)

  def run(x, residual):
    return fused.norm_of_sum(
      x, bias, residual, *vectors, key=_tensor(KEY), rate=RATE
    )

  output = run(*halves)
  assert output.dtype == dtype
  np.testing.assert_allclose(
    tf.cast(output, tf.float32), run(*exact), 2**-8, 1e-6
  )
