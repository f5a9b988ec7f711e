"""Named arrays go into a model and come out unchanged."""

import numpy as np
import pytest

from mslt_tf.models import bert
from mslt_tf.models import weights

KERNEL = "bert/encoder/layer_1/attention/self/query/kernel"


@pytest.fixture(scope="module")
def model() -> bert.Bert:
  return _make_model(seed=1)


def _make_model(seed: int) -> bert.Bert:
  return bert.Bert(
    vocab_size=19,
    hidden_size=6,
    num_layers=2,
    num_heads=2,
    intermediate_size=10,
    max_positions=9,
    seed=seed,
  )


def test_arrays_come_out_of_a_model_as_they_went_in(model):
  rng = np.random.default_rng(1)
  arrays = {
    name: rng.normal(size=array.shape).astype(np.float32)
    for name, array in weights.to_arrays(model).items()
  }
  # The order of names is not that of the model's weights.
  weights.fill(model, dict(sorted(arrays.items(), reverse=True)))
  read = weights.to_arrays(model)
  assert read.keys() == arrays.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(read[name], array, err_msg=name)


def test_each_array_lands_in_the_weight_of_its_name(model):
  arrays = weights.to_arrays(model)
  arrays[KERNEL] = np.full([6, 6], 7.0, np.float32)
  weights.fill(model, arrays)
  np.testing.assert_array_equal(model.encoder_layers[1].query[0], 7.0)
  assert not (model.encoder_layers[0].query[0].numpy() == 7.0).any()
  assert not (model.encoder_layers[1].key[0].numpy() == 7.0).any()


def test_a_model_has_every_name_once(model):
  names = [weights.name_of(variable) for variable in model.weights]
  # 5 of the embeddings, 16 of each layer, 5 and 2 and 2 of the heads.
  assert len(names) == len(set(names)) == 5 + 2 * 16 + 9


def test_a_copy_does_not_follow_the_model(model):
  before = weights.to_arrays(model)[KERNEL].copy()
  arrays = weights.to_arrays(model)
  model.encoder_layers[1].query[0].assign_add(np.ones([6, 6]))
  np.testing.assert_array_equal(arrays[KERNEL], before)


def test_names_that_the_model_does_not_have_are_left_alone(model):
  arrays = weights.to_arrays(model) | {"bert/encoder/layer_2/x": np.zeros(3)}
  weights.fill(model, arrays)
  assert "bert/encoder/layer_2/x" not in weights.to_arrays(model)


def test_a_missing_name_is_an_error_that_names_it(model):
  arrays = weights.to_arrays(model)
  del arrays[KERNEL]
  with pytest.raises(ValueError, match=f"1 of 46 weights.*{KERNEL}"):
    weights.fill(model, arrays)


def test_a_wrong_shape_is_an_error_and_changes_nothing():
  model = _make_model(seed=1)
  before = weights.to_arrays(model)
  arrays = weights.to_arrays(_make_model(seed=2))
  # As large, but not of the shape.
  arrays[KERNEL] = np.zeros([4, 9], np.float32)
  with pytest.raises(
    ValueError, match=rf"{KERNEL} has shape \[4, 9\].*\[6, 6\]"
  ):
    weights.fill(model, arrays)
  for name, array in weights.to_arrays(model).items():
    np.testing.assert_array_equal(array, before[name], err_msg=name)
