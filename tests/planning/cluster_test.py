"""Cluster files and the lines that wrong ones end in."""

import dataclasses

import pytest

from mslt_tf import errors
from mslt_tf.planning import cluster

TEXT = """
num_devices: 5
devices_per_machine: 2
peak_flops_float32: 7e12
achieved_share_float32: 0.3
memory_bytes: 9e9
memory_bandwidth: 1e11
device_link_bandwidth: 4e10
machine_link_bandwidth: 3e9
link_latency: 1e-6
input_examples_per_second: 100
price_per_machine_hour: 1.5
"""


def test_the_last_machine_is_paid_for_whole():
  read = cluster.load(TEXT, source="file")
  assert read.num_machines == 3
  assert read.price_per_hour == 4.5


def test_what_is_left_out_is_nothing():
  read = cluster.load(TEXT, source="file")
  assert (read.overlap, read.reserved_memory_bytes) == (0.0, 0.0)


def test_fields_can_be_replaced():
  read = cluster.load(TEXT, source="file", overrides=["num_devices=64"])
  assert read.num_devices == 64
  assert dataclasses.replace(read, num_devices=5) == cluster.load(
    TEXT, source="file"
  )


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("num_devices=0", "file: num_devices=0 must be above 0 and finite."),
    ("link_latency=-1", "link_latency=-1.0 must be at least 0 and finite."),
    (
      "achieved_share_float32=1.2",
      "file: achieved_share_float32=1.2 must be at most 1.",
    ),
    (
      "achieved_share_float32=null",
      "achieved_share_float32 is missing; peak_flops_float32 needs it.",
    ),
    (
      "achieved_share_mixed_float16=0.1",
      "peak_flops_mixed_float16 is missing; achieved_share_mixed_float16 needs"
      " it.",
    ),
    ("overlap=2", "overlap=2.0 must be at most 1."),
    ("memory_bytes=.inf", "memory_bytes=inf must be above 0 and finite."),
    ("num_device=3", "num_device is not a field; did you mean num_devices?"),
    ("num_devices=x", "num_devices='x' must be a whole number."),
    ("num_devices", "--set_cluster=num_devices must have the form field=value"),
    (
      "num_devices.x=1",
      "--set_cluster=num_devices.x=1: num_devices=5 has no fields.",
    ),
    ("overlap=[", "--set_cluster=overlap=[: not valid YAML"),
  ],
)
def test_impossible_clusters(override, message):
  with pytest.raises(errors.InputError) as caught:
    cluster.load(TEXT, source="file", overrides=[override])
  assert message in str(caught.value)


def test_a_missing_field_is_named():
  with pytest.raises(errors.InputError, match="file: link_latency is missing"):
    cluster.load(TEXT.replace("link_latency: 1e-6\n", ""), source="file")


def test_a_device_achieves_a_share_of_the_peak_of_each_precision():
  read = cluster.load(
    TEXT,
    source="file",
    overrides=[
      "peak_flops_mixed_float16=5e13",
      "achieved_share_mixed_float16=0.1",
    ],
  )
  assert read.achieved_flops("float32") == pytest.approx(2.1e12)
  assert read.achieved_flops("mixed_float16") == pytest.approx(5e12)
  with pytest.raises(errors.InputError, match="peak_flops_mixed_bfloat16"):
    read.achieved_flops("mixed_bfloat16")


@pytest.mark.parametrize("text", ["0", "-3", "x", "1.5", ""])
def test_numbers_of_devices_are_whole_and_above_0(text):
  with pytest.raises(errors.InputError, match=f"devices={text} must be"):
    cluster.numbers_of_devices(["4", text])
