"""AdamW's updates, held against its rule in NumPy."""

import numpy as np
import tensorflow as tf

from mslt_tf.optimization import adamw


def test_updates_are_adams_with_decoupled_decay_off_for_norms_and_biases():
  rng = np.random.default_rng(0)
  names = ("layer/kernel", "layer/bias", "layer/LayerNorm/gamma")
  start = [rng.standard_normal(5).astype(np.float32) for _ in names]
  variables = [
    tf.Variable(value, name=name)
    for name, value in zip(names, start, strict=True)
  ]
  step = tf.Variable(0)
  optimizer = adamw.make(
    lambda: 0.1 / (1.0 + tf.cast(step, tf.float32)),
    weight_decay=0.3,
    beta_1=0.8,
    beta_2=0.95,
    epsilon=1e-3,
  )
  optimizer.prepare(variables)
  weights = [value.astype(np.float64) for value in start]
  means, squares = ([np.zeros(5) for _ in names] for _ in range(2))
  for count in range(1, 4):
    gradients = [rng.standard_normal(5).astype(np.float32) for _ in names]
    optimizer.apply_scaled_gradients(
      [tf.constant(each) for each in gradients], variables, tf.constant(0.5)
    )
    step.assign_add(1)
    for index, gradient in enumerate(gradients):
      gradient = 0.5 * gradient.astype(np.float64)
      means[index] = 0.8 * means[index] + 0.2 * gradient
      squares[index] = 0.95 * squares[index] + 0.05 * gradient**2
      update = means[index] / (1 - 0.8**count)
      update /= np.sqrt(squares[index] / (1 - 0.95**count)) + 1e-3
      if index == 0:
        update += 0.3 * weights[index]
      weights[index] -= 0.1 / count * update
  for variable, expected in zip(variables, weights, strict=True):
    np.testing.assert_allclose(variable, expected, rtol=1e-4, atol=1e-6)
