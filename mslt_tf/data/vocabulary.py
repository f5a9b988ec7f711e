"""WordPiece vocabularies in BERT's format, and the tokenizer made from one.

A vocabulary file has one token a line; the line number is the id. The tokenizer
is TensorFlow Text's FastBertTokenizer, so that the same op can run when data is
built and in an exported model. It differs from google-research/bert's
FullTokenizer in two rare cases: control characters become spaces instead of
being dropped, and words of more than 100 bytes are unknown (200 characters
there).

V vocabulary.
"""

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from tensorflow_text.python.ops import bert_tokenizer
from tensorflow_text.tools.wordpiece_vocab import (
  wordpiece_tokenizer_learner_lib as learner,
)

from mslt_tf import errors

PADDING = "[PAD]"
UNKNOWN = "[UNK]"
CLS = "[CLS]"
SEP = "[SEP]"
MASK = "[MASK]"
SPECIAL_TOKENS = (PADDING, UNKNOWN, CLS, SEP, MASK)
CONTINUATION = "##"

_MAX_BYTES = 1 << 26  # Of a file; the largest in use have about 10 MB.
_BATCH_SENTENCES = 4096
_MAX_CHARACTERS = 1000  # The learner's default; Latin text needs about 100.
_MIN_COUNT = 2  # A piece seen once says nothing about other text.
_LEARNER_SLACK = 0.05  # It stops its search within 5 % of the size asked for.


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """Checked tokens; the position of a token is its id."""

  tokens: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.tokens)

  @functools.cached_property
  def ids(self) -> dict[str, int]:
    return {token: index for index, token in enumerate(self.tokens)}

  @functools.cached_property
  def is_continuation(self) -> np.ndarray:
    """[V] booleans: whether the token continues a word."""
    return np.array([token.startswith(CONTINUATION) for token in self.tokens])

  @property
  def content(self) -> bytes:
    """The vocabulary file."""
    return "".join(token + "\n" for token in self.tokens).encode()

  @property
  def sha256(self) -> str:
    return hashlib.sha256(self.content).hexdigest()


def load(path: str) -> Vocabulary:
  """Reads a vocabulary file.

  Raises:
    errors.InputError: no such file, or not a vocabulary of BERT.
  """
  try:
    num_bytes = tf.io.gfile.stat(path).length
    if num_bytes > _MAX_BYTES:
      raise errors.InputError(
        f"vocab={path!r} has {num_bytes} bytes; a vocabulary has at most"
        f" {_MAX_BYTES}."
      )
    with tf.io.gfile.GFile(path, "rb") as file:
      text = file.read().decode("utf-8")
  except tf.errors.OpError as error:
    raise errors.InputError(
      f"vocab={path!r} cannot be read: {error.message}"
    ) from error
  except UnicodeDecodeError as error:
    raise errors.InputError(f"vocab={path!r} is not UTF-8 text.") from error
  # Not `splitlines`, which also splits at characters that are tokens.
  tokens = [line.removesuffix("\r") for line in text.split("\n")]
  while tokens and not tokens[-1]:
    tokens.pop()
  if not tokens:
    raise errors.InputError(f"vocab={path!r} is empty.")
  missing = [token for token in SPECIAL_TOKENS if token not in tokens]
  if missing:
    raise errors.InputError(f"vocab={path!r} has no {' '.join(missing)}.")
  if tokens[0] != PADDING:
    # Examples are padded with id 0.
    raise errors.InputError(
      f"vocab={path!r} has {tokens[0]!r} at id 0, where {PADDING} must be."
    )
  ((token, count),) = collections.Counter(tokens).most_common(1)
  if count > 1:
    raise errors.InputError(
      f"vocab={path!r} has the token {token!r} {count} times; each token may"
      " stand there once."
    )
  return Vocabulary(tuple(tokens))


def save(vocabulary: Vocabulary, path: str) -> None:
  """Writes a vocabulary file."""
  with tf.io.gfile.GFile(path, "wb") as file:
    file.write(vocabulary.content)


def count_words(
  sentences: Iterable[str], *, lower_case: bool
) -> collections.Counter:
  """Returns how often each word occurs, after BERT's basic tokenization."""
  tokenizer = bert_tokenizer.BasicTokenizer(lower_case=lower_case)
  counts: collections.Counter[bytes] = collections.Counter()
  for batch in _batches(sentences):
    counts.update(tokenizer.tokenize(batch).flat_values.numpy().tolist())
  return collections.Counter(
    {word.decode("utf-8"): count for word, count in counts.items()}
  )


def learn(word_counts: collections.Counter, *, vocab_size: int) -> Vocabulary:
  """Learns a WordPiece vocabulary of exactly `vocab_size` tokens.

  [PAD] has id 0, as BERT's has; if the words do not yield enough pieces,
  "[unusedN]" fill the places after it; then come [UNK] [CLS] [SEP] [MASK], the
  characters and the pieces, frequent ones first. The same counts give the same
  vocabulary.

  Raises:
    errors.InputError: `vocab_size` cannot hold the special tokens and every
      character of the words.
  """
  if not word_counts:
    raise errors.InputError("the input has no words to learn from.")
  # Short of room, rare characters become [UNK] rather than take it all.
  max_characters = min(_MAX_CHARACTERS, max(100, vocab_size // 10))
  learned = _learn_at_least(
    # The result has at least 95 % of the size asked for, and what is too
    # much is cut below: so no place stays empty for the learner's slack.
    int(vocab_size / (1 - _LEARNER_SLACK)) + 1,
    word_counts,
    max_characters=max_characters,
  )
  pieces = [token for token in learned if token not in SPECIAL_TOKENS]
  # Without its characters a word of the text would be unknown as a whole.
  characters = [
    token for token in pieces if len(token.removeprefix(CONTINUATION)) == 1
  ]
  least = len(SPECIAL_TOKENS) + len(characters)
  if vocab_size < least:
    raise errors.InputError(
      f"vocab_size={vocab_size} is too small: the special tokens and the"
      f" characters of the input need {least}."
    )
  known = set(characters)
  rest = [token for token in pieces if token not in known]
  pieces = (characters + rest)[: vocab_size - len(SPECIAL_TOKENS)]
  num_unused = vocab_size - len(SPECIAL_TOKENS) - len(pieces)
  unused = [f"[unused{index}]" for index in range(num_unused)]
  return Vocabulary((PADDING, *unused, *SPECIAL_TOKENS[1:], *pieces))


def make_tokenizer(
  vocabulary: Vocabulary, *, lower_case: bool
) -> tf_text.FastBertTokenizer:
  """Returns the tokenizer; in lower case also accents go, as in BERT."""
  return tf_text.FastBertTokenizer(
    vocab=list(vocabulary.tokens),
    token_out_type=tf.int32,
    lower_case_nfd_strip_accents=lower_case,
  )


def tokenize(
  tokenizer: tf_text.FastBertTokenizer, sentences: Sequence[str]
) -> list[np.ndarray]:
  """Returns the int32 ids of each sentence, which may be none."""
  tokenized = []
  for batch in _batches(sentences):
    ragged = tokenizer.tokenize(batch)
    values = ragged.flat_values.numpy()
    splits = ragged.row_splits.numpy()
    tokenized.extend(np.split(values, splits[1:-1]))
  return tokenized


def _learn_at_least(
  vocab_size: int,
  word_counts: collections.Counter,
  *,
  max_characters: int,
) -> list[str]:
  """Returns about `vocab_size` tokens, or fewer if the words yield no more.

  The learner bisects for the least count of a piece that gives the size, and
  each try takes seconds. Left alone it begins at half of the highest count.
  But the answer is a little above the count of the word of rank `vocab_size`,
  since parts of words take places too: so the search is kept near there, and
  widened in the rare case that this was wrong.
  """
  counts = sorted(word_counts.values(), reverse=True)
  count = counts[min(vocab_size, len(counts)) - 1]
  upper = 2 * count
  while True:
    learned = learner.learn(
      sorted(word_counts.items()),
      vocab_size=vocab_size,
      reserved_tokens=list(SPECIAL_TOKENS),
      upper_thresh=upper,
      lower_thresh=max(_MIN_COUNT, count // 2),
      max_unique_chars=max_characters,
      slack_ratio=_LEARNER_SLACK,
      joiner=CONTINUATION,
    )
    if len(learned) <= vocab_size or upper >= counts[0]:
      return learned
    upper *= 4


def _batches(sentences: Iterable[str]) -> Iterator[list[str]]:
  batch = []
  for sentence in sentences:
    batch.append(sentence)
    if len(batch) == _BATCH_SENTENCES:
      yield batch
      batch = []
  if batch:
    yield batch
