"""The manifests in docs/kubernetes start what they say."""

import pathlib
import signal
import subprocess

import pytest
import yaml

from mslt_tf import errors
from mslt_tf.training import cluster

ROOT = pathlib.Path(__file__).parents[1]
MANIFESTS = ROOT / "docs" / "kubernetes"


@pytest.mark.parametrize("index", [0, 1])
def test_the_indexed_job_gives_every_worker_its_place(index):
  service, job = yaml.safe_load_all(
    (MANIFESTS / "indexed_job.yaml").read_text()
  )
  pod = job["spec"]["template"]["spec"]
  (container,) = pod["containers"]
  bash, option, script = container["command"]
  # Instead of the program, what it would read.
  program = "exec python bin/pretrain.py"
  assert program in script
  script = script.replace(program, "exec sh -c 'printenv TF_CONFIG' --")
  printed = subprocess.run(
    [bash, option, script],
    env={"JOB_COMPLETION_INDEX": str(index), "PATH": "/usr/bin:/bin"},
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  task = cluster.read_task({"TF_CONFIG": printed})
  assert task == cluster.Task(("mslt-0.mslt:2222", "mslt-1.mslt:2222"), index)
  assert job["spec"]["completions"] == len(task.addresses)
  assert job["spec"]["parallelism"] == len(task.addresses)
  assert pod["subdomain"] == service["metadata"]["name"] == "mslt"
  assert container["ports"] == [{"containerPort": 2222}]


def test_the_indexed_job_tells_errors_from_interruptions():
  _, job = yaml.safe_load_all((MANIFESTS / "indexed_job.yaml").read_text())
  fail, ignore, _ = job["spec"]["podFailurePolicy"]["rules"]
  assert fail["action"] == "FailJob"
  assert errors.InputError.exit_status in fail["onExitCodes"]["values"]
  assert ignore["action"] == "Ignore"
  assert ignore["onExitCodes"]["values"] == [
    errors.LostWorkerError.exit_status,
    128 + signal.SIGALRM,
    errors.TerminatedError.exit_status,
  ]


def test_the_tfjob_starts_workers_that_are_tried_again():
  job = yaml.safe_load((MANIFESTS / "tfjob.yaml").read_text())
  worker = job["spec"]["tfReplicaSpecs"]["Worker"]
  # The operator tries statuses from 128 on again.
  assert worker["restartPolicy"] == "ExitCode"
  assert errors.LostWorkerError.exit_status >= 128
  assert errors.TerminatedError.exit_status >= 128
  (container,) = worker["template"]["spec"]["containers"]
  assert container["name"] == "tensorflow"
  assert container["command"][:2] == ["python", "bin/pretrain.py"]
