"""Text as a model reads it, of which attention is drawn or measured.

Letters: B batch, S sequence.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from mslt_tf import assembly
from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import finished_model
from mslt_tf.analysis import attention
from mslt_tf.data.examples import features as features_lib
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.data.reading import input_pipeline
from mslt_tf.data.reading import manifest
from mslt_tf.glue import examples as examples_lib
from mslt_tf.glue import inputs
from mslt_tf.models import pretrained

_NUM_SPECIAL_TOKENS = 2  # [CLS] and [SEP].
_MAX_LENGTH = 128  # Of lines; maps grow with the square of it.
_BATCH_SIZE = 8  # Of Base at 128 tokens, the maps of a batch have 75 MB.


@dataclasses.dataclass(frozen=True)
class Sentence:
  """A sentence, or a pair of them.

  Attributes:
    features: Of the model, [1, S].
    tokens: S.
  """

  features: attention.Features
  tokens: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Text:
  """Examples in batches.

  Attributes:
    source: Where they are from.
    num_examples: In all batches.
    batches: Features [B, S] each.
  """

  source: str
  num_examples: int
  batches: tuple[attention.Features, ...]


def of_sentence(
  model: pretrained.PretrainedBert, first: str, second: str = ""
) -> Sentence:
  """Returns `[CLS] first [SEP]`, or with `second [SEP]` behind it.

  Raises:
    InputError: There is no word in it, or more tokens than positions.
  """
  texts = [first, second] if second else [first]
  tokenizer = _tokenizer(model)
  for text in texts:
    if not len(vocabulary_lib.tokenize(tokenizer, [text])[0]):
      raise errors.InputError(f"sentence={text!r} has no word in it.")
  max_length = model.architecture.max_positions
  split = inputs.encode(
    examples_lib.Examples([first], [second] if second else None, None),
    tokenizer,
    model.vocabulary,
    max_length=max_length,
  )
  if split.num_cut:
    raise errors.InputError(
      f"sentence={first[:40]!r}... has more tokens than the model's"
      f" {max_length} positions."
    )
  features = _features(split, np.arange(1))
  return Sentence(
    features,
    tuple(model.vocabulary.tokens[each] for each in features["input_ids"][0]),
  )


def of_lines(
  model: pretrained.PretrainedBert, lines: Sequence[str], *, source: str
) -> Text:
  """Returns an example a line, `[CLS] line [SEP]`, blank ones left out.

  Lines are cut after 128 tokens, or as many as the model has positions.

  Raises:
    InputError: No line has a word.
  """
  texts = [line for line in lines if line.strip()]
  if not texts:
    raise errors.InputError(f"{source} has no line of text.")
  split = inputs.encode(
    examples_lib.Examples(texts, None, None),
    _tokenizer(model),
    model.vocabulary,
    max_length=min(model.architecture.max_positions, _MAX_LENGTH),
  )
  has_words = np.flatnonzero(split.lengths > _NUM_SPECIAL_TOKENS)
  if not len(has_words):
    raise errors.InputError(f"{source} has no line of text.")
  # Of about the same length, batches have little padding.
  order = has_words[np.argsort(split.lengths[has_words], kind="stable")]
  batches = [
    _features(split, order[start : start + _BATCH_SIZE])
    for start in range(0, len(order), _BATCH_SIZE)
  ]
  return Text(source, len(order), tuple(batches))


def of_run(
  model: pretrained.PretrainedBert, workdir: str, *, num_examples: int
) -> Text:
  """Returns the first held-out examples of a run, some tokens masked.

  Raises:
    InputError: Its data are gone, or are not those of the model any more.
  """
  data = _open_data(model, _config(workdir))
  if data.sequence_length > model.architecture.max_positions:
    raise errors.InputError(
      f"{data.source} has sequences of {data.sequence_length}; the model in"
      f" {workdir} has {model.architecture.max_positions} positions."
    )
  batches = tuple(_read(data, num_examples))
  return Text(
    f"held-out examples of {data.source}",
    min(num_examples, data.heldout.num_examples),
    batches,
  )


def _read(
  data: manifest.Data, num_examples: int
) -> Iterator[attention.Features]:
  read = input_pipeline.heldout_batches(
    data, batch_size=_BATCH_SIZE, max_examples=num_examples
  )
  names = (
    features_lib.INPUT_IDS,
    features_lib.INPUT_MASK,
    features_lib.SEGMENT_IDS,
  )
  for batch in read:
    yield {name: batch[name].numpy() for name in names}


def _config(workdir: str) -> config_lib.Config:
  path = os.path.join(workdir, finished_model.CONFIG_FILE)
  with tf.io.gfile.GFile(path) as file:
    return config_lib.load(file.read(), source=path)


def _open_data(
  model: pretrained.PretrainedBert, config: config_lib.Config
) -> manifest.Data:
  try:
    return assembly.open_data(
      dataclasses.replace(
        config,
        data=dataclasses.replace(
          config.data, vocab_sha256=model.vocabulary.sha256
        ),
      )
    )
  except errors.InputError as error:
    raise errors.InputError(
      f"the run's held-out text cannot be read: {str(error).rstrip('.')};"
      " --input=FILE takes its place, --num_examples=0 does without."
    ) from error


def _tokenizer(model: pretrained.PretrainedBert) -> vocabulary_lib.Tokenizer:
  return vocabulary_lib.make_tokenizer(
    model.vocabulary, lower_case=model.lower_case
  )


def _features(split: inputs.Inputs, indices: np.ndarray) -> attention.Features:
  return split.features(
    indices,
    length=int(split.lengths[indices].max()),
    num_rows=len(indices),
  )
