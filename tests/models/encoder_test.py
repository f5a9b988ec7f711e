"""Embeddings and encoder layers equal Model Garden's and plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from official.nlp.modeling import layers

from mslt_tf.interop import model_garden
from mslt_tf.models import dropout
from mslt_tf.models import encoder
from mslt_tf.models import fused

B, S, D, N, F = 3, 7, 12, 4, 20
MASK = np.array([[1] * 7, [1] * 4 + [0] * 3, [1, 1, 0, 0, 0, 0, 0]], np.int32)

# Google's names and shapes.
LAYER_SHAPES = {
  "attention/self/query/kernel": [D, D],
  "attention/self/query/bias": [D],
  "attention/self/key/kernel": [D, D],
  "attention/self/key/bias": [D],
  "attention/self/value/kernel": [D, D],
  "attention/self/value/bias": [D],
  "attention/output/dense/kernel": [D, D],
  "attention/output/dense/bias": [D],
  "attention/output/LayerNorm/gamma": [D],
  "attention/output/LayerNorm/beta": [D],
  "intermediate/dense/kernel": [D, F],
  "intermediate/dense/bias": [F],
  "output/dense/kernel": [F, D],
  "output/dense/bias": [D],
  "output/LayerNorm/gamma": [D],
  "output/LayerNorm/beta": [D],
}


def _by_name(layer) -> dict[str, tf.Variable]:
  return {weight.name.removesuffix(":0"): weight for weight in layer.weights}


def _randomize(layer) -> None:
  rng = np.random.default_rng(1)
  for weight in layer.weights:
    offset = 1.0 if weight.name.endswith("gamma:0") else 0.0
    weight.assign(offset + rng.normal(scale=0.3, size=weight.shape))


def _make_layer(activation: str = "gelu_tanh", index: int = 5, **kwargs):
  layer = encoder.EncoderLayer(
    index=index,
    hidden_size=D,
    num_heads=N,
    intermediate_size=F,
    activation=activation,
    **dict(
      hidden_dropout=0.1, attention_dropout=0.2, initializer_range=0.02, seed=3
    )
    | kwargs,
  )
  _randomize(layer)
  return layer


def _make_model_garden_block(activation: str, layer) -> dict[str, tf.Variable]:
  """Returns Model Garden's block with our layer's weights."""
  is_approximate = {"gelu_tanh": True, "gelu_exact": False}[activation]
  block = layers.TransformerEncoderBlock(
    num_attention_heads=N,
    inner_dim=F,
    inner_activation=lambda x: tf.keras.activations.gelu(x, is_approximate),
    output_dropout=0.1,
    attention_dropout=0.2,
    norm_epsilon=1e-12,
  )
  block([tf.zeros([B, S, D]), tf.ones([B, S, S])])
  ours = _by_name(layer)
  for weight in block.weights:
    suffix = weight.name.removesuffix(":0").split("/", maxsplit=1)[1]
    name = model_garden.LAYER_WEIGHTS[suffix]
    weight.assign(
      tf.reshape(ours[f"bert/encoder/layer_5/{name}"], weight.shape)
    )
  return block


@pytest.fixture(scope="module")
def hidden() -> tf.Tensor:
  rng = np.random.default_rng(2)
  return tf.constant(rng.normal(size=[B, S, D]), tf.float32)


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu_exact"])
def test_a_layer_and_its_gradients_are_those_of_model_garden(
  activation, hidden
):
  layer = _make_layer(activation)
  block = _make_model_garden_block(activation, layer)
  # A different direction for every output: no two gradients cancel.
  direction = tf.constant(
    np.random.default_rng(3).normal(size=[B, S, D]), tf.float32
  )
  with tf.GradientTape() as tape:
    tape.watch(hidden)
    output = layer(hidden, encoder.attention_bias(tf.constant(MASK)), None)
  ours = tape.gradient(output, [hidden, *layer.weights], direction)
  mask = tf.constant(np.repeat(MASK[:, np.newaxis, :], S, axis=1))
  with tf.GradientTape() as tape:
    tape.watch(hidden)
    expected = block([hidden, mask], training=False)
  theirs = tape.gradient(expected, [hidden, *block.weights], direction)

  np.testing.assert_allclose(output, expected, rtol=1e-5, atol=2e-6)
  np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-5)
  by_name = dict(zip(_by_name(layer), ours[1:], strict=True))
  assert len(block.weights) == len(by_name) == 16
  for weight, gradient in zip(block.weights, theirs[1:], strict=True):
    suffix = weight.name.removesuffix(":0").split("/", maxsplit=1)[1]
    name = model_garden.LAYER_WEIGHTS[suffix]
    np.testing.assert_allclose(
      by_name[f"bert/encoder/layer_5/{name}"],
      tf.reshape(gradient, LAYER_SHAPES[name]),
      rtol=1e-5,
      atol=2e-5,
      err_msg=name,
    )


def test_padding_does_not_influence_other_tokens(hidden):
  layer = _make_layer()
  bias = encoder.attention_bias(tf.constant(MASK))
  noise = np.random.default_rng(4).normal(size=[B, S, D]) * 100
  is_padding = MASK[..., np.newaxis] == 0
  disturbed = tf.constant(np.where(is_padding, noise, hidden), tf.float32)
  before, after = layer(hidden, bias, None), layer(disturbed, bias, None)
  is_token = MASK == 1
  np.testing.assert_allclose(
    before.numpy()[is_token], after.numpy()[is_token], rtol=1e-6, atol=1e-6
  )
  assert not np.allclose(before.numpy()[~is_token], after.numpy()[~is_token])


def test_the_bias_of_a_score_is_zero_for_tokens_and_hides_padding():
  bias = encoder.attention_bias(tf.constant([[1, 1, 0], [1, 0, 0]]))
  assert bias.shape == (2, 1, 1, 3)
  assert bias[0, 0, 0].numpy().tolist() == [0.0, 0.0, -10_000.0]
  # Even against the best of scores.
  weights = tf.nn.softmax(tf.constant([0.0, 0.0, 50.0]) + bias[0, 0, 0])
  assert weights.numpy().tolist() == [0.5, 0.5, 0.0]


def test_a_layers_weights_have_the_names_and_shapes_of_google_checkpoints():
  weights = _by_name(_make_layer(index=11))
  assert {name: weight.shape for name, weight in weights.items()} == {
    f"bert/encoder/layer_11/{name}": shape
    for name, shape in LAYER_SHAPES.items()
  }


def test_initial_values_are_truncated_normal_zero_and_one():
  layer = encoder.EncoderLayer(
    index=0,
    hidden_size=64,
    num_heads=4,
    intermediate_size=160,
    activation="gelu_tanh",
    hidden_dropout=0.1,
    attention_dropout=0.1,
    initializer_range=0.05,
    seed=3,
  )
  for name, weight in _by_name(layer).items():
    values = weight.numpy()
    if name.endswith("kernel"):
      # A normal cut at two standard deviations keeps 0.88 of its deviation.
      assert abs(values).max() < 0.1
      assert values.std() == pytest.approx(0.044, rel=0.05)
      assert abs(values.mean()) < 0.004
    else:
      assert set(values) == ({1.0} if name.endswith("gamma") else {0.0})
  assert not np.allclose(layer.query[0], layer.key[0])


def test_dropout_in_a_layer_depends_on_its_key_and_is_off_without_one(hidden):
  layer = _make_layer()
  bias = encoder.attention_bias(tf.constant(MASK))

  def output(batch_index):
    return layer(
      hidden, bias, dropout.Dropout(7, tf.constant(batch_index, tf.int64))
    ).numpy()

  np.testing.assert_array_equal(output(0), output(0))
  assert not np.allclose(output(0), output(1))
  assert not np.allclose(output(0), layer(hidden, bias, None))


@pytest.mark.parametrize(
  "rates",
  [
    {"hidden_dropout": 0.3, "attention_dropout": 0.0},
    {"hidden_dropout": 0.0, "attention_dropout": 0.3},
  ],
)
def test_each_dropout_rate_acts_alone(rates, hidden):
  layer = _make_layer(**rates)
  bias = encoder.attention_bias(tf.constant(MASK))
  plain = layer(hidden, bias, None)
  source = dropout.Dropout(7, tf.constant(0, tf.int64))
  assert not np.allclose(plain, layer(hidden, bias, source))


def test_each_dropout_has_its_rate(hidden, monkeypatch):
  rates = []

  def note(name):
    function = getattr(fused, name)

    def noting(*args, rate, **kwargs):
      rates.append((name, rate))
      return function(*args, rate=rate, **kwargs)

    monkeypatch.setattr(fused, name, noting)

  note("attention")
  note("norm_of_sum")
  layer = _make_layer(hidden_dropout=0.1, attention_dropout=0.2)
  source = dropout.Dropout(7, tf.constant(0, tf.int64))
  layer(hidden, encoder.attention_bias(tf.constant(MASK)), source)
  assert rates == [
    ("attention", 0.2), ("norm_of_sum", 0.1), ("norm_of_sum", 0.1),
  ]  # fmt: skip


def test_a_layer_without_dropout_rates_ignores_the_key(hidden):
  layer = _make_layer(hidden_dropout=0.0, attention_dropout=0.0)
  bias = encoder.attention_bias(tf.constant(MASK))
  source = dropout.Dropout(7, tf.constant(0, tf.int64))
  np.testing.assert_array_equal(
    layer(hidden, bias, None), layer(hidden, bias, source)
  )


def _make_embeddings(dropout_rate: float = 0.1) -> encoder.Embeddings:
  embeddings = encoder.Embeddings(
    vocab_size=31,
    hidden_size=5,
    max_positions=11,
    num_segments=2,
    dropout_rate=dropout_rate,
    initializer_range=0.02,
    seed=3,
  )
  _randomize(embeddings)
  return embeddings


def test_embeddings_equal_numpy():
  embeddings = _make_embeddings()
  weights = {
    name.removeprefix("bert/embeddings/"): weight.numpy().astype(np.float64)
    for name, weight in _by_name(embeddings).items()
  }
  rng = np.random.default_rng(5)
  ids = rng.integers(31, size=[3, 7]).astype(np.int32)
  segments = rng.integers(2, size=[3, 7]).astype(np.int32)

  total = np.zeros([3, 7, 5])
  for b in range(3):
    for s in range(7):
      total[b, s] = (
        weights["word_embeddings"][ids[b, s]]
        + weights["position_embeddings"][s]
        + weights["token_type_embeddings"][segments[b, s]]
      )
  mean = total.mean(axis=-1, keepdims=True)
  deviation = np.sqrt(((total - mean) ** 2).mean(axis=-1, keepdims=True))
  expected = (total - mean) / deviation * weights["LayerNorm/gamma"]
  expected += weights["LayerNorm/beta"]

  output = embeddings(tf.constant(ids), tf.constant(segments), None)
  np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_the_embeddings_weights_have_googles_names_and_shapes():
  weights = _by_name(_make_embeddings())
  assert {name: list(weight.shape) for name, weight in weights.items()} == {
    "bert/embeddings/word_embeddings": [31, 5],
    "bert/embeddings/position_embeddings": [11, 5],
    "bert/embeddings/token_type_embeddings": [2, 5],
    "bert/embeddings/LayerNorm/gamma": [5],
    "bert/embeddings/LayerNorm/beta": [5],
  }


def test_dropout_of_the_embeddings_comes_after_their_norm():
  embeddings = _make_embeddings(dropout_rate=0.5)
  ids = tf.constant(np.arange(21).reshape(3, 7), tf.int32)
  segments = tf.zeros_like(ids)
  source = dropout.Dropout(7, tf.constant(0, tf.int64))
  plain = embeddings(ids, segments, None).numpy()
  dropped = embeddings(ids, segments, source).numpy()
  is_kept = dropped != 0
  assert 0.3 < is_kept.mean() < 0.7
  np.testing.assert_allclose(dropped[is_kept], 2 * plain[is_kept], rtol=1e-6)


def test_a_layer_gives_the_same_inside_a_function(hidden):
  layer = _make_layer()
  bias = encoder.attention_bias(tf.constant(MASK))

  @tf.function
  def run(states, batch_index):
    return layer(states, bias, dropout.Dropout(7, batch_index))

  index = tf.constant(4, tf.int64)
  np.testing.assert_allclose(
    layer(hidden, bias, dropout.Dropout(7, index)),
    run(hidden, index),
    rtol=1e-5,
    atol=1e-6,
  )
