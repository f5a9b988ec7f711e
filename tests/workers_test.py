"""Two worker processes on this machine train one model, as on two machines."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mslt_tf.training import metrics
from mslt_tf.training import run_directory

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = """
model:
  vocab_size: 46
  hidden_size: 6
  num_layers: 2
  num_heads: 2
  intermediate_size: 10
  max_positions: 20
data: {directory: DATA, sequence_length: 16, max_predictions: 3, batch_size: 4}
schedule:
  {method: mslt, num_steps: 20, num_growing_stages: 2, retraining_share: 0}
optimizer: {peak_learning_rate: 0.01, warmup_steps: 1}
training:
  deterministic: true
  steps_per_loop: 1
  eval_interval: 5
  eval_batch_size: 8
  checkpoint_interval: 2
  worker_timeout: 60.0
"""
WITHOUT_DROPOUT = (
  "--set=model.hidden_dropout=0.0",
  "--set=model.attention_dropout=0.0",
)
LOST_WORKER, TERMINATED = 138, 143


@pytest.fixture(scope="module")
def config(shards, tmp_path_factory) -> pathlib.Path:
  path = tmp_path_factory.mktemp("config") / "config.yaml"
  path.write_text(CONFIG.replace("DATA", shards))
  return path


def free_ports(count: int) -> list[int]:
  sockets = [socket.socket() for _ in range(count)]
  for each in sockets:
    each.bind(("localhost", 0))
  ports = [each.getsockname()[1] for each in sockets]
  for each in sockets:
    each.close()
  return ports


def start(config, workdir, *arguments, addresses=(), index=0):
  environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
  environment.pop("TF_CONFIG", None)
  if addresses:
    environment["TF_CONFIG"] = json.dumps(
      {
        "cluster": {"worker": addresses},
        "task": {"type": "worker", "index": index},
      }
    )
  return subprocess.Popen(
    [
      sys.executable,
      str(ROOT / "bin" / "pretrain.py"),
      f"--config={config}",
      f"--workdir={workdir}",
      *arguments,
    ],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def start_two(config, workdirs, *arguments):
  addresses = [f"localhost:{port}" for port in free_ports(2)]
  return [
    start(config, workdir, *arguments, addresses=addresses, index=index)
    for index, workdir in enumerate(workdirs)
  ]


def run_two(config, workdir, *arguments):
  workers = start_two(config, [workdir] * 2, *arguments)
  outputs = [worker.communicate(timeout=300) for worker in workers]
  for worker, (_, stderr) in zip(workers, outputs, strict=True):
    assert worker.returncode == 0, stderr
  return outputs


def wait_for_step(workdir, stage: int, step: int, workers) -> None:
  path = run_directory.RunDirectory(str(workdir)).metrics(stage)
  for _ in range(2400):
    if os.path.exists(path) and any(
      record["step"] >= step for record in metrics.read(path)
    ):
      return
    for worker in workers:
      assert worker.poll() is None, worker.communicate()
    time.sleep(0.05)
  raise AssertionError(f"step {step} of stage {stage} never came")


def last_line(text: str) -> str:
  return text.splitlines()[-1]


def final_arrays(workdir):
  return run_directory.RunDirectory(str(workdir)).read_stage(2)


def losses(workdir):
  directory = run_directory.RunDirectory(str(workdir))
  return [
    (record["kind"], record["step"], record["mlm_loss"], record["nsp_loss"])
    for stage in (1, 2)
    for record in metrics.read(directory.metrics(stage))
  ]


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
  """The workdir and outputs of an uninterrupted run of two workers."""
  workdir = tmp_path_factory.mktemp("runs") / "whole"
  return workdir, run_two(config, workdir)


def test_two_workers_write_one_run(whole):
  workdir, outputs = whole
  summary = run_directory.RunDirectory(str(workdir)).read_json("summary.json")
  assert summary["is_finished"] is True
  assert summary["machine"]["workers"] == 2
  assert summary["machine"]["replicas"] == 2
  # Only the chief tells how it goes.
  assert "step 20/20" in outputs[0][1]
  assert "step 20/20" not in outputs[1][1]


@pytest.mark.slow
def test_workers_killed_in_the_last_stage_end_with_the_same_weights(
  config, whole, tmp_path
):
  workdir = tmp_path / "killed"
  workers = start_two(config, [workdir] * 2)
  # Stage 2 makes steps 11 to 20.
  wait_for_step(workdir, 2, 13, workers)
  workers[1].kill()
  stderr = workers[0].communicate(timeout=120)[1]
  workers[1].communicate()
  # It ends by itself, with one line.
  assert workers[0].returncode == LOST_WORKER, stderr
  assert "Traceback" not in stderr
  assert last_line(stderr).startswith("pretrain.py: error: another worker")
  run_two(config, workdir)
  expected = final_arrays(whole[0])
  for name, array in final_arrays(workdir).items():
    np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.slow
def test_two_workers_have_the_losses_of_one_process(config, tmp_path):
  run_two(config, tmp_path / "two", *WITHOUT_DROPOUT)
  one = start(config, tmp_path / "one", *WITHOUT_DROPOUT)
  stderr = one.communicate(timeout=300)[1]
  assert one.returncode == 0, stderr
  first, second = losses(tmp_path / "one"), losses(tmp_path / "two")
  assert [each[:2] for each in first] == [each[:2] for each in second]
  np.testing.assert_allclose(
    [each[2:] for each in first], [each[2:] for each in second], rtol=1e-4
  )


@pytest.mark.slow
def test_sigterm_to_one_worker_saves_and_ends_both(config, tmp_path):
  workdir = tmp_path / "terminated"
  workers = start_two(config, [workdir] * 2)
  wait_for_step(workdir, 1, 3, workers)
  workers[1].send_signal(signal.SIGTERM)
  outputs = [worker.communicate(timeout=120) for worker in workers]
  for worker, (_, stderr) in zip(workers, outputs, strict=True):
    assert worker.returncode == TERMINATED, stderr
    assert last_line(stderr).startswith("pretrain.py: stopped by SIGTERM")
  directory = run_directory.RunDirectory(str(workdir))
  assert directory.read_json("summary.json")["is_finished"] is False
  # The step that was being made is the last in the log and in a checkpoint.
  step = metrics.read(directory.metrics(1))[-1]["step"]
  assert os.path.exists(f"{directory.checkpoints(1)}/ckpt-{step}.index")


def test_a_worker_that_is_not_there_is_named(config, tmp_path):
  here, there = free_ports(2)
  worker = start(
    config,
    tmp_path / "run",
    "--set=training.worker_timeout=3",
    addresses=[f"localhost:{here}", f"localhost:{there}"],
  )
  stderr = worker.communicate(timeout=120)[1]
  assert worker.returncode == LOST_WORKER, stderr
  assert last_line(stderr) == (
    f"pretrain.py: error: worker 1 at localhost:{there} (Connection refused)"
    " cannot be reached; gave up after training.worker_timeout=3 seconds."
  )


def test_workers_of_different_configs_are_told(config, tmp_path):
  addresses = [f"localhost:{port}" for port in free_ports(2)]
  workers = [
    start(
      config,
      tmp_path / "run",
      f"--set=optimizer.peak_learning_rate=0.0{index + 1}",
      addresses=addresses,
      index=index,
    )
    for index in (0, 1)
  ]
  outputs = [worker.communicate(timeout=200) for worker in workers]
  for worker, (_, stderr) in zip(workers, outputs, strict=True):
    assert worker.returncode == 1, stderr
    assert "was started with another config" in last_line(stderr)
  assert "worker 1 was started" in last_line(outputs[1][1])


@pytest.mark.slow
def test_workdirs_that_are_not_shared_are_told_by_every_worker(
  config, tmp_path
):
  (tmp_path / "other").mkdir()
  workers = start_two(config, [tmp_path / "one", tmp_path / "other"])
  outputs = [worker.communicate(timeout=200) for worker in workers]
  for worker, (_, stderr) in zip(workers, outputs, strict=True):
    assert worker.returncode == 1, stderr
    assert "is not shared" in last_line(stderr)
  assert "worker 1 does not see" in last_line(outputs[1][1])
