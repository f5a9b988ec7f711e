"""Tasks on several processes, a bounded number of them under way.

A task is a function of a module, called with one argument; both travel to the
process. What a task leaves behind are files, so a killed build can continue.
"""

import concurrent.futures
import contextlib
import itertools
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection
from typing import Any, TypeVar

import tensorflow as tf

from mslt_tf import errors

Argument = TypeVar("Argument")
Result = TypeVar("Result")

_END: Any = object()
_SECONDS_BETWEEN_LOOKS = 0.5
_WAITING_PER_PROCESS = 1  # Arguments may be as large as a chunk of text.


class Processes:
  """Runs tasks; made by `start`."""

  def __init__(self, executor: concurrent.futures.Executor | None, number: int):
    self._executor = executor
    self._number = number
    self._most_under_way = number * (1 + _WAITING_PER_PROCESS)

  def read_ahead(
    self,
    function: Callable[[Argument], Iterable[Result]],
    arguments: Iterable[Argument],
  ) -> Iterator[Result]:
    """Yields all that `function` gives for each argument, in any order.

    Threads of this process do that, as many as there are processes: they are
    there to wait for files, and to decompress, which lets others work.
    """
    if self._executor is None:
      for argument in arguments:
        yield from function(argument)
      return
    yield from _read_ahead(function, arguments, self._number)

  def map(
    self, function: Callable[[Argument], Result], arguments: Iterable[Argument]
  ) -> Iterator[Result]:
    """Yields the results, in the order of the arguments.

    `arguments` are taken as they are needed.

    Raises:
      errors.LostWorkerError: a process died.
    """
    if self._executor is None:
      yield from map(function, arguments)
      return
    remaining = iter(arguments)
    try:
      under_way = [
        self._executor.submit(_call, function, argument)
        for argument in itertools.islice(remaining, self._most_under_way)
      ]
      while under_way:
        result = under_way.pop(0).result()
        for argument in itertools.islice(remaining, 1):
          under_way.append(self._executor.submit(_call, function, argument))
        yield result
    except concurrent.futures.process.BrokenProcessPool as error:
      raise errors.LostWorkerError(
        "a process that built data died, perhaps for want of memory; the same"
        " command continues, with fewer --num_processes if need be."
      ) from error


def _read_ahead(
  function: Callable[[Argument], Iterable[Result]],
  arguments: Iterable[Argument],
  num_threads: int,
) -> Iterator[Result]:
  remaining = iter(arguments)
  lock = threading.Lock()
  is_over = threading.Event()
  # What is found, and for each thread a last word: None or what it failed by.
  found: queue.Queue[tuple[bool, Any]] = queue.Queue(num_threads)

  def tell(is_last: bool, value: Any) -> None:
    while not is_over.is_set():
      with contextlib.suppress(queue.Full):
        return found.put((is_last, value), timeout=_SECONDS_BETWEEN_LOOKS)

  def work() -> None:
    try:
      while not is_over.is_set():
        with lock:
          argument = next(remaining, _END)
        if argument is _END:
          break
        for result in function(argument):
          tell(False, result)
          if is_over.is_set():
            break
    except BaseException as error:
      tell(True, error)
    else:
      tell(True, None)

  for _ in range(num_threads):
    threading.Thread(target=work, daemon=True).start()
  try:
    while num_threads:
      is_last, value = found.get()
      if not is_last:
        yield value
      elif value is None:
        num_threads -= 1
      else:
        raise value
  finally:
    is_over.set()


@contextlib.contextmanager
def start(number: int) -> Iterator[Processes]:
  """Gives `number` processes, or this one if it is 1."""
  if number == 1:
    yield Processes(None, 1)
    return
  # A fork of a process in which TensorFlow has threads may hang.
  context = multiprocessing.get_context("spawn")
  # Nothing is ever sent: it breaks when this process closes its end, or dies.
  their_end, our_end = context.Pipe(duplex=False)
  executor = concurrent.futures.ProcessPoolExecutor(
    number, mp_context=context, initializer=_follow, initargs=(their_end,)
  )
  try:
    yield Processes(executor, number)
    executor.shutdown()
  finally:
    # After an error, what they are at is not needed. Nothing is lost: what is
    # half-written has no name yet.
    our_end.close()
    executor.shutdown(wait=False, cancel_futures=True)


def _call(function: Callable[[Argument], Result], argument: Argument) -> Result:
  try:
    return function(argument)
  except tf.errors.OpError as error:
    # It would lose its message on the way to the other process.
    raise OSError(error.message) from None


def _follow(parent: connection.Connection) -> None:
  """Ends this process when the one that started it has ended its pool."""
  # Ctrl-C goes to all processes; the parent is the one to tell of it.
  signal.signal(signal.SIGINT, signal.SIG_IGN)

  def wait() -> None:
    connection.wait([parent])
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
