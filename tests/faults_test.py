"""A run killed at any moment, again and again, ends as if it never had been.

As a program this file is what the tests start:

  faults_test.py run_killed CONFIG WORKDIR FAULTS
    starts the run once for each fault, then once more to its end, and prints a
    line for each kill;
  faults_test.py start_up CONFIG WORKDIR
    starts the run and stands still after its first step, to be killed.
"""

import collections
import dataclasses
import functools
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import tensorflow as tf

from mslt_tf import config as config_lib
from mslt_tf import pretrain
from mslt_tf import stage_training
from mslt_tf.training import checkpoints
from mslt_tf.training import loop
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
  method: mslt
  num_steps: 50
  num_growing_stages: 2
  retraining_share: 0.4
optimizer: {peak_learning_rate: 0.01, warmup_steps: 1}
training:
  deterministic: true
  steps_per_loop: 1
  eval_interval: 5
  eval_batch_size: 7
  checkpoint_interval: 2
"""
STAGE_ENDS = (15, 30, 50)
STAGES = (1, 2, 3)
# Where a kill may fall. A border is the evaluation of a stage's last weights
# and its files: until its weights.index is there, and from then on.
START_UP = "start-up"
STEP = "step"
CHECKPOINT = "checkpoint write"
UNFINISHED = "border before the stage's file"
FINISHED = "border after the stage's file"
# What a run does in each, as `watch` counts; one more stands for the end.
NUM_OPERATIONS = {STEP: 2, CHECKPOINT: 8, UNFINISHED: 6, FINISHED: 3}
KILL = re.compile(r"^killed in (.+?) at (.+), stage (\d)$", re.MULTILINE)
# Differ between any two runs.
TIMES = {
  "compile_seconds",
  "examples_per_second",
  "train_seconds",
  "wall_seconds",
}
SECONDS_OF_A_HANGING_START = 200


@dataclasses.dataclass(frozen=True)
class Fault:
  """A point at which a process kills itself, or is killed in its start-up.

  Attributes:
    phase: What it is then in.
    delay: Seconds after the operation began, or after the process began; 0 is
      just before. At the end of the phase the kill comes in any case.
    occurrence: Which step or checkpoint of the process, from 1.
    operation: Which of the operations in this phase, from 1.
  """

  phase: str
  delay: float = 0.0
  occurrence: int = 1
  operation: int = 1


class Killer:
  """Kills this process where the fault says, with a line that says so."""

  def __init__(self, fault: Fault, stage: int):
    self._fault = fault
    self._stage = stage
    self._num_occurrences = 0
    self._num_operations = 0
    self._is_inside = False
    self._lock = threading.Lock()

  def enter(self, phase: str) -> None:
    if phase == self._fault.phase:
      self._num_occurrences += 1
      self._is_inside = self._num_occurrences == self._fault.occurrence

  def operate(self, name: str) -> None:
    """An operation begins."""
    if not self._is_inside:
      return
    self._num_operations += 1
    if self._num_operations != self._fault.operation:
      return
    if not self._fault.delay:
      self._kill(name)
    threading.Thread(target=self._kill_later, args=[name], daemon=True).start()

  def leave(self, phase: str) -> None:
    if phase == self._fault.phase and self._is_inside:
      self._kill("its end")

  def _kill_later(self, name: str) -> None:
    time.sleep(self._fault.delay)
    self._kill(f"{name} + {1e3 * self._fault.delay:.2f} ms")

  def _kill(self, what: str) -> None:
    self._lock.acquire()  # For ever: one line and one kill.
    kill(os.getpid(), self._fault.phase, what, self._stage)


def kill(process: int, phase: str, what: str, stage: int) -> None:
  # In one call, and nothing left in a buffer.
  os.write(1, f"killed in {phase} at {what}, stage {stage}\n".encode())
  os.kill(process, signal.SIGKILL)


def wrap(owner, name, *, before=lambda *_: None, after=lambda *_: None):
  """Calls `before` and `after` with the arguments of a function of `owner`."""
  function = getattr(owner, name)

  @functools.wraps(function)
  def wrapped(*args, **kwargs):
    before(*args)
    result = function(*args, **kwargs)
    after(*args)
    return result

  setattr(owner, name, wrapped)


def watch(killer: Killer) -> None:
  """Tells the killer what the run in this process is about to do."""
  last_step = 0

  def before_steps(steps, *_):
    if steps.num_calls:  # The first call traces: that is still start-up.
      killer.enter(STEP)
    killer.operate("TrainingSteps")

  def after_log(log, kind, record):
    nonlocal last_step
    last_step = record["step"]
    if kind == "train":
      killer.leave(STEP)

  def before_evaluation(*_):
    if last_step in STAGE_ENDS:
      killer.enter(UNFINISHED)
    killer.operate("Evaluation")

  def before_rename(_, path):
    if path.endswith("weights.index"):
      killer.leave(UNFINISHED)
    killer.operate(f"rename to {os.path.basename(path)}")

  def after_rename(_, path):
    if path.endswith("weights.index"):
      killer.enter(FINISHED)

  def before_change(name):
    return lambda path: killer.operate(f"{name} {os.path.basename(path)}")

  wrap(loop.TrainingSteps, "__call__", before=before_steps)
  wrap(
    metrics.MetricsLog,
    "write",
    before=lambda *_: killer.operate("MetricsLog.write"),
    after=after_log,
  )
  wrap(loop.Evaluation, "__call__", before=before_evaluation)
  wrap(
    checkpoints.Checkpoints,
    "save",
    before=lambda *_: killer.enter(CHECKPOINT),
    after=lambda *_: killer.leave(CHECKPOINT),
  )
  wrap(
    tf.train.Checkpoint,
    "write",
    before=lambda *_: killer.operate("Checkpoint.write"),
  )
  wrap(tf.raw_ops, "SaveV2", before=lambda *_: killer.operate("SaveV2"))
  wrap(tf.io.gfile, "rename", before=before_rename, after=after_rename)
  for name in ("makedirs", "remove", "rmtree"):
    wrap(tf.io.gfile, name, before=before_change(name))
  # The border ends where the next stage begins, the last one with the run.
  for owner, name in ((stage_training.StageTraining, "__init__"),):
    wrap(owner, name, before=lambda *_: killer.leave(FINISHED))
  wrap(pretrain, "run", after=lambda *_: killer.leave(FINISHED))


def run(config_path: str, workdir: str) -> None:
  signal.alarm(SECONDS_OF_A_HANGING_START)  # It ends the process.
  text = pathlib.Path(config_path).read_text()
  assert pretrain.run(config_lib.load(text, source=config_path), workdir)


def start_up(config_path: str, workdir: str) -> None:
  wrap(loop.TrainingSteps, "__call__", after=lambda *_: signal.pause())
  run(config_path, workdir)


def run_killed(config_path: str, workdir: str, faults: str) -> None:
  """Starts a run and has it killed, once for each fault, then to its end.

  Each process but those killed in start-up is a fork of this one, which has
  loaded TensorFlow, the slowest part of a start, and run nothing with it.
  """
  directory = run_directory.RunDirectory(workdir)
  for fault in [*(Fault(**each) for each in json.loads(faults)), None]:
    stage = 1 + sum(map(directory.is_finished, STAGES))
    process = os.fork()
    if not process:
      if fault and fault.phase == START_UP:
        arguments = [__file__, "start_up", config_path, workdir]
        os.execv(sys.executable, [sys.executable, *arguments])
      if fault:
        watch(Killer(fault, stage))
      run(config_path, workdir)
      sys.exit()
    if fault and fault.phase == START_UP:
      time.sleep(fault.delay)
      kill(process, START_UP, f"{fault.delay:.2f} s", stage)
    _, status = os.waitpid(process, 0)
    exit_code = os.waitstatus_to_exitcode(status)
    if exit_code != (-signal.SIGKILL if fault else 0):
      sys.exit(f"{fault} in stage {stage} ended with exit code {exit_code}")


@dataclasses.dataclass(frozen=True)
class Kill:
  phase: str
  at: str
  stage: int


def have_killed(config, workdir, faults, *, timeout) -> list[Kill]:
  """Runs `run_killed` as a process; returns the kills it reports."""
  arguments = [json.dumps([dataclasses.asdict(each) for each in faults])]
  finished = subprocess.run(
    [sys.executable, __file__, "run_killed", config, workdir, *arguments],
    env={
      **os.environ,
      "PYTHONPATH": str(ROOT),
      "TF_CPP_MIN_LOG_LEVEL": "3",
    },
    capture_output=True,
    text=True,
    timeout=timeout,
    check=False,
  )
  print(finished.stdout)  # What pytest shows where a test fails.
  assert finished.returncode == 0, finished.stderr
  return [
    Kill(phase, at, int(stage))
    for phase, at, stage in KILL.findall(finished.stdout)
  ]


@pytest.fixture(scope="module")
def config(shards, tmp_path_factory) -> pathlib.Path:
  path = tmp_path_factory.mktemp("config") / "config.yaml"
  path.write_text(CONFIG.replace("DATA", shards))
  return path


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
  """The workdir of an uninterrupted run, and seconds until its first step."""
  workdir = tmp_path_factory.mktemp("runs") / "whole"
  started = time.monotonic()
  have_killed(config, workdir, [], timeout=200)
  seconds = time.monotonic() - started
  seconds -= read_json(workdir / "summary.json")["wall_seconds"]
  seconds += records_of(workdir, 1)[0]["wall_seconds"]
  return workdir, seconds


def read_json(path):
  return json.loads(path.read_text())


def records_of(workdir, stage):
  directory = run_directory.RunDirectory(str(workdir))
  return metrics.read(directory.metrics(stage))


def without_times(record):
  return {key: value for key, value in record.items() if key not in TIMES}


def files_of(workdir):
  """Returns what is there but event files, of which each start makes one."""
  return sorted(
    str(path.relative_to(workdir))
    for path in workdir.rglob("*")
    if path.parent.name != "tensorboard"
  )


def assert_same_run(workdir, whole):
  steps = []
  for stage in STAGES:
    for name in ("weights.index", "weights.data-00000-of-00001"):
      path = f"stage_{stage}/{name}"
      assert (workdir / path).read_bytes() == (whole / path).read_bytes(), path
    records, expected = (
      [without_times(record) for record in records_of(each, stage)]
      for each in (workdir, whole)
    )
    assert records == expected
    steps += [each["step"] for each in records if each["kind"] == "train"]
    path = f"stage_{stage}/results.json"
    assert without_times(read_json(workdir / path)) == without_times(
      read_json(whole / path)
    )
  assert steps == list(range(1, STAGE_ENDS[-1] + 1))
  assert read_json(workdir / "summary.json")["is_finished"] is True
  assert files_of(workdir) == files_of(whole)


def random_faults(rng: random.Random, start_up_seconds: float) -> list[Fault]:
  """Returns nine faults for each stage, in an order that lets all happen.

  From a checkpoint on, the two steps' kills and the two checkpoints' kills are
  at most 14 steps apart: a stage has more.
  """
  # Spread over all of the start.
  delays = [start_up_seconds * (part + rng.random()) / 6 for part in range(6)]
  rng.shuffle(delays)

  def fault(phase, last_occurrence=1):
    return Fault(
      phase,
      delay=rng.choice([0.0, 10 ** rng.uniform(-4, -1.5)]),
      occurrence=rng.randint(1, last_occurrence),
      operation=rng.randint(1, NUM_OPERATIONS[phase] + 1),
    )

  faults = []
  for _ in STAGES:
    in_stage = [fault(STEP, 3) for _ in range(2)]
    in_stage += [fault(CHECKPOINT, 2) for _ in range(2)]
    rng.shuffle(in_stage)
    in_stage += [fault(UNFINISHED) for _ in range(2)]
    for _ in range(2):
      place = rng.randint(0, len(in_stage))
      in_stage.insert(place, Fault(START_UP, delay=delays.pop()))
    faults += [*in_stage, fault(FINISHED)]
  return faults


def test_a_run_killed_in_step_checkpoint_and_border_ends_the_same(
  config, whole, tmp_path
):
  workdir = tmp_path / "killed"
  kills = have_killed(
    config,
    workdir,
    [
      Fault(STEP, occurrence=3, delay=1e-3),
      # Between the two files of the stage.
      Fault(UNFINISHED, operation=7),
      # Between the two files of a checkpoint.
      Fault(CHECKPOINT, occurrence=2, operation=4),
    ],
    timeout=200,
  )
  assert [(kill.phase, kill.stage) for kill in kills] == [
    (STEP, 1),
    (UNFINISHED, 1),
    (CHECKPOINT, 1),
  ]
  assert_same_run(workdir, whole[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_a_run_killed_27_times_ends_the_same(seed, config, whole, tmp_path):
  workdir = tmp_path / "killed"
  expected, start_up_seconds = whole
  faults = random_faults(random.Random(seed), start_up_seconds)
  kills = have_killed(config, workdir, faults, timeout=1200)
  assert [kill.phase for kill in kills] == [fault.phase for fault in faults]
  counts = collections.Counter(kill.phase for kill in kills)
  assert counts == {
    START_UP: 6,
    STEP: 6,
    CHECKPOINT: 6,
    UNFINISHED: 6,
    FINISHED: 3,
  }
  assert {kill.stage for kill in kills} == set(STAGES)
  assert_same_run(workdir, expected)


if __name__ == "__main__":
  command, *arguments = sys.argv[1:]
  {"run_killed": run_killed, "start_up": start_up}[command](*arguments)
