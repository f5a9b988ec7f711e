import pytest

from mslt_tf import written_numbers


@pytest.mark.parametrize(
  "seconds, expected",
  [
    (0, "0:00"),
    (0.4, "0:00"),
    (9, "0:09"),
    (59.6, "1:00"),
    (123, "2:03"),
    (3599.5, "1:00:00"),
    (3723, "1:02:03"),
    (40 * 3600 + 61, "40:01:01"),
  ],
)
def test_durations_read_as_a_clock_does(seconds, expected):
  assert written_numbers.duration(seconds) == expected
