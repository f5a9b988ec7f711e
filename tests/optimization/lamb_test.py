"""LAMB equals NumPy and TensorFlow Addons, and its state can be carried on."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_addons as tfa

from mslt_tf.optimization import lamb

NAMES = [
  "bert/encoder/layer_0/output/dense/kernel",
  "bert/encoder/layer_0/output/dense/bias",
  "bert/encoder/layer_0/output/LayerNorm/gamma",
  "encoder/self_attention_layer_norm/beta",
  "bert/embeddings/word_embeddings",
]
SHAPES = [(5, 3), (3,), (4,), (2,), (7, 4)]
HAS_DECAY = [True, False, False, False, True]
BETA_1, BETA_2, EPSILON, DECAY = 0.8, 0.95, 1e-3, 0.1


def _make(learning_rate, *, adapt_norms_and_biases: bool = False) -> lamb.Lamb:
  return lamb.make(
    learning_rate,
    weight_decay=DECAY,
    beta_1=BETA_1,
    beta_2=BETA_2,
    epsilon=EPSILON,
    adapt_norms_and_biases=adapt_norms_and_biases,
  )


def _initial_values() -> list[np.ndarray]:
  rng = np.random.default_rng(1)
  return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]


def _make_variables(names=NAMES, values=None) -> list[tf.Variable]:
  values = _initial_values() if values is None else values
  return [
    tf.Variable(value, name=name)
    for name, value in zip(names, values, strict=True)
  ]


def _gradients(num_steps: int) -> list[list[np.ndarray]]:
  rng = np.random.default_rng(2)
  return [
    # Of very different sizes, as those of a deep model are.
    [
      rng.normal(scale=10.0 ** (-index), size=shape).astype(np.float32)
      for index, shape in enumerate(SHAPES)
    ]
    for _ in range(num_steps)
  ]


def _apply(optimizer, gradients, variables) -> None:
  pairs = [
    (tf.constant(gradient, tf.float32), variable)
    for gradient, variable in zip(gradients, variables, strict=True)
  ]
  optimizer.apply_gradients(pairs)


def _numpy_lamb(weights, gradients, rates, *, has_decay, is_adapted):
  """Returns weights, moments and the last ratio after LAMB's updates."""
  w = weights.astype(np.float64)
  m, v, ratio = np.zeros_like(w), np.zeros_like(w), 1.0
  for count, (g, rate) in enumerate(
    zip(gradients, rates, strict=True), start=1
  ):
    m = BETA_1 * m + (1 - BETA_1) * g.astype(np.float64)
    v = BETA_2 * v + (1 - BETA_2) * g.astype(np.float64) ** 2
    u = m / (1 - BETA_1**count)
    u = u / (np.sqrt(v / (1 - BETA_2**count)) + EPSILON)
    if has_decay:
      u = u + DECAY * w
    if is_adapted:
      ratio = np.sqrt((w**2).sum()) / np.sqrt((u**2).sum())
    w = w - rate * ratio * u
  return w, m, v, ratio


@pytest.mark.parametrize("adapt_norms_and_biases", [False, True])
def test_several_updates_equal_numpy(adapt_norms_and_biases):
  rates = [0.1, 0.3, 0.02, 0.07]
  step = tf.Variable(0)
  optimizer = _make(
    lambda: tf.gather(tf.constant(rates), step),
    adapt_norms_and_biases=adapt_norms_and_biases,
  )
  variables = _make_variables()
  optimizer.prepare(variables)
  gradients = _gradients(4)
  for each in gradients:
    _apply(optimizer, each, variables)
    step.assign_add(1)

  for index, (variable, start) in enumerate(
    zip(variables, _initial_values(), strict=True)
  ):
    w, m, v, _ = _numpy_lamb(
      start,
      [each[index] for each in gradients],
      rates,
      has_decay=HAS_DECAY[index],
      is_adapted=HAS_DECAY[index] or adapt_norms_and_biases,
    )
    np.testing.assert_allclose(
      variable, w, rtol=2e-5, atol=1e-6, err_msg=NAMES[index]
    )
    np.testing.assert_allclose(optimizer.get_slot(variable, "m"), m, rtol=1e-4)
    np.testing.assert_allclose(optimizer.get_slot(variable, "v"), v, rtol=1e-4)


@pytest.mark.parametrize("adapt_norms_and_biases", [False, True])
def test_several_updates_in_a_function_equal_tensorflow_addons(
  adapt_norms_and_biases,
):
  excluded = ["LayerNorm", "layer_norm", "bias"]
  peer = tfa.optimizers.LAMB(
    learning_rate=0.05,
    weight_decay=DECAY,
    beta_1=BETA_1,
    beta_2=BETA_2,
    epsilon=EPSILON,
    exclude_from_weight_decay=excluded,
    # A pattern that no name matches; an empty list would mean the same as
    # above.
    exclude_from_layer_adaptation=(
      ["no such name"] if adapt_norms_and_biases else excluded
    ),
  )
  ours = _make(
    lambda: tf.constant(0.05), adapt_norms_and_biases=adapt_norms_and_biases
  )
  results = []
  for optimizer in (peer, ours):
    variables = _make_variables()

    @tf.function
    def update(gradients, optimizer=optimizer, variables=variables):
      optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for gradients in _gradients(5):
      update([tf.constant(gradient) for gradient in gradients])
    results.append([variable.numpy() for variable in variables])
  for name, expected, actual in zip(NAMES, *results, strict=True):
    np.testing.assert_allclose(
      actual, expected, rtol=1e-5, atol=1e-6, err_msg=name
    )


def test_norms_and_biases_take_plain_adam_steps():
  variables = _make_variables()
  optimizer = _make(lambda: tf.constant(0.5))
  _apply(optimizer, [np.full(shape, 2.0) for shape in SHAPES], variables)
  # In the first update mean over root of square is 2 / (2 + epsilon).
  for index in (1, 2, 3):
    np.testing.assert_allclose(
      variables[index],
      _initial_values()[index] - 0.5 * 2 / 2.001,
      rtol=1e-5,
      err_msg=NAMES[index],
    )


def test_a_weight_of_zeros_moves_by_the_rate_alone():
  variable = tf.Variable(tf.zeros([4, 3]), name="bert/pooler/dense/kernel")
  optimizer = _make(lambda: tf.constant(0.5))
  optimizer.prepare([variable])
  _apply(optimizer, [np.full([4, 3], 2.0)], [variable])
  np.testing.assert_allclose(variable, -0.5 * 2 / 2.001, rtol=1e-5)


def test_a_gradient_of_zeros_moves_nothing_but_by_decay():
  kernel = tf.Variable([[3.0, 4.0]], name="kernel")
  bias = tf.Variable([3.0, 4.0], name="bias")
  optimizer = _make(lambda: tf.constant(0.5))
  _apply(optimizer, [np.zeros([1, 2]), np.zeros([2])], [kernel, bias])
  # The update is 0.1 w, the ratio 10: half of w goes.
  np.testing.assert_allclose(kernel, [[1.5, 2.0]], rtol=1e-6)
  np.testing.assert_array_equal(bias, [3.0, 4.0])


def test_the_learning_rate_follows_a_variable():
  rate = tf.Variable(0.0)
  variables = _make_variables()
  optimizer = _make(lambda: rate * 2)
  optimizer.prepare(variables)

  @tf.function
  def update():
    optimizer.apply_gradients(
      [(tf.ones(shape), v) for shape, v in zip(SHAPES, variables, strict=True)]
    )

  def bias_moves_by() -> float:
    before = variables[1].numpy()
    update()
    (moved,) = set(np.round(before - variables[1].numpy(), 4))
    return moved

  # A constant gradient of 1: the update is 1 / 1.001, always.
  assert bias_moves_by() == 0.0
  rate.assign(0.25)
  assert bias_moves_by() == pytest.approx(0.4995, abs=1e-4)
  rate.assign(0.05)
  assert bias_moves_by() == pytest.approx(0.0999, abs=1e-4)


def test_the_state_is_three_arrays_named_after_each_variable():
  variables = _make_variables()
  optimizer = _make(lambda: tf.constant(0.1))
  optimizer.prepare(variables)
  for gradients in _gradients(2):
    _apply(optimizer, gradients, variables)
  state = optimizer.state(variables[:1])
  name = "bert/encoder/layer_0/output/dense/kernel"
  assert sorted(state) == [f"{name}/m", f"{name}/num_updates", f"{name}/v"]
  assert state[f"{name}/m"].shape == state[f"{name}/v"].shape == (5, 3)
  assert state[f"{name}/num_updates"] == 2
  assert state[f"{name}/num_updates"].dtype == np.int64


@pytest.mark.parametrize("in_function", [False, True])
def test_a_carried_variable_goes_on_next_to_one_that_starts_fresh(in_function):
  gradients = _gradients(5)
  values = _initial_values()
  old, new = slice(0, 3), slice(3, 5)

  def apply(optimizer, variables, each):
    def update(each):
      optimizer.apply_gradients(zip(each, variables, strict=True))

    tensors = [tf.constant(gradient) for gradient in each]
    (tf.function(update) if in_function else update)(tensors)

  first = _make(lambda: tf.constant(0.1))
  before = _make_variables(NAMES[old], values[old])
  first.prepare(before)
  for each in gradients[:3]:
    apply(first, before, each[old])
  state = first.state(before)

  second = _make(lambda: tf.constant(0.1))
  variables = _make_variables(
    NAMES, [*[variable.numpy() for variable in before], *values[new]]
  )
  second.prepare(variables, state)
  for each in gradients[3:]:
    apply(second, variables, each)

  counts = [5, 5, 5, 2, 2]
  for index, variable in enumerate(variables):
    w, m, v, _ = _numpy_lamb(
      values[index],
      [each[index] for each in gradients[5 - counts[index] :]],
      [0.1] * counts[index],
      has_decay=HAS_DECAY[index],
      is_adapted=HAS_DECAY[index],
    )
    name = NAMES[index]
    np.testing.assert_allclose(variable, w, rtol=2e-5, atol=1e-6, err_msg=name)
    state = second.state([variable])
    np.testing.assert_allclose(state[f"{name}/m"], m, rtol=1e-4)
    np.testing.assert_allclose(state[f"{name}/v"], v, rtol=1e-4)
    assert state[f"{name}/num_updates"] == counts[index]


def test_moments_exist_before_the_first_update_and_a_checkpoint_fills_them(
  tmp_path,
):
  variables = _make_variables()
  optimizer = _make(lambda: tf.constant(0.1))
  optimizer.prepare(variables)
  for gradients in _gradients(3):
    _apply(optimizer, gradients, variables)
  path = tf.train.Checkpoint(variables=variables, optimizer=optimizer).write(
    str(tmp_path / "checkpoint")
  )

  restored = _make_variables(
    values=[np.zeros(shape, np.float32) for shape in SHAPES]
  )
  other = _make(lambda: tf.constant(0.1))
  other.prepare(restored)
  assert not any(other.get_slot(each, "m").numpy().any() for each in restored)
  checkpoint = tf.train.Checkpoint(variables=restored, optimizer=other)
  checkpoint.read(path).assert_consumed()
  expected, actual = optimizer.state(variables), other.state(restored)
  assert expected.keys() == actual.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(actual[name], array, err_msg=name)


def test_the_mean_trust_ratio_is_that_of_the_adapted_variables():
  variables = _make_variables()
  optimizer = _make(lambda: tf.constant(0.1))
  gradients = _gradients(3)
  for each in gradients:
    _apply(optimizer, each, variables)
  ratios = []
  for index in (0, 4):
    w, m, v, _ = _numpy_lamb(
      _initial_values()[index],
      [each[index] for each in gradients],
      [0.1] * 3,
      has_decay=True,
      is_adapted=True,
    )
    u = m / (1 - BETA_1**3) / (np.sqrt(v / (1 - BETA_2**3)) + EPSILON)
    u += DECAY * w
    ratios.append(np.linalg.norm(w) / np.linalg.norm(u))
  assert float(optimizer.mean_trust_ratio(variables)) == pytest.approx(
    np.mean(ratios), rel=1e-4
  )


def test_without_adapted_variables_the_mean_trust_ratio_is_one():
  variables = _make_variables()[1:4]
  optimizer = _make(lambda: tf.constant(0.1))
  _apply(optimizer, _gradients(1)[0][1:4], variables)
  assert float(optimizer.mean_trust_ratio(variables)) == 1.0


def test_weights_of_zeros_count_with_the_ratio_that_their_update_has():
  kernel = tf.Variable(tf.zeros([4, 3]), name="kernel")
  optimizer = _make(lambda: tf.constant(0.0))
  _apply(optimizer, [np.ones([4, 3])], [kernel])
  assert float(optimizer.mean_trust_ratio([kernel])) == 1.0


def test_scaled_gradients_are_gradients_times_the_scale():
  gradients = _gradients(3)
  scaled, expected = _make_variables(), _make_variables()
  optimizer, other = _make(0.1), _make(0.1)

  @tf.function(autograph=False)
  def step(gradients, scale):
    optimizer.apply_scaled_gradients(gradients, scaled, scale)

  optimizer.prepare(scaled)
  for index, values in enumerate(gradients):
    factor = np.float32(0.25 * (index + 1))
    step([tf.constant(each) for each in values], tf.constant(factor))
    _apply(other, [factor * each for each in values], expected)
  for one, two in zip(scaled, expected, strict=True):
    np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=1e-6)
  # A later update without a scale has none.
  _apply(optimizer, gradients[0], scaled)
  _apply(other, gradients[0], expected)
  np.testing.assert_allclose(scaled[0], expected[0], rtol=1e-6)
