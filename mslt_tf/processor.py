"""The processor that a measurement was made on."""

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
