"""Numbers and tables for a terminal of 100 columns."""

from collections.abc import Sequence

WIDTH = 100  # Columns of a terminal.


def significant(value: float) -> str:
  """Returns three digits, and all of those before the point."""
  if not value:
    return "0"
  return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def lines(rows: Sequence[Sequence[str]]) -> list[str]:
  """Returns aligned lines; the first column to the left."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    "  ".join(
      cell.ljust(width) if index == 0 else cell.rjust(width)
      for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  ]
