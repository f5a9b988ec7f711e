"""Which array of the deeper model comes from where."""

import copy

import numpy as np
import pytest

from mslt_tf import growth

BEFORE = {
  "bert/embeddings/word_embeddings": "table",
  "bert/encoder/layer_0/attention/kernel": "kernel 0",
  "bert/encoder/layer_0/output/bias": "bias 0",
  "bert/encoder/layer_1/attention/kernel": "kernel 1",
  "bert/encoder/layer_1/output/bias": "bias 1",
  "cls/predictions/output_bias": "output bias",
}


def _fresh(num_layers: int) -> dict[str, str]:
  return {
    "bert/embeddings/word_embeddings": "new table",
    **{
      f"bert/encoder/layer_{index}/{rest}": f"new {index}"
      for index in range(num_layers)
      for rest in ("attention/kernel", "output/bias")
    },
    "cls/predictions/output_bias": "new output bias",
  }


def test_layers_are_copies_of_their_source_layers():
  grown = growth.grow(BEFORE, (0, 1, 1, 0, 1), fresh=_fresh(5))
  assert grown == {
    "bert/embeddings/word_embeddings": "table",
    "bert/encoder/layer_0/attention/kernel": "kernel 0",
    "bert/encoder/layer_0/output/bias": "bias 0",
    "bert/encoder/layer_1/attention/kernel": "kernel 1",
    "bert/encoder/layer_1/output/bias": "bias 1",
    "bert/encoder/layer_2/attention/kernel": "kernel 1",
    "bert/encoder/layer_2/output/bias": "bias 1",
    "bert/encoder/layer_3/attention/kernel": "kernel 0",
    "bert/encoder/layer_3/output/bias": "bias 0",
    "bert/encoder/layer_4/attention/kernel": "kernel 1",
    "bert/encoder/layer_4/output/bias": "bias 1",
    "cls/predictions/output_bias": "output bias",
  }


def test_a_layer_that_is_no_source_is_left_behind():
  grown = growth.grow(BEFORE, (1,), fresh=_fresh(1))
  assert grown == {
    "bert/embeddings/word_embeddings": "table",
    "bert/encoder/layer_0/attention/kernel": "kernel 1",
    "bert/encoder/layer_0/output/bias": "bias 1",
    "cls/predictions/output_bias": "output bias",
  }


def test_a_layer_without_a_source_is_fresh():
  grown = growth.grow(BEFORE, (0, None, 1), fresh=_fresh(3))
  assert grown == {
    "bert/embeddings/word_embeddings": "table",
    "bert/encoder/layer_0/attention/kernel": "kernel 0",
    "bert/encoder/layer_0/output/bias": "bias 0",
    "bert/encoder/layer_1/attention/kernel": "new 1",
    "bert/encoder/layer_1/output/bias": "new 1",
    "bert/encoder/layer_2/attention/kernel": "kernel 1",
    "bert/encoder/layer_2/output/bias": "bias 1",
    "cls/predictions/output_bias": "output bias",
  }


def test_everything_is_fresh_before_the_first_stage():
  assert growth.grow({}, (None, None), fresh=_fresh(2)) == _fresh(2)


def test_optimizer_state_travels_with_its_weight():
  arrays = {
    "bert/embeddings/word_embeddings/m": 1,
    "bert/encoder/layer_0/output/bias": 2,
    "bert/encoder/layer_0/output/bias/m": 3,
    "bert/encoder/layer_0/output/bias/step": 4,
  }
  fresh = {
    "bert/encoder/layer_0/output/bias": 5,
    "bert/encoder/layer_1/output/bias": 6,
    "bert/encoder/layer_2/output/bias": 7,
  }
  assert growth.grow(arrays, (0, 0, None), fresh=fresh) == {
    "bert/embeddings/word_embeddings/m": 1,
    "bert/encoder/layer_0/output/bias": 2,
    "bert/encoder/layer_0/output/bias/m": 3,
    "bert/encoder/layer_0/output/bias/step": 4,
    "bert/encoder/layer_1/output/bias": 2,
    "bert/encoder/layer_1/output/bias/m": 3,
    "bert/encoder/layer_1/output/bias/step": 4,
    "bert/encoder/layer_2/output/bias": 7,
  }


def test_layer_numbers_are_whole_numbers():
  # layer_1 is no beginning of layer_10.
  arrays = {f"bert/encoder/layer_{i}/kernel": i for i in range(11)}
  grown = growth.grow(arrays, (10, 1), fresh={})
  assert grown == {
    "bert/encoder/layer_0/kernel": 10,
    "bert/encoder/layer_1/kernel": 1,
  }


def test_what_is_given_is_not_changed():
  arrays = {
    "bert/encoder/layer_0/kernel": np.array([1.0, 2.0]),
    "cls/bias": np.array([3.0]),
  }
  fresh = {"bert/encoder/layer_1/kernel": np.array([4.0, 5.0])}
  arrays_before, fresh_before = copy.deepcopy(arrays), copy.deepcopy(fresh)
  grown = growth.grow(arrays, (0, None), fresh=fresh)
  assert list(grown) == [
    "cls/bias",
    "bert/encoder/layer_1/kernel",
    "bert/encoder/layer_0/kernel",
  ]
  np.testing.assert_equal(arrays, arrays_before)
  np.testing.assert_equal(fresh, fresh_before)


def test_the_first_stages_arrays_are_not_the_given_mapping():
  fresh = _fresh(1)
  growth.grow({}, (None,), fresh=fresh).clear()
  assert fresh == _fresh(1)


def test_every_growth_copies_what_the_stage_before_trained():
  arrays = {"bert/encoder/layer_0/kernel": "a"}
  arrays = growth.grow(arrays, (0, 0), fresh={})
  # As if the stage had trained its top layer.
  arrays["bert/encoder/layer_1/kernel"] = "b"
  arrays = growth.grow(arrays, (0, 1, 1), fresh={})
  arrays["bert/encoder/layer_2/kernel"] = "c"
  arrays = growth.grow(arrays, (0, 1, 2, 2), fresh={})
  assert [arrays[f"bert/encoder/layer_{i}/kernel"] for i in range(4)] == [
    "a",
    "b",
    "c",
    "c",
  ]


def test_a_source_that_is_not_there_is_an_error():
  with pytest.raises(KeyError):
    growth.grow(BEFORE, (0, 2), fresh=_fresh(2))
