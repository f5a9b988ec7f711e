"""The stages of every method, and the schedules that are refused."""

import pytest

from mslt_tf import errors
from mslt_tf import schedules
from mslt_tf.schedules import Stage

NEW_3 = (None, None, None)
NEW_6 = (None, None, None, None, None, None)


def _steps(schedule: schedules.Schedule) -> list[int]:
  return [stage.num_steps for stage in schedule.stages]


def _up_to(num_layers: int) -> tuple[int, ...]:
  return tuple(range(num_layers))


def test_mslt_of_base_is_the_papers_table():
  schedule = schedules.mslt(12, 1_000_000, num_growing_stages=4)
  assert schedule.stages == (
    Stage(
      num_layers=3,
      num_steps=200_000,
      source_layers=NEW_3,
      num_frozen_layers=0,
      freeze_embeddings=False,
    ),
    Stage(
      num_layers=6,
      num_steps=200_000,
      source_layers=(0, 1, 2, 0, 1, 2),
      num_frozen_layers=3,
      freeze_embeddings=True,
    ),
    Stage(
      num_layers=9,
      num_steps=200_000,
      source_layers=(0, 1, 2, 3, 4, 5, 3, 4, 5),
      num_frozen_layers=6,
      freeze_embeddings=True,
    ),
    Stage(
      num_layers=12,
      num_steps=200_000,
      source_layers=(0, 1, 2, 3, 4, 5, 6, 7, 8, 6, 7, 8),
      num_frozen_layers=9,
      freeze_embeddings=True,
    ),
    Stage(
      num_layers=12,
      num_steps=200_000,
      source_layers=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
      num_frozen_layers=0,
      freeze_embeddings=False,
    ),
  )


def test_mslt_of_large_is_the_papers_table():
  schedule = schedules.mslt(24, 1_000_000, num_growing_stages=4)
  assert schedule.stages == (
    Stage(
      num_layers=6,
      num_steps=200_000,
      source_layers=NEW_6,
      num_frozen_layers=0,
      freeze_embeddings=False,
    ),
    Stage(
      num_layers=12,
      num_steps=200_000,
      source_layers=(*_up_to(6), 0, 1, 2, 3, 4, 5),
      num_frozen_layers=6,
      freeze_embeddings=True,
    ),
    Stage(
      num_layers=18,
      num_steps=200_000,
      source_layers=(*_up_to(12), 6, 7, 8, 9, 10, 11),
      num_frozen_layers=12,
      freeze_embeddings=True,
    ),
    Stage(
      num_layers=24,
      num_steps=200_000,
      source_layers=(*_up_to(18), 12, 13, 14, 15, 16, 17),
      num_frozen_layers=18,
      freeze_embeddings=True,
    ),
    Stage(
      num_layers=24,
      num_steps=200_000,
      source_layers=_up_to(24),
      num_frozen_layers=0,
      freeze_embeddings=False,
    ),
  )


def test_mslt_may_put_random_layers_on_top():
  schedule = schedules.mslt(
    6, 100, num_growing_stages=3, new_layers="random", retraining_share=0.4
  )
  assert [stage.source_layers for stage in schedule.stages] == [
    (None, None),
    (0, 1, None, None),
    (0, 1, 2, 3, None, None),
    (0, 1, 2, 3, 4, 5),
  ]


def test_mslt_may_go_on_training_the_word_table():
  schedule = schedules.mslt(
    4, 100, num_growing_stages=2, freeze_embeddings=False
  )
  assert [
    (stage.num_frozen_layers, stage.freeze_embeddings)
    for stage in schedule.stages
  ] == [(0, False), (2, False), (0, False)]


@pytest.mark.parametrize(
  ("num_frozen_layers", "freeze_embeddings", "expected"),
  [
    (0, False, "trained"),
    (0, True, "frozen"),
    (1, True, "frozen"),
    (1, False, "words"),
  ],
)
def test_what_of_the_embeddings_a_stage_trains(
  num_frozen_layers, freeze_embeddings, expected
):
  stage = Stage(2, 5, (None, None), num_frozen_layers, freeze_embeddings)
  assert stage.embeddings == expected


def test_stacking_is_gongs():
  schedule = schedules.progressive_stacking(12, 400_000)
  assert schedule.stages == (
    Stage(
      num_layers=3,
      num_steps=50_000,
      source_layers=NEW_3,
      num_frozen_layers=0,
      freeze_embeddings=False,
    ),
    Stage(
      num_layers=6,
      num_steps=70_000,
      source_layers=(0, 1, 2, 0, 1, 2),
      num_frozen_layers=0,
      freeze_embeddings=False,
    ),
    Stage(
      num_layers=12,
      num_steps=280_000,
      source_layers=(0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5),
      num_frozen_layers=0,
      freeze_embeddings=False,
    ),
  )


def test_stacking_from_6_to_12_layers():
  schedule = schedules.progressive_stacking(12, 1_000, stage_shares=[0.3, 0.7])
  assert schedule.stages == (
    Stage(6, 300, NEW_6),
    Stage(12, 700, (0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5)),
  )


def test_baseline_is_one_stage_that_trains_everything():
  schedule = schedules.baseline(3, 7)
  assert schedule.stages == (
    Stage(
      num_layers=3,
      num_steps=7,
      source_layers=NEW_3,
      num_frozen_layers=0,
      freeze_embeddings=False,
    ),
  )


def test_stages_meet_where_one_ends_and_the_next_starts():
  schedule = schedules.progressive_stacking(12, 400_000)
  assert schedule.stage_starts == (0, 50_000, 120_000)
  assert schedule.stage_ends == (50_000, 120_000, 400_000)
  assert schedule.num_steps == 400_000


def test_one_growing_stage_is_a_baseline_and_retraining():
  schedule = schedules.mslt(5, 100, num_growing_stages=1)
  assert schedule.stages == (
    Stage(5, 80, (None,) * 5),
    Stage(5, 20, (0, 1, 2, 3, 4)),
  )


def test_retraining_share_of_0_leaves_the_stage_out():
  schedule = schedules.mslt(6, 90, num_growing_stages=3, retraining_share=0.0)
  assert schedule.stages == (
    Stage(2, 30, (None, None)),
    Stage(4, 30, (0, 1, 0, 1), 2, True),
    Stage(6, 30, (0, 1, 2, 3, 2, 3), 4, True),
  )


@pytest.mark.parametrize(
  "num_steps, expected",
  [
    (7, [1, 2, 1, 2, 1]),  # Borders 1.4, 2.8, 4.2, 5.6.
    (13, [3, 2, 3, 2, 3]),  # Borders 2.6, 5.2, 7.8, 10.4.
    (1_000_003, [200_001, 200_000, 200_001, 200_000, 200_001]),
  ],
)
def test_rounding_of_mslt_keeps_the_sum(num_steps, expected):
  schedule = schedules.mslt(12, num_steps, num_growing_stages=4)
  assert _steps(schedule) == expected
  assert sum(expected) == num_steps


def test_rounding_of_stacking_keeps_the_sum():
  schedule = schedules.progressive_stacking(12, 1_003)
  assert _steps(schedule) == [125, 176, 702]  # Borders 125.4 and 300.9.


def test_shares_that_sum_to_nearly_1_lose_no_step():
  schedule = schedules.progressive_stacking(
    4, 30_000_000, stage_shares=[0.3333333, 0.3333333, 0.3333333]
  )
  assert _steps(schedule) == [9_999_999, 9_999_999, 10_000_002]


@pytest.mark.parametrize(
  "build, message",
  [
    (
      lambda: schedules.mslt(12, 100, num_growing_stages=5),
      "num_layers=12 is not divisible by num_growing_stages=5.",
    ),
    (
      lambda: schedules.mslt(12, 100, num_growing_stages=0),
      "num_growing_stages=0 must be at least 1.",
    ),
    (
      lambda: schedules.mslt(
        12, 100, num_growing_stages=4, retraining_share=1.0
      ),
      "retraining_share=1.0 must be at least 0 and below 1.",
    ),
    (
      lambda: schedules.mslt(
        12, 100, num_growing_stages=4, retraining_share=-0.1
      ),
      "retraining_share=-0.1 must be at least 0 and below 1.",
    ),
    (
      lambda: schedules.mslt(
        12, 100, num_growing_stages=4, retraining_share=float("nan")
      ),
      "retraining_share=nan must be at least 0 and below 1.",
    ),
    (
      lambda: schedules.mslt(12, 4, num_growing_stages=4),
      "num_steps=4 is too few: stage 3 of 5 gets 0 of them; the rule is at"
      " least 1.",
    ),
    (
      lambda: schedules.mslt(12, -100, num_growing_stages=4),
      "num_steps=-100 is too few: stage 1 of 5 gets -20 of them; the rule is at"
      " least 1.",
    ),
    (
      lambda: schedules.baseline(12, 0),
      "stage 1: num_steps=0 must be at least 1.",
    ),
    (
      lambda: schedules.baseline(0, 100),
      "stage 1: num_layers=0 must be at least 1.",
    ),
    (
      lambda: schedules.progressive_stacking(10, 100),
      "num_layers=10 cannot be reached by doubling 2 times; it must be 4 or a"
      " multiple of that.",
    ),
    (
      lambda: schedules.progressive_stacking(0, 100),
      "num_layers=0 cannot be reached by doubling 2 times; it must be 4 or a"
      " multiple of that.",
    ),
    (
      lambda: schedules.progressive_stacking(12, 100, stage_shares=[0.5, 0.25]),
      "stage_shares=[0.5, 0.25] sum to 0.75, not to 1.",
    ),
    (
      lambda: schedules.progressive_stacking(12, 100, stage_shares=[]),
      "stage_shares=[] must be one or more shares above 0.",
    ),
    (
      lambda: schedules.progressive_stacking(12, 100, stage_shares=[1.5, -0.5]),
      "stage_shares=[1.5, -0.5] must be one or more shares above 0.",
    ),
    (
      lambda: schedules.progressive_stacking(12, 100, stage_shares=[0.0, 1.0]),
      "stage_shares=[0.0, 1.0] must be one or more shares above 0.",
    ),
    (
      lambda: schedules.progressive_stacking(
        12, 100, stage_shares=[float("nan"), 1.0]
      ),
      "stage_shares=[nan, 1.0] must be one or more shares above 0.",
    ),
  ],
)
def test_a_method_names_the_argument_that_does_not_fit(build, message):
  with pytest.raises(errors.InputError) as error:
    build()
  assert str(error.value) == message


@pytest.mark.parametrize(
  "stages, message",
  [
    ([], "stages=[] holds no stage; at least one is needed."),
    (
      [Stage(0, 5, ())],
      "stage 1: num_layers=0 must be at least 1.",
    ),
    (
      [Stage(2, 5, (None, None)), Stage(2, 0, (0, 1))],
      "stage 2: num_steps=0 must be at least 1.",
    ),
    (
      [Stage(3, 5, (None, None))],
      "stage 1: source_layers=[None, None] names 2 layers; num_layers=3.",
    ),
    (
      [Stage(3, 5, (None, 0, None))],
      "stage 1: source_layers[1]=0 does not exist; no stage comes before, so it"
      " must be null.",
    ),
    (
      [Stage(2, 5, (None, None)), Stage(3, 5, (0, 1, 2))],
      "stage 2: source_layers[2]=2 does not exist; the stage before has layers"
      " 0 to 1.",
    ),
    (
      [Stage(2, 5, (None, None)), Stage(3, 5, (-1, 0, 1))],
      "stage 2: source_layers[0]=-1 does not exist; the stage before has layers"
      " 0 to 1.",
    ),
    (
      [Stage(2, 5, (None, None), 3, True)],
      "stage 1: num_frozen_layers=3 must be between 0 and num_layers=2.",
    ),
    (
      [Stage(2, 5, (None, None), -1, True)],
      "stage 1: num_frozen_layers=-1 must be between 0 and num_layers=2.",
    ),
    (
      [Stage(1, 5, (None,)), Stage(3, 5, (0, None, None), 2, True)],
      "stage 2: num_frozen_layers=2 freezes layer 1, whose weights are random.",
    ),
    (
      [Stage(2, 5, (None, None), 0, True)],
      "stage 1: freeze_embeddings=true freezes embeddings whose weights are"
      " random.",
    ),
  ],
)
def test_a_schedule_names_the_stage_and_field_that_do_not_fit(stages, message):
  with pytest.raises(errors.InputError) as error:
    schedules.Schedule(tuple(stages))
  assert str(error.value) == message


def test_a_later_stage_may_add_random_layers():
  schedule = schedules.Schedule(
    (Stage(1, 5, (None,)), Stage(3, 7, (None, 0, None)))
  )
  assert schedule.num_steps == 12


def test_mslt_over_a_model_leaves_out_the_stages_it_stands_for():
  schedule = schedules.mslt(12, 1_000, num_growing_stages=2, initial_layers=6)
  assert schedule.initial_layers == 6
  assert schedule.stages == (
    Stage(
      num_layers=12,
      num_steps=800,
      source_layers=(0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5),
      num_frozen_layers=6,
      freeze_embeddings=True,
    ),
    Stage(12, 200, _up_to(12)),
  )


def test_mslt_over_a_model_of_two_stages_shares_the_steps_among_the_rest():
  schedule = schedules.mslt(12, 1_000, num_growing_stages=4, initial_layers=6)
  assert _steps(schedule) == [400, 400, 200]
  assert [stage.num_layers for stage in schedule.stages] == [9, 12, 12]
  assert schedule.stages[0].source_layers == (0, 1, 2, 3, 4, 5, 3, 4, 5)
  assert schedule.stages[1].source_layers == (*range(9), 6, 7, 8)


@pytest.mark.parametrize("initial_layers", [-3, 0, 4, 12, 15])
def test_mslt_over_a_model_of_another_depth_is_refused(initial_layers):
  with pytest.raises(errors.InputError) as error:
    schedules.mslt(
      12, 1_000, num_growing_stages=4, initial_layers=initial_layers
    )
  assert f"initial_layers={initial_layers} must be a multiple of 3" in str(
    error.value
  )


def test_a_baseline_trains_a_model_on():
  schedule = schedules.baseline(3, 7, initial_layers=3)
  assert schedule == schedules.Schedule((Stage(3, 7, (0, 1, 2)),), 3)
  with pytest.raises(errors.InputError, match="initial_layers=2 must be"):
    schedules.baseline(3, 7, initial_layers=2)


def test_the_first_stage_copies_only_layers_that_the_model_has():
  stages = (Stage(2, 5, (0, 3)),)
  with pytest.raises(errors.InputError, match=r"source_layers\[1\]=3 does not"):
    schedules.Schedule(stages, initial_layers=3)
  schedules.Schedule(stages, initial_layers=4)
  with pytest.raises(errors.InputError, match="initial_layers=0 must be at"):
    schedules.Schedule(stages, initial_layers=0)


def test_growing_stages_of_mslt_can_differ_in_length():
  schedule = schedules.mslt(
    6,
    90,
    num_growing_stages=3,
    retraining_share=0.2,
    growing_shares=[0.5, 0.1, 0.2],
  )
  assert [stage.num_steps for stage in schedule.stages] == [45, 9, 18, 18]
  assert [stage.num_layers for stage in schedule.stages] == [2, 4, 6, 6]


@pytest.mark.parametrize(
  ("shares", "message"),
  [
    ([0.4, 0.4], "has 2 shares; the growing stages are 3"),
    (
      [0.4, 0.3, 0.2],
      r"growing_shares=\[0\.4, 0\.3, 0\.2\] and retraining_share=0\.2 sum to"
      r" 1\.1, not to 1",
    ),
    (
      [0.8, 0.0, 0.0],
      r"growing_shares=\[0\.8, 0\.0, 0\.0\] and retraining_share=0\.2 must be",
    ),
  ],
)
def test_growing_shares_fit_the_stages(shares, message):
  with pytest.raises(errors.InputError, match=message):
    schedules.mslt(6, 90, num_growing_stages=3, growing_shares=shares)
