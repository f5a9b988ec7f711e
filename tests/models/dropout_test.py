"""Dropout masks are a function of their key alone."""

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf.models import dropout

ONES = tf.ones([13, 29])


def _mask(seed=11, batch_index=5, replica=2, site=3, rate=0.4) -> np.ndarray:
  source = dropout.Dropout(seed, tf.constant(batch_index, tf.int64), replica)
  return source(ONES, rate, site).numpy() != 0


def test_the_same_key_gives_the_same_mask():
  np.testing.assert_array_equal(_mask(), _mask())


@pytest.mark.parametrize(
  "part",
  [
    {"seed": 12},
    {"batch_index": 6},
    {"replica": 3},
    {"site": 4},
    # Neighbours across the parts of one number.
    {"seed": 12, "replica": 1},
    {"replica": 3, "site": 2},
    {"batch_index": 3, "site": 5},
  ],
)
def test_every_part_of_the_key_changes_the_mask(part):
  # Two independent masks of 377 entries agree in 0.52 of them, plus or minus
  # 0.026.
  agreement = (_mask() == _mask(**part)).mean()
  assert 0.4 < agreement < 0.64


def test_the_largest_seed_replica_and_site_keep_their_streams_apart():
  largest = {
    "seed": 2**31 - 1,
    "batch_index": 2**40,
    "replica": 2**16 - 1,
    "site": 2**12 - 1,
  }
  mask = _mask(**largest)
  for name in largest:
    other = _mask(**largest | {name: largest[name] - 1})
    assert 0.4 < (mask == other).mean() < 0.64, name


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_share_of_zeros_is_the_rate_and_the_mean_is_kept(rate):
  source = dropout.Dropout(1, tf.constant(0, tf.int64))
  dropped = source(tf.ones([200, 500]), rate, 0).numpy()
  # 100,000 entries: a standard deviation of at most 0.0016.
  assert (dropped == 0).mean() == pytest.approx(rate, abs=0.007)
  assert dropped.mean() == pytest.approx(1.0, abs=0.015)
  np.testing.assert_allclose(dropped[dropped != 0], 1 / (1 - rate), rtol=1e-6)


def test_rate_zero_returns_the_input_itself():
  source = dropout.Dropout(1, tf.constant(0, tf.int64))
  assert source(ONES, 0.0, 0) is ONES


def test_a_replica_may_be_a_tensor():
  np.testing.assert_array_equal(
    _mask(replica=2), _mask(replica=tf.constant(2, tf.int32))
  )


def test_the_mask_is_the_same_inside_a_function():
  @tf.function
  def run(batch_index):
    return dropout.Dropout(11, batch_index, 2)(ONES, 0.4, 3)

  actual = run(tf.constant(5, tf.int64)).numpy() != 0
  np.testing.assert_array_equal(actual, _mask())


def _compiled_mask(seed=11, batch_index=5, replica=2, site=3) -> np.ndarray:
  @tf.function(jit_compile=True)
  def run(index):
    return dropout.Dropout(seed, index, replica)(ONES, 0.4, site)

  return run(tf.constant(batch_index, tf.int64)).numpy() != 0


# XLA's generator takes 32 bits of either number of a key: two seeds that
# differ above them must not share their masks.
@pytest.mark.parametrize(
  "part",
  [
    {"seed": 12},
    {"seed": 11 + 2**4},
    {"seed": 11 + 2**20},
    {"batch_index": 6},
    {"replica": 3},
    {"site": 4},
    {"seed": 12, "replica": 1},
  ],
)
def test_every_part_of_the_key_changes_the_mask_under_xla(part):
  mask = _compiled_mask()
  np.testing.assert_array_equal(mask, _compiled_mask())
  assert 0.4 < (mask == _compiled_mask(**part)).mean() < 0.64


def test_the_gradient_passes_where_the_mask_does():
  source = dropout.Dropout(11, tf.constant(5, tf.int64), 2)
  with tf.GradientTape() as tape:
    tape.watch(ONES)
    total = tf.reduce_sum(source(ONES, 0.4, 3))
  gradient = tape.gradient(total, ONES).numpy()
  np.testing.assert_allclose(gradient, _mask() / 0.6, rtol=1e-6)
