"""Programs that train BERT, each in a process of its own, to be timed in turns.

A contestant is made in its process, where each of its parts runs once, which
traces and compiles it. Then it waits for its turns.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import connection
from typing import Any, Protocol

from mslt_tf import errors

PEERS = ("model_garden", "hugging_face", "hugging_face_compiled")


class Program(Protocol):
  """What can be timed."""

  @property
  def parts(self) -> Mapping[str, Callable[[int], None]]:
    """Functions by their names, each making so many steps of one kind."""

  def matmul_flops_per_second(self) -> float:
    """Returns the best rate of a product of the step's shapes."""


class Peer:
  """A program of one part, a whole training step."""

  def __init__(self, step: Callable[[], None]):
    self._step = step

  @property
  def parts(self) -> dict[str, Callable[[int], None]]:
    return {"step": self._run}

  def _run(self, num_steps: int) -> None:
    for _ in range(num_steps):
      self._step()

  def matmul_flops_per_second(self) -> float:
    raise NotImplementedError


class Contestant:
  """A program in another process."""

  def __init__(self, pipe: connection.Connection, name: str):
    self._pipe = pipe
    self._name = name
    self.parts, self.seconds_to_start, self.compile_seconds = self._receive()

  def run(self, part: str, num_steps: int) -> tuple[float, float]:
    """Runs a part; returns wall seconds and CPU seconds of all threads."""
    return self._ask("run", part, num_steps)

  def matmul_flops_per_second(self) -> float:
    return self._ask("matmul_flops_per_second")

  def peak_memory_bytes(self) -> int:
    """Returns the most resident memory that the process has had so far."""
    return self._ask("peak_memory_bytes")

  def _ask(self, *question) -> Any:
    try:
      self._pipe.send(question)
    except BrokenPipeError:
      raise self._ended() from None
    return self._receive()

  def _ended(self) -> errors.InputError:
    return errors.InputError(f"{self._name} ended; what it printed tells why.")

  def _receive(self) -> Any:
    try:
      answer = self._pipe.recv()
    except (EOFError, ConnectionResetError):
      raise self._ended() from None
    if isinstance(answer, errors.InputError):
      raise answer
    return answer


@contextlib.contextmanager
def start(
  makers: Mapping[str, Callable[[], Program]],
) -> Iterator[dict[str, Contestant]]:
  """Starts processes one after another; they end with the context.

  Args:
    makers: by their names, functions of modules that make programs in their
      processes, such as `functools.partial` gives.
  """
  context = multiprocessing.get_context("spawn")
  with contextlib.ExitStack() as stack:
    started = {}
    for name, maker in makers.items():
      ours, theirs = context.Pipe()
      process = context.Process(target=_work, args=(theirs, maker), daemon=True)
      process.start()
      theirs.close()
      stack.callback(process.join)
      stack.callback(ours.close)
      started[name] = Contestant(ours, name)
    yield started


def _work(pipe: connection.Connection, maker: Callable[[], Program]) -> None:
  # Ctrl-C goes to all processes; the parent is the one to tell of it.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  start = time.perf_counter()
  try:
    program = maker()
  except errors.InputError as error:
    pipe.send(error)
    return
  compile_start = time.perf_counter()
  for part in program.parts.values():
    part(1)
  now = time.perf_counter()
  pipe.send((tuple(program.parts), now - start, now - compile_start))
  with contextlib.suppress(EOFError):
    while True:
      what, *arguments = pipe.recv()
      if what == "run":
        part, num_steps = arguments
        pipe.send(_timed(program.parts[part], num_steps))
      elif what == "matmul_flops_per_second":
        pipe.send(program.matmul_flops_per_second())
      else:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        pipe.send(usage.ru_maxrss * 1024)
  os._exit(0)  # Some libraries take seconds to say goodbye.


def _timed(part: Callable[[int], None], num_steps: int) -> tuple[float, float]:
  start, cpu_start = time.perf_counter(), time.process_time()
  part(num_steps)
  return time.perf_counter() - start, time.process_time() - cpu_start
