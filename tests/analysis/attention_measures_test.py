"""Means over text of what heads attend to and how they differ."""

import numpy as np
import pytest

from mslt_tf.analysis import attention_measures
from mslt_tf.analysis import attention_text

# Two batches of different lengths; [CLS] is 2, [SEP] is 3.
SHORT = {
  "input_ids": np.array([[2, 7, 3]]),
  "input_mask": np.array([[1, 1, 1]]),
}
LONG = {
  "input_ids": np.array([[2, 7, 8, 3], [2, 9, 3, 0], [0, 0, 0, 0]]),
  "input_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 0, 0]]),
}
TEXT = attention_text.Text("a test", 3, (SHORT, LONG))
NUM_QUERIES = 3 + 4 + 3


def looks_at(*places):
  """Makes maps of a layer each, all of whose two heads look at one place.

  Queries of padding look elsewhere, which must not show.
  """

  def maps(features):
    batch, length = features["input_ids"].shape
    found = np.zeros((len(places), batch, 2, length, length), np.float32)
    for layer, place in enumerate(places):
      found[layer, ..., place] = 1
    is_padding = features["input_mask"] == 0
    found[:, is_padding[:, np.newaxis] & np.ones((1, 2, 1), bool)] = 0
    found[:, is_padding[:, np.newaxis] & np.ones((1, 2, 1), bool), -1] = 1
    return found

  return maps


def test_shares_are_means_over_queries_that_are_not_padding():
  measured = attention_measures.measure_shares(looks_at(0, 1), TEXT, sep_id=3)
  assert measured.num_queries == NUM_QUERIES
  local, cls, sep = measured.shares
  np.testing.assert_allclose(cls, [[1, 1], [0, 0]])
  np.testing.assert_allclose(sep, 0)
  # Place 1 is beside all queries but the last of the one with four.
  np.testing.assert_allclose(local, [[0, 0], [0.9, 0.9]])


def test_uniform_shares_are_those_of_a_head_that_looks_everywhere_alike():
  measured = attention_measures.measure_shares(looks_at(0), TEXT, sep_id=3)
  # Local keys: 1, 1, 1 of 3, twice; 1, 2, 2, 1 of 4.
  expected = [(2 * 3 / 3 + 6 / 4) / 10, *[(2 * 3 / 3 + 4 / 4) / 10] * 2]
  np.testing.assert_allclose(measured.uniform, expected)


def test_divergences_are_of_the_layers_that_belong_together():
  measured = attention_measures.measure_divergences(
    looks_at(0, 1), looks_at(0, 2, 0, 1), TEXT, kept=(0, 1), copies={2: 0, 3: 1}
  )
  np.testing.assert_allclose(measured.same_layer[0], [0, 0])
  np.testing.assert_allclose(measured.same_layer[1], [1, 1])
  np.testing.assert_allclose(measured.grown[2], [0, 0])
  np.testing.assert_allclose(measured.grown[3], [0, 0])
  np.testing.assert_allclose(measured.copies[2], [0, 0])
  np.testing.assert_allclose(measured.copies[3], [1, 1])
  assert measured.other_heads == 0


def test_a_copy_whose_original_was_not_kept_is_compared_within_its_stage():
  measured = attention_measures.measure_divergences(
    looks_at(0), looks_at(0, 1, 2), TEXT, kept=(0,), copies={2: 1}
  )
  assert not measured.grown
  np.testing.assert_allclose(measured.copies[2], [1, 1])


def test_a_single_head_has_no_other():
  def one_head(features):
    return looks_at(0)(features)[:, :, :1]

  measured = attention_measures.measure_divergences(
    one_head, one_head, TEXT, kept=(0,), copies={}
  )
  assert measured.other_heads is None
  assert measured.same_layer[0] == pytest.approx([0])
