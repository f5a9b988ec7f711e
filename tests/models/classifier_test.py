"""The classifier of fine-tuning: its logits, losses and dropout."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import bert
from mslt_tf.models import classifier
from mslt_tf.models import dropout as dropout_lib
from mslt_tf.models import weights as weights_lib

ARCHITECTURE = architecture_lib.Architecture(
  vocab_size=13,
  hidden_size=6,
  num_layers=2,
  num_heads=3,
  intermediate_size=10,
  max_positions=9,
)
FEATURES = {
  "input_ids": np.array([[2, 7, 8, 3], [2, 9, 3, 0], [0, 0, 0, 0]]),
  "input_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 0, 0]]),
  "segment_ids": np.array([[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]),
  "labels": np.array([1, 0, 0]),
  "weights": np.array([1.0, 1.0, 0.0], np.float32),
}


def random_weights(model):
  rng = np.random.default_rng(0)
  return {
    name: (0.5 * rng.standard_normal(array.shape)).astype(np.float32)
    for name, array in weights_lib.to_arrays(model).items()
  }


@pytest.fixture(scope="module")
def model():
  made = classifier.Classifier(ARCHITECTURE, num_outputs=4)
  weights_lib.fill(made, random_weights(made))
  return made


def test_logits_are_a_product_with_the_pre_trained_models_pooled_state(model):
  arrays = weights_lib.to_arrays(model)
  pretrained = bert.Bert(**dataclasses.asdict(ARCHITECTURE))
  weights_lib.fill(pretrained, {**weights_lib.to_arrays(pretrained), **arrays})
  positions = tf.zeros([3, 1], tf.int32)
  pooled = pretrained({**FEATURES, "masked_lm_positions": positions}).pooled
  expected = pooled @ arrays["output_weights"].T + arrays["output_bias"]
  np.testing.assert_allclose(model(FEATURES), expected, rtol=1e-5, atol=1e-6)


def test_weights_are_those_of_encoder_pooler_and_classifier(model):
  shapes = {
    **architecture_lib.encoder_shapes(ARCHITECTURE),
    **architecture_lib.head_shapes(ARCHITECTURE)["pooler"],
    "output_weights": (4, 6),
    "output_bias": (4,),
  }
  arrays = weights_lib.to_arrays(model)
  assert {name: array.shape for name, array in arrays.items()} == shapes


def test_the_loss_leaves_out_what_fills_up_a_batch(model):
  logits = model(FEATURES)
  sums = classifier.sums(logits, FEATURES, is_regression=False)
  log_shares = np.log(tf.nn.softmax(logits).numpy())
  loss = -log_shares[0, 1] - log_shares[1, 0]
  right = int(np.argmax(logits[0]) == 1) + int(np.argmax(logits[1]) == 0)
  assert sums["loss"][0].numpy() == pytest.approx(loss, rel=1e-5)
  assert sums["accuracy"][0].numpy() == right
  assert [float(count) for _, count in sums.values()] == [2.0, 2.0]
  assert float(classifier.counts(FEATURES)["loss"]) == 2.0


def test_a_regressions_loss_is_the_squared_error():
  values = tf.constant([[1.5], [-1.0], [7.0]])
  features = {
    "labels": tf.constant([0.5, 2.0, 0.0]),
    "weights": FEATURES["weights"],
  }
  sums = classifier.sums(values, features, is_regression=True)
  assert set(sums) == {"loss"}
  assert [float(each) for each in sums["loss"]] == [1.0 + 9.0, 2.0]


def test_every_weight_is_trained(model):
  with tf.GradientTape() as tape:
    sums = classifier.sums(model(FEATURES), FEATURES, is_regression=False)
  gradients = tape.gradient(sums["loss"][0], model.trainable_variables)
  assert len(gradients) == len(model.weights)
  for gradient in gradients:
    assert np.abs(tf.convert_to_tensor(gradient)).max() > 0


def test_the_pooled_state_is_dropped_out_too():
  """An entry of the state, a tanh, is 0 only where it is dropped out."""
  made = classifier.Classifier(ARCHITECTURE, num_outputs=6)
  arrays = random_weights(made)
  # The state itself comes out.
  arrays["output_weights"] = np.eye(6, dtype=np.float32)
  arrays["output_bias"] = np.zeros(6, np.float32)
  weights_lib.fill(made, arrays)
  outputs = np.stack(
    [
      made(FEATURES, dropout_lib.Dropout(0, tf.constant(index)))
      for index in range(60)
    ]
  )
  assert 0.05 < np.mean(outputs == 0) < 0.15  # A tenth.


def test_a_fresh_classifier_depends_on_the_seed_alone():
  first, again, other = (
    classifier.fresh_output(ARCHITECTURE, num_outputs=3, seed=seed)
    for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(
    first["output_weights"], again["output_weights"]
  )
  assert (first["output_weights"] != other["output_weights"]).all()
  assert first["output_weights"].shape == (3, 6)
  assert not first["output_bias"].any()
  wide = dataclasses.replace(ARCHITECTURE, hidden_size=900)
  drawn = classifier.fresh_output(wide, num_outputs=3, seed=1)
  # The deviation of a normal of 0.02 cut off at two deviations.
  assert drawn["output_weights"].std() == pytest.approx(0.02 * 0.88, rel=0.1)
