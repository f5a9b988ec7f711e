"""Examples -> shuffled shards.

Examples are not held in memory: they are dealt out to one temporary file for
each shard, and these files are shuffled one by one.
"""

import os
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import progress
from mslt_tf.data import record_index

_BATCH_SIZE = 256  # of reading
# What a random generator is for; its seed is (*seed, purpose, ...).
_DEALING, _SHUFFLING = 1, 2  # 0 is for the examples.


def write(
  name: str,
  examples: Iterable[bytes],
  *,
  directory: str,
  num_shards: int,
  seed: Sequence[int],
) -> list[dict]:
  """Writes shuffled shards of nearly equal size.

  Args:
    name: of the split, with which the names of the files begin.
    examples: serialized examples.
    directory: where the files go, the temporary ones too.
    num_shards: how many there are.
    seed: of the order.

  Returns:
    The shards as the manifest has them.

  Raises:
    errors.InputError: there are fewer examples than shards.
  """
  dealt = [
    os.path.join(directory, f"{name}-{index}.dealt")
    for index in range(num_shards)
  ]
  num_examples = _deal(
    examples, dealt, np.random.default_rng([*seed, _DEALING])
  )
  if num_examples < num_shards:
    raise errors.InputError(
      f"num_shards={num_shards} is more than the {num_examples} {name}"
      " examples that the input gives."
    )
  shards = []
  for index, path in enumerate(
    progress.logged(dealt, f"Shuffling {name} shards", total=num_shards)
  ):
    file_name = f"{name}-{index:05d}-of-{num_shards:05d}.tfrecord"
    batches = tf.data.TFRecordDataset(path).batch(_BATCH_SIZE)
    records = [
      record for batch in batches.as_numpy_iterator() for record in batch
    ]
    rng = np.random.default_rng([*seed, _SHUFFLING, index])
    shard = write_shard(
      os.path.join(directory, file_name),
      [records[place] for place in rng.permutation(len(records))],
      records_per_block=record_index.RECORDS_PER_BLOCK,
    )
    shards.append({"file": file_name, **shard})
    tf.io.gfile.remove(path)
  return shards


def write_shard(
  path: str, records: Iterable[bytes], *, records_per_block: int
) -> dict:
  """Writes one file and its index; returns its part of the manifest."""
  lengths = []
  with tf.io.TFRecordWriter(path) as writer:
    for record in records:
      writer.write(record)
      lengths.append(len(record))
  index = record_index.of_lengths(lengths, records_per_block=records_per_block)
  record_index.write(index, path)
  return {"num_examples": index.num_records, "bytes": index.num_bytes}


def _deal(
  examples: Iterable[bytes], paths: Sequence[str], rng: np.random.Generator
) -> int:
  """Gives each file one of every `len(paths)` examples; returns their number.

  Which one it gets is random.
  """
  num_examples = 0
  writers = [tf.io.TFRecordWriter(path) for path in paths]
  try:
    for serialized in examples:
      turn = num_examples % len(writers)
      if not turn:
        order = rng.permutation(len(writers))
      writers[order[turn]].write(serialized)
      num_examples += 1
  finally:
    for writer in writers:
      writer.close()
  return num_examples
