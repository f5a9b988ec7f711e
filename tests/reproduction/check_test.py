"""When a repeated loss counts as the recorded one."""

import pytest

from mslt_tf import errors
from mslt_tf.analysis import recorded_run
from mslt_tf.glue import tables
from mslt_tf.reproduction import check


@pytest.mark.parametrize(
  ("loss", "expected"),
  [(4.79, False), (4.81, True), (5.1, True), (5.39, True), (5.41, False)],
)
def test_the_range_of_the_seeds_is_widened_by_itself(loss, expected):
  outcome = check.Outcome("mslt", 750, (5.0, 5.2, 5.1), loss)
  assert outcome.is_repeated is expected


def test_the_table_says_what_differs():
  table = check.as_table(
    [
      check.Outcome("baseline", 500, (5.0, 5.5), 5.25),
      check.Outcome("mslt", 750, (5.0, 5.5), 7.0),
    ]
  )
  assert table.rows == (
    ("baseline", "500", "5.000 5.500", "4.500 to 6.000", "5.250", "repeated"),
    ("mslt", "750", "5.000 5.500", "4.500 to 6.000", "7.000", "DIFFERS"),
  )
  assert "DIFFERS" in tables.as_text([table])


def make_run(name, loss):
  evaluations = tuple(
    {"stage": 1, "step": step, "mlm_loss": loss + step / 1000}
    for step in (250, 500, 750)
  )
  return recorded_run.RecordedRun(name, evaluations=evaluations)


def test_the_losses_of_the_seeds_are_those_where_mslt_has_grown():
  runs = {
    f"{name}_{seed}": make_run(f"{name}_{seed}", loss + seed)
    for name, loss in (("baseline", 5.0), ("mslt", 6.0))
    for seed in (0, 1)
  }
  assert check.recorded_losses(runs) == {
    "baseline": (5.5, 6.5),
    "mslt": (6.75, 7.75),
  }


def test_without_two_seeds_there_is_no_spread():
  with pytest.raises(errors.InputError) as error:
    check.recorded_losses({"baseline_0": make_run("baseline_0", 5.0)})
  assert str(error.value) == (
    "--check needs two recorded seeds of baseline to know their spread; there"
    " are 1."
  )
