"""Devices and workers: what `TF_CONFIG` may say, and workers not to be had."""

import concurrent.futures
import json
import logging
import re
import socket
import time
import types

import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.training import cluster

TWO = {"worker": ["one:2222", "two:2222"]}


def _tf_config(addresses, kind="worker", index=0) -> dict[str, str]:
  content = {"cluster": addresses, "task": {"type": kind, "index": index}}
  return {"TF_CONFIG": json.dumps(content)}


def _is_one_line(error: Exception) -> bool:
  return "\n" not in str(error)


@pytest.fixture(autouse=True)
def no_tf_config(monkeypatch):
  monkeypatch.delenv("TF_CONFIG", raising=False)


# TF_CONFIG.


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": ""}])
def test_without_tf_config_there_is_no_task(environment):
  assert cluster.read_task(environment) is None


@pytest.mark.parametrize(
  ("addresses", "kind", "index", "expected"),
  [
    ({"worker": ["[::1]:80"]}, "worker", 0, (("[::1]:80",), 0)),
    (TWO, "worker", 0, (("one:2222", "two:2222"), 0)),
    (TWO, "worker", 1, (("one:2222", "two:2222"), 1)),
    # TensorFlow takes a number as text, too.
    (TWO, "worker", "1", (("one:2222", "two:2222"), 1)),
    ({"chief": ["c:1"], **TWO}, "chief", 0, (("c:1", *TWO["worker"]), 0)),
    ({"chief": ["c:1"], **TWO}, "worker", 0, (("c:1", *TWO["worker"]), 1)),
    ({"chief": ["c:1"], **TWO}, "worker", 1, (("c:1", *TWO["worker"]), 2)),
    ({"chief": ["c:1"]}, "chief", 0, (("c:1",), 0)),
  ],
)
def test_the_chief_comes_first_and_workers_count_on(
  addresses, kind, index, expected
):
  task = cluster.read_task(_tf_config(addresses, kind, index))
  assert (task.addresses, task.worker) == expected


_TASK = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
  "text",
  [
    "one:2222,two:2222",
    "[]",
    "3",
    json.dumps({"task": _TASK}),
    json.dumps({"cluster": TWO}),
    json.dumps({"cluster": ["one:2222"], "task": _TASK}),
    json.dumps({"cluster": {"worker": None}, "task": _TASK}),
    json.dumps({"cluster": {"worker": "one:2222"}, "task": _TASK}),
    json.dumps({"cluster": TWO, "task": 0}),
    json.dumps({"cluster": TWO, "task": {"type": "worker"}}),
    json.dumps({"cluster": TWO, "task": {"index": 0}}),
    json.dumps({"cluster": TWO, "task": {"type": "worker", "index": "one"}}),
    json.dumps({"cluster": TWO, "task": {"type": "worker", "index": None}}),
    json.dumps({"cluster": TWO}, indent=2),
  ],
)
def test_what_is_no_tf_config_is_shown_with_an_example(text):
  with pytest.raises(errors.InputError) as caught:
    cluster.read_task({"TF_CONFIG": text})
  assert str(caught.value).startswith(f"TF_CONFIG={text!r} must be JSON such")
  assert _is_one_line(caught.value)


@pytest.mark.parametrize(
  ("addresses", "kind", "index", "value"),
  [
    (TWO, "evaluator", 0, "task.type='evaluator'"),
    ({"ps": ["one:2222"]}, "ps", 0, "task.type='ps'"),
    (TWO, ["worker"], 0, """task.type="['worker']\""""),
    (TWO, "worker", 2, "task.index=2, but the cluster has 2 of type worker"),
    (TWO, "worker", -1, "task.index=-1"),
    (TWO, "chief", 0, "task.index=0, but the cluster has 0 of type chief"),
    ({"worker": ["one:2222", "two"]}, "worker", 0, "'two'"),
    ({"worker": ["one:2222", "two:"]}, "worker", 0, "'two:'"),
    ({"worker": [":2222"]}, "worker", 0, "':2222'"),
    ({"worker": ["one:http"]}, "worker", 0, "'one:http'"),
    ({"worker": ["one:²"]}, "worker", 0, "'one:²'"),
    ({"worker": ["one:0"]}, "worker", 0, "'one:0'"),
    ({"worker": ["one:65536"]}, "worker", 0, "'one:65536'"),
    ({"worker": [7]}, "worker", 0, "'7'"),
  ],
)
def test_a_value_in_tf_config_that_does_not_fit_is_named(
  addresses, kind, index, value
):
  with pytest.raises(errors.InputError) as caught:
    cluster.read_task(_tf_config(addresses, kind, index))
  assert str(caught.value).startswith(f"TF_CONFIG: {value}")
  assert _is_one_line(caught.value)


# Devices.


@pytest.fixture
def chosen(monkeypatch):
  """Counts GPUs as told and returns what strategy is then asked for."""

  def connect(kind: str, num_gpus: int, **kwargs):
    monkeypatch.setattr(
      cluster.tf.config, "list_logical_devices", lambda _: ["GPU"] * num_gpus
    )
    monkeypatch.setattr(
      cluster.distribute_utils,
      "get_distribution_strategy",
      lambda kind, **arguments: (kind, arguments),
    )
    return cluster.connect(kind, timeout=60.0, **kwargs).strategy

  return connect


@pytest.mark.parametrize(
  ("kind", "num_gpus", "expected"),
  [
    ("one_device", 0, ("one_device", {"num_gpus": 0})),
    ("one_device", 3, ("one_device", {"num_gpus": 1})),
    ("mirrored", 1, ("mirrored", {"num_gpus": 1})),
    ("mirrored", 3, ("mirrored", {"num_gpus": 3})),
    ("auto", 0, ("one_device", {"num_gpus": 0})),
    ("auto", 1, ("one_device", {"num_gpus": 1})),
    ("auto", 3, ("mirrored", {"num_gpus": 3})),
    ("tpu", 0, ("tpu", {"tpu_address": "local"})),
  ],
)
def test_gpus_are_used_as_the_kind_says(chosen, kind, num_gpus, expected):
  assert chosen(kind, num_gpus) == expected


def test_a_named_tpu_is_asked_for_by_its_name(chosen):
  expected = ("tpu", {"tpu_address": "grpc://there:1"})
  assert chosen("tpu", 0, tpu="grpc://there:1") == expected


def test_a_list_of_one_worker_is_one_machine(chosen, monkeypatch):
  monkeypatch.setenv("TF_CONFIG", _tf_config({"worker": ["a:1"]})["TF_CONFIG"])
  assert chosen("auto", 3) == ("mirrored", {"num_gpus": 3})
  assert chosen("one_device", 0) == ("one_device", {"num_gpus": 0})
  assert chosen("multi_worker_mirrored", 0) == ("multi_worker_mirrored", {})


@pytest.fixture
def without_gpus(monkeypatch):
  list_devices = tf.config.list_logical_devices
  monkeypatch.setattr(
    cluster.tf.config,
    "list_logical_devices",
    lambda kind: [] if kind == "GPU" else list_devices(kind),
  )


@pytest.mark.parametrize(
  ("kind", "num_replicas"), [("one_device", 1), ("auto", 1), ("mirrored", 2)]
)
def test_one_process_is_the_chief(without_gpus, kind, num_replicas):
  connected = cluster.connect(kind, timeout=60.0)
  assert connected.num_replicas == num_replicas
  assert (connected.num_workers, connected.worker) == (1, 0)
  assert connected.is_chief


def test_alone_it_need_not_ask_others(without_gpus):
  alone = cluster.connect("mirrored", timeout=60.0)
  assert alone.broadcast(2**40 + 1) == 2**40 + 1
  assert alone.broadcast(-1) == -1
  assert alone.any(True) is True
  assert alone.any(False) is False
  alone.barrier()


def test_several_workers_need_tf_config():
  with pytest.raises(errors.InputError, match="TF_CONFIG") as caught:
    cluster.connect("multi_worker_mirrored", timeout=60.0)
  assert "training.strategy=multi_worker_mirrored" in str(caught.value)
  assert _is_one_line(caught.value)


@pytest.mark.parametrize("kind", ["one_device", "mirrored", "tpu"])
def test_one_machine_does_not_go_with_several_workers(kind, monkeypatch):
  monkeypatch.setenv("TF_CONFIG", _tf_config(TWO)["TF_CONFIG"])
  with pytest.raises(errors.InputError) as caught:
    cluster.connect(kind, timeout=60.0)
  assert f"training.strategy={kind} uses one" in str(caught.value)
  assert "TF_CONFIG lists 2 workers" in str(caught.value)
  assert _is_one_line(caught.value)


def test_a_tpu_that_is_not_there_is_one_line():
  with pytest.raises(errors.InputError) as caught:
    cluster.connect("tpu", timeout=60.0)
  assert str(caught.value).startswith(
    "training.tpu='' cannot be used: TPUs not"
  )
  assert _is_one_line(caught.value)


def test_a_tpu_whose_name_nobody_knows_is_one_line(monkeypatch):
  # Outside of Google's cloud: its metadata server has no address.
  def refuse(kind, tpu_address):
    raise OSError(-2, "Name or service not known")

  monkeypatch.setattr(
    cluster.distribute_utils, "get_distribution_strategy", refuse
  )
  with pytest.raises(errors.InputError) as caught:
    cluster.connect("tpu", tpu="v3", timeout=60.0)
  assert str(caught.value).startswith("training.tpu='v3' cannot be used:")
  assert "Name or service not known" in str(caught.value)


# Several workers.


class _TwoWorkersOfTwo:
  """Stands in for a strategy of four replicas, the first two on worker 0."""

  num_replicas_in_sync = 4

  def __init__(self, value_of_other: int, monkeypatch):
    self._value_of_other = value_of_other
    self._patch = monkeypatch

  def run(self, compute, args):
    (value,) = args
    values = [value, value, *[tf.constant(self._value_of_other, tf.int64)] * 2]
    return sum(self._contribution(compute, *each) for each in enumerate(values))

  def _contribution(self, compute, replica: int, value):
    context = types.SimpleNamespace(
      replica_id_in_sync_group=tf.constant(replica),
      all_reduce=lambda operation, contribution: contribution,
    )
    self._patch.setattr(
      cluster.tf.distribute, "get_replica_context", lambda: context
    )
    return compute(value)

  def experimental_local_results(self, value):
    return (value, value)


def test_a_worker_counts_once_however_many_replicas_it_has(monkeypatch):
  other = _TwoWorkersOfTwo(40, monkeypatch)
  assert cluster.Cluster(other, num_workers=2, worker=0)._sum(3) == 43


def test_a_worker_that_is_not_the_chief_takes_the_chiefs_value(monkeypatch):
  # To the strategy the order of the workers does not matter.
  chief = _TwoWorkersOfTwo(2**40, monkeypatch)
  worker = cluster.Cluster(chief, num_workers=2, worker=1)
  assert not worker.is_chief
  assert worker.broadcast(3) == 2**40
  assert worker.any(False) is True


class _Listener:
  """A worker of the job, as far as others see at first."""

  def __init__(self, address: str = "localhost:0"):
    host, port = address.split(":")
    self._socket = socket.create_server((host, int(port)))
    self.address = f"localhost:{self._socket.getsockname()[1]}"

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._socket.close()


def _free_address() -> str:
  with _Listener() as listener:
    return listener.address


def _in_a_thread(function, *arguments) -> concurrent.futures.Future:
  pool = concurrent.futures.ThreadPoolExecutor(1)
  future = pool.submit(function, *arguments)
  pool.shutdown(wait=False)
  return future


def test_a_worker_that_cannot_be_reached_is_named(monkeypatch):
  here, gone = _free_address(), _free_address()
  with _Listener() as there:
    addresses = {"worker": [here, there.address, gone]}
    monkeypatch.setenv("TF_CONFIG", _tf_config(addresses)["TF_CONFIG"])
    with pytest.raises(errors.LostWorkerError) as caught:
      cluster.connect("auto", timeout=0.2)
  assert str(caught.value) == (
    f"worker 2 at {gone} (Connection refused) cannot be reached; gave up after"
    " training.worker_timeout=0.2 seconds."
  )


def test_a_port_of_its_own_that_is_taken_is_named(monkeypatch):
  with _Listener() as taken:
    addresses = {"worker": [_free_address(), taken.address]}
    monkeypatch.setenv("TF_CONFIG", _tf_config(addresses, index=1)["TF_CONFIG"])
    with pytest.raises(errors.InputError) as caught:
      cluster.connect("multi_worker_mirrored", timeout=0.2)
  port = taken.address.split(":")[1]
  assert str(caught.value).startswith(
    f"TF_CONFIG: port {port} of worker 1 cannot be used on this machine:"
    " Address already in use"
  )
  assert _is_one_line(caught.value)


def test_waiting_ends_when_all_can_be_reached(caplog):
  caplog.set_level(logging.INFO, logger="absl")
  here = _free_address()
  with _Listener() as there:
    task = cluster.Task((there.address, here), 1)
    cluster._wait_for_workers(task, timeout=10.0)
  assert "worker 1 of 2 waits for the others" in caplog.text
  assert "still waiting" not in caplog.text
  # The port is free for TensorFlow.
  socket.create_server(("", int(here.split(":")[1]))).close()


def test_waiting_goes_on_until_the_last_one_is_there():
  here, late = _free_address(), _free_address()
  task = cluster.Task((here, late), 0)
  waiting = _in_a_thread(cluster._wait_for_workers, task, 5.0)
  time.sleep(0.1)
  assert not waiting.done()
  with _Listener(late):
    waiting.result()


def test_a_long_wait_is_remarked_on(monkeypatch, caplog):
  caplog.set_level(logging.INFO, logger="absl")
  monkeypatch.setattr(cluster, "_SECONDS_BETWEEN_REMARKS", 0.2)
  gone = _free_address()
  with pytest.raises(errors.LostWorkerError):
    cluster._wait_for_workers(cluster.Task((_free_address(), gone), 0), 0.7)
  remark = f"still waiting for worker 1 at {gone} (Connection refused)"
  # Not once a look, of which there are about ten.
  assert 1 <= caplog.text.count(remark) <= 3


def test_one_that_waits_long_can_still_be_reached():
  # The others look for it once a second while a third one is missing.
  here, late = _free_address(), _free_address()
  task = cluster.Task((here, late), 0)
  waiting = _in_a_thread(cluster._wait_for_workers, task, 5.0)
  while cluster._why_unreachable(here):
    assert not waiting.done()
  for call in range(300):  # A system holds as few as 129 that wait.
    assert cluster._why_unreachable(here) == "", f"at call {call}"
    time.sleep(0.005)
  with _Listener(late):
    waiting.result()


# The workdir of several workers.


class _Stub:
  """A worker whose chief has written a token of its choice."""

  def __init__(self, *, worker=1, token=5, fails_elsewhere=False):
    self.num_workers = 2
    self.worker = worker
    self.is_chief = worker == 0
    self._token = token
    self._fails_elsewhere = fails_elsewhere

  def broadcast(self, value: int) -> int:
    return value if self.is_chief else self._token

  def any(self, value: bool) -> bool:
    return value or self._fails_elsewhere


@pytest.fixture
def impatient(monkeypatch):
  monkeypatch.setattr(cluster, "_SECONDS_UNTIL_FILES_SHOW", -1.0)


@pytest.mark.parametrize("content", [None, "4\n", "5"])
def test_a_worker_that_does_not_see_the_chiefs_file_is_told(
  impatient, tmp_path, content
):
  if content is not None:
    (tmp_path / "workers_token").write_text(content)
  with pytest.raises(errors.InputError) as caught:
    cluster.check_shared(_Stub(), str(tmp_path))
  assert str(caught.value).startswith(
    f"--workdir={tmp_path} is not shared: worker 1 does not see"
  )
  assert _is_one_line(caught.value)


def test_a_worker_that_sees_the_chiefs_file_goes_on(impatient, tmp_path):
  (tmp_path / "workers_token").write_text("5\n")
  cluster.check_shared(_Stub(), str(tmp_path))


def test_a_file_may_show_late(tmp_path, monkeypatch):
  monkeypatch.setattr(cluster, "_SECONDS_UNTIL_FILES_SHOW", 10.0)
  monkeypatch.setattr(
    cluster.time,
    "sleep",
    lambda _: (tmp_path / "workers_token").write_text("5\n"),
  )
  cluster.check_shared(_Stub(), str(tmp_path))


def test_the_chief_writes_the_file_and_hears_of_others(impatient, tmp_path):
  workdir = tmp_path / "run"
  cluster.check_shared(_Stub(worker=0), str(workdir))
  assert re.fullmatch(r"\d+\n", (workdir / "workers_token").read_text())
  with pytest.raises(errors.InputError, match="another worker does not see"):
    cluster.check_shared(_Stub(worker=0, fails_elsewhere=True), str(workdir))


def test_one_worker_writes_nothing(tmp_path):
  alone = cluster.Cluster(tf.distribute.get_strategy())
  cluster.check_shared(alone, str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


# Workers that are lost.

LONG_MESSAGE = """Graph execution error:

Detected at node CollectiveReduceV2 defined at (most recent call last):
  File "bin/pretrain.py", line 60, in <module>
  File "mslt_tf/training/loop.py", line 201, in _step

Collective ops is aborted by: failed to connect to /job:worker/task:1
The error could be from a previous operation.
\t [[{{node CollectiveReduceV2}}]] [Op:__inference_run_4711]
"""


def _several() -> cluster.Cluster:
  return cluster.Cluster(tf.distribute.get_strategy(), num_workers=2)


@pytest.mark.parametrize(
  "kind", [tf.errors.CancelledError, tf.errors.InternalError]
)
def test_an_error_of_this_workers_own_keeps_its_traceback(kind):
  with (
    pytest.raises(kind, match="cuBLAS"),
    cluster.naming_lost_workers(_several()),
  ):
    raise kind(None, None, "cuBLAS could not be initialised")


@pytest.mark.parametrize(
  "kind",
  [
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
  ],
)
@pytest.mark.parametrize(
  ("message", "reason"),
  [
    (
      LONG_MESSAGE,
      "Collective ops is aborted by: failed to connect to /job:worker/task:1",
    ),
    ("a trace\n\n  Socket closed \n", "Socket closed"),
  ],
)
def test_a_lost_worker_is_one_line(kind, message, reason):
  with (
    pytest.raises(errors.LostWorkerError) as caught,
    cluster.naming_lost_workers(_several()),
  ):
    raise kind(None, None, message)
  assert str(caught.value) == (
    "another worker stopped, see its log; start all workers again to continue"
    f" ({reason})"
  )


def test_a_lost_worker_without_a_message_is_called_by_its_error():
  with (
    pytest.raises(errors.LostWorkerError, match=r"\(UnavailableError\)"),
    cluster.naming_lost_workers(_several()),
  ):
    raise tf.errors.UnavailableError(None, None, "")


def test_one_worker_can_lose_none():
  alone = cluster.Cluster(tf.distribute.get_strategy())
  with (
    pytest.raises(tf.errors.UnavailableError),
    cluster.naming_lost_workers(alone),
  ):
    raise tf.errors.UnavailableError(None, None, LONG_MESSAGE)


@pytest.mark.parametrize(
  "error",
  [
    errors.InputError("data.directory=x is missing."),
    tf.errors.InvalidArgumentError(None, None, LONG_MESSAGE),
    KeyboardInterrupt(),
  ],
)
def test_other_errors_pass(error):
  with (
    pytest.raises(type(error)) as caught,
    cluster.naming_lost_workers(_several()),
  ):
    raise error
  assert caught.value is error
