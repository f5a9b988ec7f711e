"""Tokenized documents -> pre-training examples, many at a time."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from mslt_tf.data.examples import features
from mslt_tf.data.examples import masking
from mslt_tf.data.examples import sentence_pairs
from mslt_tf.data.examples import vocabulary


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How documents become examples; the names are those of `build.Settings`."""

  vocabulary: vocabulary.Vocabulary
  sequence_length: int
  max_predictions: int
  masked_lm_prob: float
  short_sequence_prob: float
  whole_word_masking: bool


def of_documents(
  documents: sentence_pairs.TokenizedDocuments,
  recipe: Recipe,
  *,
  num_dupes: int,
  rng: np.random.Generator,
  batch_size: int = 4096,
) -> Iterator[features.Examples]:
  """Yields all examples of the documents in a random order, in batches.

  Args:
    documents: at least two different ones.
    recipe: how.
    num_dupes: how often the documents are cut into pairs and masked, each time
      in another way.
    rng: the source of every choice.
    batch_size: the most examples at a time. Memory holds one batch, and of all
      others where their tokens stand.

  Raises:
    errors.InputError: fewer than two different documents.
  """
  pairs = sentence_pairs.Pairs.concatenate(
    [
      sentence_pairs.plan(
        documents,
        sequence_length=recipe.sequence_length,
        short_sequence_prob=recipe.short_sequence_prob,
        rng=rng,
      )
      for _ in range(num_dupes)
    ]
  )
  order = rng.permutation(len(pairs))
  for start in range(0, len(pairs), batch_size):
    yield _of_pairs(
      documents, pairs[order[start : start + batch_size]], recipe, rng
    )


def _of_pairs(
  documents: sentence_pairs.TokenizedDocuments,
  pairs: sentence_pairs.Pairs,
  recipe: Recipe,
  rng: np.random.Generator,
) -> features.Examples:
  ids = recipe.vocabulary.ids
  cls_id, sep_id = ids[vocabulary.CLS], ids[vocabulary.SEP]
  rows = sentence_pairs.join(
    documents,
    pairs,
    sequence_length=recipe.sequence_length,
    cls_id=cls_id,
    sep_id=sep_id,
  )
  masked = masking.mask(
    rows.input_ids,
    rows.num_tokens,
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
  return features.Examples(
    input_ids=masked.input_ids,
    num_tokens=rows.num_tokens,
    second_start=rows.second_start,
    masked_lm_positions=masked.positions,
    masked_lm_ids=masked.ids,
    num_predictions=masked.num_predictions,
    is_random_next=pairs.is_random_next,
  )
