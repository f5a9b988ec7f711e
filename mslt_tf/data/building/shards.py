"""Files of examples -> shards.

A shard is a range of the random keys of all examples: so the order of the
examples is random over the whole data set, whatever fits into memory.
"""

import dataclasses
import os
from collections.abc import Iterable, Sequence

import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import progress
from mslt_tf.data import whole_files
from mslt_tf.data.building import external_sort
from mslt_tf.data.building import processes as processes_lib
from mslt_tf.data.reading import record_index

# Of a shard, in memory at once.
_PART_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True)
class _Shard:
  """A task: the records of a range of keys."""

  example_paths: tuple[str, ...]
  keys: external_sort.KeyRange
  path: str


def names(split: str, num_shards: int) -> list[str]:
  """Returns the names of the files of a split."""
  return [
    f"{split}-{index:05d}-of-{num_shards:05d}.tfrecord"
    for index in range(num_shards)
  ]


def check_number(split: str, num_shards: int, num_examples: int) -> None:
  """Raises `errors.InputError` if there are fewer examples than shards."""
  if num_examples < num_shards:
    raise errors.InputError(
      f"num_shards={num_shards} is more than the {num_examples} {split}"
      " examples that the input gives."
    )


def write(
  name: str,
  example_paths: Sequence[str],
  num_shards: int,
  *,
  directory: str,
  processes: processes_lib.Processes,
) -> list[str]:
  """Writes shards of nearly equal size, and an index beside each.

  Args:
    name: of the split, with which the names of the files begin.
    example_paths: sorted files of examples.
    num_shards: how many there are.
    directory: where the shards go, if they are not there yet.
    processes: what writes them.

  Returns:
    The names of the files.

  Raises:
    errors.InputError: there are fewer examples than shards.
  """
  files = external_sort.open_all(example_paths)
  check_number(name, num_shards, sum(file.num_records for file in files))
  file_names = names(name, num_shards)
  tasks = [
    _Shard(tuple(example_paths), keys, os.path.join(directory, file_name))
    for file_name, keys in zip(
      file_names, external_sort.equal_ranges(files, num_shards), strict=True
    )
  ]
  left = [task for task in tasks if not tf.io.gfile.exists(task.path)]
  for _ in progress.logged(
    processes.map(_write_shard, left),
    f"Writing {name} shards",
    total=len(left),
  ):
    pass
  return file_names


def _write_shard(task: _Shard) -> None:
  files = external_sort.open_all(task.example_paths)
  num_bytes = sum(file.num_bytes(task.keys) for file in files)
  parts = task.keys.split(-(-num_bytes // _PART_BYTES))
  write_shard(
    task.path,
    external_sort.iterate(files, parts),
    records_per_block=record_index.RECORDS_PER_BLOCK,
  )


def write_shard(
  path: str, records: Iterable[bytes | memoryview], *, records_per_block: int
) -> dict:
  """Writes one file, whole or not at all, and its index.

  Returns:
    Its entry in the manifest.
  """
  lengths = []
  with whole_files.writing(path) as piece:
    with tf.io.TFRecordWriter(piece) as writer:
      for record in records:
        writer.write(bytes(record))
        lengths.append(len(record))
    index = record_index.of_lengths(
      lengths, records_per_block=records_per_block
    )
    record_index.write(index, path)
  return _entry(path, index)


def describe(path: str) -> dict:
  """Returns the manifest's entry of a shard that `write` wrote."""
  index = record_index.of_shard(
    path, records_per_block=record_index.RECORDS_PER_BLOCK
  )
  return _entry(path, index)


def _entry(path: str, index: record_index.RecordIndex) -> dict:
  return {
    "file": os.path.basename(path),
    "num_examples": index.num_records,
    "bytes": index.num_bytes,
  }
