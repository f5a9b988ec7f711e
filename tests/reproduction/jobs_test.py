"""The queue as commands, without running them."""

import json
import os
import pathlib

import pytest

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf.reproduction import experiments
from mslt_tf.reproduction import jobs

MSLT = experiments.Run(experiments.MSLT, 0)


@pytest.fixture(autouse=True)
def in_project(monkeypatch):
  monkeypatch.chdir(pathlib.Path(__file__).parents[2])


@pytest.fixture
def places(tmp_path):
  return jobs.Places(str(tmp_path / "work"), str(tmp_path / "records"))


def make_queue(places, glue_dir=""):
  found = jobs.all_jobs(places, inputs=["a", "b"], glue_dir=glue_dir)
  return {job.name: job for job in found}


def write(path, content):
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(path, "w", encoding="utf-8") as file:
    file.write(content if isinstance(content, str) else json.dumps(content))


def make_summary(run, *, is_finished=True, **overrides):
  text = pathlib.Path(jobs.CONFIG).read_text()
  config = config_lib.to_dict(
    config_lib.load(text, source="test", overrides=run.settings)
  )
  config["data"]["directory"] = "/somewhere/else"
  for section, values in overrides.items():
    config[section].update(values)
  return {"is_finished": is_finished, "config": config, "wall_seconds": 1.5}


def test_the_main_comparison_comes_first(places):
  found = list(make_queue(places))
  assert found[:12] == [
    "data",
    "benchmark_mslt",
    "benchmark_stacking",
    "baseline_0",
    "fine_tuning_baseline_0",
    "fine_tuning_baseline_cut_0",
    "stacking_0",
    "fine_tuning_stacking_0",
    "attention_stacking_0",
    "mslt_0",
    "fine_tuning_mslt_0",
    "attention_mslt_0",
  ]
  assert found[3 + 3 * 9 + 2] == "three_layers_0"
  assert found[-5:] == [
    "stacking_6_12_0",
    "attention_stacking_6_12_0",
    "stacking_short_0",
    "stacking_short_1",
    "stacking_short_2",
  ]
  assert len(found) == 3 + 3 * 9 + 2 + 20 + 5


def test_jobs_are_chosen_by_name_with_what_they_need(places):
  found = list(make_queue(places).values())
  chosen = jobs.select(found, ["attention_mslt_0", "six_stages_0"])
  assert [job.name for job in chosen] == [
    "data",
    "mslt_0",
    "attention_mslt_0",
    "six_stages_0",
  ]
  chosen = jobs.select(found, ["benchmark_mslt"])
  assert [job.name for job in chosen] == ["benchmark_mslt"]
  with pytest.raises(
    errors.InputError,
    match=r"^--only=mslt_9 is none of the rows baseline, baseline_cut, .*, none"
    " of their jobs such as baseline_0 and fine_tuning_baseline_0, and none of"
    " data, benchmark_mslt, .*, attention_stacking_6_12_0.$",
  ):
    jobs.select(found, ["mslt_9"])


def test_a_row_of_the_tables_is_all_its_seeds_and_their_fine_tuning(places):
  found = list(make_queue(places).values())

  def chosen(*names):
    return [job.name for job in jobs.select(found, names)]

  assert chosen("mslt") == [
    "data",
    "mslt_0",
    "fine_tuning_mslt_0",
    "mslt_1",
    "fine_tuning_mslt_1",
    "mslt_2",
    "fine_tuning_mslt_2",
  ]
  assert chosen("baseline_cut") == [
    "data",
    "baseline_0",
    "fine_tuning_baseline_cut_0",
    "baseline_1",
    "fine_tuning_baseline_cut_1",
    "baseline_2",
    "fine_tuning_baseline_cut_2",
  ]
  assert chosen("six_stages") == ["data", "six_stages_0"]


def test_a_run_is_a_command_that_can_be_pasted(places):
  assert make_queue(places)["no_retraining_0"].command == (
    "pretrain.py",
    "--config=configs/reproduction.yaml",
    f"--workdir={places.workdir}/no_retraining_0",
    "--set=schedule.retraining_share=0",
    "--set=training.seed=0",
    f"--set=data.directory={places.workdir}/data",
  )


def test_the_cut_baseline_is_fine_tuned_from_its_earlier_stage(places):
  job = make_queue(places)["fine_tuning_baseline_cut_2"]
  assert job.command == (
    "finetune.py",
    "--config=configs/reproduction_finetuning.yaml",
    "--task=reviews",
    f"--checkpoint=baseline_cut_2={places.workdir}/baseline_2",
    "--stage=1",
    f"--workdir={places.workdir}/fine_tuning_baseline_cut_2",
  )
  assert job.needs == ("baseline_2",)


def test_glue_joins_where_it_is_at_hand(places):
  job = make_queue(places, "GLUE")["fine_tuning_mslt_1"]
  assert job.command[2:5] == (
    "--task=reviews,cola,mrpc,stsb,rte",
    "--data_dir=GLUE",
    f"--checkpoint=mslt_1={places.workdir}/mslt_1",
  )


@pytest.mark.parametrize(
  ("content", "expected"),
  [
    (None, False),
    ("{", False),
    (make_summary, True),
    (lambda run: make_summary(run, is_finished=False), False),
  ],
)
def test_a_run_is_finished_when_its_summary_says_so(places, content, expected):
  job = jobs.pretraining_job(places, MSLT)
  if content is not None:
    write(job.result, content if isinstance(content, str) else content(MSLT))
  assert job.is_finished() is expected
  assert not job.is_recorded()


@pytest.mark.parametrize(
  "overrides",
  [
    {"training": {"seed": 1}},
    {"training": {"eval_examples": 100}},
    {"optimizer": {"peak_learning_rate": 0.5}},
    {"schedule": {"stages": []}},
    {"model": {"hidden_size": 64}},
    {"data": {"batch_size": 32}},
  ],
)
def test_a_run_of_another_config_is_no_result(places, overrides):
  job = jobs.pretraining_job(places, MSLT)
  write(job.record, make_summary(MSLT, **overrides))
  with pytest.raises(errors.InputError) as error:
    job.is_recorded()
  assert str(error.value) == (
    f"{places.records}/runs/mslt_0/summary.json: this is a run of another"
    " config than configs/reproduction.yaml and its settings give; to train it"
    " anew remove its folder, and what fine-tuning and attention made of it,"
    " here and in the records."
  )


def test_how_a_run_is_carried_out_may_differ(places):
  job = jobs.pretraining_job(places, MSLT)
  write(job.result, make_summary(MSLT, training={"steps_per_loop": 1}))
  assert job.is_finished()


def test_what_is_kept_of_a_summary_names_no_folder(places):
  job = jobs.pretraining_job(places, MSLT)
  kept = job.to_keep(make_summary(MSLT))
  assert kept["config"]["data"]["directory"] is None
  assert kept["config"]["data"]["batch_size"] == 64
  assert kept["wall_seconds"] == 1.5
  assert job.is_whole(kept)


def test_of_the_data_set_the_counts_are_kept(places):
  manifest = {
    "arguments": {"input": ["/somewhere"]},
    "splits": {
      "heldout": {
        "num_documents": 1,
        "num_sentences": 2,
        "num_tokens": 3,
        "num_examples": 4,
        "shards": [],
      }
    },
  }
  assert jobs.data_job(places, ["a"]).to_keep(manifest) == {
    "heldout": {
      "num_documents": 1,
      "num_sentences": 2,
      "num_tokens": 3,
      "num_examples": 4,
    }
  }


@pytest.mark.parametrize(
  ("num_results", "expected"),
  [
    ({}, False),
    ({"reviews": 2, "cola": 2, "mrpc": 2, "rte": 2}, False),
    ({name: 2 for name in ("reviews", *jobs.GLUE_TASKS)}, True),
    ({**{name: 2 for name in ("reviews", *jobs.GLUE_TASKS)}, "rte": 1}, False),
  ],
)
def test_fine_tuning_is_finished_when_all_its_runs_are(
  places, num_results, expected, tmp_path, monkeypatch
):
  config = tmp_path / "protocol.yaml"
  config.write_text("learning_rates: [3e-4]\nseeds: [1, 5]\n")
  monkeypatch.setattr(jobs, "_FINE_TUNING_CONFIG", str(config))
  job = make_queue(places, "GLUE")["fine_tuning_mslt_1"]
  results = [{"learning_rate": 3e-4, "seed": seed} for seed in (1, 5)]
  write(
    job.result,
    [
      {"task": task, "results": results[:number]}
      for task, number in num_results.items()
    ],
  )
  assert job.is_finished() is expected


def make_benchmark(*stages):
  """Of stages (layers, frozen layers, steps)."""
  names = ("num_layers", "num_frozen_layers", "num_steps")
  return {
    "stages": [dict(zip(names, each, strict=True)) for each in stages],
    "batch_size": 64,
  }


MSLT_STAGES = (
  (3, 0, 600),
  (6, 3, 600),
  (9, 6, 600),
  (12, 9, 600),
  (12, 0, 600),
)


def test_a_benchmark_of_another_schedule_is_no_result(places):
  job = make_queue(places)["benchmark_mslt"]
  write(job.result, make_benchmark(*MSLT_STAGES))
  assert job.is_finished()
  for other in (
    make_benchmark(*MSLT_STAGES[:-1]),
    {**make_benchmark(*MSLT_STAGES), "batch_size": 32},
  ):
    write(job.result, other)
    with pytest.raises(
      errors.InputError, match=rf"^{job.result}: this is the timing of another"
    ):
      job.is_finished()


def test_a_damaged_file_is_told_where_it_is_read(tmp_path):
  path = tmp_path / "damaged.json"
  path.write_text("{")
  with pytest.raises(
    errors.InputError, match=rf"^{path} cannot be read: Expecting property name"
  ):
    jobs.read_json(str(path))
  assert jobs.read_json(str(tmp_path / "absent.json")) is None
