"""The whole of it, with binaries in place of ours that write at once."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from mslt_tf import errors
from mslt_tf.reproduction import jobs
from mslt_tf.reproduction import reproduce

ROOT = pathlib.Path(__file__).parents[2]
DATA = """
import json, os, sys
flags = dict(each[2:].split("=", 1) for each in sys.argv[1:])
assert os.path.exists(flags["input"].split(",")[1])
os.makedirs(flags["output_dir"])
counts = dict(num_documents=3, num_sentences=5, num_tokens=7, num_examples=2)
with open(flags["output_dir"] + "/manifest.json", "w") as file:
  json.dump({"splits": {"train": counts}}, file)
"""
# The held-out loss is 5 and the seed, in tenths.
PRETRAIN = """
import hashlib, json, os, sys, time
from mslt_tf import config as config_lib
flags = [each[2:].split("=", 1) for each in sys.argv[1:]]
settings = [value for name, value in flags if name == "set"]
flags = dict(flags)
config = config_lib.load(
  open(flags["config"]).read(), source="test", overrides=settings
)
assert os.path.exists(config.data.directory)
workdir = flags["workdir"]
identity = config_lib.identity(config)
with open(f"{config.data.directory}/manifest.json", "rb") as file:
  fingerprint = hashlib.sha256(file.read()).hexdigest()
identity["data"]["fingerprint"] = fingerprint
def write(name, content):
  os.makedirs(os.path.dirname(f"{workdir}/{name}"), exist_ok=True)
  with open(f"{workdir}/{name}", "w") as file:
    file.write(content + "\\n")
write("identity.json", json.dumps(identity))
loss = 5 + config.training.seed / 10
for stage, step in (1, 500), (2, 750), (3, 3000):
  line = dict(kind="eval", step=step, mlm_loss=loss, wall_seconds=2.0)
  write(f"stage_{stage}/metrics.jsonl", json.dumps(line))
if os.path.exists("slow"):
  time.sleep(60)
write("summary.json", json.dumps(dict(
  is_finished=True, config=config_lib.to_dict(config), unigram_mlm_loss=6.5,
  data_fingerprint=fingerprint,
)))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
  """A project whose binaries take no time."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / "bin").mkdir()
  (tmp_path / "bin/create_pretraining_data.py").write_text(DATA)
  (tmp_path / "bin/pretrain.py").write_text(PRETRAIN)
  (tmp_path / "configs").mkdir()
  for name in ("reproduction.yaml", "reproduction_finetuning.yaml"):
    shutil.copy(ROOT / "configs" / name, tmp_path / "configs")
  return tmp_path


def make(only=(), glue_dir="", workdir="work"):
  places = jobs.Places(workdir, "records")
  return reproduce.Reproduction(places, glue_dir=glue_dir, only=only)


def test_runs_end_in_records_and_on_the_page(project):
  page = project / "page.md"
  page.write_text("By hand.\n\n<!-- begin runs -->\n<!-- end runs -->\n")
  text = make(["mslt_0", "mslt_1"]).run(page="page.md", max_hours=None)
  assert "5.050 (5.000 to 5.100)" in text
  assert "Not finished" not in text
  filled = page.read_text()
  assert filled.startswith("By hand.\n")
  assert "| mslt_1 | 5.100 |" in filled
  assert (project / "records/curves.png").stat().st_size > 10_000
  # The workdir may get lost: what is recorded is not done again.
  shutil.rmtree("work")
  (project / "bin/pretrain.py").unlink()
  again = make(["mslt_0", "mslt_1"]).run(page="page.md", max_hours=None)
  assert again == text
  assert page.read_text() == filled


def test_what_is_to_do_is_told_as_commands(project):
  make(["mslt_0"]).run(page="", max_hours=None)
  lines = make(["mslt_0", "baseline_0"]).describe().splitlines()
  assert [line[:13] for line in lines] == [
    "done   python",
    "to do  python",
    "done   python",
  ]
  assert lines[1].endswith(
    "pretrain.py --config=configs/reproduction.yaml --workdir=work/baseline_0"
    " '--set=schedule={method: baseline, num_steps: 1600, extra_steps: 1400}'"
    " --set=optimizer.state_at_growth=carried --set=training.seed=0"
    " --set=data.directory=work/data"
  )


def test_a_page_that_cannot_be_filled_is_told_before_anything_runs(project):
  with pytest.raises(errors.InputError, match=r"^--page=absent\.md cannot be"):
    make(["mslt_0"]).run(page="absent.md", max_hours=None)
  assert not (project / "work/data").exists()


def test_other_data_than_the_records_is_told_before_a_run(project):
  make(["mslt_0"]).run(page="", max_hours=None)
  program = project / "bin/create_pretraining_data.py"
  program.write_text(DATA.replace("num_tokens=7", "num_tokens=8"))
  told = r"data: the sha256 of its manifest is \w{64}, but mslt_0 in records"
  for _ in range(2):
    with pytest.raises(errors.InputError, match=f"^other/{told}"):
      make(["mslt_1"], workdir="other").run(page="", max_hours=None)
    assert not (project / "other/mslt_1").exists()


def test_a_folder_of_glue_that_is_missing_is_named(project):
  (project / "GLUE/CoLA").mkdir(parents=True)
  with pytest.raises(errors.InputError) as error:
    make(glue_dir="GLUE")
  assert str(error.value) == "--glue_dir=GLUE has no folder MRPC."


def test_the_check_repeats_the_beginnings_and_stops_them_there(project):
  names = [f"{name}_{seed}" for name in ("baseline", "mslt") for seed in (0, 1)]
  make(names).run(page="", max_hours=None)
  (project / "slow").touch()
  text, is_repeated = make(workdir="elsewhere").check()
  assert is_repeated
  assert [line.split()[0] for line in text.splitlines()[2:4]] == [
    "baseline",
    "mslt",
  ]
  assert text.count("repeated") == 2
  assert sorted(each.name for each in (project / "elsewhere").iterdir()) == [
    "data",
    "lock",
    "logs",
    "reviews.jsonl",
  ]


def test_a_check_without_records_is_told_before_anything_runs(project):
  with pytest.raises(errors.InputError, match="needs two recorded seeds"):
    make().check()
  assert not (project / "work").exists()


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (
      "--list --max_hours=1",
      "--max_hours=1.0 is of no effect with --list.",
    ),
    ("--check --only=mslt_0", "--only=mslt_0 is of no effect with --check."),
    ("--only=", "--only= names no job."),
    ("--max_hours=nan", "--max_hours=nan must be a number of hours."),
    ("--parallel=1000", "--parallel=1000 must be at most "),
    (
      "--only=mslt_9",
      "--only=mslt_9 is none of the rows baseline, baseline_cut, ",
    ),
  ],
)
def test_a_wrong_flag_is_one_line(tmp_path, flags, message):
  finished = subprocess.run(
    [
      sys.executable,
      str(ROOT / "bin/reproduction.py"),
      f"--workdir={tmp_path}/work",
      *flags.split(),
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  assert finished.returncode == 1
  assert finished.stderr.startswith(f"reproduction.py: error: {message}")
  assert finished.stderr.count("\n") == 1
  assert not (tmp_path / "work").exists()
