"""Which layers are the same and which are copies, by the stages alone."""

from mslt_tf import schedules
from mslt_tf.analysis import layer_origins

STACKING = schedules.progressive_stacking(4, 10, stage_shares=(0.3, 0.7)).stages
MSLT = schedules.mslt(6, 40, num_growing_stages=3).stages  # 2, 4, 6, 6


def test_stacking_keeps_the_bottom_and_copies_all_of_it():
  assert layer_origins.kept_layers(STACKING, 1, 2) == (0, 1)
  assert layer_origins.copies(STACKING, 1) == {}
  assert layer_origins.copies(STACKING, 2) == {2: 0, 3: 1}


def test_stacking_twice_copies_copies():
  stages = schedules.progressive_stacking(8, 100).stages  # 2, 4, 8
  assert layer_origins.copies(stages, 3) == {
    2: 0, 3: 1, 4: 0, 5: 1, 6: 2, 7: 3,
  }  # fmt: skip
  assert layer_origins.kept_layers(stages, 1, 3) == (0, 1)


def test_mslt_copies_the_top_alone():
  assert layer_origins.copies(MSLT, 2) == {2: 0, 3: 1}
  assert layer_origins.copies(MSLT, 3) == {2: 0, 3: 1, 4: 2, 5: 3}


def test_retraining_keeps_all_layers_and_what_they_are_copies_of():
  assert layer_origins.kept_layers(MSLT, 3, 4) == (0, 1, 2, 3, 4, 5)
  assert layer_origins.copies(MSLT, 4) == layer_origins.copies(MSLT, 3)


def test_a_run_on_an_imported_model_has_copies_in_its_first_stage():
  stages = schedules.mslt(6, 10, num_growing_stages=2, initial_layers=3).stages
  assert layer_origins.copies(stages, 1) == {3: 0, 4: 1, 5: 2}


def test_layers_that_moved_are_neither_kept_nor_originals():
  first = schedules.Stage(3, 1, (None, None, None))
  second = schedules.Stage(4, 1, (1, 0, 2, 0))
  stages = [first, second]
  assert layer_origins.kept_layers(stages, 1, 2) == (2,)
  assert layer_origins.copies(stages, 2) == {}


def test_an_original_that_is_gone_later_is_none():
  stages = [
    schedules.Stage(2, 1, (None, None)),
    schedules.Stage(4, 1, (0, 1, 0, 1)),
    schedules.Stage(4, 1, (None, 1, 2, 3)),
  ]
  assert layer_origins.copies(stages, 3) == {3: 1}


def test_pairs_are_kept_layers_with_their_first_copies():
  copies = {2: 0, 3: 1, 4: 0, 5: 1, 6: 2, 7: 3}
  pairs = layer_origins.with_copies((0, 1), copies)
  assert pairs == [(0, 2), (1, 3)]


def test_without_copies_pairs_are_kept_layers_alone():
  assert layer_origins.with_copies((0, 1), {}) == [(0, None), (1, None)]
