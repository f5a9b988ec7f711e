"""Tables from records whose means and ranges are known."""

import dataclasses

import pytest

from mslt_tf import costs
from mslt_tf import schedules
from mslt_tf.analysis import recorded_run
from mslt_tf.glue import results
from mslt_tf.glue import tasks
from mslt_tf.reproduction import experiments
from mslt_tf.reproduction import result_tables

SHAPE = costs.Shape(
  vocab_size=50,
  hidden_size=4,
  intermediate_size=8,
  max_positions=16,
  num_segments=2,
  sequence_length=16,
  max_predictions=2,
)
STEPS = experiments.NUM_STEPS


def make_run(name, loss, *, schedule=None, is_finished=True, step=STEPS):
  evaluation = {
    "stage": 1,
    "step": step,
    "mlm_loss": loss,
    "mlm_accuracy": 0.25,
    "nsp_accuracy": 0.75,
    "wall_seconds": 120.0,
    "train_seconds": 90.0,
  }
  return recorded_run.RecordedRun(
    name,
    evaluations=(evaluation,),
    step=step,
    wall_seconds=120.0,
    train_seconds=90.0,
    is_finished=is_finished,
    batch_size=2,
    shape=SHAPE,
    schedule=schedule or schedules.baseline(4, STEPS),
    unigram_mlm_loss=6.5,
    machine={"processor": "abacus", "cores": 3},
  )


def make_records(**losses):
  runs = {name: make_run(name, loss) for name, loss in losses.items()}
  return result_tables.Records(runs=runs)


@pytest.mark.parametrize(
  ("values", "expected"),
  [
    ([], "-"),
    ([5.0], "5.00 (one seed)"),
    ([5.0, 7.0, 6.0], "6.00 (5.00 to 7.00)"),
  ],
)
def test_a_cell_is_a_mean_with_its_range(values, expected):
  assert result_tables.spread(values, lambda x: f"{x:.2f}") == expected


@pytest.mark.parametrize(
  ("difference", "expected"),
  [
    (-0.625, "better"),
    (-0.5, "no effect"),
    (0.0, "no effect"),
    (0.5, "no effect"),
    (0.625, "worse"),
  ],
)
def test_less_than_twice_the_range_of_the_seeds_is_no_effect(
  difference, expected
):
  # The range is 0.25.
  seeds = [5.25, 5.0, 5.125]
  assert result_tables.judge([difference], seeds) == expected
  # A mean of four differences has half of the spread.
  halves = [difference, 0.0] * 2
  assert result_tables.judge(halves, seeds) == expected


def test_equal_steps_are_means_over_the_seeds_that_are_finished():
  records = make_records(baseline_0=5.0, baseline_1=5.5, mslt_0=5.75)
  records = dataclasses.replace(
    records,
    runs={
      **records.runs,
      "baseline_2": make_run("baseline_2", 9.0, is_finished=False),
    },
    benchmark={"mslt": {"schedule_speedup": 1.9}},
  )
  table = result_tables.all_tables(records)["equal_steps"]
  assert table.rows[0] == (
    "baseline",
    "3,000",
    "5.250 (5.000 to 5.500)",
    "",
    "25.0% (25.0% to 25.0%)",
    "75.0% (75.0% to 75.0%)",
    "1:30",
    "1.00",
    "bin/reproduce --only=baseline",
  )
  assert table.rows[1][2:4] == ("-", "-")  # No run of stacking.
  assert table.rows[2][2] == "5.750 (one seed)"
  # To the baseline's seed 0, and not to its mean.
  assert table.header[3] == "by seed, against baseline"
  assert table.rows[2][3] == "+0.750 (one seed)"
  assert table.rows[2][7] == "1.90 (1.00)"
  assert "loss of 6.500" in table.notes[0]


def test_equal_time_reads_the_cut_baseline_off_the_long_curve():
  steps = experiments.EQUAL_TIME_STEPS
  early = make_run("baseline_0", 6.0, step=steps).evaluations
  late = make_run("baseline_0", 5.0)
  cut = dataclasses.replace(late, evaluations=(*early, *late.evaluations))
  short = make_run("baseline_short_0", 5.5, step=steps)
  records = result_tables.Records(
    runs={"baseline_0": cut, "baseline_short_0": short}
  )
  rows = result_tables.all_tables(records)["equal_time"].rows
  assert [row[:3] for row in rows] == [
    ("MSLT, k = 4", "3,000", "-"),
    (
      "baseline, rate decayed over MSLT's time",
      f"{steps:,}",
      "5.500 (one seed)",
    ),
    ("baseline, cut from the long curve", f"{steps:,}", "6.000 (one seed)"),
    ("progressive stacking, rate decayed over MSLT's time", "1,900", "-"),
  ]
  assert [row[-1].partition("--only=")[2] for row in rows] == [
    "mslt",
    "baseline_short",
    "baseline_cut",
    "stacking_short",
  ]


@pytest.mark.parametrize(
  ("loss", "expected"),
  [
    (6.0, 1600),
    (5.0, 3000),
    # Half of the way down is the geometric mean.
    (5.5, (1600 * 3000) ** 0.5),
  ],
)
def test_steps_to_a_loss_are_read_off_a_line_through_two_runs(loss, expected):
  steps = result_tables.equal_loss_steps(loss, 6.0, 5.0)
  assert steps == pytest.approx(expected)


@pytest.mark.parametrize(
  ("loss", "short", "long"),
  [(6.0, 6.0, 6.0), (5.95, 5.9, 6.0), (6.1, 6.0, 5.0), (4.9, 6.0, 5.0)],
)
def test_a_loss_that_is_not_between_the_two_runs_tells_no_steps(
  loss, short, long
):
  assert result_tables.equal_loss_steps(loss, short, long) is None
  run = make_run("baseline_short_0", short, step=experiments.EQUAL_TIME_STEPS)
  records = make_records(baseline_0=long, mslt_0=loss)
  records = dataclasses.replace(
    records,
    runs={**records.runs, "baseline_short_0": run},
    benchmark={"mslt": {"schedule_speedup": 2.0}},
  )
  shown = result_tables.all_tables(records)
  assert not any("Equal loss" in each for each in shown["equal_time"].notes)


def test_the_headline_weighs_loss_against_time():
  short = make_run("baseline_short_0", 5.5, step=experiments.EQUAL_TIME_STEPS)
  records = make_records(baseline_0=5.0, mslt_0=5.25)
  records = dataclasses.replace(
    records,
    runs={**records.runs, "baseline_short_0": short},
    benchmark={
      "mslt": {"schedule_speedup": 2.0},
      "stacking": {"schedule_speedup": 1.25},
    },
  )
  assert result_tables.all_tables(records)["headline"].rows == (
    ("baseline", "3,000", "1.00", "5.000 (one seed)", ""),
    ("progressive stacking", "3,000", "0.80", "-", "-"),
    ("MSLT, k = 4", "3,000", "0.50", "5.250 (one seed)", "+0.250 (one seed)"),
    (
      "baseline, rate decayed over MSLT's time",
      "1,600",
      "0.53",
      "5.500 (one seed)",
      "+0.500 (one seed)",
    ),
    # 1,900 of 3,000 steps, a step 1.25 times as fast.
    (
      "progressive stacking, rate decayed over MSLT's time",
      "1,900",
      "0.51",
      "-",
      "-",
    ),
  )


def test_differences_are_between_runs_of_the_same_seed():
  records = make_records(
    baseline_0=5.0, baseline_1=6.0, mslt_0=5.25, mslt_1=6.5, mslt_2=9.0
  )
  row = result_tables.all_tables(records)["equal_steps"].rows[2]
  assert row[3] == "+0.375 (+0.250 to +0.500)"


def test_equal_loss_tells_what_mslt_saves_of_the_baselines_time():
  records = make_records(
    baseline_0=5.0, baseline_1=6.0, mslt_0=6.0, mslt_1=6.0, mslt_2=9.0
  )
  short = {
    name: make_run(name, loss, step=experiments.EQUAL_TIME_STEPS)
    for name, loss in (("baseline_short_0", 6.0), ("baseline_short_1", 7.0))
  }
  records = dataclasses.replace(
    records,
    runs={**records.runs, **short},
    benchmark={"mslt": {"schedule_speedup": 2.0}},
  )
  shown = result_tables.all_tables(records)
  # 3,000 steps at twice the speed take the time of 1,500.
  note = shown["equal_time"].notes[-1]
  assert "to MSLT's loss in 2,191 steps" in note
  # By seed 1,600 and 3,000; together half of the way down the line.
  assert "MSLT saves 32%; seed by seed, 6% to 50%" in note
  # By FLOPs all are as fast; of the two seeds that the baselines have too,
  # MSLT's mean loss is half of the way down.
  assert shown["ablations"].rows[0][7:9] == ("1.00", "-37%")


def test_ablations_tell_what_they_save_at_equal_loss():
  short = make_run("baseline_short_0", 6.0, step=experiments.EQUAL_TIME_STEPS)
  records = make_records(
    baseline_0=5.0, mslt_0=5.5, six_stages_0=6.5, two_stages_0=4.5
  )
  records = dataclasses.replace(
    records, runs={**records.runs, "baseline_short_0": short}
  )
  rows = {
    row[1]: row[7:9]
    for row in result_tables.all_tables(records)["ablations"].rows
  }
  # All are runs of the baseline's schedule, and as fast; 1 - 3000 / 2191.
  assert rows["MSLT, k = 4"] == ("1.00", "-37%")
  # Worth fewer steps than 1,600, and more than 3,000.
  assert rows["k = 6"] == ("1.00", "under -88%")
  assert rows["k = 2"] == ("1.00", "over 0%")
  assert rows["12 from the first step to the last, all trained"] == (
    "1.00",
    "0%",
  )


def test_two_baselines_that_are_as_good_tell_no_saving():
  short = make_run("baseline_short_0", 5.0, step=experiments.EQUAL_TIME_STEPS)
  records = make_records(baseline_0=5.0, mslt_0=5.0)
  records = dataclasses.replace(
    records, runs={**records.runs, "baseline_short_0": short}
  )
  assert result_tables.all_tables(records)["ablations"].rows[0][8] == "-"


def test_fine_tuning_stands_in_the_row_of_what_was_fine_tuned():
  def summary(checkpoint, score):
    rate = results.RateSummary(3e-4, {1: score})
    return results.Summary(
      task=tasks.REVIEWS,
      checkpoint=checkpoint,
      rates=(rate,),
      best=rate,
      metrics={},
      num_expected=1,
      constant_score=0.5,
      threshold=0.54,
      results=(),
    )

  records = dataclasses.replace(
    make_records(baseline_0=5.0, baseline_1=5.0, mslt_0=5.0),
    fine_tuning=[
      summary("baseline_0", 0.7),
      summary("baseline_1", 0.8),
      summary("mslt_0", 0.53),
      summary("baseline_cut_0", 0.55),
    ],
  )
  shown = result_tables.all_tables(records)
  assert shown["equal_steps"].header[-2] == tasks.REVIEWS.title
  assert [row[-2] for row in shown["equal_steps"].rows] == [
    "75.0 (70.0 to 80.0)",
    "-",
    "53.0 (one seed)*",
  ]
  assert [row[-2] for row in shown["equal_time"].rows] == [
    "53.0 (one seed)*",
    "-",
    "55.0 (one seed)",
    "-",
  ]
  note = shown["equal_steps"].notes[-1]
  assert note.startswith("Fine-tuning: one run for each")
  assert note.endswith(f": {tasks.REVIEWS.title}, accuracy, 50.0 and 54.0.")


def test_equal_time_tells_the_steps_that_the_measured_speedups_give():
  records = dataclasses.replace(
    make_records(mslt_0=5.0),
    benchmark={
      "mslt": {"schedule_speedup": 1.5},
      "stacking": {"schedule_speedup": 1.2},
    },
  )
  table = result_tables.all_tables(records)["equal_time"]
  assert table.notes[-1] == (
    "By these speedups the time of MSLT's 3,000 steps is that of 2,000 of the"
    " baseline's and 2,400 of stacking's; the runs were given 1,600 and 1,900."
  )
  assert [row[7] for row in table.rows] == ["1.50 (1.00)", "-", "-", "1.20 (-)"]


def test_ablations_are_judged_by_the_spread_of_mslts_seeds():
  records = make_records(
    mslt_0=5.0,
    mslt_1=5.25,
    mslt_2=5.5,
    six_stages_0=6.25,
    no_retraining_0=5.5,
    three_layers_0=3.0,
    three_layers_1=4.25,
  )
  rows = {
    row[1]: row[2:5]
    for row in result_tables.all_tables(records)["ablations"].rows
  }
  assert rows["MSLT, k = 4"] == (
    "5.250 (5.000 to 5.500)",
    "",
    "",
  )
  # Against seed 0; the seeds' range is 0.5.
  assert rows["0 %"] == (
    "5.500 (one seed)",
    "+0.500 (one seed)",
    "no effect",
  )
  assert rows["k = 6"] == (
    "6.250 (one seed)",
    "+1.250 (one seed)",
    "worse",
  )
  # Two seeds, and the mean of their differences.
  assert rows["3 from the first step to the last, all trained"] == (
    "3.625 (3.000 to 4.250)",
    "-1.500 (-2.000 to -1.000)",
    "better",
  )
  assert "k = 2" not in rows  # Not run yet.


def test_speedups_of_shallow_models_are_over_the_deep_baseline():
  records = result_tables.Records(
    runs={
      "mslt_0": make_run("mslt_0", 5.0),
      "three_layers_0": make_run(
        "three_layers_0", 5.0, schedule=schedules.baseline(1, STEPS)
      ),
    }
  )
  deep, shallow = (
    costs.schedule_cost(SHAPE, schedules.baseline(layers, STEPS))
    for layers in (4, 1)
  )
  ratio = deep.flops_per_example / shallow.flops_per_example
  assert ratio > 2
  rows = result_tables.all_tables(records)["ablations"].rows
  assert rows[0][7] == "1.00"
  assert rows[1][0] == "layers (MSLT: 3, 6, 9, 12)"
  assert rows[1][1:3] == (
    "3 from the first step to the last, all trained",
    "5.000 (one seed)",
  )
  assert rows[1][7] == f"{ratio:.2f}"
  assert rows[1][9] == "bin/reproduce --only=three_layers"


@pytest.mark.parametrize("other_seeds", [{}, {"mslt_1": 5.0}])
def test_beside_fewer_than_all_seeds_there_is_no_judgement(other_seeds):
  records = make_records(mslt_0=5.0, six_stages_0=5.01, **other_seeds)
  rows = result_tables.all_tables(records)["ablations"].rows
  (row,) = (row for row in rows if row[1] == "k = 6")
  assert row[2:5] == ("5.010 (one seed)", "+0.010 (one seed)", "")


def test_attention_shows_means_over_heads_by_layer():
  content = {
    "comparisons": [
      {"before": 1, "after": 2, "same_layer": [], "grown": []},
      {
        "before": 2,
        "after": 3,
        "same_layer": [
          {"layer": 0, "heads": [0.1, 0.3]},
          {"layer": 1, "heads": [0.5, 0.5]},
        ],
        "grown": [{"layer": 1, "copy_of": 0, "heads": [0.25, 0.75]}],
        "other_heads": 0.6,
      },
    ]
  }
  records = result_tables.Records(runs={}, attention={"mslt_0": content})
  table = result_tables.all_tables(records)["attention"]
  assert table.header == (
    "layer",
    "mslt_0: the same layer in stage 2 and 3",
    "mslt_0: a layer and what began as its copy, in stage 2 and 3",
    "mslt_0: two heads of a layer, mean",
  )
  assert table.rows == (
    ("0", "0.200", "", ""),
    ("1", "0.500", "0.500", ""),
    ("all", "", "", "0.600"),
  )


def test_the_data_set_is_told_by_its_size():
  facts = {
    "num_documents": 1009,
    "num_sentences": 15_592,
    "num_tokens": 413_968,
    "num_examples": 7_999,
  }
  records = result_tables.Records(runs={}, data={"heldout": facts})
  table = result_tables.all_tables(records)["data"]
  assert table.header == ("", "documents", "sentences", "tokens", "examples")
  assert table.rows == (("heldout", "1,009", "15,592", "413,968", "7,999"),)


def test_every_run_has_its_time_machine_and_command():
  table = result_tables.all_tables(make_records(mslt_1=5.125))["runs"]
  assert table.rows == (
    (
      "mslt_1",
      "5.125",
      "2:00",
      "1:30",
      "abacus",
      "3",
      "bin/reproduce --only=mslt_1",
    ),
  )
