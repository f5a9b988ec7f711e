"""WordPiece vocabularies in BERT's format, and the tokenizer made from one.

A vocabulary file has one token a line; the line number is the id. The tokenizer
is TensorFlow Text's FastBertTokenizer on text prepared by bert_text.py, and
gives the ids of google-research/bert's FullTokenizer; docs/tokenization.md
tells how far that was tested and the exceptions.

V vocabulary.
"""

import collections
import dataclasses
import functools
import hashlib
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text
from tensorflow_text.python.ops import bert_tokenizer

from mslt_tf import errors
from mslt_tf.data import whole_files
from mslt_tf.data.examples import bert_text

PADDING = "[PAD]"
UNKNOWN = "[UNK]"
CLS = "[CLS]"
SEP = "[SEP]"
MASK = "[MASK]"
SPECIAL_TOKENS = (PADDING, UNKNOWN, CLS, SEP, MASK)
CONTINUATION = "##"

_MAX_BYTES = 1 << 26  # Of a file; the largest in use have about 10 MB.
# What the op's builder refuses.
_MAX_TOKEN_BYTES = 256  # Without CONTINUATION.
_REFUSED_CHARACTERS = ("\0", "\x11")
_BATCH_SENTENCES = 4096
_MAX_CHARACTERS = 1000  # Latin text needs about 100.
_MAX_WORDS = 500_000  # The rest is rare, and takes memory.
_MAX_WORD_CHARACTERS = 50
_WORD_START = "\u2581"  # SentencePiece's mark, thus no character of a word.


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


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """What splits sentences into pieces."""

  op: tf_text.FastBertTokenizer  # On prepared sentences.
  lower_case: bool


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
  return of_tokens(tokens, source=path)


def of_tokens(tokens: Sequence[str], *, source: str) -> Vocabulary:
  """Returns the vocabulary of these tokens, by id.

  Args:
    source: Where they are from, for errors.

  Raises:
    errors.InputError: they are not a vocabulary of BERT.
  """
  if not tokens:
    raise errors.InputError(f"vocab={source!r} is empty.")
  missing = [token for token in SPECIAL_TOKENS if token not in tokens]
  if missing:
    raise errors.InputError(f"vocab={source!r} has no {' '.join(missing)}.")
  if tokens[0] != PADDING:
    # Examples are padded with id 0.
    raise errors.InputError(
      f"vocab={source!r} has {tokens[0]!r} at id 0, where {PADDING} must be."
    )
  ((token, count),) = collections.Counter(tokens).most_common(1)
  if count > 1:
    raise errors.InputError(
      f"vocab={source!r} has the token {token!r} {count} times; each token may"
      " stand there once."
    )
  for index, token in enumerate(tokens):
    if rule := _broken_rule(token):
      raise errors.InputError(
        f"vocab={source!r} has at id {index} the token {token[:40]!r}, but a"
        f" token has {rule}."
      )
  return Vocabulary(tuple(tokens))


def _broken_rule(token: str) -> str | None:
  """Returns what keeps the tokenizer from being made with a token, or None."""
  if len(token.removeprefix(CONTINUATION).encode()) > _MAX_TOKEN_BYTES:
    return f"at most {_MAX_TOKEN_BYTES} bytes"
  for character in _REFUSED_CHARACTERS:
    if character in token:
      return f"no U+{ord(character):04X}"
  return None


def save(vocabulary: Vocabulary, path: str) -> None:
  """Writes a vocabulary file, whole or not at all."""
  whole_files.write(path, vocabulary.content)


def count_words(
  sentences: Iterable[str | bytes], *, lower_case: bool
) -> collections.Counter:
  """Returns how often each word occurs, after BERT's basic tokenization."""
  tokenizer = bert_tokenizer.BasicTokenizer(lower_case=False)
  counts: collections.Counter[bytes] = collections.Counter()
  for batch in _batches(sentences):
    prepared = bert_text.prepare(batch, lower_case=lower_case)
    counts.update(tokenizer.tokenize(prepared).flat_values.numpy().tolist())
  counts.pop(bert_text.TOO_LONG.encode("utf-8"), None)
  return collections.Counter(
    {word.decode("utf-8"): count for word, count in counts.items()}
  )


def learn(
  word_counts: collections.Counter[str], *, vocab_size: int
) -> Vocabulary:
  """Learns a WordPiece vocabulary of exactly `vocab_size` tokens.

  The pieces are those that byte-pair encoding merges (Sennrich et al. 2016;
  SentencePiece's trainer, given the words and their counts). [PAD] has id 0, as
  BERT's has; if the words do not yield enough pieces, "[unusedN]" fill the
  places after it; then come [UNK] [CLS] [SEP] [MASK], the characters, and the
  pieces in the order they were merged, frequent ones first. The same counts
  give the same vocabulary.

  Raises:
    errors.InputError: `vocab_size` cannot hold the special tokens and every
      character of the words.
  """
  if not word_counts:
    raise errors.InputError("the input has no words to learn from.")
  # Short of room, rare characters become [UNK] rather than take it all.
  characters = _characters(
    word_counts, most=min(_MAX_CHARACTERS, max(100, vocab_size // 10))
  )
  # Without its characters a word would be unknown as a whole.
  singles = characters + [CONTINUATION + each for each in characters]
  least = len(SPECIAL_TOKENS) + len(singles)
  if vocab_size < least:
    raise errors.InputError(
      f"vocab_size={vocab_size} is too small: the special tokens and the"
      f" characters of the input need {least}."
    )
  num_merged = vocab_size - least
  pieces = singles + _merged(_words_of(characters, word_counts), num_merged)
  num_unused = vocab_size - len(SPECIAL_TOKENS) - len(pieces)
  unused = [f"[unused{index}]" for index in range(num_unused)]
  return Vocabulary((PADDING, *unused, *SPECIAL_TOKENS[1:], *pieces))


def make_tokenizer(vocabulary: Vocabulary, *, lower_case: bool) -> Tokenizer:
  """Returns the tokenizer; in lower case also accents go, as in BERT."""
  op = tf_text.FastBertTokenizer(
    vocab=list(vocabulary.tokens),
    token_out_type=tf.int32,
    max_bytes_per_word=bert_text.MAX_WORD_BYTES,
  )
  return Tokenizer(op, lower_case)


def tokenize(
  tokenizer: Tokenizer, sentences: Sequence[str | bytes]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the ids of all sentences.

  Returns:
    int32 ids, one sentence after another, and int64 [sentences] how many each
    has, which may be none.
  """
  ids = [np.zeros(0, np.int32)]
  lengths = [np.zeros(0, np.int64)]
  for batch in _batches(sentences):
    prepared = bert_text.prepare(batch, lower_case=tokenizer.lower_case)
    ragged = tokenizer.op.tokenize(prepared)
    ids.append(ragged.flat_values.numpy())
    lengths.append(ragged.row_lengths().numpy())
  return np.concatenate(ids), np.concatenate(lengths)


def _characters(
  word_counts: collections.Counter[str], *, most: int
) -> list[str]:
  """Returns the most frequent characters, those first."""
  counts: collections.Counter[str] = collections.Counter()
  for word, count in word_counts.items():
    for character in word:
      counts[character] += count
  del counts[_WORD_START]
  return [character for character, _ in _by_count(counts)[:most]]


def _words_of(
  characters: Sequence[str], word_counts: collections.Counter[str]
) -> list[tuple[str, int]]:
  """Returns the most frequent words of these characters alone, with counts."""
  known = set(characters)
  return [
    (word, count)
    for word, count in _by_count(word_counts)
    if known.issuperset(word) and len(word) <= _MAX_WORD_CHARACTERS
  ][:_MAX_WORDS]


def _merged(words: Sequence[tuple[str, int]], number: int) -> list[str]:
  """Returns the first `number` pieces of several characters, or all."""
  if not number or all(len(word) == 1 for word, _ in words):
    return []
  num_characters = len({character for word, _ in words for character in word})
  model = io.BytesIO()
  with tempfile.NamedTemporaryFile(
    "w", suffix=".tsv", encoding="utf-8"
  ) as file:
    # In one order, whatever the counts: ties are broken by it.
    file.writelines(f"{word}\t{count}\n" for word, count in sorted(words))
    file.flush()
    sentencepiece.SentencePieceTrainer.train(
      input=file.name,
      input_format="tsv",
      model_writer=model,
      model_type="bpe",
      # Its characters, and those at the start of words, are pieces too.
      vocab_size=number + 2 * num_characters + 1,
      hard_vocab_limit=False,
      max_sentencepiece_length=_MAX_WORD_CHARACTERS,
      character_coverage=1.0,
      normalization_rule_name="identity",
      split_by_unicode_script=False,
      split_by_number=False,
      bos_id=-1,
      eos_id=-1,
      num_threads=1,
      minloglevel=2,
    )
  learned = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
  pieces = [
    learned.id_to_piece(index)
    for index in range(learned.get_piece_size())
    if not learned.is_unknown(index)
  ]
  tokens = [
    piece.removeprefix(_WORD_START)
    if piece.startswith(_WORD_START)
    else CONTINUATION + piece
    for piece in pieces
  ]
  return [
    token for token in tokens if len(token.removeprefix(CONTINUATION)) > 1
  ][:number]


def _by_count(counts: collections.Counter[str]) -> list[tuple[str, int]]:
  """Returns what is counted, frequent ones first, equals by the alphabet."""
  return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _batches(
  sentences: Iterable[str | bytes],
) -> Iterator[list[str | bytes]]:
  batch = []
  for sentence in sentences:
    batch.append(sentence)
    if len(batch) == _BATCH_SENTENCES:
      yield batch
      batch = []
  if batch:
    yield batch
