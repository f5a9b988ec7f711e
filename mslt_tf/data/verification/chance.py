"""What chance decides in a data set, and how far off it may be.

Shares are checked over a split, with bounds that right data keeps.
"""

import math

from mslt_tf import errors
from mslt_tf.data.examples import masking
from mslt_tf.data.verification import example_counts

# See `_check_share`: right data fails one of the checks of both splits, 13 each
# and two-sided, with a probability below 52 exp(-25) < 1e-9.
_SURPRISE = 25


def check(name: str, counts: example_counts.Counts, vocab_size: int) -> None:
  """Checks what chance decides, over a split.

  How many examples are short is not checked: that depends on the lengths of
  the documents, which the examples do not tell.

  Args:
    name: of the split.
    counts: of its examples.
    vocab_size: from which random tokens are drawn.

  Raises:
    errors.InputError: a share that cannot be chance; one of the checks fails
      for right data with a probability below 1e-9.
  """
  random_share = masking.RANDOM_TOKEN_SHARE
  kept_share = 1 - masking.MASK_TOKEN_SHARE - random_share
  by_chance = random_share / vocab_size  # A random token is a certain one.
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
    _check_share(what, found, counts.num_predictions, share)
  # Neither [MASK] nor the token itself is counted there.
  num_high = vocab_size - vocab_size // 2
  _check_share(
    f"{{}} of the random tokens of {name} are of the second half of the"
    " vocabulary",
    counts.num_replaced_high,
    counts.num_replaced,
    (num_high - 2) / (vocab_size - 2),
    num_high / (vocab_size - 2),
  )
  # A single sentence always gets a random next; the others half of the time.
  _check_share(
    f"{{}} of the examples of {name} have a random next",
    counts.num_random_nexts,
    counts.num_examples,
    0.5,
    1.0,
  )
  total = int(counts.in_part.sum())
  for part, (found, expected) in enumerate(
    zip(counts.in_part.tolist(), counts.expected_in_part.tolist(), strict=True),
    start=1,
  ):
    _check_share(
      f"{{}} {predictions} are in part {part} of {example_counts.NUM_PARTS} of"
      " the tokens",
      found,
      total,
      expected / max(total, 1),
    )


def _check_share(
  what: str, found: int, number: int, least: float, most: float | None = None
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
    most: the largest share expected; None is `least`.
  """
  if not number:
    return
  most = least if most is None else most
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
