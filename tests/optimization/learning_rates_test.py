"""Points of the learning rate curves that a person can check."""

import pytest
import tensorflow as tf

from mslt_tf.optimization import learning_rates


def _points(curve, steps) -> list[float]:
  return [float(curve(tf.constant(step, tf.int64))) for step in steps]


def test_the_rate_rises_from_zero_and_falls_to_zero():
  curve = learning_rates.over_run(peak=2.0, warmup_steps=4, num_steps=10)
  assert _points(curve, range(11)) == pytest.approx(
    [0.0, 0.5, 1.0, 1.5, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0], abs=1e-6
  )


def test_without_warmup_the_first_rate_is_the_peak():
  curve = learning_rates.over_run(peak=2.0, warmup_steps=0, num_steps=5)
  assert _points(curve, [0, 1, 4, 5]) == pytest.approx(
    [2.0, 1.6, 0.4, 0.0], abs=1e-6
  )


def test_a_curve_of_variables_follows_them():
  values = [tf.Variable(each) for each in (2.0, 4.0, 10.0)]
  curve = learning_rates.over_run(
    peak=values[0], warmup_steps=values[1], num_steps=values[2]
  )
  compiled = tf.function(curve)
  assert _points(compiled, [0, 1, 4, 9]) == pytest.approx([0.0, 0.5, 1.2, 0.2])
  for variable, value in zip(values, (3.0, 0.0, 6.0), strict=True):
    variable.assign(value)
  assert _points(compiled, [0, 1, 5]) == pytest.approx([3.0, 2.5, 0.5])


def test_behind_the_last_step_the_rate_stays_zero():
  curve = learning_rates.over_run(peak=2.0, warmup_steps=3, num_steps=5)
  assert _points(curve, [5, 6, 1000]) == [0.0, 0.0, 0.0]


def test_the_papers_curve():
  curve = learning_rates.over_run(
    peak=0.00088, warmup_steps=10_000, num_steps=1_000_000
  )
  assert _points(curve, [0, 5_000, 9_999]) == pytest.approx(
    [0.0, 0.00044, 0.000879912]
  )
  # The rate falls on the line from step 0, not from the end of the warmup.
  assert _points(curve, [10_000, 500_000, 990_000]) == pytest.approx(
    [0.0008712, 0.00044, 0.0000088], rel=1e-5
  )


@pytest.mark.parametrize("border", [200_000, 400_000, 600_000, 800_000])
def test_one_curve_has_no_jump_at_a_stage_border(border):
  curve = learning_rates.over_run(
    peak=0.00088, warmup_steps=10_000, num_steps=1_000_000
  )
  before, at, after = _points(curve, [border - 1000, border, border + 1000])
  assert before - at == pytest.approx(8.8e-7, rel=1e-3)
  assert at - after == pytest.approx(8.8e-7, rel=1e-3)
  assert at == pytest.approx(0.00088 * (1 - border / 1e6))


def _stage_curve(stage_index: int):
  # Stages of 20, 30 and 50 steps: warmups of 2, 3 and 5.
  return learning_rates.over_stage(
    peak=3.0,
    warmup_steps=10,
    stage_starts=(0, 20, 50),
    num_steps=100,
    stage_index=stage_index,
  )


@pytest.mark.parametrize(
  "stage_index, steps, expected",
  [
    (0, [0, 1, 2, 10, 19, 20], [0.0, 1.5, 2.7, 1.5, 0.15, 0.0]),
    (1, [20, 21, 22, 23, 35, 49], [0.0, 1.0, 2.0, 2.7, 1.5, 0.1]),
    (2, [50, 51, 55, 75, 99, 100], [0.0, 0.6, 2.7, 1.5, 0.06, 0.0]),
  ],
)
def test_every_stage_can_have_a_warmup_and_a_decay_of_its_own(
  stage_index, steps, expected
):
  assert _points(_stage_curve(stage_index), steps) == pytest.approx(
    expected, abs=1e-5
  )


def test_a_single_stage_has_the_curve_of_the_run():
  curve = learning_rates.over_stage(
    peak=2.0, warmup_steps=4, stage_starts=(0,), num_steps=10, stage_index=0
  )
  assert _points(curve, [0, 2, 4, 9, 10]) == pytest.approx(
    [0.0, 1.0, 1.2, 0.2, 0.0], abs=1e-6
  )


def test_the_rate_follows_a_variable_inside_a_function():
  step = tf.Variable(1, dtype=tf.int64)
  curve = learning_rates.over_run(peak=2.0, warmup_steps=4, num_steps=10)
  rate = tf.function(lambda: curve(step))
  assert float(rate()) == pytest.approx(0.5)
  step.assign(5)
  assert float(rate()) == pytest.approx(1.0)
