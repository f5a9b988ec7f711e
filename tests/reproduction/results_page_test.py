"""docs/results.md and README.md show what docs/results has of the runs."""

import pathlib
import re

from mslt_tf.reproduction import jobs
from mslt_tf.reproduction import page
from mslt_tf.reproduction import records
from mslt_tf.reproduction import result_tables

PAGE = "docs/results.md"
RECORDS = "docs/results"


def test_the_page_shows_the_records():
  text = pathlib.Path(PAGE).read_text(encoding="utf-8")
  shown = result_tables.all_tables(records.read(RECORDS))
  assert all(f"<!-- begin {name} -->" in text for name in shown)
  assert page.fill(text, shown, source=PAGE) == text
  readme = pathlib.Path("README.md").read_text(encoding="utf-8")
  assert "<!-- begin headline -->" in readme
  assert page.fill(readme, shown, source="README.md") == readme


def test_a_command_beside_a_row_is_one_that_runs(tmp_path):
  queue = jobs.all_jobs(
    jobs.Places(str(tmp_path), RECORDS), inputs=["text"], glue_dir="GLUE"
  )
  text = pathlib.Path(PAGE).read_text(encoding="utf-8")
  commands = re.findall(r"bin/reproduce --only=(\S+) \|", text)
  # Of the two main tables, the ablations and the runs.
  assert len(commands) == 3 + 4 + 16 + 36
  for names in commands:
    assert jobs.select(queue, names.split(","))


def test_recorded_runs_are_whole():
  runs = records.read(RECORDS).runs.values()
  assert {run.name: run.problems for run in runs if run.problems} == {}
  assert [run.name for run in runs if not run.is_finished] == []


def test_records_are_of_runs_that_are_in_the_queue(tmp_path):
  places = jobs.Places(str(tmp_path), RECORDS)
  queue = jobs.all_jobs(places, inputs=["text"], glue_dir="GLUE")
  recorded = [job.record for job in queue if job.is_recorded()]
  # A run of another config than configs/reproduction.yaml raises above.
  found = pathlib.Path(RECORDS).glob("*/*.json")
  found_runs = pathlib.Path(RECORDS).glob("runs/*/summary.json")
  assert sorted(map(str, [*found, *found_runs])) == sorted(
    each for each in recorded if not each.endswith("data.json")
  )
