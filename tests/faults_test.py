"""A run killed at any moment, again and again, ends as if it never had been.

As a program this file is what the tests start:

  faults_test.py run_both CONFIG WHOLE KILLED FAULTS
    makes a run twice: in the workdir WHOLE without a kill, in KILLED with one
    for each fault; prints a line for each kill;
  faults_test.py start_up CONFIG WORKDIR
    starts a run and stands still after its first step, to be killed.
"""

import collections
import dataclasses
import functools
import itertools
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
from mslt_tf import outline
from mslt_tf import pretrain
from mslt_tf import stage_training
from mslt_tf.training import checkpoints
from mslt_tf.training import loop
from mslt_tf.training import metrics
from mslt_tf.training import run_directory

ROOT = pathlib.Path(__file__).parents[1]
# One checkpoint: there is no older one to hide behind if it is spoilt.
CONFIG = """
model:
  vocab_size: 46
  hidden_size: 6
  num_layers: NUM_LAYERS
  num_heads: 2
  intermediate_size: 10
  max_positions: 20
data: {directory: DATA, sequence_length: 16, max_predictions: 3, batch_size: 4}
schedule: SCHEDULE
optimizer: {peak_learning_rate: 0.01, warmup_steps: 1}
training:
  deterministic: true
  steps_per_loop: 1
  eval_interval: 5
  eval_batch_size: 7
  checkpoint_interval: 2
  keep_checkpoints: 1
"""
ONE_STAGE = "{method: baseline, num_steps: 15}"
# Stages that end at 15, 30 and 50.
THREE_STAGES = (
  "{method: mslt, num_growing_stages: 2, num_steps: 50, retraining_share: 0.4}"
)

# When a process is killed. A border is the evaluation of a stage's last weights
# and the writing of its files, until the second file of weights has its name
# and from then on.
START_UP = "start-up"
STEP = "step"
CHECKPOINT = "checkpoint write"
UNFINISHED = "border before the stage's file"
FINISHED = "border after the stage's file"
# What a process then does, in this order. N stands for any number.
OPERATIONS = {
  STEP: ("train", "log"),
  CHECKPOINT: (
    "makedirs unfinished",
    "write",
    "first file",
    "rename 1 to ckpt-N",
    "rename 2 to ckpt-N",
    "rmtree unfinished",
    "remove ckpt-N.index",
    "remove ckpt-N.data-N-of-N",
  ),
  UNFINISHED: (
    "evaluate",
    "log",
    "rename 1 to results",
    "SaveV2",
    "rename 1 to weights",
    "rename 2 to weights",
  ),
  # The first summary is that of the process's start.
  FINISHED: ("rmtree checkpoints", "rename 2 to summary"),
}
# Differ between any two runs.
TIMES = {
  "compile_seconds",
  "examples_per_second",
  "train_seconds",
  "wall_seconds",
}
SECONDS_UNTIL_A_PROCESS_HANGS = 200


@dataclasses.dataclass(frozen=True)
class Fault:
  """Where a process is killed; at the latest when the phase ends.

  Attributes:
    phase: What the process is doing in the large.
    operation: And in the small: one of the phase's operations.
    delay: Seconds after the operation began, 0 is just before. In start-up the
      share of the time that a process needs until its first step.
    occurrence: In which step or checkpoint of the process, from 1.
  """

  phase: str
  operation: str = ""
  delay: float = 0.0
  occurrence: int = 1


class Killer:
  """Kills this process where the fault says, with a line that says so."""

  def __init__(self, fault: Fault, stage: int):
    self.stage = stage
    self._fault = fault
    self._num_occurrences = 0
    self._is_inside = False
    self._lock = threading.Lock()

  def enter(self, phase: str) -> None:
    if phase == self._fault.phase:
      self._num_occurrences += 1
      self._is_inside = self._num_occurrences == self._fault.occurrence

  def operate(self, operation: str) -> None:
    """Is called when the operation is about to begin."""
    if self._is_inside and operation == self._fault.operation:
      if not self._fault.delay:
        self._kill(operation)
      threading.Thread(target=self._kill_later, daemon=True).start()

  def leave(self, phase: str) -> None:
    if phase == self._fault.phase and self._is_inside:
      self._kill("its end")

  def _kill_later(self) -> None:
    time.sleep(self._fault.delay)
    self._kill(f"{self._fault.operation} + {1e3 * self._fault.delay:.2f} ms")

  def _kill(self, where: str) -> None:
    self._lock.acquire()  # For ever: there is one kill and one line.
    kill(os.getpid(), self._fault.phase, where, self.stage)


@dataclasses.dataclass(frozen=True)
class Kill:
  """A line that a kill leaves."""

  phase: str
  where: str
  stage: int


def kill(process: int, phase: str, where: str, stage: int) -> None:
  line = json.dumps({"phase": phase, "where": where, "stage": stage})
  # Not print: its buffer would go with the process.
  os.write(1, f"killed: {line}\n".encode())
  os.kill(process, signal.SIGKILL)


def wrap(owner, name, *, before=lambda *_: None, after=lambda *_: None):
  """Has a function of `owner` call these two with its arguments."""
  function = getattr(owner, name)

  @functools.wraps(function)
  def wrapped(*args, **kwargs):
    before(*args)
    result = function(*args, **kwargs)
    after(*args)
    return result

  setattr(owner, name, wrapped)


def watch(killer: Killer, stage_ends: list[int]) -> None:
  """Tells the killer what the run in this process does."""
  last_step = 0
  # To files of one prefix; whichever of the two is first.
  num_renames = collections.Counter()

  def before_steps(steps, *_):
    if steps.num_calls:  # The first call traces: that is still start-up.
      killer.enter(STEP)
    killer.operate("train")

  def after_log(log, kind, record):
    nonlocal last_step
    last_step, killer.stage = record["step"], record["stage"]
    if kind == "train":
      killer.leave(STEP)

  def before_evaluation(_):
    if last_step in stage_ends:
      killer.enter(UNFINISHED)
    killer.operate("evaluate")

  def before_write(_, prefix):
    killer.operate("write")
    # Most of the writing is getting ready: when do the bytes come?
    folder = os.path.dirname(prefix)
    threading.Thread(target=wait_for_file, args=[folder], daemon=True).start()

  def wait_for_file(folder):
    while os.path.exists(folder):
      if os.listdir(folder):
        return killer.operate("first file")
      time.sleep(1e-4)

  def before_rename(_, path):
    prefix = prefix_of(path)
    num_renames[prefix] += 1
    killer.operate(f"rename {num_renames[prefix]} to {kind_of(prefix)}")
    if is_second_of_weights(prefix):
      killer.leave(UNFINISHED)

  def after_rename(_, path):
    if is_second_of_weights(prefix_of(path)):
      killer.enter(FINISHED)

  def is_second_of_weights(prefix):
    return prefix.endswith("weights") and num_renames[prefix] == 2

  def prefix_of(path):
    folder, name = os.path.split(path)
    return os.path.join(folder, name.split(".")[0])

  def operate(text):
    return lambda *_: killer.operate(text)

  def operate_on_path(text):
    return lambda path: killer.operate(f"{text} {kind_of(path)}")

  def kind_of(path):
    return re.sub(r"\d+", "N", os.path.basename(path))

  wrap(loop.TrainingSteps, "__call__", before=before_steps)
  wrap(metrics.MetricsLog, "write", before=operate("log"), after=after_log)
  wrap(loop.Evaluation, "__call__", before=before_evaluation)
  wrap(
    checkpoints.Checkpoints,
    "save",
    before=lambda *_: killer.enter(CHECKPOINT),
    after=lambda *_: killer.leave(CHECKPOINT),
  )
  wrap(tf.train.Checkpoint, "write", before=before_write)
  wrap(tf.raw_ops, "SaveV2", before=operate("SaveV2"))
  wrap(tf.io.gfile, "rename", before=before_rename, after=after_rename)
  for name in ("makedirs", "remove", "rmtree"):
    wrap(tf.io.gfile, name, before=operate_on_path(name))
  # A border ends where the next stage begins, the last one with the run.
  wrap(
    stage_training.StageTraining,
    "__init__",
    before=lambda *_: killer.leave(FINISHED),
  )
  wrap(pretrain, "run", after=lambda *_: killer.leave(FINISHED))


def load_config(path: str) -> config_lib.Config:
  return config_lib.load(pathlib.Path(path).read_text(), source=path)


def run(config_path: str, workdir: str) -> None:
  signal.alarm(SECONDS_UNTIL_A_PROCESS_HANGS)  # Ends the process.
  assert pretrain.run(load_config(config_path), workdir)


def start_up(config_path: str, workdir: str) -> None:
  wrap(loop.TrainingSteps, "__call__", after=lambda *_: signal.pause())
  run(config_path, workdir)


def run_both(config_path: str, whole: str, killed: str, faults: str) -> None:
  import_seconds = time.process_time()
  run_with(config_path, whole, [], start_up_seconds=0.0)
  first = records_of(whole, stage=1)[0]
  run_with(
    config_path,
    killed,
    [Fault(**each) for each in json.loads(faults)],
    start_up_seconds=import_seconds + first["wall_seconds"],
  )


def run_with(
  config_path: str,
  workdir: str,
  faults: list[Fault],
  *,
  start_up_seconds: float,
) -> None:
  """Starts a run once for each fault and then once more, to its end.

  Those killed in start-up are processes of their own. The others are forks of
  this one, which has TensorFlow loaded, half of the time to a first step, and
  has run nothing with it.
  """
  directory = run_directory.RunDirectory(workdir)
  stage_ends = stage_ends_of(config_path)
  for fault in [*faults, None]:
    finished = [
      n for n, _ in enumerate(stage_ends, 1) if directory.is_finished(n)
    ]
    stage = len(finished) + 1
    process = os.fork()
    if not process:
      if fault and fault.phase == START_UP:
        arguments = [__file__, "start_up", config_path, workdir]
        os.execv(sys.executable, [sys.executable, *arguments])
      if fault:
        watch(Killer(fault, stage), stage_ends)
      run(config_path, workdir)
      sys.exit()
    if fault and fault.phase == START_UP:
      seconds = fault.delay * start_up_seconds
      time.sleep(seconds)
      kill(process, START_UP, f"{seconds:.2f} s", stage)
    exit_code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if exit_code != (-signal.SIGKILL if fault else 0):
      sys.exit(f"{fault} in stage {stage}: ended with exit code {exit_code}.")


def stage_ends_of(config_path) -> list[int]:
  schedule = load_config(config_path).schedule
  return [stage.end for stage in outline.place_stages(schedule)]


def records_of(workdir, *, stage):
  directory = run_directory.RunDirectory(str(workdir))
  return metrics.read(directory.metrics(stage))


@pytest.fixture
def run_and_compare(shards, tmp_path):
  """Returns a function that makes a run both ways and returns its kills."""

  def run_and_compare(
    num_layers: int, schedule: str, faults: list[Fault]
  ) -> list[Kill]:
    config = tmp_path / "config.yaml"
    text = CONFIG.replace("DATA", shards).replace("SCHEDULE", schedule)
    config.write_text(text.replace("NUM_LAYERS", str(num_layers)))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    listed = json.dumps([dataclasses.asdict(fault) for fault in faults])
    environment = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    finished = subprocess.run(
      [sys.executable, __file__, "run_both", config, whole, killed, listed],
      env={**os.environ, **environment},
      capture_output=True,
      text=True,
      check=False,
    )
    print(finished.stdout)  # Shown where a test fails.
    assert finished.returncode == 0, finished.stderr
    assert_same_run(killed, whole, stage_ends_of(str(config)))
    return [
      Kill(**json.loads(line.removeprefix("killed: ")))
      for line in finished.stdout.splitlines()
      if line.startswith("killed: ")
    ]

  return run_and_compare


def assert_same_run(workdir, whole, stage_ends):
  steps = []
  for stage, _ in enumerate(stage_ends, start=1):
    for name in ("weights.index", "weights.data-00000-of-00001"):
      path = f"stage_{stage}/{name}"
      assert (workdir / path).read_bytes() == (whole / path).read_bytes(), path
    path = f"stage_{stage}/results.json"
    results, expected = (
      without_times(json.loads((each / path).read_text()))
      for each in (workdir, whole)
    )
    assert results == expected
    records, expected = (
      [without_times(record) for record in records_of(each, stage=stage)]
      for each in (workdir, whole)
    )
    assert records == expected
    steps += [each["step"] for each in records if each["kind"] == "train"]
  assert steps == list(range(1, stage_ends[-1] + 1))
  summary = json.loads((workdir / "summary.json").read_text())
  assert summary["is_finished"] is True
  assert files_of(workdir) == files_of(whole)


def without_times(record):
  return {key: value for key, value in record.items() if key not in TIMES}


def files_of(workdir):
  """Returns all paths but event files, of which each start makes one."""
  return sorted(
    str(path.relative_to(workdir))
    for path in workdir.rglob("*")
    if "tensorboard" not in path.parts
  )


def random_faults(rng: random.Random) -> list[Fault]:
  """Returns nine faults for each of three stages, such that all happen.

  The kills in two steps and two checkpoints come within 14 steps: a stage has
  more, whatever the order.
  """

  # Each operation once before one comes again.
  operations = {
    phase: itertools.cycle(rng.sample(names, len(names)))
    for phase, names in OPERATIONS.items()
  }

  def fault(phase, last_occurrence=1):
    return Fault(
      phase,
      operation=next(operations[phase]),
      # From a tenth of a millisecond on: as long as the shortest operations.
      delay=rng.choice([0.0, 10 ** rng.uniform(-4, -2)]),
      occurrence=rng.randint(1, last_occurrence),
    )

  # Spread over the whole of a start.
  shares = [(part + rng.random()) / 6 for part in range(6)]
  rng.shuffle(shares)
  faults = []
  for _ in range(3):
    in_stage = [fault(STEP, last_occurrence=3) for _ in range(2)]
    in_stage += [fault(CHECKPOINT, last_occurrence=2) for _ in range(2)]
    rng.shuffle(in_stage)
    in_stage += [fault(UNFINISHED) for _ in range(2)]
    for _ in range(2):
      start = Fault(START_UP, delay=shares.pop())
      in_stage.insert(rng.randint(0, len(in_stage)), start)
    faults += [*in_stage, fault(FINISHED)]
  return faults


def test_a_run_killed_in_step_checkpoint_and_border_ends_the_same(
  run_and_compare,
):
  kills = run_and_compare(
    1,
    ONE_STAGE,
    [
      Fault(STEP, "train", delay=1e-3, occurrence=3),
      # Between the two files of a checkpoint, then of a stage.
      Fault(CHECKPOINT, "rename 2 to ckpt-N", occurrence=2),
      Fault(UNFINISHED, "rename 2 to weights"),
    ],
  )
  assert [kill.phase for kill in kills] == [STEP, CHECKPOINT, UNFINISHED]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_a_run_killed_27_times_ends_the_same(seed, run_and_compare):
  faults = random_faults(random.Random(seed))
  kills = run_and_compare(2, THREE_STAGES, faults)
  assert [kill.phase for kill in kills] == [fault.phase for fault in faults]
  assert collections.Counter(kill.phase for kill in kills) == {
    START_UP: 6,
    STEP: 6,
    CHECKPOINT: 6,
    UNFINISHED: 6,
    FINISHED: 3,
  }
  assert {kill.stage for kill in kills} == {1, 2, 3}


if __name__ == "__main__":
  command, *arguments = sys.argv[1:]
  {"run_both": run_both, "start_up": start_up}[command](*arguments)
