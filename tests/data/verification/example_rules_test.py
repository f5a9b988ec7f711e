"""Right examples keep the rules; each kind of wrong one breaks its own."""

import dataclasses

import pytest

from mslt_tf.data.verification import example_rules

# Of 8 tokens 2 are to be predicted.
RIGHT = "[CLS] a c/[MASK] b [SEP] c a/[MASK] [SEP]"
PROB = 0.25
CLS, SEP, MASK, A, C = 2, 3, 4, 5, 7


@pytest.mark.parametrize(
  "text",
  [
    RIGHT,
    "[CLS] a [SEP] b/b [SEP]",
    "[CLS] a/[UNK] c/c b b [SEP] [UNK] c b [SEP]",
  ],
)
def test_right_examples_keep_the_rules(text, make_batch):
  assert example_rules.first_broken(make_batch(RIGHT, text), PROB) is None


@pytest.mark.parametrize(
  "edits, rule",
  [
    (
      {"input_mask": {4: 0}},
      "input_mask is not 1 at the tokens and then 0",
    ),
    ({"input_ids": {9: A}}, "input_ids are not 0 at the padding"),
    (
      {"masked_lm_weights": {0: 0.5}},
      "masked_lm_weights are not 1 at the predictions and then 0",
    ),
    (
      {"masked_lm_weights": {0: 0.0}},
      "masked_lm_weights are not 1 at the predictions and then 0",
    ),
    (
      {
        "input_ids": {2: C, 6: A},
        "masked_lm_positions": {0: 0, 1: 0},
        "masked_lm_ids": {0: 0, 1: 0},
        "masked_lm_weights": {0: 0, 1: 0},
      },
      "nothing is predicted",
    ),
    (
      {"masked_lm_positions": {2: 3}},
      "masked_lm_positions are not 0 after the predictions",
    ),
    (
      {"masked_lm_ids": {2: A}},
      "masked_lm_ids are not 0 after the predictions",
    ),
    (
      {"masked_lm_positions": {0: 6, 1: 2}, "masked_lm_ids": {0: A, 1: C}},
      "masked_lm_positions do not ascend",
    ),
    (
      {"masked_lm_positions": {1: 2}},
      "masked_lm_positions do not ascend",
    ),
    (
      {"masked_lm_positions": {1: 8}},
      "masked_lm_positions are not all inside the tokens",
    ),
    (
      {
        "input_ids": {0: MASK, 2: C},
        "masked_lm_positions": {0: 0},
        "masked_lm_ids": {0: CLS},
      },
      "a special token is predicted",
    ),
    ({"input_ids": {0: A}}, "the first token is not [CLS]"),
    ({"input_ids": {7: A}}, "the last token is not [SEP]"),
    (
      {"input_ids": {1: SEP}},
      "with the predictions put back, it does not have two [SEP]",
    ),
    ({"input_ids": {1: MASK}}, "[MASK] stands where nothing is predicted"),
    ({"input_ids": {1: CLS}}, "a special token stands inside a segment"),
    ({"input_ids": {1: 0}}, "a special token stands inside a segment"),
    ({"input_ids": {1: SEP, 4: A}}, "a segment is empty"),
    (
      {
        "input_ids": {4: A, 5: MASK, 6: SEP},
        "masked_lm_positions": {1: 5},
        "masked_lm_ids": {1: C},
      },
      "a segment is empty",
    ),
    (
      {"segment_ids": {5: 0}},
      "segment_ids are not 0 to the first [SEP], 1 to the second and then 0",
    ),
    (
      {"segment_ids": {8: 1}},
      "segment_ids are not 0 to the first [SEP], 1 to the second and then 0",
    ),
  ],
)
def test_an_example_of_a_wrong_form_is_found(edits, rule, make_batch):
  batch = make_batch(RIGHT, RIGHT, RIGHT)
  for name, values in edits.items():
    array = getattr(batch, name).copy()
    for place, value in values.items():
      array[1, place] = value
    batch = dataclasses.replace(batch, **{name: array})
  assert example_rules.first_broken(batch, PROB) == (1, rule)


@pytest.mark.parametrize(
  "text, rule",
  [
    (
      "[CLS] a c/[MASK] b [SEP] c a [SEP]",
      "it has fewer predictions than min(3, max(1, round(tokens * 0.25)))",
    ),
    (
      "[CLS] a c/c b [SEP] c/c a/a [SEP]",
      "it has more predictions than min(3, max(1, round(tokens * 0.25)))",
    ),
  ],
)
def test_a_wrong_number_of_predictions_is_found(text, rule, make_batch):
  assert example_rules.first_broken(make_batch(RIGHT, text), PROB) == (1, rule)


def test_the_form_comes_before_the_predictions(make_batch):
  batch = make_batch("[CLS] a b [SEP] c/c a b c [SEP]", "b a [SEP] c/c [SEP]")
  assert example_rules.first_broken(batch, PROB) == (
    1,
    "the first token is not [CLS]",
  )


# Of 9 to 11 tokens 3 are to be predicted.
@pytest.mark.parametrize(
  "text",
  [
    "[CLS] a/[MASK] ##a/a b/b [SEP] c ##b c [SEP]",
    # No other word fits.
    "[CLS] a ##a b/[MASK] [SEP] c ##b c/c [SEP]",
    # No word fits: the beginning of one is predicted.
    "[CLS] a ##a ##b ##a [SEP] c/c ##b/c ##b/c ##b [SEP]",
    # After [CLS] a word begins, whatever stands there.
    "[CLS] ##a/[MASK] ##b/[MASK] b/b [SEP] c ##b c [SEP]",
  ],
)
def test_whole_words_are_predicted(text, make_batch):
  batch = make_batch(text, whole_word_masking=True)
  assert example_rules.first_broken(batch, 0.3) is None


IN_PART = "a word is predicted in part, despite whole_word_masking"


@pytest.mark.parametrize(
  "text, rule",
  [
    ("[CLS] a/a ##a b/b [SEP] c ##b c/c [SEP]", IN_PART),
    # No word fits, but what is predicted is no beginning of one,
    ("[CLS] a ##a/a ##b/a ##a/a [SEP] c ##b ##b ##b [SEP]", IN_PART),
    # those of two,
    ("[CLS] a/a ##a/a ##b ##a [SEP] c/c ##b ##b ##b [SEP]", IN_PART),
    # or a shorter one than it may be.
    ("[CLS] a/a ##a/a ##b ##a [SEP] c ##b ##b ##b [SEP]", IN_PART),
    (
      "[CLS] a/a ##a/a b [SEP] c ##b c [SEP]",
      "it has fewer predictions than min(3, max(1, round(tokens * 0.3))),"
      " though a word would fit",
    ),
  ],
)
def test_a_word_not_predicted_as_a_whole_is_found(text, rule, make_batch):
  batch = make_batch(text, whole_word_masking=True)
  assert example_rules.first_broken(batch, 0.3) == (0, rule)
