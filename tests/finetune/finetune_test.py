"""Fine-tuning from data to tables: its runs, files, and what it refuses."""

import dataclasses
import json
import math
import pathlib
import shutil
import zipfile

import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from mslt_tf import errors
from mslt_tf import finished_model
from mslt_tf.finetune import answers
from mslt_tf.finetune import fine_tuned_model
from mslt_tf.finetune import finetune
from mslt_tf.finetune import submitting
from mslt_tf.glue import own_tasks
from mslt_tf.glue import protocol as protocol_lib
from mslt_tf.glue import submission
from mslt_tf.glue import tasks as tasks_lib
from mslt_tf.interop import exports
from mslt_tf.interop import saved_model
from mslt_tf.models import classifier

PROTOCOL = protocol_lib.Protocol(
  batch_size=4,
  learning_rates=(0.03, 0.01),
  seeds=(1, 2),
  num_epochs=2,
  max_sequence_length=18,
  dropout=0.2,
)


def write_table(path, *rows):
  lines = ["\t".join(map(str, row)) for row in rows]
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("\n".join(lines) + "\n")


def sentences(seed, number):
  """Texts of 3 to 21 words, and whether w1 is among the first three."""
  rng = np.random.default_rng(seed)
  rows = []
  for index in range(number):
    words = [f"w{each}" for each in rng.integers(2, 40, 3 + index % 19)]
    label = int(rng.random() < 0.5)
    if label:
      words[rng.integers(3)] = "w1"
    rows.append((" ".join(words), label))
  return rows


@pytest.fixture(scope="module")
def own_task(tmp_path_factory):
  """39 and 15 texts, labelled "no" and "yes"."""
  folder = tmp_path_factory.mktemp("own")
  for seed, (name, number) in enumerate({"train": 39, "dev": 15}.items()):
    rows = [
      (text, ("no", "yes")[label]) for text, label in sentences(seed, number)
    ]
    write_table(folder / f"{name}.tsv", ("text", "label"), *rows)
  return own_tasks.make(
    str(folder / "train.tsv"), str(folder / "dev.tsv"), headline="f1"
  )


def write_split(folder, task, split, number):
  """Writes few examples in the columns of the official file."""
  columns = split.columns
  labels = task.labels or ("0.0", "4.5")
  rows = []
  for text, label in sentences(number, number):
    by_column = {columns.first: text, columns.second: "w1 w2"}
    by_column[columns.label] = labels[label]
    rows.append(by_column)
  path = folder / split.paths[0]
  if not columns.has_header:
    write_table(path, *[[row.get(c, "") for c in range(4)] for row in rows])
    return
  header = [each for each in rows[0] if each is not None]
  write_table(path, header, *[[row[c] for c in header] for row in rows])


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
  """All of GLUE: 9 examples to train on, 6 of dev and 5 of test."""
  folder = tmp_path_factory.mktemp("glue")
  for task in tasks_lib.GLUE.values():
    for split in task.splits:
      number = {"train": 9, "dev": 6, "test": 5}[split.name.split("_")[0]]
      write_split(folder, task, split, number)
  return str(folder)


@pytest.fixture(scope="module")
def checkpoints(make_pretrained, tmp_path_factory):
  """Two models of one shape, and one of another depth."""
  folder = tmp_path_factory.mktemp("runs")
  paths = {}
  for name, num_layers in {"base": 3, "mslt": 3, "deep": 4}.items():
    model = make_pretrained(num_layers=num_layers)
    if name == "mslt":
      for array in model.weights.values():
        array += 0.01
    paths[name] = str(folder / name)
    finished_model.save_imported(model, paths[name])
  return paths


@pytest.fixture(scope="module")
def make(own_task, checkpoints):
  def make_finetuning(names=("base",), protocol=PROTOCOL, tasks=None, glue=""):
    return finetune.FineTuning(
      tasks or [own_task],
      data_dir=glue,
      checkpoints={name: checkpoints[name] for name in names},
      stage=None,
      protocol=protocol,
    )

  return make_finetuning


@pytest.fixture
def traced(monkeypatch):
  """A list that gets an entry each time a training step is traced."""
  calls = []
  original = classifier.sums

  def sums(*args, **kwargs):
    calls.append(1)
    return original(*args, **kwargs)

  monkeypatch.setattr(classifier, "sums", sums)
  return calls


@pytest.fixture(scope="module")
def finished(make, tmp_path_factory):
  """A workdir of four finished runs; read only."""
  workdir = tmp_path_factory.mktemp("finished")
  make().run(str(workdir))
  return workdir


def test_one_step_serves_all_runs_and_a_second_start_makes_none(
  make, tmp_path, traced
):
  names = ("base", "mslt")
  text = make(names).run(str(tmp_path))
  assert len(traced) == 1
  results = sorted(tmp_path.glob("*/own/rate_*/result.json"))
  assert len(results) == 2 * 2 * 2
  before = [path.stat().st_mtime_ns for path in results]

  assert make(names).run(str(tmp_path)) == text
  assert len(traced) == 1
  rates = (*PROTOCOL.learning_rates, 0.001)
  more = dataclasses.replace(PROTOCOL, learning_rates=rates)
  make(names, more).run(str(tmp_path))
  assert [path.stat().st_mtime_ns for path in results] == before
  assert len(list(tmp_path.glob("*/own/rate_0.001_*/result.json"))) == 4


def test_a_run_is_the_same_alone_and_after_others(make, finished, tmp_path):
  alone = dataclasses.replace(PROTOCOL, learning_rates=(0.01,), seeds=(2,))
  make(protocol=alone).run(str(tmp_path))
  name = "base/own/rate_0.01_seed_2/result.json"
  results = [
    json.loads((folder / name).read_text()) for folder in (tmp_path, finished)
  ]
  for result in results:
    del result["seconds"]
  assert results[0] == results[1]


def test_metrics_are_those_of_the_predictions(finished, own_task):
  dev = pathlib.Path(own_task.dev[0].paths[0]).read_text().splitlines()[1:]
  labels = [int(line.endswith("\tyes")) for line in dev]
  summary = json.loads((finished / "results.json").read_text())[0]
  scores = {0.03: [], 0.01: []}
  for result in summary["results"]:
    name = f"rate_{result['learning_rate']:g}_seed_{result['seed']}"
    path = finished / f"base/own/{name}/result.json"
    predictions = json.loads(path.read_text())["predictions"]["dev"]
    expected = {
      "f1": sklearn.metrics.f1_score(labels, predictions, zero_division=0),
      "accuracy": np.mean(np.equal(labels, predictions)),
      "matthews": sklearn.metrics.matthews_corrcoef(labels, predictions),
    }
    assert result["metrics"]["dev"] == pytest.approx(expected)
    scores[result["learning_rate"]].append(expected["f1"])
  assert summary["score"] == pytest.approx(max(map(np.mean, scores.values())))


def test_the_best_runs_weights_alone_are_kept(finished):
  scores = {
    path.parent.name: json.loads(path.read_text())["score"]
    for path in finished.glob("base/own/*/result.json")
  }
  (kept,) = finished.glob("base/own/*/weights.index")
  assert scores[kept.parent.name] == max(scores.values())


def test_training_is_logged_for_programs_and_for_tensorboard(finished):
  lines = (finished / "base/own/rate_0.01_seed_1/metrics.jsonl").read_text()
  train, dev = map(json.loads, lines.splitlines())
  assert train["kind"] == "train"
  # 39 examples in batches of 4, twice.
  assert train["step"] == dev["step"] == 20
  assert {"loss", "accuracy", "gradient_norm", "learning_rate"} <= train.keys()
  assert {"f1", "accuracy", "matthews"} <= dev.keys()
  assert list(finished.glob("tensorboard/base/own/rate_0.01_seed_1/events*"))


def test_a_fine_tuned_model_answers_texts_as_in_the_run(finished, own_task):
  dev = pathlib.Path(own_task.dev[0].paths[0]).read_text().splitlines()[1:]
  (kept,) = finished.glob("base/own/*/weights.index")
  result = json.loads((kept.parent / "result.json").read_text())
  text = "".join(line.split("\t")[0] + "\n" for line in dev)
  lines = answers.answer(
    text, source="texts", checkpoint=str(finished), form="jsonl"
  ).splitlines()
  answered = [json.loads(line) for line in lines]
  labels = [("no", "yes")[each] for each in result["predictions"]["dev"]]
  assert [each["label"] for each in answered] == labels
  for each in answered:
    assert sum(each["probabilities"].values()) == pytest.approx(1, abs=1e-5)

  table = answers.answer(
    text, source="texts", checkpoint=str(finished / "base"), form="tsv"
  ).splitlines()
  assert table[0] == "label\tno\tyes"
  assert [line.split("\t")[0] for line in table[1:]] == labels


@pytest.fixture(scope="module")
def glue_runs(make, glue, tmp_path_factory):
  """A run of each task, and the workdir; read only."""
  workdir = str(tmp_path_factory.mktemp("glue_runs"))
  names = ("mnli", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte")
  finetuning = make(
    tasks=[tasks_lib.get(name) for name in names],
    glue=glue,
    protocol=dataclasses.replace(PROTOCOL, learning_rates=(0.01,), seeds=(1,)),
  )
  return finetuning, workdir, finetuning.run(workdir)


def test_the_papers_rows_stand_beside_the_results(glue_runs):
  lines = glue_runs[2].splitlines()
  assert lines[0] == "Paper, Table 2: dev, equal steps"
  assert lines[1].split() == [
    *("MNLI", "QQP", "QNLI", "SST-2", "CoLA", "STS-B", "MRPC", "RTE", "Avg"),
  ]
  assert lines[2].split()[0] == "base"
  assert lines[3].startswith("paper: Base MSLT")


def test_pairs_and_regressions_are_answered(glue_runs):
  line = answers.answer(
    "w1 w2\tw3\n",
    source="texts",
    checkpoint=glue_runs[1],
    task="stsb",
    form="jsonl",
  )
  assert math.isfinite(json.loads(line)["value"])
  with pytest.raises(errors.InputError, match="line 2: 1 texts; the task has"):
    answers.answer(
      "w1\tw2\nw1\n",
      source="texts",
      checkpoint=glue_runs[1],
      task="rte",
      form="tsv",
    )
  with pytest.raises(errors.InputError, match="--task must name one: cola, mn"):
    fine_tuned_model.load(glue_runs[1])
  with pytest.raises(errors.InputError, match="--task=wnli has no finished"):
    fine_tuned_model.load(glue_runs[1], task="wnli")


def test_the_label_is_the_likeliest_before_rounding(monkeypatch):
  class Model:
    labels = ("no", "yes")
    takes_pairs = False

    def outputs(self, first, second):
      return np.array([[0.49999999, 0.50000001]])

  monkeypatch.setattr(fine_tuned_model, "load", lambda *_, **__: Model())
  said = answers.answer("w1\n", source="x", checkpoint="x", form="tsv")
  assert said == "label\tno\tyes\nyes\t0.5\t0.5\n"


def test_a_submission_is_what_the_server_takes(glue_runs, glue):
  finetuning, workdir, _ = glue_runs
  said = submitting.write_all(finetuning, workdir)
  assert said.startswith("Paper, Table 4")
  # Of the official length, that is.
  assert "WNLI.tsv: 5 rows, where 146 are needed." in said
  path = pathlib.Path(workdir) / "base/submission.zip"
  submission.check(str(path), glue)
  with zipfile.ZipFile(path) as archive:
    wnli, rte, stsb, ax = (
      [
        line.split("\t")[1]
        for line in archive.read(name).decode().split("\n")[1:-1]
      ]
      for name in ("WNLI.tsv", "RTE.tsv", "STS-B.tsv", "AX.tsv")
    )
  # The majority of WNLI's training set.
  labels = [label for _, label in sentences(9, 9)]
  assert wnli == [str(int(sum(labels) > 4))] * 5
  assert set(rte) <= {"entailment", "not_entailment"}
  assert all(0 <= float(value) <= 5 for value in stsb)
  assert set(ax) <= {"entailment", "neutral", "contradiction"}


def test_without_all_tasks_there_is_no_zip(make, glue, tmp_path):
  one = dataclasses.replace(PROTOCOL, learning_rates=(0.01,), seeds=(1,))
  finetuning = make(tasks=[tasks_lib.get("rte")], glue=glue, protocol=one)
  finetuning.run(str(tmp_path))
  said = submitting.write_all(finetuning, str(tmp_path))
  assert "2 files of 11" in said
  names = {path.name for path in (tmp_path / "base/submission").iterdir()}
  assert names == {"RTE.tsv", "WNLI.tsv"}
  assert not (tmp_path / "base/submission.zip").exists()


def test_a_test_set_that_cannot_be_read_is_told_at_once(make, glue, tmp_path):
  shutil.copytree(glue, tmp_path / "glue")
  rte = tasks_lib.get("rte")
  submitting.check(make(tasks=[rte], glue=glue))
  for task in (rte, tasks_lib.get("wnli")):
    shutil.copytree(glue, tmp_path / task.name)
    path = tmp_path / task.name / task.test[0].paths[0]
    path.write_text("index\n0\n")
    finetuning = make(tasks=[rte], glue=str(tmp_path / task.name))
    with pytest.raises(errors.InputError, match=str(path)):
      submitting.check(finetuning)


def test_a_fine_tuned_model_is_exported_with_its_labels(finished, tmp_path):
  model = fine_tuned_model.load(str(finished))
  output_dir = str(tmp_path / "exported")
  exported = saved_model.Classifier(
    labels=model.labels,
    output_weights=model.output_weights,
    output_bias=model.output_bias,
    max_sequence_length=model.max_sequence_length,
  )
  assert exports.export_classifier(model.bert, exported, output_dir)
  assert not exports.export_classifier(model.bert, exported, output_dir)
  # The last one is cut to 16 words, [CLS] and [SEP]; the model has 20 places.
  texts = ["w1 w2 w3", "w9 w1 w4 w5", "w7", "w8 w2 " * 10]
  served = tf.saved_model.load(output_dir).signatures["serving_default"]
  np.testing.assert_allclose(
    served(tf.constant(texts))["probabilities"],
    model.outputs(texts, None),
    atol=1e-5,
  )


def test_runs_are_described_before_they_are_made(make):
  (line,) = make().describe().splitlines()
  assert line == (
    "own from base: 39 examples, 2 epochs, 20 steps, 2 of them warmup; 4 runs:"
    " rates 0.03, 0.01; seeds 1, 2"
  )


@pytest.mark.slow
def test_models_of_other_depths_stand_in_one_table(make, tmp_path):
  one = dataclasses.replace(PROTOCOL, learning_rates=(0.01,), seeds=(1,))
  text = make(("base", "deep"), one).run(str(tmp_path))
  rows = [line.split() for line in text.splitlines()]
  assert [row[0] for row in rows[2:4]] == ["base", "deep"]
  with pytest.raises(errors.InputError, match=r"base.*deep"):
    fine_tuned_model.load(str(tmp_path))


def test_a_workdir_belongs_to_a_protocol_and_to_weights(
  make, finished, checkpoints, own_task
):
  other = dataclasses.replace(PROTOCOL, dropout=0.3)
  with pytest.raises(errors.InputError, match=r"dropout is 0\.2 there"):
    make(protocol=other).run(str(finished))
  other = dataclasses.replace(PROTOCOL, num_epochs=3)
  with pytest.raises(errors.InputError, match="num_epochs is 2 there and 3"):
    make(protocol=other).run(str(finished))
  replaced = finetune.FineTuning(
    [own_task],
    data_dir="",
    checkpoints={"base": checkpoints["mslt"]},
    stage=None,
    protocol=PROTOCOL,
  )
  with pytest.raises(errors.InputError, match="weights_sha256 is"):
    replaced.run(str(finished))


def test_a_diverging_run_is_one_line_and_does_not_keep_others_from_running(
  make, tmp_path
):
  wild = dataclasses.replace(
    PROTOCOL, learning_rates=(1e38, 0.01), seeds=(1,), num_epochs=1
  )
  finetuning = make(protocol=wild)
  finetuning.run(str(tmp_path))
  (message,) = finetuning.diverged
  assert message.startswith("base/own/rate_1e+38_seed_1, step")
  assert "\n" not in message
  (summary,) = json.loads((tmp_path / "results.json").read_text())
  assert [each["learning_rate"] for each in summary["results"]] == [0.01]


def test_tables_keep_what_an_earlier_command_put_there(
  make, own_task, tmp_path
):
  one = dataclasses.replace(
    PROTOCOL, learning_rates=(0.01,), seeds=(1,), num_epochs=1
  )
  make(protocol=one).run(str(tmp_path))
  (first,) = json.loads((tmp_path / "results.json").read_text())
  text = make(["mslt"], one).run(str(tmp_path))
  found = json.loads((tmp_path / "results.json").read_text())
  assert found[0] == first
  assert [each["checkpoint"] for each in found] == ["base", "mslt"]
  rows = (tmp_path / "results.md").read_text()
  assert "| base |" in rows and "| mslt |" in rows
  assert "base" in text
  # Its own rows are made anew.
  assert make(["mslt"], one).run(str(tmp_path)) == text

  task, before = dataclasses.replace(own_task), sorted(tmp_path.rglob("*"))
  task = dataclasses.replace(task, metrics=("accuracy",))
  with pytest.raises(errors.InputError, match="own by f1, not by accuracy"):
    make(["deep"], one, tasks=[task]).run(str(tmp_path))
  train = pathlib.Path(own_task.train.paths[0])
  write_table(
    tmp_path / "few.tsv",
    *(line.split("\t") for line in train.read_text().splitlines()[:9]),
  )
  task = own_tasks.make(
    str(tmp_path / "few.tsv"), own_task.dev[0].paths[0], headline="f1"
  )
  with pytest.raises(errors.InputError, match="examples_sha256"):
    make(["deep"], one, tasks=[task]).run(str(tmp_path))
  assert not [each for each in before if not each.exists()]


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"max_sequence_length": 21}, "more than the 20 positions"),
    ({"max_sequence_length": 3}, "max_sequence_length=3 must be above 3"),
  ],
)
def test_lengths_that_do_not_fit_are_refused(make, tmp_path, changed, message):
  with pytest.raises(errors.InputError, match=message):
    make(protocol=dataclasses.replace(PROTOCOL, **changed)).run(str(tmp_path))


def test_data_that_are_not_there_are_named(make, tmp_path):
  with pytest.raises(errors.InputError, match="--data_dir is missing"):
    make(tasks=[tasks_lib.get("rte")])
  with pytest.raises(errors.InputError, match=r"RTE/train\.tsv"):
    make(tasks=[tasks_lib.get("rte")], glue=str(tmp_path))
  with pytest.raises(errors.InputError, match="the model of mnli answers it"):
    make(tasks=[tasks_lib.get("ax")], glue=str(tmp_path))
