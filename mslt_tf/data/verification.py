"""Holds a data set that `build` made against its manifest and BERT's rules.

Every record is read, in batches, so that memory does not depend on the size of
the data. What chance decides is checked as shares over a split, with bounds
that right data keeps.

B batch, S sequence, P predictions, V vocabulary, N words of a batch.
"""

import dataclasses
import functools
import math
import os
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import example_checks
from mslt_tf.data import features
from mslt_tf.data import input_pipeline
from mslt_tf.data import manifest
from mslt_tf.data import masking
from mslt_tf.data import progress
from mslt_tf.data import record_index
from mslt_tf.data import sentence_pairs
from mslt_tf.data import vocabulary

_BATCH_SIZE = 1024
# Buckets answer slowly and then fast: few large reads.
_READ_BYTES = 1 << 24
# Parts of the tokens of an example that should have as many predictions each.
_NUM_PARTS = 8
# See `_check_share`: right data fails one of the checks of both splits, 13 each
# and two-sided, with a probability below 52 exp(-25) < 1e-9.
_SURPRISE = 25
_LINE_WIDTH = 98
_MOST_NAMES = 5  # Of files that do not belong here.


def verify(directory: str) -> str:
  """Checks a data set; returns a report about it for a person.

  Raises:
    errors.InputError: something is wrong; it names the first thing found.
  """
  data = manifest.open_data(directory)
  description = manifest.load(directory)
  rules = _rules(data, description)
  counts = {}
  for name, split in (("train", data.train), ("heldout", data.heldout)):
    counts[name] = sum(
      progress.logged(
        (_check_shard(shard, rules) for shard in split.shards),
        f"Checking {name} shards",
        total=len(split.shards),
      ),
      start=_Counts(),
    )
    _check_shares(name, counts[name], rules)
  parts = [
    f"{directory} is in order: {data.train.num_examples:,} training and"
    f" {data.heldout.num_examples:,} held-out examples were read.",
    *_warnings(directory, data),
    "",
    *_table(data, counts),
    "",
    *_facts(data, description),
    *_decoded_examples(data, rules),
  ]
  return "\n".join(parts)


@dataclasses.dataclass(frozen=True)
class _Rules:
  """What the examples of a data set are to be like."""

  data: manifest.Data
  tokens: tuple[str, ...]  # [V]
  is_continuation: np.ndarray  # [V] booleans
  is_special: np.ndarray  # [V] booleans: [PAD], [CLS], [SEP] and [MASK]
  cls_id: int
  sep_id: int
  mask_id: int
  unknown_id: int
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


def _rules(data: manifest.Data, description: dict) -> _Rules:
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
  ids = used_vocabulary.ids
  is_special = np.zeros(data.vocab_size, bool)
  for token in vocabulary.SPECIAL_TOKENS:
    is_special[ids[token]] = token != vocabulary.UNKNOWN
  return _Rules(
    data=data,
    tokens=used_vocabulary.tokens,
    is_continuation=used_vocabulary.is_continuation,
    is_special=is_special,
    cls_id=ids[vocabulary.CLS],
    sep_id=ids[vocabulary.SEP],
    mask_id=ids[vocabulary.MASK],
    unknown_id=ids[vocabulary.UNKNOWN],
    masked_lm_prob=masked_lm_prob,
    whole_word_masking=whole_word_masking,
  )


@dataclasses.dataclass(frozen=True)
class _Batch:
  """Examples, and what is derived from their features."""

  input_ids: np.ndarray  # [B, S]
  input_mask: np.ndarray  # [B, S]
  segment_ids: np.ndarray  # [B, S]
  masked_lm_positions: np.ndarray  # [B, P]
  masked_lm_ids: np.ndarray  # [B, P]
  masked_lm_weights: np.ndarray  # [B, P]
  next_sentence_labels: np.ndarray  # [B]

  @functools.cached_property
  def num_tokens(self) -> np.ndarray:
    """[B]"""
    return np.count_nonzero(self.input_mask, axis=1)

  @functools.cached_property
  def num_predictions(self) -> np.ndarray:
    """[B]"""
    return np.count_nonzero(self.masked_lm_weights, axis=1)

  @functools.cached_property
  def is_token(self) -> np.ndarray:
    """[B, S] booleans"""
    column = np.arange(self.input_ids.shape[1])
    return column < self.num_tokens[:, np.newaxis]

  @functools.cached_property
  def is_slot(self) -> np.ndarray:
    """[B, P] booleans: whether a prediction's place is used."""
    slot = np.arange(self.masked_lm_ids.shape[1])
    return slot < self.num_predictions[:, np.newaxis]

  @functools.cached_property
  def places(self) -> np.ndarray:
    """[predictions of the batch], in all of `input_ids`"""
    row = np.repeat(np.arange(len(self.input_ids)), self.num_predictions)
    position = self.masked_lm_positions[self.is_slot]
    return row * self.input_ids.shape[1] + position

  @functools.cached_property
  def is_predicted(self) -> np.ndarray:
    """[B, S] booleans"""
    is_predicted = np.zeros(self.input_ids.shape, bool)
    is_predicted.ravel()[self.places] = True
    return is_predicted

  @functools.cached_property
  def original_ids(self) -> np.ndarray:
    """[B, S], before masking"""
    ids = self.input_ids.copy()
    ids.ravel()[self.places] = self.masked_lm_ids[self.is_slot]
    return ids


@dataclasses.dataclass(frozen=True)
class _Counts:
  """How often what was found in examples; to be added up."""

  num_examples: int = 0
  num_tokens: int = 0
  num_unknown: int = 0
  num_short: int = 0  # Examples that do not fill a sequence,
  num_random_nexts: int = 0
  num_predictions: int = 0
  num_hidden: int = 0  # predictions at which [MASK] stands,
  num_kept: int = 0  # the original token,
  num_replaced: int = 0  # another token,
  num_replaced_high: int = 0  # which is of the second half of the vocabulary.
  # Predictions, or of whole words those of one piece, in each part of the
  # tokens, and what is expected, [_NUM_PARTS].
  in_part: np.ndarray | int = 0
  expected_in_part: np.ndarray | float = 0.0

  def __add__(self, other: "_Counts") -> "_Counts":
    return _Counts(
      *(
        getattr(self, field.name) + getattr(other, field.name)
        for field in dataclasses.fields(self)
      )
    )


def _check_shard(shard: manifest.Shard, rules: _Rules) -> _Counts:
  """Checks every record of a shard, and its index."""
  counts = _Counts()
  lengths = [np.zeros(0, np.int64)]
  num_read = 0
  for batch, batch_lengths in _batches(shard.path, rules):
    _raise_first(_shape_rules(batch, rules), shard.path, num_read)
    most = _most_predictions(batch, rules)
    words = _words(batch, rules)
    _raise_first(
      _prediction_rules(batch, words, most, rules), shard.path, num_read
    )
    counts += _count(batch, words, rules)
    lengths.append(batch_lengths)
    num_read += len(batch_lengths)
  if num_read != shard.num_examples:
    raise errors.InputError(
      f"{shard.path!r} has {num_read} records, but the manifest and the index"
      f" have {shard.num_examples}."
    )
  found = record_index.of_lengths(
    np.concatenate(lengths), records_per_block=rules.data.records_per_block
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


def _batches(path: str, rules: _Rules) -> Iterator[tuple[_Batch, np.ndarray]]:
  """Yields the examples of a shard and the [B] lengths of their records."""
  records = tf.data.TFRecordDataset(path, buffer_size=_READ_BYTES)
  batches = (
    records.batch(_BATCH_SIZE)
    .map(
      lambda serialized: (
        rules.parse(serialized),
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
      yield _Batch(**parsed), lengths
      num_read += len(lengths)
  except (tf.errors.DataLossError, *input_pipeline.MALFORMED) as error:
    raise errors.InputError(
      _what_is_wrong(path, num_read, rules.data)
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


# What a record is to be like, and [B] booleans that say where it is not.
_Rule = tuple[str, np.ndarray]


def _raise_first(checks: Sequence[_Rule], path: str, num_before: int) -> None:
  """Raises an error for the first record that breaks a rule.

  Args:
    checks: the rules.
    path: of the shard.
    num_before: how many of its records stand before those of the batch.
  """
  is_broken = np.stack([broken for _, broken in checks])
  if is_broken.any():
    row = int(is_broken.any(axis=0).argmax())
    rule, _ = checks[int(is_broken[:, row].argmax())]
    raise errors.InputError(f"{path!r}, record {num_before + row + 1}: {rule}.")


def _shape_rules(batch: _Batch, rules: _Rules) -> list[_Rule]:
  """Returns the rules that hold for any examples of BERT."""
  row = np.arange(len(batch.input_ids))
  column = np.arange(batch.input_ids.shape[1])
  ids, is_token = batch.original_ids, batch.is_token
  is_sep = ids == rules.sep_id
  first_sep = is_sep.argmax(axis=1)
  is_second = is_token & (column > first_sep[:, np.newaxis])
  is_slot = batch.is_slot
  is_step = np.diff(batch.masked_lm_positions, axis=1) > 0
  is_special = rules.is_special[ids] & is_token
  return [
    (
      "input_mask is not 1 at the tokens and then 0",
      (batch.input_mask != is_token).any(axis=1),
    ),
    (
      "input_ids are not 0 at the padding",
      ((batch.input_ids != 0) & ~is_token).any(axis=1),
    ),
    (
      "masked_lm_weights are not 1 at the predictions and then 0",
      (batch.masked_lm_weights != is_slot).any(axis=1),
    ),
    ("nothing is predicted", batch.num_predictions == 0),
    (
      "masked_lm_positions are not 0 after the predictions",
      ((batch.masked_lm_positions != 0) & ~is_slot).any(axis=1),
    ),
    (
      "masked_lm_ids are not 0 after the predictions",
      ((batch.masked_lm_ids != 0) & ~is_slot).any(axis=1),
    ),
    (
      "masked_lm_positions do not ascend",
      (~is_step & is_slot[:, 1:]).any(axis=1),
    ),
    (
      "masked_lm_positions are not all inside the tokens",
      batch.masked_lm_positions.max(axis=1) >= batch.num_tokens,
    ),
    (
      "a special token is predicted",
      (rules.is_special[batch.masked_lm_ids] & is_slot).any(axis=1),
    ),
    ("the first token is not [CLS]", ids[:, 0] != rules.cls_id),
    (
      "the last token is not [SEP]",
      ids[row, batch.num_tokens - 1] != rules.sep_id,
    ),
    (
      "with the predictions put back, it does not have two [SEP]",
      np.count_nonzero(is_sep, axis=1) != 2,
    ),
    (
      "[MASK] stands where nothing is predicted",
      (ids == rules.mask_id).any(axis=1),
    ),
    (
      "a special token stands inside a segment",
      np.count_nonzero(is_special, axis=1) != sentence_pairs.NUM_SPECIAL_TOKENS,
    ),
    (
      "a segment is empty",
      (first_sep < 2) | (batch.num_tokens < first_sep + 3),
    ),
    (
      "segment_ids are not 0 to the first [SEP], 1 to the second and then 0",
      (batch.segment_ids != is_second).any(axis=1),
    ),
  ]


@dataclasses.dataclass(frozen=True)
class _Words:
  """What is predicted as a whole: words, or tokens as words of one piece."""

  row: np.ndarray  # [N], its example
  start: np.ndarray  # [N], the place of its first piece in all of `input_ids`
  length: np.ndarray  # [N], pieces
  num_predicted: np.ndarray  # [N], pieces


def _words(batch: _Batch, rules: _Rules) -> _Words:
  ids = batch.original_ids
  is_piece = batch.is_token & ~rules.is_special[ids]  # [B, S]
  is_start = is_piece.copy()
  if rules.whole_word_masking:
    # After [CLS] or [SEP] a word begins, even if truncation has cut its head.
    is_start[:, 1:] &= ~(rules.is_continuation[ids[:, 1:]] & is_piece[:, :-1])
  start = np.flatnonzero(is_start)
  is_predicted = batch.is_predicted.ravel()
  if rules.whole_word_masking:
    pieces = np.flatnonzero(is_piece)
    word = np.cumsum(is_start.ravel()[pieces]) - 1
    length = np.bincount(word, minlength=len(start))
    num_predicted = np.bincount(
      word[is_predicted[pieces]], minlength=len(start)
    )
  else:
    length = np.ones_like(start)
    num_predicted = is_predicted[start].astype(np.int64)
  return _Words(start // ids.shape[1], start, length, num_predicted)


def _most_predictions(batch: _Batch, rules: _Rules) -> np.ndarray:
  """Returns how many predictions [B] examples of these lengths may have."""
  share = np.rint(batch.num_tokens * rules.masked_lm_prob).astype(np.int64)
  return np.clip(share, 1, rules.data.max_predictions)


def _prediction_rules(
  batch: _Batch, words: _Words, most: np.ndarray, rules: _Rules
) -> list[_Rule]:
  """Returns the rules of BERT's masking for examples that are well formed."""
  num_rows = len(most)
  number = (
    f"min({rules.data.max_predictions}, max(1, round(tokens *"
    f" {rules.masked_lm_prob})))"
  )

  def is_row_with(is_such: np.ndarray) -> np.ndarray:
    """[N] booleans -> [B] booleans"""
    return np.bincount(words.row[is_such], minlength=num_rows) > 0

  is_unpredicted = words.num_predicted == 0
  left = most - batch.num_predictions
  fits = is_row_with(is_unpredicted & (words.length <= left[words.row]))
  if not rules.whole_word_masking:
    return [
      (f"it has more predictions than {number}", left < 0),
      (f"it has fewer predictions than {number}", fits),
    ]
  # Where every word is too long, as many pieces as may be are predicted from
  # the beginning of one.
  is_cut = ~is_unpredicted & (words.num_predicted < words.length)
  is_beginning = (
    is_cut
    & batch.is_predicted.ravel()[words.start]
    & (words.num_predicted == most[words.row])
  )
  first = batch.masked_lm_positions[:, 0]
  last = batch.masked_lm_positions.max(axis=1)
  may_be_cut = (
    is_row_with(is_beginning)
    & (last - first == batch.num_predictions - 1)
    & ~is_row_with(words.length <= most[words.row])
  )
  return [
    (f"it has more predictions than {number}", left < 0),
    (
      "a word is predicted in part, despite whole_word_masking",
      is_row_with(is_cut) & ~may_be_cut,
    ),
    (
      f"it has fewer predictions than {number}, though a word would fit",
      fits,
    ),
  ]


def _count(batch: _Batch, words: _Words, rules: _Rules) -> _Counts:
  original = batch.masked_lm_ids[batch.is_slot]
  found = batch.input_ids.ravel()[batch.places]
  is_hidden = found == rules.mask_id
  is_kept = found == original
  is_replaced = ~(is_hidden | is_kept)
  in_part, expected_in_part = _parts(words, len(batch.input_ids))
  return _Counts(
    num_examples=len(batch.input_ids),
    num_tokens=int(batch.num_tokens.sum()),
    num_unknown=np.count_nonzero(batch.original_ids == rules.unknown_id),
    num_short=np.count_nonzero(batch.num_tokens < batch.input_ids.shape[1]),
    num_random_nexts=np.count_nonzero(batch.next_sentence_labels),
    num_predictions=len(original),
    num_hidden=np.count_nonzero(is_hidden),
    num_kept=np.count_nonzero(is_kept),
    num_replaced=np.count_nonzero(is_replaced),
    num_replaced_high=np.count_nonzero(
      found[is_replaced] >= len(rules.tokens) // 2
    ),
    in_part=in_part,
    expected_in_part=expected_in_part,
  )


def _parts(words: _Words, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
  """Counts words of one piece that are predicted, by where they stand.

  Of them each is as likely to be chosen as any other of its example. Of longer
  words fewer are: the last ones drawn no longer fit.

  Returns:
    [_NUM_PARTS] how many are predicted in each part of an example, and how many
    would be if it made no difference where they stand.
  """
  is_single = words.length == 1
  row = words.row[is_single]  # ascending
  number = np.bincount(row, minlength=num_rows)  # [B]
  num_before = np.cumsum(number) - number
  predicted = np.flatnonzero(words.num_predicted[is_single])
  row = row[predicted]
  num_predicted = np.bincount(row, minlength=num_rows)  # [B]
  part = (predicted - num_before[row]) * _NUM_PARTS // number[row]
  # Part k has those from k n / _NUM_PARTS on, rounded up.
  borders = -(-np.arange(_NUM_PARTS + 1) * number[:, np.newaxis] // _NUM_PARTS)
  share = num_predicted / np.maximum(number, 1)
  return (
    np.bincount(part, minlength=_NUM_PARTS),
    share @ np.diff(borders, axis=1),
  )


def _check_shares(name: str, counts: _Counts, rules: _Rules) -> None:
  """Checks what chance decides, over a split.

  How many examples are short is not checked: that depends on the lengths of
  the documents, which the examples do not tell.
  """
  size = len(rules.tokens)
  random_share = masking.RANDOM_TOKEN_SHARE
  kept_share = 1 - masking.MASK_TOKEN_SHARE - random_share
  by_chance = random_share / size  # A random token is a certain one.
  predictions = f"of the predictions of {name}"
  for what, found, share in (
    (
      f"[MASK] stands at {{}} {predictions}",
      counts.num_hidden,
      masking.MASK_TOKEN_SHARE + by_chance,
    ),
    (
      f"the token itself stands at {{}} {predictions}",
      counts.num_kept,
      kept_share + by_chance,
    ),
    (
      f"a random token stands at {{}} {predictions}",
      counts.num_replaced,
      random_share - 2 * by_chance,
    ),
  ):
    _check_share(what, found, counts.num_predictions, share, share)
  # Neither [MASK] nor the token itself is counted there.
  num_high = size - size // 2
  _check_share(
    f"{{}} of the random tokens of {name} are of the second half of the"
    " vocabulary",
    counts.num_replaced_high,
    counts.num_replaced,
    (num_high - 2) / (size - 2),
    num_high / (size - 2),
  )
  # A single sentence always gets a random next; the others half of the time.
  _check_share(
    f"{{}} of the examples of {name} have a random next",
    counts.num_random_nexts,
    counts.num_examples,
    0.5,
    1.0,
  )
  assert isinstance(counts.in_part, np.ndarray)
  assert isinstance(counts.expected_in_part, np.ndarray)
  total = int(counts.in_part.sum())
  for part, (found, expected) in enumerate(
    zip(counts.in_part.tolist(), counts.expected_in_part.tolist(), strict=True)
  ):
    share = expected / max(total, 1)
    _check_share(
      f"{{}} {predictions} are in part {part + 1} of {_NUM_PARTS} of the"
      " tokens",
      found,
      total,
      share,
      share,
    )


def _check_share(
  what: str, found: int, number: int, least: float, most: float
) -> None:
  """Raises an error if `found` of `number` cannot be chance.

  If a share between `least` and `most` is expected, one as far off as q or
  farther is found with a probability of at most exp(-number KL(q, p)), p the
  nearer of the two (Chernoff; Hoeffding 1963). This holds for any `number`, for
  draws of different probabilities, p their mean, and for draws without
  replacement. It needs no independence of the texts, which duplicates would
  spoil: given the texts, each draw is new. That of a random next does decide
  how many follow; for such a `number` the bounds of all numbers n are to hold,
  which they do if 2 log(n + 1) is allowed on top: the sum of (n + 1)**-2 over
  all n is below 1.

  Args:
    what: names the share, which stands at the braces.
    found: how many there are,
    number: out of how many.
    least: the smallest share expected.
    most: the largest share expected.
  """
  if not number:
    return
  share = found / number
  nearest = min(max(share, least), most)
  surprise = number * _divergence(share, nearest)
  if surprise > _SURPRISE + 2 * math.log(number + 1):
    expected = f"{least:.2%}" if least == most else f"{least:.2%} to {most:.2%}"
    raise errors.InputError(
      f"{what.format(f'{share:.2%}')} ({found:,} of {number:,}), where"
      f" {expected} is expected; this cannot be chance."
    )


def _divergence(found: float, expected: float) -> float:
  """Returns the Kullback-Leibler divergence of two coins, in nats."""
  total = 0.0
  for q, p in ((found, expected), (1 - found, 1 - expected)):
    if q > 0:
      total += q * math.log(q / p) if p > 0 else math.inf
  return total


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
  extra = sorted(set(tf.io.gfile.listdir(directory)) - known)
  if not extra:
    return []
  names = ", ".join(extra[:_MOST_NAMES])
  more = len(extra) - _MOST_NAMES
  return [
    f"Warning: not in {manifest.FILE}, though in the directory: {names}"
    + (f" and {more} more." if more > 0 else ".")
  ]


def _table(data: manifest.Data, counts: dict[str, _Counts]) -> list[str]:
  """Returns the statistics, a line each, a column a split."""
  columns = [
    _column(data.train, counts["train"], data),
    _column(data.heldout, counts["heldout"], data),
  ]
  lines = [f"{'':28}{'train':>15}{'heldout':>13}"]
  for (name, note), train in columns[0].items():
    heldout = columns[1][name, note]
    lines.append(f"{name:28}{train:>15}{heldout:>13}   {note}".rstrip())
  return lines


def _column(
  split: manifest.Split, counts: _Counts, data: manifest.Data
) -> dict[tuple[str, str], str]:
  """Returns the statistics of a split by their names and notes."""
  num_examples, num_predictions = counts.num_examples, counts.num_predictions
  num_bytes = sum(shard.index.num_bytes for shard in split.shards)
  room = num_examples * data.sequence_length
  return {
    ("shards", ""): f"{len(split.shards):,}",
    ("size", "MB"): f"{num_bytes / 1e6:,.1f}",
    ("documents", ""): f"{split.num_documents:,}",
    ("sentences", ""): f"{split.num_sentences:,}",
    ("tokens", "of the text"): f"{split.num_tokens:,}",
    ("examples", ""): f"{num_examples:,}",
    (
      "tokens an example",
      f"with [CLS] and [SEP]; at most {data.sequence_length}",
    ): f"{counts.num_tokens / num_examples:.1f}",
    ("padding", ""): f"{1 - counts.num_tokens / room:.2%}",
    (
      "short examples",
      f"fewer than {data.sequence_length} tokens",
    ): f"{counts.num_short / num_examples:.2%}",
    (
      "[UNK]",
      "of the tokens of the examples",
    ): f"{counts.num_unknown / counts.num_tokens:.3%}",
    (
      "random nexts",
      "about half of the examples or more",
    ): f"{counts.num_random_nexts / num_examples:.2%}",
    (
      "predictions an example",
      f"at most {data.max_predictions}",
    ): f"{num_predictions / num_examples:.2f}",
    (
      "  hidden by [MASK]",
      "of the predictions",
    ): f"{counts.num_hidden / num_predictions:.2%}",
    (
      "  behind a random token",
      "",
    ): f"{counts.num_replaced / num_predictions:.2%}",
    (
      "  not hidden",
      "",
    ): f"{counts.num_kept / num_predictions:.2%}",
  }


def _facts(data: manifest.Data, description: dict) -> list[str]:
  """Returns lines of what concerns all of the data."""
  dropped = [
    f"{count:,} {name.replace('_', ' ')}"
    for name, count in description.get("dropped", {}).items()
  ]
  arguments = [
    f"{name}={_short(value) if name.endswith('sha256') else value}"
    for name, value in description["arguments"].items()
  ]
  case = "lower-case" if data.lower_case else "cased"
  return [
    *_wrapped(
      "vocabulary",
      f"{data.vocab_size:,} {case} tokens, sha256={_short(data.vocab_sha256)}",
    ),
    *_wrapped(
      "unigram MLM loss",
      f"{data.unigram_mlm_loss:.3f} nats, held-out: a model that learns beyond"
      " token frequencies is below",
    ),
    *_wrapped("dropped", ", ".join(dropped) or "nothing"),
    *_wrapped("arguments", ", ".join(arguments)),
  ]


def _short(sha256: str | None) -> str:
  return f"{sha256[:12]}..." if sha256 else "None"


def _wrapped(name: str, text: str) -> list[str]:
  return textwrap.wrap(
    text,
    _LINE_WIDTH,
    initial_indent=f"{name:18}",
    subsequent_indent=" " * 18,
    break_long_words=False,
    break_on_hyphens=False,
  )


def _decoded_examples(data: manifest.Data, rules: _Rules) -> list[str]:
  """Returns three examples as text: two for training and a held-out one."""
  train = _shards_with_examples(data.train)
  middle = train[len(train) // 2]
  lines = ["", "Examples, with [what stood there->what the model reads]:"]
  for shard, place in (
    (train[0], 0),
    (middle, middle.num_examples // 2),
    (_shards_with_examples(data.heldout)[0], 0),
  ):
    records = tf.data.TFRecordDataset(shard.path).skip(place).take(1).batch(1)
    parsed = rules.parse(records.get_single_element())
    example = _Batch(**{name: value.numpy() for name, value in parsed.items()})
    lines += ["", f"{os.path.basename(shard.path)}, record {place + 1}:"]
    lines += _decoded(example, rules.tokens)
  return lines


def _shards_with_examples(split: manifest.Split) -> list[manifest.Shard]:
  return [shard for shard in split.shards if shard.num_examples]


def _decoded(example: _Batch, tokens: Sequence[str]) -> list[str]:
  """Returns an example, a batch of one, as lines of text."""
  shown = []
  for original, found, is_predicted in zip(
    example.original_ids[0],
    example.input_ids[0],
    example.is_predicted[0],
    strict=True,
  ):
    token = tokens[original]
    read = "MASK" if tokens[found] == vocabulary.MASK else tokens[found]
    shown.append((token, f"[{token}->{read}]" if is_predicted else token))
  num_tokens = int(example.num_tokens[0])
  num_second = int(np.count_nonzero(example.segment_ids[0]))
  second = num_tokens - num_second
  label = (
    "the second segment is a random one"
    if example.next_sentence_labels[0]
    else "the second segment follows the first"
  )
  return [
    *_wrapped("  first segment", _joined(shown[1 : second - 1])),
    *_wrapped("  second segment", _joined(shown[second : num_tokens - 1])),
    *_wrapped("  label", label),
    *_wrapped(
      "  length",
      f"{num_tokens} tokens, {int(example.num_predictions[0])} predictions",
    ),
  ]


def _joined(pieces: Sequence[tuple[str, str]]) -> str:
  """Returns tokens, and how they are shown, as text."""
  text = ""
  for token, shown in pieces:
    if text and token.startswith(vocabulary.CONTINUATION):
      text += shown.removeprefix(vocabulary.CONTINUATION)
    else:
      text += f" {shown}"
  return text.strip()
