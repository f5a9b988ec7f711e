"""What measurements say of the processor."""

import os
import platform

from mslt_tf import processor


def test_generations_that_share_a_name_are_told_apart(tmp_path):
  path = tmp_path / "cpuinfo"
  path.write_text(
    "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\n"
    "model\t\t: 1\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\n"
    "cpu family\t: 99\nmodel name\t: another\n"
  )
  assert processor.describe(str(path)) == "AMD EPYC, family 25, model 1"


def test_what_linux_does_not_tell_is_marked(tmp_path):
  path = tmp_path / "cpuinfo"
  path.write_text("model name : Neoverse-N1\n")
  assert processor.describe(str(path)) == "Neoverse-N1, family ?, model ?"


def test_without_a_name_python_tells_the_kind(tmp_path):
  expected = platform.processor() or platform.machine()
  assert expected
  assert processor.describe(str(tmp_path / "none")) == expected


def test_cores_are_those_that_the_process_may_use(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 5})
  assert processor.num_cores() == 3


def test_all_cores_count_where_the_system_does_not_tell(monkeypatch):
  monkeypatch.delattr(os, "sched_getaffinity")
  monkeypatch.setattr(os, "cpu_count", lambda: 7)
  assert processor.num_cores() == 7
