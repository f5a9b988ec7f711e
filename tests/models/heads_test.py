"""Both heads and the losses equal NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf.models import heads

B, S, P, D, V = 3, 7, 2, 5, 11
COMMON = {"hidden_size": D, "initializer_range": 0.02, "seed": 3}


def _randomized(layer) -> dict[str, np.ndarray]:
  """Randomizes a layer; returns its weights, in float64, by name."""
  rng = np.random.default_rng(1)
  for weight in layer.weights:
    weight.assign(rng.normal(size=weight.shape))
  return {
    weight.name.removesuffix(":0"): weight.numpy().astype(np.float64)
    for weight in layer.weights
  }


def _gelu_tanh(x):
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _gelu_exact(x):
  return x * 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


@pytest.mark.parametrize(
  "activation, gelu", [("gelu_tanh", _gelu_tanh), ("gelu_exact", _gelu_exact)]
)
def test_the_masked_lm_head_equals_numpy(activation, gelu):
  head = heads.MaskedLMHead(vocab_size=V, activation=activation, **COMMON)
  w = _randomized(head)
  rng = np.random.default_rng(2)
  hidden = rng.normal(size=[B, S, D])
  table = rng.normal(size=[V, D])
  positions = np.array([[1, 4], [6, 2], [3, 3]], np.int32)

  expected = np.zeros([B, P, V])
  for b in range(B):
    for p in range(P):
      x = hidden[b, positions[b, p]]
      x = x @ w["cls/predictions/transform/dense/kernel"]
      x = gelu(x + w["cls/predictions/transform/dense/bias"])
      x = (x - x.mean()) / x.std()
      x = x * w["cls/predictions/transform/LayerNorm/gamma"]
      x = x + w["cls/predictions/transform/LayerNorm/beta"]
      expected[b, p] = table @ x + w["cls/predictions/output_bias"]

  logits = head(
    tf.constant(hidden, tf.float32),
    tf.constant(positions),
    tf.constant(table, tf.float32),
  )
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_the_pooler_and_the_next_sentence_head_equal_numpy():
  pooler = heads.Pooler(**COMMON)
  head = heads.NextSentenceHead(**COMMON)
  w = _randomized(pooler) | _randomized(head)
  hidden = np.random.default_rng(2).normal(size=[B, S, D])

  pooled = np.tanh(
    hidden[:, 0] @ w["bert/pooler/dense/kernel"] + w["bert/pooler/dense/bias"]
  )
  logits = pooled @ w["cls/seq_relationship/output_weights"].T
  logits += w["cls/seq_relationship/output_bias"]

  actual = pooler(tf.constant(hidden, tf.float32))
  np.testing.assert_allclose(actual, pooled, rtol=1e-5)
  np.testing.assert_allclose(head(actual), logits, rtol=1e-5, atol=1e-6)


def test_the_heads_weights_have_the_names_and_shapes_of_google_checkpoints():
  layers = [
    heads.MaskedLMHead(vocab_size=V, activation="gelu_tanh", **COMMON),
    heads.Pooler(**COMMON),
    heads.NextSentenceHead(**COMMON),
  ]
  assert {
    weight.name.removesuffix(":0"): list(weight.shape)
    for layer in layers
    for weight in layer.weights
  } == {
    "cls/predictions/transform/dense/kernel": [D, D],
    "cls/predictions/transform/dense/bias": [D],
    "cls/predictions/transform/LayerNorm/gamma": [D],
    "cls/predictions/transform/LayerNorm/beta": [D],
    "cls/predictions/output_bias": [V],
    "bert/pooler/dense/kernel": [D, D],
    "bert/pooler/dense/bias": [D],
    "cls/seq_relationship/output_weights": [2, D],
    "cls/seq_relationship/output_bias": [2],
  }


def test_the_loss_and_the_right_answers_are_sums_over_what_counts():
  rng = np.random.default_rng(3)
  logits = rng.normal(size=[B, P, V])
  labels = np.array([[4, 10], [0, 7], [2, 2]], np.int32)
  logits[0, 1, 10] = logits[1, 0, 0] = logits[2, 0, 2] = 9.0
  weights = np.array([[1, 1], [0, 1], [1, 0]], np.float32)

  expected = 0.0
  for b, p in [(0, 0), (0, 1), (1, 1), (2, 0)]:
    probabilities = np.exp(logits[b, p]) / np.exp(logits[b, p]).sum()
    expected -= np.log(probabilities[labels[b, p]])

  loss, num_right = heads.classification_sums(
    tf.constant(logits, tf.float32), tf.constant(labels), tf.constant(weights)
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  # (0, 1) and (2, 0); (1, 0) is right but does not count.
  assert num_right.numpy() == 2.0


def test_predictions_of_weight_zero_do_not_count_whatever_they_are():
  weights = tf.constant([1.0, 0.0])
  first = heads.classification_sums(
    tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    tf.constant([2, 2]),
    weights,
  )
  second = heads.classification_sums(
    tf.constant([[1.0, 2.0, 3.0], [-70.0, 0.0, 8.0]]),
    tf.constant([2, 0]),
    weights,
  )
  # -ln of e^3 / (e^1 + e^2 + e^3).
  assert [float(each) for each in first] == pytest.approx([0.407606, 1.0])
  assert [float(each) for each in second] == pytest.approx([0.407606, 1.0])


def test_no_prediction_at_all_is_a_sum_of_zero():
  loss, num_right = heads.classification_sums(
    tf.ones([2, 3, 5]), tf.zeros([2, 3], tf.int32), tf.zeros([2, 3])
  )
  assert (float(loss), float(num_right)) == (0.0, 0.0)


def test_half_precision_logits_are_summed_in_float32():
  # 3,000 losses of ln 2: a bfloat16 sum would stop growing at a few hundred.
  loss, _ = heads.classification_sums(
    tf.zeros([3000, 2], tf.bfloat16),
    tf.zeros([3000], tf.int32),
    tf.ones([3000]),
  )
  assert loss.dtype == tf.float32
  assert float(loss) == pytest.approx(2079.44, rel=1e-4)
