"""The time of a training step as a sum of named terms."""

import dataclasses

from mslt_tf import costs
from mslt_tf import errors
from mslt_tf.planning import cluster as cluster_lib


@dataclasses.dataclass(frozen=True)
class Rates:
  """How fast a device computes and updates.

  Attributes:
    forward: FLOP/s of the forward pass of what is trained, and of the heads.
    frozen_forward: FLOP/s of frozen layers.
    backward: FLOP/s of the backward pass.
    update_seconds_per_weight: Of the optimizer, clipping and casts with it.
  """

  forward: float
  frozen_forward: float
  backward: float
  update_seconds_per_weight: float


@dataclasses.dataclass(frozen=True)
class StepTime:
  """Seconds of a step; its terms follow one another.

  Attributes:
    forward: Of what is trained, and of the heads.
    frozen_forward: Of frozen layers.
    backward: Of what is trained.
    all_reduce: What the backward pass does not hide of it.
    update: Every device updates all that is trained.
    input_wait: What reading the examples takes longer than all the rest.
    hidden_all_reduce: What the backward pass does hide; not in `seconds`.
  """

  forward: float
  frozen_forward: float
  backward: float
  all_reduce: float
  update: float
  input_wait: float
  hidden_all_reduce: float

  @property
  def seconds(self) -> float:
    return (
      self.forward
      + self.frozen_forward
      + self.backward
      + self.all_reduce
      + self.update
      + self.input_wait
    )


def rates_of(cluster: cluster_lib.Cluster, precision: str) -> Rates:
  """Returns rates by the data sheet: one achieved share for all products."""
  return uniform_rates(cluster.achieved_flops(precision), cluster)


def uniform_rates(flops: float, cluster: cluster_lib.Cluster) -> Rates:
  """Returns rates of a device with the same FLOP/s in all products."""
  num_bytes = sum(costs.update_bytes_per_weight().values())
  return Rates(flops, flops, flops, num_bytes / cluster.memory_bandwidth)


def step_time(
  stage: costs.StageCost,
  *,
  rates: Rates,
  cluster: cluster_lib.Cluster,
  batch_size: int,
) -> StepTime:
  """Returns the time of a step of a stage.

  Args:
    stage: Its cost for one example.
    rates: Of a device.
    cluster: The devices and what connects them.
    batch_size: Examples of a step, over all devices.
  """
  examples = examples_per_device(batch_size, cluster.num_devices)
  trained_forward = stage.forward_flops - stage.frozen_forward_flops
  backward = examples * stage.backward_flops / rates.backward
  all_reduce = ring_seconds(stage.gradient_bytes, cluster)
  hidden = min(cluster.overlap * all_reduce, backward)
  busy = StepTime(
    forward=examples * trained_forward / rates.forward,
    frozen_forward=examples * stage.frozen_forward_flops / rates.frozen_forward,
    backward=backward,
    all_reduce=all_reduce - hidden,
    update=stage.trained_parameters * rates.update_seconds_per_weight,
    input_wait=0.0,
    hidden_all_reduce=hidden,
  )
  reading = batch_size / (
    cluster.num_machines * cluster.input_examples_per_second
  )
  return dataclasses.replace(busy, input_wait=max(0.0, reading - busy.seconds))


def ring_seconds(num_bytes: float, cluster: cluster_lib.Cluster) -> float:
  """Returns the time of an all-reduce of `num_bytes` around a ring.

  Every device sends 2 (n - 1) / n of the bytes in 2 (n - 1) hops. Where the
  ring leaves a machine, that link sets the pace.
  """
  n = cluster.num_devices
  bandwidth = cluster.device_link_bandwidth
  if cluster.num_machines > 1:
    bandwidth = min(bandwidth, cluster.machine_link_bandwidth)
  hops = 2 * (n - 1)
  return sent_bytes(num_bytes, n) / bandwidth + hops * cluster.link_latency


def sent_bytes(num_bytes: float, num_devices: int) -> float:
  """Returns what one device sends in a ring's all-reduce of `num_bytes`."""
  return 2 * (num_devices - 1) / num_devices * num_bytes


def examples_per_device(batch_size: int, num_devices: int) -> int:
  """Returns a device's share of a batch, which must be a whole number."""
  if batch_size % num_devices:
    raise errors.InputError(
      f"data.batch_size={batch_size} is not divisible by"
      f" num_devices={num_devices}."
    )
  return batch_size // num_devices
