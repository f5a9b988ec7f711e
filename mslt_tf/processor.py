"""The processor that a measurement was made on."""

import os
import platform


def describe(cpuinfo: str = "/proc/cpuinfo") -> str:
  """Returns the processor's name, where Linux tells it.

  With family and model, since virtual processors of several generations share
  a name.

  Args:
    cpuinfo: The file in which Linux tells it.
  """
  facts: dict[str, str] = {}
  try:
    with open(cpuinfo, encoding="utf-8") as file:
      for line in file:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
  except OSError:
    pass
  if "model name" not in facts:
    return platform.processor() or platform.machine()
  return (
    f"{facts['model name']}, family {facts.get('cpu family', '?')},"
    f" model {facts.get('model', '?')}"
  )


def num_cores() -> int:
  """Returns how many cores this process may run on.

  All of them, where the system does not tell.
  """
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
