"""How often what stands in examples, for statistics and for `chance`.

B batch, N words of a batch.
"""

import dataclasses

import numpy as np

from mslt_tf.data.examples import vocabulary
from mslt_tf.data.verification import example_batch

# Parts of the tokens of an example that should have as many predictions each.
NUM_PARTS = 8


@dataclasses.dataclass(frozen=True)
class Counts:
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
  # tokens, and what is expected, [NUM_PARTS].
  in_part: np.ndarray = dataclasses.field(
    default_factory=lambda: np.zeros(NUM_PARTS, np.int64)
  )
  expected_in_part: np.ndarray = dataclasses.field(
    default_factory=lambda: np.zeros(NUM_PARTS)
  )

  def __add__(self, other: "Counts") -> "Counts":
    return Counts(
      *(
        getattr(self, field.name) + getattr(other, field.name)
        for field in dataclasses.fields(self)
      )
    )


def of_batch(batch: example_batch.Batch) -> Counts:
  """Counts what is in examples that keep `example_rules`."""
  ids = batch.vocabulary.ids
  original = batch.masked_lm_ids[batch.is_slot]
  found = batch.input_ids.ravel()[batch.places]
  is_hidden = found == ids[vocabulary.MASK]
  is_kept = found == original
  is_replaced = ~(is_hidden | is_kept)
  in_part, expected_in_part = _parts(batch.words, len(batch))
  return Counts(
    num_examples=len(batch),
    num_tokens=int(batch.num_tokens.sum()),
    num_unknown=np.count_nonzero(batch.original_ids == ids[vocabulary.UNKNOWN]),
    num_short=np.count_nonzero(batch.num_tokens < batch.input_ids.shape[1]),
    num_random_nexts=np.count_nonzero(batch.next_sentence_labels),
    num_predictions=len(original),
    num_hidden=np.count_nonzero(is_hidden),
    num_kept=np.count_nonzero(is_kept),
    num_replaced=np.count_nonzero(is_replaced),
    num_replaced_high=np.count_nonzero(
      found[is_replaced] >= len(batch.vocabulary) // 2
    ),
    in_part=in_part,
    expected_in_part=expected_in_part,
  )


def _parts(
  words: example_batch.Words, num_rows: int
) -> tuple[np.ndarray, np.ndarray]:
  """Counts words of one piece that are predicted, by where they stand.

  Of them each is as likely to be chosen as any other of its example. Of longer
  words fewer are: the last ones drawn no longer fit.

  Returns:
    [NUM_PARTS] how many are predicted in each part of an example, and how many
    would be if it made no difference where they stand.
  """
  is_single = words.length == 1
  row = words.row[is_single]  # ascending
  number = np.bincount(row, minlength=num_rows)  # [B]
  num_before = np.cumsum(number) - number
  predicted = np.flatnonzero(words.num_predicted[is_single])
  row = row[predicted]
  num_predicted = np.bincount(row, minlength=num_rows)  # [B]
  part = (predicted - num_before[row]) * NUM_PARTS // number[row]
  # Part k has those from k n / NUM_PARTS on, rounded up.
  borders = -(-np.arange(NUM_PARTS + 1) * number[:, np.newaxis] // NUM_PARTS)
  share = num_predicted / np.maximum(number, 1)
  return (
    np.bincount(part, minlength=NUM_PARTS),
    share @ np.diff(borders, axis=1),
  )
