"""SIGTERM as a flag that a running step can see.

Cloud machines are taken away with a SIGTERM and half a minute's grace. Python's
own handlers wait until a call into TensorFlow returns, after many steps; this
flag is a variable that the compiled loop reads before every step.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import tensorflow as tf
from absl import logging


@contextlib.contextmanager
def watch() -> Iterator[tf.Variable]:
  """Yields a boolean variable that SIGTERM sets; must run in the main thread.

  To be entered after a cluster is connected: TensorFlow's coordination service
  puts a SIGTERM handler of its own in place.
  """
  with tf.device("CPU:0"):
    is_asked = tf.Variable(False, trainable=False, name="is_asked_to_stop")
  read_end, write_end = os.pipe()
  os.set_blocking(write_end, False)

  def set_flag():
    # The signal's number comes through the pipe at once, even while the main
    # thread waits inside TensorFlow.
    while number := os.read(read_end, 1):
      if number[0] == signal.SIGTERM:
        logging.info("SIGTERM: finishing the step, then saving")
        is_asked.assign(True)

  thread = threading.Thread(target=set_flag, daemon=True)
  thread.start()
  handler_before = signal.signal(signal.SIGTERM, lambda *_: None)
  wakeup_before = signal.set_wakeup_fd(write_end)
  try:
    yield is_asked
  finally:
    signal.set_wakeup_fd(wakeup_before)
    signal.signal(signal.SIGTERM, handler_before or signal.SIG_DFL)
    os.close(write_end)
    thread.join()
    os.close(read_end)
