"""The devices of a run: one, several, several machines of them, or a TPU.

Workers are processes that run the same program on different machines. Each
drives one or more replicas, copies of the model on a device. Worker 0 is the
chief: it alone writes files and decides where a run goes on.
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from absl import logging
from official.common import distribute_utils

from mslt_tf import errors
from mslt_tf.training import run_directory

_TOKEN = "workers_token"
# File systems over a network may show a new file late.
_SECONDS_UNTIL_FILES_SHOW = 60.0
_SECONDS_BETWEEN_REMARKS = 60.0
# What TensorFlow raises where a worker of the cluster is gone, and what it
# raises for other reasons too, an error of a device's library say.
_LOST_WORKER = (
  tf.errors.UnavailableError,
  tf.errors.AbortedError,
  tf.errors.DeadlineExceededError,
)
_PERHAPS_LOST_WORKER = (tf.errors.CancelledError, tf.errors.InternalError)
_TALK = re.compile(
  r"aborted by|/task:|socket closed|unreachable|heartbeat|connection",
  re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Task:
  """This process's place among the workers that `TF_CONFIG` lists."""

  addresses: tuple[str, ...]  # Of all workers, the chief's first.
  worker: int


@dataclasses.dataclass(frozen=True)
class Cluster:
  """A distribution strategy and this process's place in it."""

  strategy: tf.distribute.Strategy
  num_workers: int = 1
  worker: int = 0

  @property
  def is_chief(self) -> bool:
    return self.worker == 0

  @property
  def num_replicas(self) -> int:
    """On all workers."""
    return self.strategy.num_replicas_in_sync

  @property
  def device_type(self) -> str:
    """`CPU`, `GPU` or `TPU`."""
    device = self.strategy.extended.worker_devices[0]
    return tf.DeviceSpec.from_string(device).device_type

  def broadcast(self, value: int) -> int:
    """Returns the chief's value on every worker, once all have asked."""
    return self._sum(value if self.is_chief else 0)

  def any(self, value: bool) -> bool:
    """Tells every worker whether the value is true on one of them."""
    return self._sum(int(value)) > 0

  def barrier(self) -> None:
    """Returns when every worker has come here."""
    self._sum(0)

  def _sum(self, value: int) -> int:
    if self.num_workers == 1:
      return value
    total = self._sum_over_workers(tf.constant(value, tf.int64))
    return int(self.strategy.experimental_local_results(total)[0])

  @functools.cached_property
  def _sum_over_workers(self) -> Callable[[tf.Tensor], Any]:
    # The strategy counts the replicas of the workers one after another.
    replicas_per_worker = self.num_replicas // self.num_workers

    def first_replica_sums(value):
      context = tf.distribute.get_replica_context()
      replica = context.replica_id_in_sync_group
      is_first = tf.cast(replica % replicas_per_worker == 0, tf.int64)
      return context.all_reduce(tf.distribute.ReduceOp.SUM, value * is_first)

    return tf.function(
      lambda value: self.strategy.run(first_replica_sums, args=(value,)),
      autograph=False,
    )


def connect(kind: str, *, tpu: str = "", timeout: float) -> Cluster:
  """Returns the devices that a run uses; must come before any other op.

  Args:
    kind: `one_device`, `mirrored` (all GPUs of this machine, or all logical
      CPU devices where it has none), `multi_worker_mirrored` (the workers that
      the environment variable `TF_CONFIG` lists), `tpu`, or `auto`: the workers
      of `TF_CONFIG` where it lists more than one, otherwise all GPUs.
    tpu: Name or address of the Cloud TPU; empty for one of this machine.
    timeout: Seconds until the workers must have found each other.

  Raises:
    InputError: `TF_CONFIG` or the devices do not fit.
    LostWorkerError: A worker cannot be reached.
  """
  task = read_task(os.environ)
  if kind == "auto":
    kind = _choose(task)
  if kind == "multi_worker_mirrored":
    if task is None:
      raise errors.InputError(
        "training.strategy=multi_worker_mirrored needs the environment"
        " variable TF_CONFIG, which lists the workers."
      )
    return _connect_workers(task, timeout)
  if task is not None and len(task.addresses) > 1:
    raise errors.InputError(
      f"training.strategy={kind} uses one machine, but TF_CONFIG lists"
      f" {len(task.addresses)} workers; take multi_worker_mirrored or auto."
    )
  if kind == "tpu":
    return Cluster(_connect_tpu(tpu, timeout))
  num_gpus = len(tf.config.list_logical_devices("GPU"))
  if kind == "mirrored" and not num_gpus:
    return Cluster(_mirror_cpus())
  if kind == "one_device":
    num_gpus = min(num_gpus, 1)
  strategy = distribute_utils.get_distribution_strategy(kind, num_gpus=num_gpus)
  return Cluster(strategy)


def read_task(environment: Mapping[str, str]) -> Task | None:
  """Reads `TF_CONFIG`; `None` where it is not set.

  Raises:
    InputError: It is not what TensorFlow's guide to multi-worker training
      describes, or this process is neither chief nor worker.
  """
  text = environment.get("TF_CONFIG", "")
  if not text:
    return None
  try:
    content = json.loads(text)
    cluster, task = content["cluster"], content["task"]
    chief, workers = cluster.get("chief", []), cluster.get("worker", [])
    kind, index = str(task["type"]), int(task["index"])
    if not isinstance(chief, list) or not isinstance(workers, list):
      raise TypeError
    addresses = tuple(str(address) for address in [*chief, *workers])
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise errors.InputError(
      f"TF_CONFIG={text!r} must be JSON such as"
      ' {"cluster": {"worker": ["host:port", "host:port"]},'
      ' "task": {"type": "worker", "index": 0}}.'
    ) from error
  group = {"chief": chief, "worker": workers}.get(kind)
  if group is None:
    raise errors.InputError(
      f"TF_CONFIG: task.type={kind!r} must be chief or worker."
    )
  if not 0 <= index < len(group):
    raise errors.InputError(
      f"TF_CONFIG: task.index={index}, but the cluster has {len(group)} of type"
      f" {kind}."
    )
  for address in addresses:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
      raise errors.InputError(
        f"TF_CONFIG: {address!r} must have the form host:port."
      )
  return Task(addresses, index + (len(chief) if kind == "worker" else 0))


def check_shared(cluster: Cluster, workdir: str) -> None:
  """Checks that every worker sees what the chief writes into the workdir.

  Raises:
    InputError: On every worker, where one of them does not.
  """
  if cluster.num_workers == 1:
    return
  path = os.path.join(workdir, _TOKEN)
  token = 1 + secrets.randbits(48)
  if cluster.is_chief:
    run_directory.RunDirectory(workdir).write_text(_TOKEN, f"{token}\n")
  token = cluster.broadcast(token)
  is_shared = _shows(path, f"{token}\n")
  if cluster.any(not is_shared):
    who = (
      "another worker does not see what the chief writes there"
      if is_shared
      else f"worker {cluster.worker} does not see what the chief writes there"
    )
    raise errors.InputError(
      f"--workdir={workdir} is not shared: {who}. All workers need one"
      " directory, on a network file system or in a bucket."
    )


@contextlib.contextmanager
def naming_lost_workers(cluster: Cluster) -> Iterator[None]:
  """Turns what TensorFlow raises when a worker is gone into one line."""
  try:
    yield
  except (*_LOST_WORKER, *_PERHAPS_LOST_WORKER) as error:
    is_talk = isinstance(error, _LOST_WORKER) or _TALK.search(error.message)
    if cluster.num_workers == 1 or not is_talk:
      raise
    # TensorFlow's message begins with a trace of the graph.
    lines = [line for line in str(error).splitlines() if line.strip()]
    reason = next(
      (line for line in lines if "aborted by" in line or "task:" in line),
      lines[-1] if lines else type(error).__name__,
    )
    raise errors.LostWorkerError(
      f"another worker stopped, see its log; start all workers again to"
      f" continue ({reason.strip()})"
    ) from error


def _choose(task: Task | None) -> str:
  if task is not None and len(task.addresses) > 1:
    return "multi_worker_mirrored"
  is_several = len(tf.config.list_logical_devices("GPU")) > 1
  return "mirrored" if is_several else "one_device"


# TensorFlow would number the collectives of a second strategy in this process
# from the start again and mix them up with the first one's.
@functools.cache
def _mirror_cpus() -> tf.distribute.Strategy:
  devices = [each.name for each in tf.config.list_logical_devices("CPU")]
  return tf.distribute.MirroredStrategy(devices)


def _connect_workers(task: Task, timeout: float) -> Cluster:
  def make_strategy() -> tf.distribute.Strategy:
    return distribute_utils.get_distribution_strategy("multi_worker_mirrored")

  num_workers = len(task.addresses)
  if num_workers == 1:
    return Cluster(make_strategy())
  _wait_for_workers(task, timeout)
  with _alarm(timeout):  # A worker may be lost in this moment.
    cluster = Cluster(make_strategy(), num_workers, task.worker)
    with naming_lost_workers(cluster):
      cluster.barrier()
  return cluster


@contextlib.contextmanager
def _alarm(timeout: float) -> Iterator[None]:
  """Ends the process by SIGALRM after so many seconds.

  While TensorFlow connects it waits for an hour and more, deaf to all that
  Python could do.
  """
  handler_before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
  signal.alarm(math.ceil(timeout))
  try:
    yield
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler_before)


def _wait_for_workers(task: Task, timeout: float) -> None:
  """Returns when every worker of the job can be reached.

  Raises:
    InputError: This worker's own port cannot be used.
    LostWorkerError: A worker could not be reached within `timeout` seconds.
  """
  logging.info(
    "worker %d of %d waits for the others", task.worker, len(task.addresses)
  )
  port = int(task.addresses[task.worker].rpartition(":")[2])
  try:
    # For the others to find; once all are found, TensorFlow takes it over.
    is_dual = socket.has_dualstack_ipv6()
    listener = socket.create_server(
      ("", port),
      family=socket.AF_INET6 if is_dual else socket.AF_INET,
      dualstack_ipv6=is_dual,
      backlog=socket.SOMAXCONN,
    )
    listener.setblocking(False)
  except OSError as error:
    raise errors.InputError(
      f"TF_CONFIG: port {port} of worker {task.worker} cannot be used on this"
      f" machine: {error.strerror}."
    ) from error
  started = time.monotonic()
  next_remark = _SECONDS_BETWEEN_REMARKS
  with listener:
    while missing := _missing_workers(task):
      waited = time.monotonic() - started
      if waited > timeout:
        raise errors.LostWorkerError(
          f"{', '.join(missing)} cannot be reached; gave up after"
          f" training.worker_timeout={timeout:g} seconds."
        )
      if waited > next_remark:
        logging.info("still waiting for %s", ", ".join(missing))
        next_remark += _SECONDS_BETWEEN_REMARKS
      _hang_up(listener)
      time.sleep(min(1.0, timeout / 10))


def _hang_up(listener: socket.socket) -> None:
  """Makes room for the next calls: after some hundred none would come in."""
  try:
    while True:
      listener.accept()[0].close()
  except OSError:
    pass  # That was the last one.


def _missing_workers(task: Task) -> list[str]:
  return [
    f"worker {index} at {address} ({reason})"
    for index, address in enumerate(task.addresses)
    if index != task.worker and (reason := _why_unreachable(address))
  ]


def _why_unreachable(address: str) -> str:
  host, _, port = address.rpartition(":")
  try:
    with socket.create_connection((host.strip("[]"), int(port)), timeout=5.0):
      return ""
  except OSError as error:
    return error.strerror or str(error)


def _connect_tpu(tpu: str, timeout: float) -> tf.distribute.Strategy:
  try:
    with _alarm(timeout):
      return distribute_utils.get_distribution_strategy(
        "tpu", tpu_address=tpu or "local"
      )
  except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
    reason = errors.first_line(error)
    raise errors.InputError(
      f"training.tpu={tpu!r} cannot be used: {reason}"
    ) from error


def _shows(path: str, content: str) -> bool:
  give_up = time.monotonic() + _SECONDS_UNTIL_FILES_SHOW
  while True:
    try:
      with tf.io.gfile.GFile(path) as file:
        if file.read() == content:
          return True
    except tf.errors.OpError:
      pass  # Not there yet.
    if time.monotonic() > give_up:
      return False
    time.sleep(1.0)
