"""The queue as commands, without running them."""

import json
import os

import pytest

from mslt_tf.reproduction import experiments
from mslt_tf.reproduction import jobs


@pytest.fixture
def workdir(tmp_path):
  return jobs.Workdir(str(tmp_path))


def names(workdir, glue_dir=""):
  queue = jobs.all_jobs(workdir, inputs=["a", "b"], glue_dir=glue_dir)
  return [job.name for job in queue]


def test_the_main_comparison_comes_first(workdir):
  found = names(workdir)
  assert found[:9] == [
    "data",
    "baseline_0",
    "stacking_0",
    "mslt_0",
    "baseline_short_0",
    "reviews_0",
    "cut_reviews_0",
    "benchmark of mslt",
    "benchmark of stacking",
  ]
  assert found[9:15] == [
    "baseline_1",
    "stacking_1",
    "mslt_1",
    "baseline_short_1",
    "reviews_1",
    "cut_reviews_1",
  ]
  assert found[21] == "no_retraining_0"
  assert found[-3:] == [
    "attention of mslt_0",
    "attention of stacking_0",
    "attention of stacking_6_12_0",
  ]


def test_glue_joins_where_it_is_at_hand(workdir):
  found = names(workdir, "GLUE")
  assert [name for name in found if "glue" in name] == [
    "glue_0",
    "cut_glue_0",
    "glue_1",
    "cut_glue_1",
    "glue_2",
    "cut_glue_2",
  ]


def test_a_run_is_a_command_that_can_be_pasted(workdir):
  run = experiments.Run(experiments.ABLATIONS[0], 0)
  assert jobs.pretraining_job(workdir, run).command == (
    "pretrain.py",
    "--config=configs/reproduction.yaml",
    f"--workdir={workdir.path}/no_retraining_0",
    "--set=schedule.retraining_share=0",
    "--set=training.seed=0",
    f"--set=data.directory={workdir.path}/data",
  )


def test_the_cut_baseline_is_fine_tuned_from_its_earlier_stage(workdir):
  queue = jobs.all_jobs(workdir, inputs=["a"], glue_dir="")
  (job,) = (job for job in queue if job.name == "cut_reviews_2")
  assert job.command == (
    "finetune.py",
    "--config=configs/reproduction_finetuning.yaml",
    "--task=reviews",
    f"--checkpoint=baseline_cut_2={workdir.path}/baseline_2",
    "--stage=1",
    f"--workdir={workdir.path}/cut_reviews_2",
  )


@pytest.mark.parametrize(
  ("content", "expected"),
  [
    (None, False),
    ("{", False),
    ('{"is_finished": false}', False),
    ('{"is_finished": true}', True),
  ],
)
def test_a_run_is_finished_when_its_summary_says_so(workdir, content, expected):
  job = jobs.pretraining_job(workdir, experiments.Run(experiments.MSLT, 0))
  if content is not None:
    path = os.path.join(workdir.path, "mslt_0")
    os.makedirs(path)
    with open(os.path.join(path, "summary.json"), "w") as file:
      file.write(content)
  assert job.is_finished() is expected


@pytest.mark.parametrize(
  ("counts", "expected"),
  [
    ([], False),
    ([(3, 3)] * 3, False),
    ([(3, 3)] * 3 + [(2, 3)], False),
    ([(3, 3)] * 4, True),
  ],
)
def test_fine_tuning_is_finished_when_all_its_runs_are(
  tmp_path, counts, expected
):
  queue = jobs.all_jobs(jobs.Workdir(str(tmp_path)), inputs=["a"], glue_dir="")
  (job,) = (job for job in queue if job.name == "reviews_1")
  (tmp_path / "reviews_1").mkdir()
  (tmp_path / "reviews_1/results.json").write_text(
    json.dumps(
      [{"num_results": done, "num_expected": of} for done, of in counts]
    )
  )
  assert job.is_finished() is expected
