"""bin/plan.py as a user meets it."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = f"--config={ROOT}/configs/base_mslt.yaml"
CLUSTER = f"--cluster={ROOT}/configs/clusters/v100_32.yaml"


def run(*arguments):
  return subprocess.run(
    [sys.executable, str(ROOT / "bin" / "plan.py"), *arguments],
    capture_output=True,
    text=True,
    check=False,
  )


def test_a_table_and_a_file(tmp_path):
  output = tmp_path / "plan.json"
  done = run(CONFIG, CLUSTER, f"--output={output}")
  assert done.returncode == 0, done.stderr
  assert "Side by side, 1,000,000 steps" in done.stdout
  assert len(json.loads(output.read_text())["schedules"]) == 3


def test_the_check_needs_no_config():
  done = run(CLUSTER, "--check_paper")
  assert done.returncode == 0, done.stderr
  assert "2.174" in done.stdout


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([CLUSTER], "--config is missing; only --check_paper needs none."),
    ([CONFIG, "--cluster=/none"], "--cluster=/none cannot be read"),
    (
      [CONFIG, CLUSTER, "--set_cluster=num_devices=0"],
      "num_devices=0 must be above 0",
    ),
    (
      [CONFIG, CLUSTER, "--set_cluster=peak=1"],
      "peak is not a field",
    ),
    (
      [
        CLUSTER,
        "--check_paper",
        "--set_cluster=peak_flops_float32=null",
        "--set_cluster=peak_flops_mixed_float16=null",
      ],
      "the cluster has no peak_flops_float32",
    ),
    (
      [CONFIG, CLUSTER, "--devices=1,3"],
      "data.batch_size=1024 is not divisible by num_devices=3.",
    ),
    (
      [CONFIG, CLUSTER, "--max_hours=3"],
      "--max_hours=3.0 is of no effect without --search.",
    ),
    (
      [CONFIG, CLUSTER, "--min_stage_share=0.1"],
      "--min_stage_share=0.1 is of no effect without --search.",
    ),
    (
      [CLUSTER, "--check_paper", "--devices=2"],
      "--devices=2 is of no effect with --check_paper.",
    ),
    (
      [CONFIG, CLUSTER, "--search", "--devices=2"],
      "--search and --devices are both given",
    ),
    (
      [CONFIG, CLUSTER, "--set=training.precision=mixed_bfloat16"],
      "peak_flops_mixed_bfloat16 is missing",
    ),
    (
      [CONFIG, CLUSTER, "--calibration=/none"],
      "--calibration=/none cannot be read",
    ),
  ],
)  # fmt: skip
def test_wrong_input_is_one_line(arguments, message):
  done = run(*arguments)
  assert done.returncode == 1
  assert done.stderr.count("\n") == 1
  assert done.stderr.startswith("plan.py: error: ")
  assert message in done.stderr
