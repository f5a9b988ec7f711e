"""The binaries as a user meets them: from text to a comparison of runs."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = """
model:
  vocab_size: 46
  hidden_size: 6
  num_layers: 2
  num_heads: 2
  intermediate_size: 10
  max_positions: 20
data: {directory: DATA, sequence_length: 16, max_predictions: 3, batch_size: 4}
schedule: {method: baseline, num_steps: 6}
optimizer: {peak_learning_rate: 0.01, warmup_steps: 1}
training: {steps_per_loop: 2, eval_interval: 3, checkpoint_interval: 2}
"""
# The binaries choose TensorFlow's log level where the user has not.
ENVIRONMENT = {
  name: value
  for name, value in os.environ.items()
  if name != "TF_CPP_MIN_LOG_LEVEL"
}
MSLT = (
  "--set=schedule={method: mslt, num_steps: 6, num_growing_stages: 2,"
  " retraining_share: 0}"
)


def run(binary, *arguments):
  return subprocess.run(
    [sys.executable, str(ROOT / "bin" / binary), *arguments],
    capture_output=True,
    text=True,
    cwd=os.path.sep,  # Wherever the user stands.
    env=ENVIRONMENT,
    check=False,
  )


def test_a_reader_that_stops_reading_is_no_error():
  reading, writing = os.pipe()
  os.close(reading)
  finished = subprocess.run(
    [
      sys.executable,
      str(ROOT / "bin/plan.py"),
      f"--config={ROOT}/configs/base_mslt.yaml",
      f"--cluster={ROOT}/configs/clusters/v100_32.yaml",
    ],
    stdout=writing,
    stderr=subprocess.PIPE,
    env=ENVIRONMENT,
    check=False,
  )
  os.close(writing)
  assert finished.stderr == b""
  # As a shell reports a program that SIGPIPE ended.
  assert finished.returncode == 128 + 13


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, text_file, vocab_file):
  """A folder with config.yaml, a data set in data/ and runs in runs/."""
  folder = tmp_path_factory.mktemp("workspace")
  built = run(
    "create_pretraining_data.py",
    f"--input={text_file}",
    f"--vocab={vocab_file}",
    f"--output_dir={folder}/data",
    "--sequence_length=16",
    "--max_predictions=3",
    "--heldout_fraction=0.2",
    "--num_shards=2",
  )
  assert built.returncode == 0, built.stderr
  (folder / "config.yaml").write_text(CONFIG.replace("DATA", f"{folder}/data"))
  for name, extra in {"baseline": [], "mslt": [MSLT]}.items():
    trained = run(
      "pretrain.py",
      f"--config={folder}/config.yaml",
      f"--workdir={folder}/runs/{name}",
      *extra,
    )
    assert trained.returncode == 0, trained.stderr
    assert "finished" in trained.stdout
  return folder


def test_text_becomes_a_comparison_of_runs(workspace):
  runs = workspace / "runs"
  compared = run(
    "compare_runs.py",
    f"--runs={runs}/baseline,{runs}/mslt",
    f"--output_dir={workspace}/comparison",
  )
  assert compared.returncode == 0, compared.stderr
  lines = compared.stdout.splitlines()
  assert lines[1].split()[:2] == ["run", "steps"]
  assert [line.split()[0] for line in lines[2:4]] == ["baseline", "mslt"]
  assert lines[-1] == f"Report: {workspace}/comparison/report.html"
  assert compared.stderr == ""
  figures = json.loads((workspace / "comparison/comparison.json").read_text())
  assert figures["baseline"] == "baseline"
  assert figures["problems"] == []
  mslt, baseline = figures["runs"]["mslt"], figures["runs"]["baseline"]
  assert mslt["steps"] == baseline["steps"] == 6
  assert mslt["is_finished"] is True
  own = baseline["against_baseline"]["equal_steps"]
  assert own["speedup_wall"] == own["speedup_train"] == 1.0
  pair = mslt["against_baseline"]["equal_steps"]
  assert pair["speedup_train"] == pytest.approx(
    baseline["train_seconds"] / mslt["train_seconds"]
  )
  page = (workspace / "comparison/report.html").read_text()
  assert page.count("<svg") == 2
  png = (workspace / "comparison/comparison.png").read_bytes()
  assert png.startswith(b"\x89PNG")


def test_a_dry_run_shows_stages_and_cost_and_writes_nothing(workspace):
  dry = run(
    "pretrain.py", f"--config={workspace}/config.yaml", MSLT, "--dry_run"
  )
  assert dry.returncode == 0, dry.stderr
  stage_2 = next(
    line.split()
    for line in dry.stdout.splitlines()
    if line.split()[:2] == ["2", "3-6"]
  )
  assert stage_2[2:7] == ["2", "1", "frozen", "0", "0"]
  assert "times as fast as the baseline" in dry.stdout


def test_a_pre_trained_model_is_fine_tuned_and_answers(workspace):
  rows = [f"w{index} w3\t{index % 2}" for index in range(2, 12)]
  table = workspace / "own.tsv"
  table.write_text("\n".join(["text\tlabel", *rows]) + "\n")
  tuned = run(
    "finetune.py",
    f"--train={table}",
    f"--dev={table}",
    f"--checkpoint={workspace}/runs/mslt",
    "--stage=1",
    f"--workdir={workspace}/own",
    "--set=max_sequence_length=9",
    "--set=learning_rates=[1e-3]",
    "--set=seeds=[0]",
    "--set=num_epochs=1",
  )
  assert tuned.returncode == 0, tuned.stderr
  assert tuned.stdout.splitlines()[2].split()[0] == "mslt"
  # A lone CR ends no line: there is an answer for each LF.
  (workspace / "texts.txt").write_bytes(b"w1\rw2\r\nw9\n")
  answered = run(
    "predict.py",
    f"--checkpoint={workspace}/own",
    f"--input={workspace}/texts.txt",
    "--format=tsv",
  )
  assert answered.returncode == 0, answered.stderr
  lines = [line.split("\t") for line in answered.stdout.splitlines()]
  assert lines[0] == ["label", "0", "1"]
  assert len(lines) == 3
  for label, *shares in lines[1:]:
    assert float(shares[int(label)]) == max(map(float, shares))


def test_a_binary_explains_itself():
  shown = run("pretrain.py", "--help")
  assert "python bin/pretrain.py --config=" in shown.stdout
  assert "--max_hours" in shown.stdout


@pytest.mark.parametrize(
  ("binary", "arguments", "message"),
  [
    ("pretrain.py", ["--config={f}/none.yaml", "--dry_run"], "none.yaml"),
    ("pretrain.py", ["--workdir=/tmp/x"], "--config"),
    ("pretrain.py", ["--confg=x"], "confg"),
    ("pretrain.py", ["--max_hours=soon", "--config=x"], "max_hours"),
    (
      "pretrain.py",
      ["--config={f}/config.yaml", "--dry_run", "--set=model.hiden_size=3"],
      "hiden_size",
    ),
    (
      "pretrain.py",
      ["--config={f}/config.yaml", "--dry_run", "--set=model.hidden_size=big"],
      "model.hidden_size='big'",
    ),
    ("pretrain.py", ["--config={f}/config.yaml"], "--workdir"),
    pytest.param(
      "pretrain.py",
      ["--config={f}/config.yaml", "--workdir={f}/runs/mslt"],
      "holds another run",
      marks=pytest.mark.slow,
    ),
    (
      "pretrain.py",
      [
        "--config={f}/config.yaml",
        "--workdir={f}/runs/new",
        "--set=data.directory={f}/nowhere",
      ],
      "nowhere",
    ),
    pytest.param(
      "compare_runs.py",
      ["--runs={f}/runs/none", "--output_dir={f}/comparison"],
      "runs/none",
      marks=pytest.mark.slow,
    ),
    (
      "benchmark.py",
      ["--config={f}/none.yaml", "--output={f}/benchmark.json"],
      "none.yaml",
    ),
    (
      "benchmark.py",
      ["--config={f}/config.yaml", "--output={f}/no/where.json"],
      "no/where.json cannot be written",
    ),
    (
      "benchmark.py",
      ["--config={f}/config.yaml", "--output=x", "--peers=nobody"],
      "nobody",
    ),
    (
      "benchmark_data.py",
      ["--output={f}/no/where.json"],
      "no/where.json cannot be written",
    ),
    pytest.param(
      "benchmark_data.py",
      ["--input={f}/none.txt", "--output={f}/benchmark.json"],
      "none.txt' matches no file",
      marks=pytest.mark.slow,
    ),
    (
      "finetune.py",
      ["--task=cola", "--checkpoint=x", "--data_dir=x"],
      "--workdir is missing",
    ),
    (
      "finetune.py",
      ["--task=colla", "--checkpoint=x", "--dry_run"],
      "task='colla' does not exist; the tasks are mnli, qqp",
    ),
    (
      "finetune.py",
      ["--task=mrpc", "--checkpoint=x", "--dry_run", "--metric=accuracy"],
      "metric=accuracy is of no effect without --train",
    ),
    pytest.param(
      "benchmark_data.py",
      ["--output={f}/benchmark.json", "--directory={f}/none"],
      "none is no directory",
      marks=pytest.mark.slow,
    ),
    pytest.param(
      "benchmark_data.py",
      ["--output={f}/benchmark.json", "--vocab={f}/none"],
      "none",
      marks=pytest.mark.slow,
    ),
    (
      "finetune.py",
      ["--task=cola", "--checkpoint=x", "--dry_run", "--set=seeds=1"],
      "protocol: seeds=1 must be a list.",
    ),
    (
      "finetune.py",
      [
        "--train=t.tsv",
        "--dev=d.tsv",
        "--data_dir=GLUE",
        "--checkpoint=x",
        "--dry_run",
      ],
      "--data_dir=GLUE is where GLUE's tasks are",
    ),
    pytest.param(
      "compare_runs.py",
      ["--runs=", "--output_dir={f}/compared"],
      "--runs is empty",
      marks=pytest.mark.slow,
    ),
    pytest.param(
      "finetune.py",
      ["--task=reviews", "--checkpoint={f}/nowhere", "--dry_run"],
      "nowhere is no workdir of a run",
      marks=pytest.mark.slow,
    ),
    pytest.param(
      "predict.py",
      ["--checkpoint={f}/runs/mslt", "--input={f}/config.yaml"],
      "runs/mslt is no workdir of bin/finetune.py",
      marks=pytest.mark.slow,
    ),
    (
      "check_submission.py",
      ["--submission={f}/config.yaml"],
      "config.yaml is no zip file",
    ),
  ],
)
def test_wrong_input_is_one_line_on_stderr(
  binary, arguments, message, workspace
):
  filled = [each.replace("{f}", str(workspace)) for each in arguments]
  failed = run(binary, *filled)
  assert failed.returncode not in (0, None)
  assert len(failed.stderr.splitlines()) == 1, failed.stderr
  assert failed.stderr.startswith(f"{binary}: error: ")
  assert message in failed.stderr
  assert failed.stdout == ""


@pytest.mark.parametrize(
  "machine, chosen, expected",
  [("x86_64", None, "1"), ("x86_64", "0", "0"), ("aarch64", None, None)],
)
def test_onednn_is_on_where_the_user_has_not_chosen(machine, chosen, expected):
  environment = dict(ENVIRONMENT)
  environment.pop("TF_ENABLE_ONEDNN_OPTS", None)
  if chosen is not None:
    environment["TF_ENABLE_ONEDNN_OPTS"] = chosen
  program = (
    "import os, platform\n"
    f"platform.machine = lambda: {machine!r}\n"
    "import command_line\n"
    "print(os.environ.get('TF_ENABLE_ONEDNN_OPTS'))"
  )
  done = subprocess.run(
    [sys.executable, "-c", program],
    capture_output=True,
    text=True,
    cwd=ROOT / "bin",
    env=environment,
  )
  assert done.stdout == f"{expected}\n", done.stderr
