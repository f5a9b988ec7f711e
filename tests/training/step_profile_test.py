"""The profiler watches the chosen steps and no others."""

import tensorflow as tf

from mslt_tf.training import step_profile


def profiles(folder):
  return list(folder.rglob("*.xplane.pb"))


def test_training_returns_to_python_before_and_after_the_chosen_steps(tmp_path):
  assert step_profile.StepProfile([5, 8], str(tmp_path)).borders == (4, 8)
  assert step_profile.StepProfile([], str(tmp_path)).borders == ()


def test_only_chosen_steps_are_watched(tmp_path):
  profile = step_profile.StepProfile([5, 8], str(tmp_path))
  for step in (0, 3, 8, 9):
    with profile.around(step):
      tf.constant(1.0) + 1.0
  assert not profiles(tmp_path)
  with profile.around(4):
    tf.constant(1.0) + 1.0
  assert len(profiles(tmp_path)) == 1


def test_no_steps_are_watched_unless_chosen(tmp_path):
  with step_profile.StepProfile([], str(tmp_path)).around(0):
    tf.constant(1.0) + 1.0
  assert not profiles(tmp_path)


def test_only_the_worker_that_writes_watches(tmp_path):
  profile = step_profile.StepProfile([1, 2], str(tmp_path), is_written=False)
  with profile.around(0):
    tf.constant(1.0) + 1.0
  assert not profiles(tmp_path)
