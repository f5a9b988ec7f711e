"""Memory of a device against sums by hand."""

import dataclasses

import pytest

from mslt_tf import costs
from mslt_tf import schedules
from mslt_tf.planning import device_memory

SHAPE = costs.Shape(
  vocab_size=11,
  hidden_size=3,
  intermediate_size=5,
  max_positions=13,
  num_segments=2,
  sequence_length=7,
  max_predictions=4,
)
MODEL = device_memory.Model(SHAPE, num_heads=3, precision="float32")
# A layer has 98 weights, the heads have 49, the embeddings 84; one example
# leaves 532 numbers in a layer.
FROZEN = schedules.Stage(2, 1, (None, None), 1, freeze_embeddings=True)
WHOLE = schedules.Stage(2, 1, (None, None))


def memory(stage=FROZEN, *, model=MODEL, parts=1):
  return device_memory.device_memory(
    model,
    stage,
    costs.stage_cost(SHAPE, stage, num_layers=2),
    examples=6,
    num_micro_batches=parts,
    reserved=1000.0,
  )


def test_every_term_of_a_stage_with_a_frozen_layer():
  assert memory() == device_memory.DeviceMemory(
    weights=4 * 329,
    compute_copies=0,
    gradients=4 * 147,  # One layer and the heads.
    table_gradients=0,
    slots=2 * 4 * 147,
    # Of the trained layer and of one to work in; three times the logits and
    # three times the embeddings.
    activations=6 * (4 * 2 * 532 + 12 * 44 + 12 * 21),
    reserved=1000.0,
  )
  assert memory().num_bytes == 1316 + 588 + 1176 + 30216 + 1000


def test_a_word_table_above_frozen_layers_has_one_gradient():
  words = memory(schedules.Stage(2, 1, (None, None), 1))
  assert words.table_gradients == 4 * 33
  assert words.gradients == 4 * (147 + 33)
  assert words.slots == 8 * (147 + 33)


def test_training_all_needs_gradients_and_slots_of_all():
  whole = memory(WHOLE)
  assert whole.gradients == 4 * 329
  assert whole.slots == 8 * 329
  assert whole.table_gradients == 2 * 4 * 33
  assert whole.activations == 6 * (4 * 3 * 532 + 12 * 44 + 12 * 21)


def test_mixed_precision_halves_activations_and_copies_weights():
  mixed = memory(model=dataclasses.replace(MODEL, precision="mixed_bfloat16"))
  assert mixed.compute_copies == 2 * 196
  assert mixed.activations == 6 * (2 * 2 * 532 + 12 * 44 + 12 * 21)
  assert mixed.weights == 4 * 329


def test_accumulation_keeps_a_sum_of_gradients():
  assert memory(parts=2).gradients == 2 * 4 * 147
  assert memory(parts=2).activations == 3 * 5036


@pytest.mark.parametrize(
  ("memory_bytes", "parts"),
  [(33296, 1), (33295, 2), (18776, 2), (18775, 3), (13739, 6), (8703, None)],
)
def test_fewest_parts_that_fit(memory_bytes, parts):
  found = device_memory.fitting_micro_batches(
    MODEL,
    FROZEN,
    costs.stage_cost(SHAPE, FROZEN, num_layers=2),
    examples=6,
    memory_bytes=memory_bytes,
  )
  assert found == parts
