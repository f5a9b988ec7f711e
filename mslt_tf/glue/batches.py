"""Which examples stand in a batch together: those of about the same length.

A batch is padded to the length of its bucket, of which there are few, so that
little is computed for padding and few shapes are compiled. Pure.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

_LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)


@dataclasses.dataclass(frozen=True)
class Batch:
  """Examples by their place in the data set, and what they are padded to."""

  indices: np.ndarray
  length: int


def buckets(max_length: int) -> tuple[int, ...]:
  """Returns what batches are padded to, in the end `max_length`."""
  return (*(each for each in _LENGTHS if each < max_length), max_length)


def in_order(
  lengths: np.ndarray, *, batch_size: int, max_length: int
) -> list[Batch]:
  """Returns batches of all examples, the shortest first.

  Args:
    lengths: [N], none above `max_length`.
    batch_size: Examples of a batch; the last one may have fewer.
    max_length: What the longest batches are padded to.
  """
  return _cut(np.arange(len(lengths)), lengths, batch_size, max_length)


def shuffled(
  lengths: np.ndarray,
  *,
  batch_size: int,
  max_length: int,
  seed: int,
  num_epochs: int,
) -> Iterator[Batch]:
  """Yields batches for training, each example once an epoch.

  An epoch has ceil(N / batch_size) batches, of which one may be smaller. Within
  a bucket the examples are shuffled, and so are the batches. What is left over
  in the buckets is put together, padded to the longest.

  Args:
    lengths: [N], none above `max_length`.
    batch_size: Examples of a batch.
    max_length: What the longest batches are padded to.
    seed: All follows from it and the epoch.
    num_epochs: How often every example is seen.
  """
  for epoch in range(num_epochs):
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches = _cut(order, lengths, batch_size, max_length)
    for index in rng.permutation(len(batches)):
      yield batches[index]


def _cut(
  order: np.ndarray, lengths: np.ndarray, batch_size: int, max_length: int
) -> list[Batch]:
  limits = np.array(buckets(max_length))
  bucket_of = np.searchsorted(limits, lengths[order])
  batches = []
  left_over = []
  for bucket, length in enumerate(limits):
    members = order[bucket_of == bucket]
    num_full = len(members) // batch_size * batch_size
    batches += [
      Batch(members[start : start + batch_size], int(length))
      for start in range(0, num_full, batch_size)
    ]
    left_over.append(members[num_full:])
  rest = np.concatenate(left_over)
  for start in range(0, len(rest), batch_size):
    members = rest[start : start + batch_size]
    longest = np.searchsorted(limits, lengths[members].max())
    batches.append(Batch(members, int(limits[longest])))
  return batches
