"""Dropout masks are a function of their key alone."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf.models import dropout

ONES = np.ones([13, 29], np.float32)


def _mask(
  seed=11, batch_index=5, replica=2, micro_batch=1, site=3
) -> np.ndarray:
  source = dropout.Dropout(
    seed, tf.constant(batch_index, tf.int64), replica, micro_batch
  )
  return source(ONES, 0.4, site).numpy() != 0


def test_the_same_key_gives_the_same_mask():
  np.testing.assert_array_equal(_mask(), _mask())


def test_a_seed_may_be_a_tensor():
  np.testing.assert_array_equal(_mask(seed=tf.constant(11, tf.int64)), _mask())


@pytest.mark.parametrize(
  "part",
  [
    {"seed": 12},
    {"batch_index": 6},
    {"replica": 3},
    {"micro_batch": 2},
    {"micro_batch": 17},
    {"site": 4},
    # Neighbours across the parts of one number.
    {"seed": 12, "replica": 1},
    {"replica": 3, "site": 2},
    {"batch_index": 3, "site": 5},
    {"micro_batch": 2, "replica": 1},
  ],
)
def test_every_part_of_the_key_changes_the_mask(part):
  # Two independent masks of 377 entries agree in 0.52 of them, plus or minus
  # 0.026.
  agreement = (_mask() == _mask(**part)).mean()
  assert 0.4 < agreement < 0.64


def test_the_largest_seed_and_so_on_keep_their_streams_apart():
  largest = {
    "seed": 2**31 - 1,
    "batch_index": 2**24 - 1,
    "replica": 2**16 - 1,
    "micro_batch": 2**12 - 1,
    "site": 2**12 - 1,
  }
  mask = _mask(**largest)
  for name in largest:
    other = _mask(**largest | {name: largest[name] - 1})
    assert 0.4 < (mask == other).mean() < 0.64, name


def test_no_two_masks_share_their_key():
  keys = [
    dropout.Dropout(seed, tf.constant(batch_index, tf.int64), *share).key(site)
    for seed in (0, 21, 2**31 - 1)
    for batch_index in (0, 1, 2**24 - 1)
    for share in itertools.product((0, 1, 2**16 - 1), (0, 1, 15, 16, 17, 4095))
    for site in (0, 1, 2**12 - 1)
  ]
  assert len({tuple(key) for key in np.array(keys)}) == len(keys)
  # Of the keys of a run the masks use two numbers of their own each.
  words = {
    tuple(np.array(dropout._words(key)).tolist())
    for key in keys[: len(keys) // 3]
  }
  assert len(words) == len(keys) // 3


def test_keys_and_masks_stay_what_they_are():
  # Others would give a run that is resumed other masks.

  def key(*share):
    source = dropout.Dropout(11, tf.constant(5, tf.int64), *share)
    return source.key(3).numpy().tolist()

  assert key() == [11, 3, 5]
  assert key(2) == [11, 3 + 2 * 2**12, 5]
  assert key(2, 1) == [11, 3 + 2 * 2**12 + 2**28, 5]
  assert key(2, 16) == [11, 3 + 2 * 2**12, 5 + 2**24]
  factors = dropout.factors(tf.constant(key(), tf.uint32), [2, 9], 0.5)
  np.testing.assert_array_equal(factors, _expected_factors(key(), 18, 0.5))


def _expected_factors(key: list[int], size: int, rate: float) -> np.ndarray:
  """The masks again, in Python's whole numbers."""

  def mixed(number):
    number = (number ^ number >> 16) * 0x7FEB352D % 2**32
    number = (number ^ number >> 15) * 0x846CA68B % 2**32
    return number ^ number >> 16

  seed, first, second = key
  for constant in (0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F):
    scrambled = mixed((second + mixed(seed ^ constant)) % 2**32)
    first, second = second, first ^ scrambled
  hashed = [
    mixed((mixed(place ^ first) + second) % 2**32) for place in range(size)
  ]
  kept = np.array([number >= rate * 2**32 for number in hashed], np.float32)
  return (kept / (1 - rate)).reshape(2, -1)


def test_neighbouring_masks_and_entries_have_nothing_in_common():
  size = 2**17
  masks = [
    dropout.factors(
      dropout.Dropout(3, tf.constant(batch, tf.int64)).key(site), [size], 0.1
    ).numpy()
    != 0
    for batch in (0, 1, 2)
    for site in (0, 1)
  ]
  # Kept in both: 0.81 of 131,072 entries, give or take 0.0011.
  for first, second in itertools.combinations(masks, 2):
    assert abs((first & second).mean() - 0.81) < 0.006
  for distance in (1, 2, 3, 64, 768):
    shifted = masks[0][distance:] & masks[0][:-distance]
    assert abs(shifted.mean() - 0.81) < 0.006


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


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
@pytest.mark.parametrize("part", ["replica", "micro_batch"])
def test_a_replica_and_a_micro_batch_may_be_tensors(part, dtype):
  np.testing.assert_array_equal(
    _mask(**{part: 4000}), _mask(**{part: tf.constant(4000, dtype)})
  )


@pytest.mark.parametrize(
  # To the nearest number that the type has: 10 / 9 in steps of 2^-7, of 2^-10.
  "dtype, scale",
  [(tf.bfloat16, 142 / 128), (tf.float16, 1138 / 1024)],
)
@pytest.mark.parametrize("jit_compile", [None, True])
def test_half_precision_zeroes_what_float32_zeroes(dtype, scale, jit_compile):
  source = dropout.Dropout(11, tf.constant(5, tf.int64), 2)

  @tf.function(jit_compile=jit_compile)
  def run(tensor):
    return source(tensor, 0.1, 3)

  dropped = run(tf.ones([13, 29], dtype))
  assert dropped.dtype == dtype
  values = tf.cast(dropped, tf.float32).numpy()
  np.testing.assert_array_equal(values != 0, run(ONES).numpy() != 0)
  assert set(values.ravel()) == {0.0, scale}
  # Were it the rounded scale that multiplies, this were 0.125 less.
  large = tf.cast(run(tf.fill([13, 29], tf.constant(90.0, dtype))), tf.float32)
  assert set(large.numpy().ravel()) == {0.0, 100.0}


def test_the_mask_is_the_same_inside_a_function():
  @tf.function
  def run(batch_index):
    return dropout.Dropout(11, batch_index, 2, 1)(ONES, 0.4, 3)

  actual = run(tf.constant(5, tf.int64)).numpy() != 0
  np.testing.assert_array_equal(actual, _mask())


def _compiled_mask(
  seed=11, batch_index=5, replica=2, micro_batch=1, site=3
) -> np.ndarray:
  @tf.function(jit_compile=True)
  def run(index):
    source = dropout.Dropout(seed, index, replica, micro_batch)
    return source(ONES, 0.4, site)

  return run(tf.constant(batch_index, tf.int64)).numpy() != 0


@pytest.mark.parametrize(
  "part",
  [
    {"seed": 12},
    {"seed": 11 + 2**4},
    {"seed": 11 + 2**20},
    {"batch_index": 6},
    {"replica": 3},
    {"micro_batch": 2},
    {"micro_batch": 17},
    {"site": 4},
    {"seed": 12, "replica": 1},
  ],
)
def test_every_part_of_the_key_changes_the_mask_under_xla(part):
  mask = _compiled_mask()
  np.testing.assert_array_equal(mask, _compiled_mask())
  assert 0.4 < (mask == _compiled_mask(**part)).mean() < 0.64


def test_the_gradient_passes_where_the_mask_does():
  source = dropout.Dropout(11, tf.constant(5, tf.int64), 2, 1)
  ones = tf.constant(ONES)
  with tf.GradientTape() as tape:
    tape.watch(ones)
    total = tf.reduce_sum(source(ones, 0.4, 3))
  gradient = tape.gradient(total, ones).numpy()
  np.testing.assert_allclose(gradient, _mask() / 0.6, rtol=1e-6)
