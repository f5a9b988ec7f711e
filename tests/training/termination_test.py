"""SIGTERM sets a flag that a running call into TensorFlow sees."""

import os
import signal
import socket
import threading
import time

import tensorflow as tf

from mslt_tf.training import termination

# The loop below makes about a hundred thousand of them in a second.
MANY_ITERATIONS = 3_000_000


def _send(number: int) -> None:
  os.kill(os.getpid(), number)


def _becomes_true(flag: tf.Variable) -> bool:
  give_up = time.monotonic() + 10.0
  while not flag.numpy():
    if time.monotonic() > give_up:
      return False
    time.sleep(0.001)
  return True


def test_sigterm_sets_the_flag():
  with termination.watch() as is_asked_to_stop:
    assert not is_asked_to_stop.numpy()
    _send(signal.SIGTERM)
    assert _becomes_true(is_asked_to_stop)
    # A second one changes nothing.
    _send(signal.SIGTERM)
  assert is_asked_to_stop.numpy()


def test_every_watch_begins_with_a_flag_that_is_not_set():
  for _ in range(2):
    with termination.watch() as is_asked_to_stop:
      assert not is_asked_to_stop.numpy()
      _send(signal.SIGTERM)
      assert _becomes_true(is_asked_to_stop)


def test_a_call_into_tensorflow_sees_the_flag_while_it_runs():
  started = tf.Variable(False)
  with termination.watch() as is_asked_to_stop:

    @tf.function(autograph=False)
    def spin():
      def count(index):
        started.assign(True)
        return index + 1

      return tf.while_loop(
        lambda index: ~is_asked_to_stop.read_value(),
        count,
        [tf.constant(0)],
        maximum_iterations=MANY_ITERATIONS,
      )[0]

    def send_once_it_runs():
      assert _becomes_true(started)
      _send(signal.SIGTERM)

    thread = threading.Thread(target=send_once_it_runs)
    thread.start()
    num_iterations = int(spin())
    thread.join()
  assert is_asked_to_stop.numpy()
  # It was running when the signal came, and the flag ended it.
  assert 1 <= num_iterations < MANY_ITERATIONS


def test_what_was_set_before_is_back_afterwards():
  def handle(number, frame):
    del number, frame

  here, there = socket.socketpair()
  with here, there:
    there.setblocking(False)
    handler_before = signal.signal(signal.SIGTERM, handle)
    wakeup_before = signal.set_wakeup_fd(there.fileno())
    try:
      with termination.watch():
        assert signal.getsignal(signal.SIGTERM) is not handle
      assert signal.getsignal(signal.SIGTERM) is handle
    finally:
      signal.signal(signal.SIGTERM, handler_before)
      wakeup_after = signal.set_wakeup_fd(wakeup_before)
    assert wakeup_after == there.fileno()


def test_what_was_set_before_is_back_after_an_error_too():
  handler_before = signal.getsignal(signal.SIGTERM)
  num_threads = threading.active_count()
  try:
    with termination.watch():
      raise KeyError
  except KeyError:
    pass
  assert signal.getsignal(signal.SIGTERM) == handler_before
  assert threading.active_count() == num_threads


def test_another_signal_reaches_its_handler_and_sets_nothing():
  received = []
  handler_before = signal.signal(
    signal.SIGUSR1, lambda number, frame: received.append(number)
  )
  try:
    # At its end, all that came has been looked at.
    with termination.watch() as is_asked_to_stop:
      _send(signal.SIGUSR1)
  finally:
    signal.signal(signal.SIGUSR1, handler_before)
  assert received == [signal.SIGUSR1]
  assert not is_asked_to_stop.numpy()
