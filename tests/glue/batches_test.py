"""Batches hold examples of about one length, each once an epoch."""

import collections

import numpy as np
import pytest

from mslt_tf.glue import batches

LENGTHS = np.random.default_rng(0).integers(3, 129, 101)


def shuffled(seed=0, num_epochs=2):
  return list(
    batches.shuffled(
      LENGTHS, batch_size=8, max_length=128, seed=seed, num_epochs=num_epochs
    )
  )


def test_lengths_are_few_and_end_with_the_longest_allowed():
  assert batches.buckets(128) == (16, 32, 48, 64, 96, 128)
  assert batches.buckets(100) == (16, 32, 48, 64, 96, 100)
  assert batches.buckets(5) == (5,)


def test_an_epoch_has_every_example_once_in_as_few_batches_as_can_be():
  made = shuffled()
  assert len(made) == 2 * 13  # 101 examples, 8 a batch.
  for epoch in (made[:13], made[13:]):
    seen = np.concatenate([batch.indices for batch in epoch])
    assert sorted(seen) == list(range(101))
    sizes = collections.Counter(len(batch.indices) for batch in epoch)
    assert sizes == {8: 12, 5: 1}


def test_a_batch_is_padded_to_the_least_length_that_holds_it():
  for batch in shuffled():
    longest = LENGTHS[batch.indices].max()
    assert batch.length == min(
      each for each in (16, 32, 48, 64, 96, 128) if each >= longest
    )


def test_little_is_padding():
  padded = sum(batch.length * len(batch.indices) for batch in shuffled())
  # To 128 it would be 2 * 101 * 128 tokens.
  assert padded < 1.3 * 2 * LENGTHS.sum() < 2 * 101 * 128


def test_the_order_follows_from_seed_and_epoch():
  def orders(made):
    return [batch.indices.tolist() for batch in made]

  first = orders(shuffled(seed=1))
  assert orders(shuffled(seed=1)) == first
  assert orders(shuffled(seed=2)) != first
  assert first[:13] != first[13:]
  assert orders(shuffled(seed=1, num_epochs=1)) == first[:13]


def test_lengths_are_mixed_over_the_epoch():
  lengths = [batch.length for batch in shuffled(num_epochs=1)]
  assert lengths != sorted(lengths)


def test_in_order_gives_each_example_once():
  made = batches.in_order(LENGTHS, batch_size=8, max_length=128)
  seen = np.concatenate([batch.indices for batch in made])
  assert sorted(seen) == list(range(101))


@pytest.mark.parametrize("number", [1, 7, 8])
def test_few_examples_make_one_batch(number):
  (batch,) = batches.in_order(
    np.arange(3, 3 + number), batch_size=8, max_length=128
  )
  assert sorted(batch.indices) == list(range(number))
