"""The trainer's answers do not depend on how examples are put in batches."""

import dataclasses

import numpy as np
import pytest

from mslt_tf.finetune import trainer as trainer_lib
from mslt_tf.glue import inputs as inputs_lib
from mslt_tf.glue import protocol as protocol_lib
from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import classifier
from mslt_tf.models import weights as weights_lib

ARCHITECTURE = architecture_lib.Architecture(
  vocab_size=31,
  hidden_size=6,
  num_layers=2,
  num_heads=2,
  intermediate_size=10,
  max_positions=70,
)
PROTOCOL = protocol_lib.Protocol(
  batch_size=8, max_sequence_length=70, dropout=0.0
)
RUN = protocol_lib.Run("task", "base", 0.02, 3, 2, 8, 0.1)


@pytest.fixture(scope="module")
def inputs():
  """45 examples of 3 to 70 tokens; the class is that of the third token."""
  rng = np.random.default_rng(0)
  lengths = rng.integers(3, 71, 45)
  ids = rng.integers(5, 31, lengths.sum()).astype(np.int32)
  starts = np.cumsum(lengths) - lengths
  return inputs_lib.Inputs(
    ids=ids,
    lengths=lengths,
    second_starts=lengths // 2,
    labels=(ids[starts + 2] % 3).astype(np.int32),
    num_cut=0,
  )


@pytest.fixture(scope="module")
def trainer():
  return trainer_lib.Trainer(
    ARCHITECTURE, PROTOCOL, num_outputs=3, is_regression=False
  )


@pytest.fixture(scope="module")
def random_weights(trainer):
  rng = np.random.default_rng(1)
  return {
    name: (0.5 * rng.standard_normal(array.shape)).astype(np.float32)
    for name, array in trainer.weights().items()
  }


def test_outputs_are_those_of_examples_padded_to_the_longest_length(
  trainer, random_weights, inputs
):
  model = classifier.Classifier(ARCHITECTURE, num_outputs=3)
  weights_lib.fill(model, random_weights)
  padded = inputs.features(np.arange(45), length=70, num_rows=45)
  trainer.fill(random_weights)
  outputs = trainer.outputs(inputs)
  np.testing.assert_allclose(outputs, model(padded), rtol=1e-4, atol=1e-5)
  assert outputs.std() > 0.1


def test_training_sees_every_example_at_the_rate_of_its_step(
  trainer, random_weights, inputs
):
  records = []
  trainer.train(
    RUN,
    random_weights,
    inputs,
    lambda step, means: records.append((step, means)),
  )
  ((step, means),) = records
  assert step == 2 * 6  # 45 examples, 8 a batch, twice.
  assert np.isfinite(means["loss"])
  assert means["learning_rate"] == pytest.approx(0.02 / 12)
  # The rise takes the first tenth, rounded up.
  rates = [float(trainer.learning_rate(each)) for each in range(3)]
  assert rates == pytest.approx([0.0, 0.01, 0.02 * 10 / 12])


def test_a_run_starts_from_the_weights_it_is_given(
  trainer, random_weights, inputs
):
  still = dataclasses.replace(RUN, learning_rate=1e-30)
  trainer.train(RUN, random_weights, inputs, lambda *_: None)
  moved = trainer.weights()
  trainer.train(still, random_weights, inputs, lambda *_: None)
  for name, array in trainer.weights().items():
    if name.startswith("bert/"):
      np.testing.assert_array_equal(array, random_weights[name])
      assert (moved[name] != array).any(), name
    else:
      assert (array != random_weights[name]).any()


def test_probabilities_are_a_softmax():
  logits = np.array([[0.0, np.log(3.0)], [1000.0, 0.0]])
  np.testing.assert_allclose(
    trainer_lib.probabilities(logits), [[0.25, 0.75], [1.0, 0.0]]
  )
  assert trainer_lib.predictions(logits, is_regression=False).tolist() == [1, 0]
  values = np.array([[0.5], [-2.0]])
  assert trainer_lib.predictions(values, is_regression=True).tolist() == [
    0.5,
    -2.0,
  ]
