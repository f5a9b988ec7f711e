"""Tokenized documents -> serialized pre-training examples."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from mslt_tf.data import features
from mslt_tf.data import masking
from mslt_tf.data import sentence_pairs
from mslt_tf.data import vocabulary


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How documents become examples; the names are those of `build.Settings`."""

  vocabulary: vocabulary.Vocabulary
  sequence_length: int
  max_predictions: int
  masked_lm_prob: float
  short_sequence_prob: float
  whole_word_masking: bool


def of_document(
  documents: Sequence[sentence_pairs.TokenizedDocument],
  document_index: int,
  recipe: Recipe,
  *,
  rng: np.random.Generator,
) -> Iterator[bytes]:
  """Yields the examples that start in one document, in its order.

  Args:
    documents: where a random next segment comes from.
    document_index: which of `documents` to make examples of.
    recipe: how.
    rng: the source of every choice.
  """
  pairs = sentence_pairs.pairs_of_document(
    documents,
    document_index,
    sequence_length=recipe.sequence_length,
    short_sequence_prob=recipe.short_sequence_prob,
    rng=rng,
  )
  for pair in pairs:
    yield _example(pair, recipe, rng)


def _example(
  pair: sentence_pairs.Pair, recipe: Recipe, rng: np.random.Generator
) -> bytes:
  ids = recipe.vocabulary.ids
  cls_id, sep_id = ids[vocabulary.CLS], ids[vocabulary.SEP]
  input_ids, segment_ids = sentence_pairs.join(
    pair, cls_id=cls_id, sep_id=sep_id
  )
  masked = masking.mask(
    input_ids,
    special_ids=(cls_id, sep_id),
    mask_id=ids[vocabulary.MASK],
    vocab_size=len(recipe.vocabulary),
    masked_lm_prob=recipe.masked_lm_prob,
    max_predictions=recipe.max_predictions,
    rng=rng,
    is_continuation=(
      recipe.vocabulary.is_continuation if recipe.whole_word_masking else None
    ),
  )
  return features.to_example(
    masked.input_ids,
    segment_ids,
    masked_lm_positions=masked.positions,
    masked_lm_ids=masked.ids,
    is_random_next=pair.is_random_next,
    sequence_length=recipe.sequence_length,
    max_predictions=recipe.max_predictions,
  )
