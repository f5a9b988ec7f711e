"""Figures as a table's cells; what is not known is a dash. Pure."""

from typing import Any

_MISSING = "-"


def count(value: float | None) -> str:
  return _MISSING if value is None else f"{value:,.0f}"


def loss(value: float | None) -> str:
  """Returns nats."""
  return _MISSING if value is None else f"{value:.3f}"


def difference(value: float | None, other: float | None) -> str:
  """Returns nats, with a sign."""
  if value is None or other is None:
    return _MISSING
  return f"{value - other:+.3f}"


def percent(value: float | None) -> str:
  return _MISSING if value is None else f"{value:.1%}"


def ratio(value: float | None) -> str:
  return _MISSING if value is None else f"{value:.2f}"


def scientific(value: float | None) -> str:
  return _MISSING if value is None else f"{value:.3g}"


def duration(seconds: float | None) -> str:
  """Returns hours, minutes and seconds such as `1:02:03` or `2:03`."""
  if seconds is None:
    return _MISSING
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02}:{seconds:02}"
  return f"{minutes}:{seconds:02}"


def plain(value: Any) -> str:
  """Returns whatever a JSON file holds."""
  if value is None:
    return _MISSING
  if isinstance(value, list):
    return ", ".join(map(str, value))
  return str(value)
