"""What a cluster can do, read from a YAML file."""

import dataclasses
import math
from collections.abc import Sequence

from mslt_tf import config as config_lib
from mslt_tf import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
  """Equal machines of equal devices. Units are bytes, seconds and FLOP/s.

  Raises `InputError` for values that no cluster could have.

  Attributes:
    num_devices: Each has a copy of the model and a share of the batch.
    devices_per_machine: Fewer are used of the last machine, if they must be.
    peak_flops_float32: Of a device, by `training.precision`; `None` where the
      device does not compute in it.
    achieved_share_float32: Of this peak, by the matrix products' FLOPs over the
      time of forward and backward pass.
    memory_bytes: Of a device.
    reserved_memory_bytes: What the framework takes of it.
    memory_bandwidth: Between a device and its memory.
    device_link_bandwidth: From a device to the next in its machine.
    machine_link_bandwidth: From a machine to the next, for all its devices.
    link_latency: Seconds of one hop of the all-reduce's ring.
    overlap: The share of an all-reduce that the backward pass can hide.
    input_examples_per_second: What a machine reads and prepares.
    price_per_machine_hour: In any currency. Machines are paid for whole.
  """

  num_devices: int
  devices_per_machine: int
  peak_flops_float32: float | None = None
  peak_flops_mixed_float16: float | None = None
  peak_flops_mixed_bfloat16: float | None = None
  achieved_share_float32: float | None = None
  achieved_share_mixed_float16: float | None = None
  achieved_share_mixed_bfloat16: float | None = None
  memory_bytes: float
  reserved_memory_bytes: float = 0.0
  memory_bandwidth: float
  device_link_bandwidth: float
  machine_link_bandwidth: float
  link_latency: float
  overlap: float = 0.0
  input_examples_per_second: float
  price_per_machine_hour: float = 0.0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value is not None:
        _check(field.name, value)
    if not self.peaks:
      raise errors.InputError(
        "the cluster has no peak_flops_float32, peak_flops_mixed_float16 or"
        " peak_flops_mixed_bfloat16; it needs one."
      )
    for precision in _PRECISIONS:
      peak, share = f"peak_flops_{precision}", f"achieved_share_{precision}"
      for one, other in ((peak, share), (share, peak)):
        if getattr(self, one) is not None and getattr(self, other) is None:
          raise errors.InputError(f"{other} is missing; {one} needs it.")

  @property
  def peaks(self) -> tuple[float, ...]:
    """The known peaks, FLOP/s of a device, of whatever precision."""
    known = (getattr(self, f"peak_flops_{name}") for name in _PRECISIONS)
    return tuple(peak for peak in known if peak is not None)

  @property
  def num_machines(self) -> int:
    return math.ceil(self.num_devices / self.devices_per_machine)

  @property
  def price_per_hour(self) -> float:
    return self.num_machines * self.price_per_machine_hour

  def achieved_flops(self, precision: str) -> float:
    """Returns what a device achieves at a `training.precision`, FLOP/s."""
    peak = getattr(self, f"peak_flops_{precision}")
    if peak is None:
      raise errors.InputError(
        f"the cluster's peak_flops_{precision} is missing; the config has"
        f" training.precision={precision}."
      )
    return peak * getattr(self, f"achieved_share_{precision}")


def load(text: str, *, source: str, overrides: Sequence[str] = ()) -> Cluster:
  """Reads a cluster from YAML.

  Args:
    text: YAML text.
    source: What to call the text in errors, such as its path.
    overrides: `field=value` settings that replace fields of the text.

  Raises:
    InputError: naming `source` and the field.
  """
  return config_lib.load_flat(
    Cluster, text, source=source, overrides=overrides, flag="--set_cluster"
  )


def numbers_of_devices(texts: Sequence[str]) -> list[int]:
  """Returns whole numbers above 0 from text; raises `InputError`."""
  for text in texts:
    if not (text.isdecimal() and int(text)):
      raise errors.InputError(f"devices={text} must be a whole number above 0.")
  return [int(text) for text in texts]


_MAY_BE_ZERO = {
  "reserved_memory_bytes", "link_latency", "overlap", "price_per_machine_hour",
}  # fmt: skip
_PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
_SHARES = {*(f"achieved_share_{name}" for name in _PRECISIONS), "overlap"}


def _check(name: str, value: float) -> None:
  if name in _MAY_BE_ZERO:
    is_right, rule = 0 <= value < math.inf, "at least 0 and finite"
  else:
    is_right, rule = 0 < value < math.inf, "above 0 and finite"
  if name in _SHARES and value > 1:
    is_right, rule = False, "at most 1"
  if not is_right:
    raise errors.InputError(f"{name}={value} must be {rule}.")
