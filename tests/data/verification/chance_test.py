"""Shares that can be chance pass; others are told."""

import dataclasses
import re

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.data.verification import chance
from mslt_tf.data.verification import example_counts

VOCAB_SIZE = 46  # Of random tokens, 1 in 46 is the one that stood there.
LIKELY = example_counts.Counts(
  num_examples=1000,
  num_random_nexts=520,
  num_predictions=10_000,
  num_hidden=8022,
  num_kept=1022,
  num_replaced=956,
  num_replaced_high=478,
  in_part=np.array([1250] * 8),
  expected_in_part=np.full(8, 1250.0),
)


@pytest.mark.parametrize(
  "counts",
  [
    LIKELY,
    example_counts.Counts(),
    # Documents of single sentences.
    dataclasses.replace(LIKELY, num_random_nexts=1000),
    # Three standard deviations off.
    dataclasses.replace(LIKELY, num_hidden=7902, num_kept=1142),
    dataclasses.replace(LIKELY, num_random_nexts=453),
  ],
)
def test_what_can_be_chance_passes(counts):
  chance.check("train", counts, VOCAB_SIZE)


@pytest.mark.parametrize(
  "changes, message",
  [
    (
      {"num_hidden": 10_000, "num_kept": 0, "num_replaced": 0},
      "[MASK] stands at 100.00% of the predictions of train (10,000 of 10,000),"
      " where 80.22% is expected; this cannot be chance.",
    ),
    (
      {"num_kept": 0, "num_replaced": 1978},
      "the token itself stands at 0.00% of the predictions of train (0 of"
      " 10,000), where 10.22% is expected; this cannot be chance.",
    ),
    (
      {"num_replaced": 500},
      "a random token stands at 5.00% of the predictions of train (500 of"
      " 10,000), where 9.57% is expected; this cannot be chance.",
    ),
    (
      {"num_replaced_high": 0},
      "0.00% of the random tokens of train are of the second half of the"
      " vocabulary (0 of 956), where 47.73% to 52.27% is expected; this cannot"
      " be chance.",
    ),
    (
      {"num_random_nexts": 250},
      "25.00% of the examples of train have a random next (250 of 1,000), where"
      " 50.00% to 100.00% is expected; this cannot be chance.",
    ),
    (
      {"in_part": np.array([1250] * 6 + [2500, 0])},
      "25.00% of the predictions of train are in part 7 of 8 of the tokens"
      " (2,500 of 10,000), where 12.50% is expected; this cannot be chance.",
    ),
  ],
)
def test_what_cannot_be_chance_is_told(changes, message):
  counts = dataclasses.replace(LIKELY, **changes)
  with pytest.raises(errors.InputError, match=f"^{re.escape(message)}$"):
    chance.check("train", counts, VOCAB_SIZE)


def test_the_bound_is_that_of_chernoff():
  # 47 log(2) < 25 + 2 log(48), but 48 log(2) > 25 + 2 log(49).
  chance.check("train", example_counts.Counts(num_examples=47), VOCAB_SIZE)
  with pytest.raises(errors.InputError, match="0 of 48"):
    chance.check("train", example_counts.Counts(num_examples=48), VOCAB_SIZE)
