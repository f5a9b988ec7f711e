"""What the reproduction trains, read as bin/pretrain.py reads it."""

import pathlib

from mslt_tf import config as config_lib
from mslt_tf.reproduction import experiments

CONFIG = pathlib.Path(__file__).parents[2] / "configs/reproduction.yaml"


def load(run):
  return config_lib.load(
    CONFIG.read_text(), source="reproduction.yaml", overrides=run.settings
  )


def test_the_main_comparison_has_each_method_with_three_seeds():
  assert [run.name for run in experiments.main_runs()] == [
    "baseline_0",
    "stacking_0",
    "mslt_0",
    "baseline_short_0",
    "baseline_1",
    "stacking_1",
    "mslt_1",
    "baseline_short_1",
    "baseline_2",
    "stacking_2",
    "mslt_2",
    "baseline_short_2",
  ]


def test_every_question_is_answered():
  assert [(each.question, each.title) for each in experiments.ABLATIONS] == [
    ("layers", "3 from the first step to the last, all trained"),
    ("share of retraining", "0 %"),
    ("share of retraining", "10 %"),
    ("share of retraining", "40 %"),
    ("growing stages", "k = 2"),
    ("growing stages", "k = 3"),
    ("growing stages", "k = 6"),
    ("new layers", "random"),
    ("word embeddings in stages 2 to k", "trained, as the output matrix"),
    ("learning rate", "a warmup and decay in every stage"),
    ("optimizer's state at growth", "carried"),
    ("dropout in the frozen part", "on"),
    ("peak rate", "0.005"),
    ("peak rate", "0.02"),
  ]
  assert set(experiments.DEFAULTS) == {
    each.question for each in experiments.ABLATIONS
  }


def test_all_runs_but_the_short_ones_have_as_many_steps_and_layers():
  for run in [*experiments.main_runs(), *experiments.other_runs()]:
    config = load(run)
    short = {"baseline_short": 1600, "stacking_short": 1900}
    expected = short.get(run.experiment.name, 3000)
    assert config.schedule.num_steps == expected, run.name
    layers = 3 if run.experiment.name == "three_layers" else 12
    assert config.schedule.stages[-1].num_layers == layers, run.name
    assert config.training.seed == run.seed


def test_the_baseline_keeps_its_weights_at_equal_time():
  config = load(experiments.Run(experiments.BASELINE, 0))
  ends = config.schedule.stage_ends
  assert ends[experiments.CUT_STAGE - 1] == experiments.EQUAL_TIME_STEPS
  assert all(
    stage.num_frozen_layers == 0 and stage.num_layers == 12
    for stage in config.schedule.stages
  )


def test_an_ablation_differs_from_mslt_in_what_it_asks():
  configs = {
    each.name: load(experiments.Run(each, 0)) for each in experiments.ABLATIONS
  }
  mslt = load(experiments.Run(experiments.MSLT, 0))
  stages = mslt.schedule.stages
  assert [stage.num_layers for stage in stages] == [3, 6, 9, 12, 12]
  shares = {
    name: configs[name].schedule.stages[-1].num_steps / 3000
    for name in ("retraining_10", "retraining_40")
  }
  assert shares == {"retraining_10": 0.1, "retraining_40": 0.4}
  assert [
    (stage.num_layers, stage.num_frozen_layers)
    for stage in configs["three_layers"].schedule.stages
  ] == [(3, 0)]
  assert configs["no_retraining"].schedule.stages[-1].num_frozen_layers == 9
  assert [
    [stage.num_layers for stage in configs[name].schedule.stages]
    for name in ("two_stages", "three_stages", "six_stages")
  ] == [[6, 12, 12], [4, 8, 12, 12], [2, 4, 6, 8, 10, 12, 12]]
  assert configs["random_layers"].schedule.stages[1].source_layers == (
    *(0, 1, 2),
    *(None, None, None),
  )
  assert configs["words_trained"].schedule.stages[1].embeddings == "words"
  assert configs["stage_curve"].optimizer.curve == "stage"
  assert configs["carried_state"].optimizer.state_at_growth == "carried"
  rates = {
    name: configs[name].optimizer.peak_learning_rate
    for name in ("half_rate", "double_rate")
  }
  assert rates == {"half_rate": 0.005, "double_rate": 0.02}
  assert mslt.optimizer.peak_learning_rate == 0.01
  assert configs["dropout_when_frozen"].model.dropout_when_frozen
