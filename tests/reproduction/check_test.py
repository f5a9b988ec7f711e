"""When a repeated loss counts as the recorded one."""

import pytest

from mslt_tf import errors
from mslt_tf.analysis import recorded_run
from mslt_tf.glue import tables
from mslt_tf.reproduction import check
from mslt_tf.reproduction import jobs


@pytest.mark.parametrize(
  ("loss", "expected"),
  [(4.79, False), (4.81, True), (5.1, True), (5.39, True), (5.41, False)],
)
def test_the_range_of_the_seeds_is_widened_by_itself(loss, expected):
  outcome = check.Outcome("mslt", (5.0, 5.2, 5.1), loss)
  assert outcome.allowed == pytest.approx((4.8, 5.4))
  assert outcome.is_repeated is expected


def test_the_table_says_what_differs():
  table = check.as_table(
    [
      check.Outcome("baseline", (5.0, 5.5), 5.25),
      check.Outcome("mslt", (5.0, 5.5), 7.0),
    ]
  )
  assert table.rows == (
    ("baseline", "5.000 5.500", "4.500 to 6.000", "5.250", "repeated"),
    ("mslt", "5.000 5.500", "4.500 to 6.000", "7.000", "DIFFERS"),
  )
  assert "DIFFERS" in tables.as_text([table])


def test_without_two_seeds_there_is_no_spread(tmp_path):
  evaluation = {"stage": 1, "step": check.STEP, "mlm_loss": 5.0}
  run = recorded_run.RecordedRun("baseline_0", evaluations=(evaluation,))
  with pytest.raises(errors.InputError) as error:
    check.run(
      jobs.Workdir(str(tmp_path)), {"baseline_0": run}, str(tmp_path / "logs")
    )
  assert str(error.value) == (
    "--check needs two recorded seeds of baseline to know their spread; there"
    " are 1."
  )
