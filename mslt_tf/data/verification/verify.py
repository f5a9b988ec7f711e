"""Holds a data set that `build` made against its manifest and BERT's rules.

Every record is read, in batches, so that memory does not depend on the size of
the data. `example_rules` are held against each; what chance decides is counted
and held against `chance` over a split.

B batch.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import progress
from mslt_tf.data.examples import features
from mslt_tf.data.examples import vocabulary
from mslt_tf.data.reading import example_checks
from mslt_tf.data.reading import input_pipeline
from mslt_tf.data.reading import manifest
from mslt_tf.data.reading import record_index
from mslt_tf.data.verification import chance
from mslt_tf.data.verification import example_batch
from mslt_tf.data.verification import example_counts
from mslt_tf.data.verification import example_rules
from mslt_tf.data.verification import report

_BATCH_SIZE = 1024
# Buckets answer slowly and then fast: few large reads.
_READ_BYTES = 1 << 24
_MOST_NAMES = 5  # Of files that do not belong here.


def verify(directory: str) -> str:
  """Checks a data set; returns a report about it for a person.

  Raises:
    errors.InputError: something is wrong; it names the first thing found.
    errors.UnavailableError: a file cannot be read.
  """
  with manifest.reported(directory):
    return _verify(directory)


def _verify(directory: str) -> str:
  data = manifest.open_data(directory)
  description = manifest.load(directory)
  recipe = _recipe(data, description)
  train = _check_split("train", data.train, recipe)
  heldout = _check_split("heldout", data.heldout, recipe)
  parts = [
    f"{directory} is in order: {data.train.num_examples:,} training and"
    f" {data.heldout.num_examples:,} held-out examples were read.",
    *_warnings(directory, data),
    "",
    *report.table(data, train, heldout),
    "",
    *report.facts(data, description),
    "",
    "Examples, with [what stood there->what the model reads]:",
    *_sample(recipe),
  ]
  return "\n".join(parts)


@dataclasses.dataclass(frozen=True)
class _Recipe:
  """What the examples of a data set were made with."""

  data: manifest.Data
  vocabulary: vocabulary.Vocabulary
  masked_lm_prob: float
  whole_word_masking: bool

  @functools.cached_property
  def parse(self) -> tf.types.experimental.GenericFunction:
    """Returns `features.parse_batch`; a function, to be traced once only."""
    return tf.function(
      functools.partial(
        features.parse_batch,
        sequence_length=self.data.sequence_length,
        max_predictions=self.data.max_predictions,
        vocab_size=self.data.vocab_size,
      ),
      input_signature=[tf.TensorSpec([None], tf.string)],
    )

  def batch(self, parsed: Mapping[str, np.ndarray]) -> example_batch.Batch:
    """Returns what `parse` gave, as arrays."""
    return example_batch.Batch(
      vocabulary=self.vocabulary,
      whole_word_masking=self.whole_word_masking,
      **parsed,
    )


def _recipe(data: manifest.Data, description: dict) -> _Recipe:
  assert data.vocab_file is not None  # There is a manifest.
  used_vocabulary = vocabulary.load(data.vocab_file)
  if len(used_vocabulary) != data.vocab_size:
    raise errors.InputError(
      f"{data.vocab_file!r} has {len(used_vocabulary)} tokens, but the manifest"
      f" has vocab.size={data.vocab_size}."
    )
  arguments = description.get("arguments")
  arguments = arguments if isinstance(arguments, dict) else {}
  masked_lm_prob = arguments.get("masked_lm_prob")
  whole_word_masking = arguments.get("whole_word_masking")
  if not isinstance(masked_lm_prob, float) or not isinstance(
    whole_word_masking, bool
  ):
    raise errors.InputError(
      f"{os.path.join(data.source, manifest.FILE)!r}:"
      f" arguments.masked_lm_prob={masked_lm_prob} and"
      f" arguments.whole_word_masking={whole_word_masking} are not a number and"
      " true or false."
    )
  return _Recipe(data, used_vocabulary, masked_lm_prob, whole_word_masking)


def _check_split(
  name: str, split: manifest.Split, recipe: _Recipe
) -> example_counts.Counts:
  """Checks every shard of a split, and its shares."""
  counts = sum(
    progress.logged(
      (_check_shard(shard, recipe) for shard in split.shards),
      f"Checking {name} shards",
      total=len(split.shards),
    ),
    start=example_counts.Counts(),
  )
  chance.check(name, counts, len(recipe.vocabulary))
  return counts


def _check_shard(
  shard: manifest.Shard, recipe: _Recipe
) -> example_counts.Counts:
  """Checks every record of a shard, and its index."""
  counts = example_counts.Counts()
  lengths = [np.zeros(0, np.int64)]
  num_read = 0
  for batch, batch_lengths in _batches(shard.path, recipe):
    broken = example_rules.first_broken(batch, recipe.masked_lm_prob)
    if broken is not None:
      row, rule = broken
      raise errors.InputError(
        f"{shard.path!r}, record {num_read + row + 1}: {rule}."
      )
    counts += example_counts.of_batch(batch)
    lengths.append(batch_lengths)
    num_read += len(batch)
  if num_read != shard.num_examples:
    raise errors.InputError(
      f"{shard.path!r} has {num_read} records, but the manifest and the index"
      f" have {shard.num_examples}."
    )
  found = record_index.of_lengths(
    np.concatenate(lengths), records_per_block=recipe.data.records_per_block
  )
  is_other = found.offsets != shard.index.offsets
  if is_other.any():
    block = int(is_other.argmax())
    raise errors.InputError(
      f"{record_index.path_of(shard.path)!r} has"
      f" {shard.index.offsets[block]} as the offset of block {block}, which"
      f" begins at byte {found.offsets[block]} of the shard: delete the index,"
      " and it is made anew."
    )
  return counts


def _batches(
  path: str, recipe: _Recipe
) -> Iterator[tuple[example_batch.Batch, np.ndarray]]:
  """Yields the examples of a shard and the [B] lengths of their records."""
  records = tf.data.TFRecordDataset(path, buffer_size=_READ_BYTES)
  batches = (
    records.batch(_BATCH_SIZE)
    .map(
      lambda serialized: (
        recipe.parse(serialized),
        tf.strings.length(serialized),
      ),
      num_parallel_calls=tf.data.AUTOTUNE,
      deterministic=True,
    )
    .prefetch(2)
  )
  num_read = 0
  try:
    for parsed, lengths in batches.as_numpy_iterator():
      yield recipe.batch(parsed), lengths
      num_read += len(lengths)
  except (tf.errors.DataLossError, *input_pipeline.MALFORMED) as error:
    raise errors.InputError(
      _what_is_wrong(path, num_read, recipe.data)
    ) from error


def _what_is_wrong(path: str, num_right: int, data: manifest.Data) -> str:
  """Names the first record that cannot be read, after `num_right` that can."""
  number = num_right + 1
  records = tf.data.TFRecordDataset(path).skip(num_right)
  try:
    for serialized in records.as_numpy_iterator():
      example_checks.check(
        serialized,
        sequence_length=data.sequence_length,
        max_predictions=data.max_predictions,
        vocab_size=data.vocab_size,
        naming=data.naming,
      )
      number += 1
  except tf.errors.DataLossError:
    return (
      f"{path!r}, record {number}: its checksum is not that of its bytes; the"
      " shard is damaged."
    )
  except errors.InputError as error:
    return f"{path!r}, record {number}: {error}"
  return f"{path!r} cannot be read from record {num_right + 1} on."


def _warnings(directory: str, data: manifest.Data) -> list[str]:
  """Returns a line about files that are not of the data set, if any."""
  assert data.vocab_file is not None  # There is a manifest.
  paths = [
    shard.path for split in (data.train, data.heldout) for shard in split.shards
  ]
  known = {
    manifest.FILE,
    *map(os.path.basename, (data.vocab_file, *paths)),
    *(os.path.basename(record_index.path_of(path)) for path in paths),
  }
  # Hidden ones, such as the lock of builds, are not the data's.
  extra = sorted(
    name
    for name in tf.io.gfile.listdir(directory)
    if name not in known and not name.startswith(".")
  )
  if not extra:
    return []
  names = ", ".join(extra[:_MOST_NAMES])
  more = len(extra) - _MOST_NAMES
  return [
    f"Warning: not in {manifest.FILE}, though in the directory: {names}"
    + (f" and {more} more." if more > 0 else ".")
  ]


def _sample(recipe: _Recipe) -> Iterator[str]:
  """Yields three examples as text: two for training and a held-out one."""
  train, heldout = (
    [shard for shard in split.shards if shard.num_examples]
    for split in (recipe.data.train, recipe.data.heldout)
  )
  middle = train[len(train) // 2]
  for shard, place in (
    (train[0], 0),
    (middle, middle.num_examples // 2),
    (heldout[0], 0),
  ):
    records = tf.data.TFRecordDataset(shard.path).skip(place).take(1).batch(1)
    parsed = recipe.parse(records.get_single_element())
    batch = recipe.batch({name: each.numpy() for name, each in parsed.items()})
    yield f"\n{os.path.basename(shard.path)}, record {place + 1}:"
    yield from report.example(batch)
