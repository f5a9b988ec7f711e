"""The loss scale halves on overflow and doubles after many good steps."""

import pytest
import tensorflow as tf

from mslt_tf.training import loss_scale

GOOD, OVERFLOW = True, False


@pytest.fixture(params=["eager", "in a tf.function"])
def update(request):
  """Updates a scale once for each of some steps; returns its values."""

  def run(scale: loss_scale.DynamicLossScale, *steps: bool) -> list[float]:
    call = scale.update
    if request.param != "eager":
      call = tf.function(scale.update, autograph=False)
    values = []
    for step in steps:
      call(tf.constant(step))
      values.append(float(scale.scale.numpy()))
    return values

  return run


def test_it_starts_at_two_to_the_fifteenth(update):
  scale = loss_scale.DynamicLossScale()
  assert scale.scale.numpy() == 32768.0
  assert update(scale, GOOD) == [32768.0]


def test_it_halves_at_every_overflow(update):
  scale = loss_scale.DynamicLossScale()
  assert update(scale, OVERFLOW, OVERFLOW, GOOD) == [16384.0, 8192.0, 8192.0]


def test_it_doubles_after_so_many_good_steps_in_a_row(update):
  scale = loss_scale.DynamicLossScale(3)
  assert update(scale, *[GOOD] * 7) == [
    *(32768.0, 32768.0, 65536.0),
    *(65536.0, 65536.0, 131072.0),
    131072.0,
  ]


def test_an_overflow_starts_the_count_of_good_steps_again(update):
  scale = loss_scale.DynamicLossScale(3)
  values = update(scale, GOOD, GOOD, OVERFLOW, GOOD, GOOD, GOOD)
  assert values == [32768.0, 32768.0, 16384.0, 16384.0, 16384.0, 32768.0]


def test_it_grows_after_two_thousand_steps_unless_told_otherwise():
  scale = loss_scale.DynamicLossScale()

  @tf.function
  def update_often(times):
    for _ in tf.range(times):
      scale.update(tf.constant(GOOD))

  update_often(tf.constant(1999))
  assert scale.scale.numpy() == 32768.0
  update_often(tf.constant(1))
  assert scale.scale.numpy() == 65536.0


def test_it_stays_between_one_and_two_to_the_twenty_fourth(update):
  scale = loss_scale.DynamicLossScale(1)
  # Nine doublings to the bound, fifteen halvings from the start to the other.
  assert update(scale, *[GOOD] * 11)[-3:] == [16777216.0] * 3
  assert update(scale, *[OVERFLOW] * 26)[-4:] == [2.0, 1.0, 1.0, 1.0]
  # And it comes back from there.
  assert update(scale, GOOD) == [2.0]


def test_it_is_exhausted_when_gradients_overflow_at_its_lowest():
  scale = loss_scale.DynamicLossScale()
  for value, is_finite, expected in [
    (32768.0, OVERFLOW, False),
    (2.0, OVERFLOW, False),
    (1.0, OVERFLOW, True),
    (1.0, GOOD, False),
  ]:
    scale.scale.assign(value)
    assert bool(scale.is_exhausted(tf.constant(is_finite))) is expected, value


def test_skipped_steps_are_counted(update):
  scale = loss_scale.DynamicLossScale(2)
  assert scale.num_skipped.numpy() == 0
  update(scale, OVERFLOW, GOOD, GOOD, OVERFLOW, GOOD, OVERFLOW)
  assert scale.num_skipped.numpy() == 3


def test_nothing_of_it_is_trained():
  assert not loss_scale.DynamicLossScale().trainable_variables


def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_happened(
  tmp_path, update
):
  scale = loss_scale.DynamicLossScale(3)
  update(scale, OVERFLOW, GOOD, GOOD)
  path = tf.train.Checkpoint(scale=scale).write(str(tmp_path / "ckpt"))
  restored = loss_scale.DynamicLossScale(3)
  status = tf.train.Checkpoint(scale=restored).read(path)
  status.assert_existing_objects_matched()
  assert restored.scale.numpy() == 16384.0
  assert restored.num_skipped.numpy() == 1
  # The count of good steps too: one more makes three.
  assert update(restored, GOOD) == [32768.0]
