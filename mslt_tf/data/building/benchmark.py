"""How fast the data build is, against tf-models-official's, and what it holds.

Both make the same kind of examples of the same text with the same vocabulary,
each in one process, from reading text to closed files. Loading programs is not
timed. Memory is the resident size of the process and all its children, looked
at 50 times a second.
"""

import dataclasses
import glob
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import connection
from typing import Any

import psutil
from absl import flags
from absl import logging

from mslt_tf import errors
from mslt_tf.data.building import build
from mslt_tf.data.examples import vocabulary
from mslt_tf.data.reading import manifest
from mslt_tf.data.text import documents

# How much more text the run has that shows whether memory grows.
_LARGE = 20
_SECONDS_BETWEEN_LOOKS = 0.02


@dataclasses.dataclass(frozen=True)
class Job:
  """What both programs are to make."""

  text_path: str  # a sentence a line, a blank line between documents
  vocab_path: str
  output_directory: str
  dupe_factor: int
  sequence_length: int = 128
  max_predictions: int = 20


@dataclasses.dataclass(frozen=True)
class Measured:
  """One run of a program."""

  seconds: float
  num_examples: int
  num_tokens: int | None  # of the text
  memory_before_bytes: int  # resident, with the program loaded
  peak_memory_bytes: int


def run(
  input_patterns: Sequence[str],
  *,
  vocab_path: str | None,
  vocab_size: int,
  dupe_factor: int,
  num_repeats: int,
  directory: str,
) -> dict[str, Any]:
  """Measures both, several times in turns, and ours on 20 times the text.

  Args:
    input_patterns: the text, as `documents.find` takes it.
    vocab_path: a vocabulary, or None to learn one.
    vocab_size: of the one to learn.
    dupe_factor: how often the text is masked.
    num_repeats: how often each program runs.
    directory: an empty one, for the text and what is made of it.

  Returns:
    Medians, and all runs.
  """
  build.check(
    build.Settings(
      vocab_path=vocab_path,
      vocab_size=None if vocab_path else vocab_size,
      dupe_factor=dupe_factor,
    )
  )
  if vocab_path:
    vocabulary.load(vocab_path)
  texts = list(_texts(input_patterns))
  text_path = os.path.join(directory, "text.txt")
  large_path = os.path.join(directory, "large.txt")
  _write(texts, text_path)
  _write(_copies(texts, _LARGE), large_path)
  if vocab_path is None:
    logging.info("Learning a vocabulary ...")
    learnt = os.path.join(directory, "learnt")
    build.build(
      [text_path],
      learnt,
      build.Settings(vocab_size=vocab_size, input_format="sentences"),
    )
    vocab_path = os.path.join(learnt, "vocab.txt")

  def measure(program: Callable, name: str, path: str) -> Measured:
    output = os.path.join(directory, name)
    measured = _measure(program, Job(path, vocab_path, output, dupe_factor))
    logging.info(
      "%s: %s examples in %.1f s, %s a second; at most %.0f MB.",
      name,
      f"{measured.num_examples:,}",
      measured.seconds,
      f"{measured.num_examples / measured.seconds:,.0f}",
      measured.peak_memory_bytes / 1e6,
    )
    return measured

  ours, theirs = [], []
  for repeat in range(num_repeats):
    ours.append(measure(_build_ours, f"ours-{repeat}", text_path))
    theirs.append(measure(_build_theirs, f"model-garden-{repeat}", text_path))
  large = measure(_build_ours, "ours-large", large_path)
  return {
    **_summary(ours, theirs, large),
    "dupe_factor": dupe_factor,
    "text_bytes": os.path.getsize(text_path),
    "ours": [dataclasses.asdict(each) for each in ours],
    "model_garden": [dataclasses.asdict(each) for each in theirs],
    "ours_at_20x": dataclasses.asdict(large),
  }


def _summary(
  ours: Sequence[Measured], theirs: Sequence[Measured], large: Measured
) -> dict[str, float]:
  """Returns what a table has; speeds and memory are medians of the runs."""
  speeds = [each.num_examples / each.seconds for each in ours]
  # Runs next to each other share the machine's moods.
  ratios = [
    speed * their.seconds / their.num_examples
    for speed, their in zip(speeds, theirs, strict=True)
  ]
  tokens = [(each.num_tokens or 0) / each.seconds for each in ours]
  peak = statistics.median(each.peak_memory_bytes for each in ours)
  return {
    "examples_per_second": statistics.median(speeds),
    "tokens_per_second": statistics.median(tokens),
    "speedup_over_model_garden": statistics.median(ratios),
    "peak_memory_bytes": max(peak, large.peak_memory_bytes),
    "memory_growth_at_20x": large.peak_memory_bytes / peak,
  }


def summary(result: dict[str, Any]) -> str:
  """Returns a result as a few lines, for a person."""
  theirs = statistics.median(
    each["num_examples"] / each["seconds"] for each in result["model_garden"]
  )
  return "\n".join(
    [
      f"examples a second   {result['examples_per_second']:10,.0f}",
      f"  model garden's    {theirs:10,.0f}",
      f"  speedup           {result['speedup_over_model_garden']:10.1f}",
      f"text tokens a second{result['tokens_per_second']:10,.0f}, each masked"
      f" {result['dupe_factor']} times",
      f"peak memory         {result['peak_memory_bytes'] / 1e6:10,.0f} MB",
      f"  at 20 x the text  {result['memory_growth_at_20x']:10.2f} times that"
      " at 1 x",
    ]
  )


def _texts(input_patterns: Sequence[str]) -> Iterator[str]:
  """Yields documents, a sentence a line."""
  for source in documents.find(input_patterns):
    for chunk in documents.chunks(source, chunk_bytes=1 << 20):
      for sentences in documents.parse(chunk).documents:
        yield "\n".join(sentences)


def _copies(texts: Sequence[str], number: int) -> Iterator[str]:
  """Yields the documents `number` times, each time as other documents."""
  for copy in range(number):
    rng = random.Random(copy)
    for text in texts:
      sentences = text.split("\n")
      rng.shuffle(sentences)
      yield "\n".join(sentences)


def _write(texts: Iterable[str], path: str) -> None:
  with open(path, "w", encoding="utf-8") as file:
    file.writelines(f"{text}\n\n" for text in texts)


def _measure(
  program: Callable[[connection.Connection, Job], None], job: Job
) -> Measured:
  """Runs a program in a process of its own."""
  context = multiprocessing.get_context("spawn")
  ours, theirs = context.Pipe()
  process = context.Process(target=program, args=(theirs, job))
  process.start()
  theirs.close()
  try:
    ours.recv()  # It is loaded.
    before = peak = _resident_bytes(process.pid)
    ours.send("start")
    while not ours.poll(_SECONDS_BETWEEN_LOOKS):
      peak = max(peak, _resident_bytes(process.pid))
    seconds, num_examples, num_tokens = ours.recv()
  except EOFError:
    process.join()
    raise errors.InputError(
      f"the program that was measured ended with status {process.exitcode}."
    ) from None
  process.join()
  return Measured(seconds, num_examples, num_tokens, before, peak)


def _resident_bytes(pid: int | None) -> int:
  """Returns the resident memory of a process and its children."""
  process = psutil.Process(pid)
  total = 0
  for each in [process, *process.children(recursive=True)]:
    try:
      total += each.memory_info().rss
    except psutil.NoSuchProcess:
      pass  # It has just ended.
  return total


def _build_ours(pipe: connection.Connection, job: Job) -> None:
  # What is loaded lazily otherwise.
  import tensorflow_text  # noqa: F401

  settings = build.Settings(
    vocab_path=job.vocab_path,
    input_format="sentences",
    sequence_length=job.sequence_length,
    max_predictions=job.max_predictions,
    dupe_factor=job.dupe_factor,
    num_shards=8,
  )
  pipe.send("loaded")
  pipe.recv()
  start = time.perf_counter()
  build.build([job.text_path], job.output_directory, settings)
  seconds = time.perf_counter() - start
  splits = manifest.load(job.output_directory)["splits"].values()
  pipe.send(
    (
      seconds,
      sum(split["num_examples"] for split in splits),
      sum(split["num_tokens"] for split in splits),
    )
  )


def _build_theirs(pipe: connection.Connection, job: Job) -> None:
  import tensorflow as tf

  # Those of the binary that started this process: theirs have the same names.
  for module, its_flags in flags.FLAGS.flags_by_module_dict().items():
    if not module.startswith("absl"):
      for flag in its_flags:
        delattr(flags.FLAGS, flag.name)
  from official.nlp.data import create_pretraining_data

  os.makedirs(job.output_directory)
  outputs = [os.path.join(job.output_directory, str(part)) for part in range(8)]
  flags.FLAGS(
    [
      "create_pretraining_data",
      f"--input_file={job.text_path}",
      f"--output_file={','.join(outputs)}",
      f"--vocab_file={job.vocab_path}",
      "--do_lower_case",
      f"--max_seq_length={job.sequence_length}",
      f"--max_predictions_per_seq={job.max_predictions}",
      f"--dupe_factor={job.dupe_factor}",
    ]
  )
  pipe.send("loaded")
  pipe.recv()
  start = time.perf_counter()
  create_pretraining_data.main(None)
  seconds = time.perf_counter() - start
  num_examples = sum(
    1
    for _ in tf.data.TFRecordDataset(
      glob.glob(os.path.join(job.output_directory, "*"))
    )
  )
  pipe.send((seconds, num_examples, None))
