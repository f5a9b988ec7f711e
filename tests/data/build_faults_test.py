"""A build killed at any moment, again and again, ends as if it never had been.

As a program this file is what the test starts:

  build_faults_test.py INPUT WHOLE KILLED
    builds a data set twice: in the directory WHOLE without a kill, in KILLED
    with many; prints a line for each kill.
"""

import collections
import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import time
import uuid

import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import build
from mslt_tf.data import corpus
from mslt_tf.data import external_sort
from mslt_tf.data import manifest
from mslt_tf.data import record_index

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = build.Settings(
  vocab_size=70,
  input_format="sentences",
  sequence_length=29,
  max_predictions=5,
  heldout_fraction=0.2,
  num_shards=3,
  dupe_factor=3,
  seed=7,
)

# The steps of a build; the last two are those of publishing.
TEXT = "text"
VOCABULARY = "vocabulary"
EXAMPLES = "examples"
SHARDS = "shards"
MOVE = "move"
CLEAN_UP = "clean up"

KILLS = {TEXT: 4, VOCABULARY: 1, EXAMPLES: 3, SHARDS: 4, MOVE: 3, CLEAN_UP: 1}

SECONDS_UNTIL_A_PROCESS_HANGS = 60


@dataclasses.dataclass(frozen=True)
class Fault:
  """The kill at the n-th operation on files in a step."""

  step: str
  occurrence: int


class Killer:
  """Counts operations on files, and ends the process at one of them."""

  def __init__(self, output_directory: str, fault: Fault | None):
    self._output_directory = output_directory
    self._fault = fault
    self.counts: collections.Counter[str] = collections.Counter()

  def operate(self, operation: str, path: str, spoil=lambda: None) -> None:
    """Is told of an operation before it is done; may `spoil` it and kill."""
    step = self._step(operation, path)
    self.counts[step] += 1
    if self._fault == Fault(step, self.counts[step]):
      spoil()
      name = re.sub(r"[0-9a-f]{32}", "*", os.path.basename(path))
      line = json.dumps({"step": step, "operation": operation, "file": name})
      # Not print: its buffer would go with the process.
      os.write(1, f"killed: {line}\n".encode())
      os.kill(os.getpid(), signal.SIGKILL)

  def _step(self, operation: str, path: str) -> str:
    if operation == "rmtree":
      return CLEAN_UP
    if os.path.dirname(path) == self._output_directory:
      return MOVE
    name = os.path.basename(path)
    if name.startswith("vocab"):
      return VOCABULARY
    for step in (TEXT, EXAMPLES):
      if name.startswith(step):
        return step
    return SHARDS


def watch(killer: Killer) -> None:
  """Tells the killer what the build in this process does with files."""

  def write_half(write, file, content):
    def spoil():
      write(file, content[: len(content) // 2])
      file.flush()

    return spoil

  def gfile_write(file, content):
    killer.operate("write", file.name, write_half(write_file, file, content))
    write_file(file, content)

  def open_records(writer, path, *args):
    paths[writer] = path
    open_writer(writer, path, *args)

  def write_record(writer, content):
    def spoil():
      write(writer, content)
      writer.flush()
      # In the middle of the record.
      os.truncate(paths[writer], os.path.getsize(paths[writer]) - 9)

    killer.operate("write", paths[writer], spoil)
    write(writer, content)

  def rename_file(source, target, overwrite=False):
    killer.operate("rename", target)
    rename(source, target, overwrite)

  def remove_folder(folder):
    def spoil():
      for path in sorted(pathlib.Path(folder).iterdir())[::2]:
        path.unlink()

    killer.operate("rmtree", folder, spoil)
    rmtree(folder)

  paths: dict[tf.io.TFRecordWriter, str] = {}
  write_file, tf.io.gfile.GFile.write = tf.io.gfile.GFile.write, gfile_write
  records = tf.io.TFRecordWriter
  open_writer, records.__init__ = records.__init__, open_records
  write, records.write = records.write, write_record
  rename, tf.io.gfile.rename = tf.io.gfile.rename, rename_file
  rmtree, tf.io.gfile.rmtree = tf.io.gfile.rmtree, remove_folder


def use_small_tasks(setattr=setattr) -> None:
  """Has even a small corpus make many tasks."""
  setattr(corpus, "_GROUP_BYTES", 1)
  setattr(corpus, "_GROUP_DOCUMENTS", 5)
  setattr(corpus, "_LEAST_CHUNK_BYTES", 500)
  setattr(corpus, "CHUNK_BYTES", 500)


def build_in_child(
  folder: str, output_directory: str, fault: Fault | None
) -> collections.Counter[str]:
  """Builds in a fork of this process; returns the operations of each step.

  This process has TensorFlow loaded, which takes the longest, and has run
  nothing with it: it has no threads that a fork would lack.
  """
  threads = {
    int(path.parent.name): path.read_text().strip()
    for path in pathlib.Path("/proc/self/task").glob("*/comm")
  }
  del threads[os.getpid()]
  # This one is ready for forks.
  assert set(threads.values()) <= {"jemalloc_bg_thd"}, threads
  counts = pathlib.Path(f"{output_directory}.counts")
  process = os.fork()
  if not process:
    signal.alarm(SECONDS_UNTIL_A_PROCESS_HANGS)  # Ends the process.
    killer = Killer(output_directory, fault)
    watch(killer)
    build.build([folder], output_directory, SETTINGS)
    counts.write_text(json.dumps(killer.counts))
    os._exit(0)
  exit_code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
  if exit_code != (-signal.SIGKILL if fault else 0):
    sys.exit(f"{fault}: ended with exit code {exit_code}.")
  if fault:
    return collections.Counter()
  return collections.Counter(json.loads(counts.read_text()))


def build_both(folder: str, whole: str, killed: str) -> None:
  use_small_tasks()
  counts = build_in_child(folder, whole, None)
  print("operations:", json.dumps(counts), flush=True)
  rng = random.Random(0)
  before: dict[str, tuple[int, int]] = {}
  for step, number in KILLS.items():
    for _ in range(number):
      # A kill undoes no more operations than the attempt made: so all happen.
      occurrence = rng.randint(1, counts[step] // number)
      build_in_child(folder, killed, Fault(step, occurrence))
      finished = check_files(killed, is_published=step == CLEAN_UP)
      lost = [
        name
        for name in before.keys() - {manifest.FILE}
        if name in finished and finished[name] != before[name]
      ]
      assert not lost, f"made twice: {lost}"
      if step not in (MOVE, CLEAN_UP):
        assert before.keys() <= finished.keys()
      before = finished
  build_in_child(folder, killed, None)


def check_files(
  directory: str, *, is_published: bool
) -> dict[str, tuple[int, int]]:
  """Checks that a file that has its final name is whole.

  Returns:
    What tells whether a file is the same, by its name.
  """
  found = {}
  scratch = os.path.join(directory, "unfinished")
  assert os.path.exists(os.path.join(directory, manifest.FILE)) == is_published
  for folder in (directory, scratch):
    for name in os.listdir(folder):
      path = os.path.join(folder, name)
      if re.search(r"unfinished$|\.[0-9a-f]{32}$", name):
        continue
      assert name not in found, f"{name} is there twice"
      stat = os.stat(path)
      found[name] = (stat.st_ino, stat.st_mtime_ns)
      if name.endswith(".tfrecord"):
        record_index.scan(path, records_per_block=64)
      elif name.endswith(".json"):
        json.loads(pathlib.Path(path).read_text())
      elif re.fullmatch(r"(text|examples)-[\w-]*", name):
        keys, ends, _ = external_sort.SortedFile(path).entries()
        assert len(keys) == len(ends)
  return found


def digests(directory) -> dict[str, str]:
  return {
    name: hashlib.sha256(
      (pathlib.Path(directory) / name).read_bytes()
    ).hexdigest()
    for name in sorted(os.listdir(directory))
  }


@pytest.fixture(scope="session")
def folder(tmp_path_factory, text_file) -> str:
  """The documents in files of different sizes."""
  folder = tmp_path_factory.mktemp("texts")
  documents = pathlib.Path(text_file).read_text().split("\n\n")
  for name, part in {
    "c": documents[:2],
    "a": documents[2:17],
    "b": documents[17:],
  }.items():
    (folder / f"{name}.txt").write_text("\n\n".join(part))
  return str(folder)


def test_a_build_killed_at_each_step_ends_the_same(folder, tmp_path):
  whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
  finished = subprocess.run(
    [sys.executable, __file__, folder, whole, killed],
    env={
      **os.environ,
      "PYTHONPATH": str(ROOT),
      "TF_CPP_MIN_LOG_LEVEL": "3",
      "OPENBLAS_NUM_THREADS": "1",  # A fork has one thread.
    },
    capture_output=True,
    text=True,
    check=False,
  )
  print(finished.stdout)  # Shown where the test fails.
  assert finished.returncode == 0, finished.stderr
  kills = [
    json.loads(line.removeprefix("killed: "))
    for line in finished.stdout.splitlines()
    if line.startswith("killed: ")
  ]
  assert collections.Counter(kill["step"] for kill in kills) == KILLS
  assert {kill["operation"] for kill in kills} == {"write", "rename", "rmtree"}
  assert digests(killed) == digests(whole)
  splits = manifest.load(whole)["splits"]
  assert splits["train"]["num_groups"] >= 3


if __name__ == "__main__":
  build_both(*sys.argv[1:])
