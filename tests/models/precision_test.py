"""Mixed precision: what is half, what stays float32, and how near they come.

Letters: B batch, S sequence, P predictions, D hidden, V vocabulary.
"""

import math

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf.models import bert
from mslt_tf.models import dropout
from mslt_tf.models import encoder
from mslt_tf.models import fused
from mslt_tf.models import weights

B, S, P, D, V = 3, 7, 4, 12, 37
MAX_POSITIONS = 11
COMPUTE_TYPES = {"mixed_bfloat16": tf.bfloat16, "mixed_float16": tf.float16}
# Half the distance of 1 to the next number.
ROUNDING = {"mixed_bfloat16": 2.0**-8, "mixed_float16": 2.0**-11}
BATCH_INDEX = np.int64(3)
FROZEN = {"num_frozen_layers": 2, "freeze_embeddings": True}

both = pytest.mark.parametrize("precision", COMPUTE_TYPES)


def _make_model(precision: str, num_layers: int = 3, **kwargs) -> bert.Bert:
  model = bert.Bert(
    vocab_size=V,
    hidden_size=D,
    num_layers=num_layers,
    num_heads=3,
    intermediate_size=20,
    max_positions=MAX_POSITIONS,
    precision=precision,
    **kwargs,
  )
  rng = np.random.default_rng(1)
  for weight in model.weights:
    offset = 1.0 if weight.name.endswith("gamma:0") else 0.0
    weight.assign(offset + rng.normal(scale=0.2, size=weight.shape))
  return model


@pytest.fixture(scope="module")
def made() -> dict[str, bert.Bert]:
  """One model in every precision, all of the same weights."""
  return {name: _make_model(name) for name in ("float32", *COMPUTE_TYPES)}


@pytest.fixture(scope="module")
def features() -> dict[str, tf.Tensor]:
  rng = np.random.default_rng(2)
  mask = np.array([[1] * 7, [1] * 5 + [0] * 2, [1] * 6 + [0]], np.int32)
  return {
    "input_ids": tf.constant(rng.integers(V, size=[B, S]) * mask, tf.int32),
    "input_mask": tf.constant(mask),
    "segment_ids": tf.constant(rng.integers(2, size=[B, S]), tf.int32),
    "masked_lm_positions": tf.constant(rng.integers(5, size=[B, P]), tf.int32),
    "masked_lm_ids": tf.constant(rng.integers(V, size=[B, P]), tf.int32),
    "masked_lm_weights": tf.constant(
      [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], tf.float32
    ),
    "next_sentence_labels": tf.constant([0, 1, 1], tf.int32),
  }


def _loss_and_gradients(model, features, source=None, loss_scale=1.0):
  """Returns the loss and the gradients of what is trained, unscaled."""
  variables = model.trainable_variables
  with tf.GradientTape(watch_accessed_variables=False) as tape:
    tape.watch(variables)
    sums = bert.pretraining_sums(model(features, source), features)
    loss = tf.divide(*sums["mlm_loss"]) + tf.divide(*sums["nsp_loss"])
    scaled = loss * loss_scale
  gradients = tape.gradient(scaled, variables)
  return loss, [tf.convert_to_tensor(each) / loss_scale for each in gradients]


def _assert_near(actual, expected, tolerance: float) -> None:
  """Holds losses, and gradients as one vector, against each other."""
  loss, gradient = float(actual[0]), _flat(actual[1])
  expected_loss, expected_gradient = float(expected[0]), _flat(expected[1])
  assert loss == pytest.approx(expected_loss, rel=tolerance)
  norm, expected_norm = map(np.linalg.norm, (gradient, expected_gradient))
  assert norm == pytest.approx(expected_norm, rel=tolerance)
  cosine = gradient @ expected_gradient / (norm * expected_norm)
  assert cosine > 1 - tolerance**2


def _flat(tensors) -> np.ndarray:
  return np.concatenate([tensor.numpy().ravel() for tensor in tensors])


@both
def test_weights_are_float32_and_those_of_any_precision(precision, made):
  expected = weights.to_arrays(made["float32"])
  arrays = weights.to_arrays(made[precision])
  assert arrays.keys() == expected.keys()
  for name, array in arrays.items():
    assert array.dtype == np.float32, name
    np.testing.assert_array_equal(array, expected[name], err_msg=name)


@both
def test_states_are_of_the_compute_type_and_logits_and_sums_float32(
  precision, made, features
):
  outputs = made[precision](features)
  states = [*outputs.hidden_states, outputs.pooled]
  assert {state.dtype for state in states} == {COMPUTE_TYPES[precision]}
  sums = tf.nest.flatten(bert.pretraining_sums(outputs, features))
  logits = [outputs.masked_lm_logits, outputs.next_sentence_logits]
  assert {tensor.dtype for tensor in [*logits, *sums]} == {tf.float32}


@both
def test_products_are_half_and_norms_softmax_gelu_and_losses_float32(
  precision, made, features
):
  model = made[precision]

  @tf.function(autograph=False)
  def step(inputs):
    source = dropout.Dropout(1, BATCH_INDEX)
    return _loss_and_gradients(model, inputs, source)

  types: dict[str, set[tf.DType]] = {}
  for operation in _operations(step.get_concrete_function(features)):
    if operation.inputs:
      types.setdefault(operation.type, set()).add(operation.inputs[0].dtype)
  # A norm's gradient sums over rows in float32 where its inputs are that.
  assert types["BatchMatMulV2"] == {COMPUTE_TYPES[precision]}
  for name in (
    "Sum",
    "Rsqrt",
    "Pow",  # Of the GELU alone.
    "Softmax",
    "Log",  # Of the losses.
  ):
    assert types[name] == {tf.float32}, name


def _operations(function) -> list[tf.Operation]:
  """Returns the operations of a traced function and of those it calls."""
  graph = function.graph
  operations = list(graph.get_operations())
  for name in graph._functions:
    operations += graph._functions[name].graph.get_operations()
  return operations


@both
def test_only_rows_of_the_tables_are_cast_in_the_embeddings(
  precision, made, features
):
  embeddings = made[precision].embeddings

  @tf.function
  def embed(inputs):
    return embeddings(inputs["input_ids"], inputs["segment_ids"], None)

  graph = embed.get_concrete_function(features).graph
  shapes = [
    operation.outputs[0].shape.as_list()
    for operation in graph.get_operations()
    if operation.type == "Cast"
  ]
  # What is cast is cast within the norm.
  assert shapes == []


@both
def test_loss_and_gradients_are_near_those_of_float32(
  precision, made, features
):
  # Dropout draws the same masks in every precision.
  source = dropout.Dropout(1, BATCH_INDEX)
  expected = _loss_and_gradients(made["float32"], features, source)
  actual = _loss_and_gradients(made[precision], features, source)
  assert {gradient.dtype for gradient in actual[1]} == {tf.float32}
  _assert_near(actual, expected, 8 * ROUNDING[precision])


def test_gradients_of_a_scaled_loss_are_near_those_of_float32(made, features):
  _assert_near(
    _loss_and_gradients(made["mixed_float16"], features, loss_scale=2.0**10),
    _loss_and_gradients(made["float32"], features),
    8 * ROUNDING["mixed_float16"],
  )


def test_a_loss_scale_saves_what_float16_would_lose(made, features):
  def gradient_norm(scale):
    _, gradients = _loss_and_gradients(
      # As if the loss were a mean over 2^26 times the examples.
      made["mixed_float16"],
      features,
      loss_scale=scale * 2.0**-26,
    )
    return np.linalg.norm(_flat(gradients))

  whole = gradient_norm(2.0**26)
  assert gradient_norm(1.0) < 0.9 * whole
  assert gradient_norm(2.0**20) == pytest.approx(whole, rel=0.01)


@both
def test_compiled_gradients_are_near_those_of_float32(precision, features):
  model = _make_model(precision, num_layers=1)

  @tf.function(jit_compile=True, autograph=False)
  def run(inputs):
    return _loss_and_gradients(model, inputs, loss_scale=2.0**10)

  expected = _loss_and_gradients(_make_model("float32", num_layers=1), features)
  _assert_near(run(features), expected, 8 * ROUNDING[precision])


@both
def test_the_gradient_of_a_frozen_variable_is_none(precision, features):
  model = _make_model(precision, **FROZEN)
  with tf.GradientTape() as tape:
    tape.watch(model.weights)
    source = dropout.Dropout(1, BATCH_INDEX)
    sums = bert.pretraining_sums(model(features, source), features)
    loss = sums["mlm_loss"][0] + sums["nsp_loss"][0]
  has_gradient = {
    weights.name_of(weight): gradient is not None
    for weight, gradient in zip(
      model.weights, tape.gradient(loss, model.weights), strict=True
    )
  }
  assert has_gradient == {
    name: name.startswith(("bert/encoder/layer_2/", "bert/pooler", "cls/"))
    for name in has_gradient
  }


@pytest.mark.parametrize("dropout_when_frozen", [False, True])
def test_frozen_layers_drop_out_only_where_the_config_says_so(
  dropout_when_frozen, features
):
  model = _make_model(
    "mixed_bfloat16", **FROZEN, dropout_when_frozen=dropout_when_frozen
  )
  plain = model(features).hidden_states
  dropped = model(features, dropout.Dropout(1, BATCH_INDEX)).hidden_states
  for index in range(3):  # The embeddings and both frozen layers.
    is_same = bool(tf.reduce_all(plain[index] == dropped[index]))
    assert is_same != dropout_when_frozen


@both
def test_a_norm_has_the_statistics_of_float32(precision):
  dtype = COMPUTE_TYPES[precision]
  # Exact in either type, as their mean and the squares about it are not.
  inputs = np.random.default_rng(4).integers(60, 68, size=[5, 48])
  x = inputs.astype(np.float32)
  mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
  gamma = np.linspace(0.5, 1.5, 48, dtype=np.float32)
  beta = np.linspace(-1.0, 1.0, 48, dtype=np.float32)
  expected = (x - mean) / np.sqrt(variance) * gamma + beta

  output = fused.norm(tf.cast(inputs, dtype), gamma, beta, dtype=dtype)
  assert output.dtype == dtype
  np.testing.assert_allclose(
    tf.cast(output, tf.float32), expected, ROUNDING[precision], 1e-6
  )


@both
def test_a_norm_of_equal_numbers_is_its_beta(precision):
  # The variance is zero, and so would be the epsilon in float16.
  inputs = tf.fill([2, 6], tf.constant(3.0, COMPUTE_TYPES[precision]))
  output = fused.norm(
    inputs, tf.ones([6]), tf.fill([6], 0.25), dtype=inputs.dtype
  )
  assert tf.cast(output, tf.float32).numpy().tolist() == [[0.25] * 6] * 2


@both
def test_the_gelu_is_rounded_once(precision):
  inputs = tf.cast(tf.linspace(-2.0, 4.0, 101), COMPUTE_TYPES[precision])
  expected = [
    0.5 * x * (1 + math.erf(x / math.sqrt(2)))
    for x in tf.cast(inputs, tf.float32).numpy().tolist()
  ]
  output = encoder.ACTIVATIONS["gelu_exact"](inputs, tf.zeros(inputs.shape[-1]))
  assert output.dtype == COMPUTE_TYPES[precision]
  np.testing.assert_allclose(
    tf.cast(output, tf.float32), expected, ROUNDING[precision], 1e-7
  )


@both
def test_padding_has_no_say(precision, made, features):
  model = made[precision]
  is_token = features["input_mask"]
  other = features["input_ids"] * is_token + 5 * (1 - is_token)
  states, disturbed = (
    tf.cast(model(inputs).hidden_states[-1], tf.float32).numpy()
    for inputs in (features, {**features, "input_ids": other})
  )
  np.testing.assert_array_equal(states[is_token == 1], disturbed[is_token == 1])
  assert (states != disturbed)[is_token == 0].any()


@both
def test_an_example_that_is_all_padding_yields_numbers(
  precision, made, features
):
  empty = {name: tf.zeros_like(value) for name, value in features.items()}
  batch = {
    name: tf.concat([value, empty[name][:1]], 0)
    for name, value in features.items()
  }
  _, gradients = _loss_and_gradients(made[precision], batch)
  assert np.isfinite(_flat(gradients)).all()


def test_an_unknown_precision_is_an_error():
  with pytest.raises(ValueError, match="mixed_int8"):
    _make_model("mixed_int8")
