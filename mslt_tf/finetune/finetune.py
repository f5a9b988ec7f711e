"""Fine-tuning of checkpoints on tasks by a protocol, from data to tables."""

import functools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from mslt_tf import errors
from mslt_tf import finished_model
from mslt_tf import written_numbers
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.finetune import run_files
from mslt_tf.finetune import trainer as trainer_lib
from mslt_tf.glue import examples as examples_lib
from mslt_tf.glue import inputs as inputs_lib
from mslt_tf.glue import metrics as metrics_lib
from mslt_tf.glue import protocol as protocol_lib
from mslt_tf.glue import reading
from mslt_tf.glue import results as results_lib
from mslt_tf.glue import tables
from mslt_tf.glue import tasks as tasks_lib
from mslt_tf.models import pretrained
from mslt_tf.training import run_directory

Splits = dict[str, examples_lib.Examples]
# Of results.json: as it stands there, and what it says.
_Row = tuple[Mapping[str, Any], results_lib.Summary]

_RESULTS = "results.json"


class FineTuning:
  """All runs of some tasks and checkpoints in one workdir."""

  def __init__(
    self,
    tasks: Sequence[tasks_lib.Task],
    *,
    data_dir: str,
    checkpoints: Mapping[str, str],
    stage: int | None,
    protocol: protocol_lib.Protocol,
  ):
    """Reads data and checkpoints; writes nothing.

    Args:
      tasks: What to fine-tune on.
      data_dir: As of `reading.read`.
      checkpoints: Workdirs of pre-trained models, by the names that tables
        show.
      stage: Which stage of them, from 1; by default each one's last.
      protocol: What is run.

    Raises:
      errors.InputError: data or a checkpoint that cannot be used.
    """
    self.tasks = tuple(tasks)
    self.protocol = protocol
    self.runs = protocol_lib.runs(protocol, tasks, list(checkpoints))
    self.data_dir = data_dir
    self._stages = {
      name: finished_model.find(workdir, stage=stage)
      for name, workdir in checkpoints.items()
    }
    self.splits = {task.name: _read(task, data_dir) for task in tasks}
    for name, found in self._stages.items():
      _check_fit(name, found, protocol, self.splits)
    self.diverged: list[str] = []  # A line for each run that did.
    self._trainers: dict[Any, trainer_lib.Trainer] = {}
    self._encoded: dict[Any, inputs_lib.Inputs] = {}

  @property
  def checkpoints(self) -> list[str]:
    """Their names."""
    return list(self._stages)

  def describe(self) -> str:
    """Returns what would be run, a line each task and checkpoint."""
    lines = []
    for task, checkpoint, runs in self._groups():
      num_examples = len(self.splits[task.name]["train"])
      run = runs[0]
      lines.append(
        f"{task.name} from {checkpoint}: {num_examples:,} examples,"
        f" {run.num_epochs} epochs, {run.num_steps(num_examples):,} steps,"
        f" {run.num_warmup_steps(num_examples):,} of them warmup;"
        f" {len(runs)} runs: rates"
        f" {', '.join(f'{rate:g}' for rate in self.protocol.learning_rates)};"
        f" seeds {', '.join(map(str, self.protocol.seeds))}"
      )
    return "\n".join(lines)

  def run(self, workdir: str) -> str:
    """Makes the runs that are not finished, and returns all tables as text.

    One that diverges does not keep the others from running; `diverged` says
    so afterwards.

    Raises:
      errors.BusyError: another process is at work there.
      errors.InputError: the workdir holds other runs.
    """
    with run_directory.alone(workdir):
      return self._run(run_files.RunFiles(workdir))

  def _run(self, files: run_files.RunFiles) -> str:
    files.claim(self.protocol)
    for name in self._stages:
      files.claim_checkpoint(name, self._models[name])
    others = self._rows_of_others(files)
    for task, checkpoint, runs in self._groups():
      # All rows of a task must be of the same data.
      beside = [
        each.checkpoint for _, each in others if each.task.name == task.name
      ]
      for name in [*beside, checkpoint]:
        files.claim_task(
          name,
          task,
          splits=self.splits[task.name],
          num_epochs=runs[0].num_epochs,
          max_sequence_length=self.protocol.max_sequence_length,
        )
    text = ""
    self.diverged.clear()
    for task, _, runs in self._groups():
      for run in runs:
        if not files.is_finished(run):
          try:
            self._make(files, task, run)
          except trainer_lib.DivergedError as error:
            logging.warning("%s", error)
            self.diverged.append(str(error))
      text = self._write_tables(files, others)
    return text

  def predict(
    self,
    files: run_files.RunFiles,
    checkpoint: str,
    task: tasks_lib.Task,
    examples: examples_lib.Examples,
  ) -> np.ndarray:
    """Returns what a task's best run answers, class ids or values [N].

    Raises:
      errors.InputError: none of its runs is finished.
    """
    best = run_files.find_best(files.task(checkpoint, task.name))
    if best is None:
      raise errors.InputError(
        f"{files.task(checkpoint, task.name)} has no finished run."
      )
    trainer = self._trainer(checkpoint, task)
    trainer.fill(run_files.read_weights(best[0]))
    return trainer_lib.predictions(
      trainer.outputs(self._encode(checkpoint, examples)),
      is_regression=task.is_regression,
    )

  def _groups(
    self,
  ) -> Iterator[tuple[tasks_lib.Task, str, list[protocol_lib.Run]]]:
    """Yields each task and checkpoint with its runs."""
    for task in self.tasks:
      for checkpoint in self._stages:
        yield (
          task,
          checkpoint,
          [
            run
            for run in self.runs
            if (run.task, run.checkpoint) == (task.name, checkpoint)
          ],
        )

  def _make(
    self,
    files: run_files.RunFiles,
    task: tasks_lib.Task,
    run: protocol_lib.Run,
  ) -> None:
    """Makes a run and writes what came of it."""
    started = time.monotonic()
    trainer = self._trainer(run.checkpoint, task)
    train = self._inputs(run.checkpoint, task, "train")
    num_steps = run.num_steps(len(train))
    with files.metrics(run) as log:
      trainer.train(
        run,
        self._models[run.checkpoint].weights,
        train,
        lambda step, means: log.write("train", {"step": step, **means}),
      )
      answers = self._answers(trainer, run.checkpoint, task)
      metrics = self._metrics(task, answers)
      for name, values in metrics.items():
        log.write(name, {"step": num_steps, **values})
    score = metrics_lib.headline(task, metrics)
    best = files.best_score(run.checkpoint, task.name)
    seconds = time.monotonic() - started
    files.finish(
      run,
      {
        "score": score,
        "metrics": metrics,
        "predictions": {
          name: values.tolist() for name, values in answers.items()
        },
        "num_steps": num_steps,
        "seconds": seconds,
      },
      trainer.weights() if best is None or score > best else None,
    )
    logging.info(
      "%s: %s steps in %s, %s %.4f",
      run.name,
      f"{num_steps:,}",
      written_numbers.duration(seconds),
      task.headline,
      score,
    )

  def _answers(
    self, trainer: trainer_lib.Trainer, checkpoint: str, task: tasks_lib.Task
  ) -> dict[str, np.ndarray]:
    """Returns the predictions [N] of each dev split, by its name."""
    return {
      split.name: trainer_lib.predictions(
        trainer.outputs(self._inputs(checkpoint, task, split.name)),
        is_regression=task.is_regression,
      )
      for split in task.dev
    }

  def _metrics(
    self, task: tasks_lib.Task, answers: Mapping[str, np.ndarray]
  ) -> dict[str, dict[str, float]]:
    """Returns the metrics of each dev split, by its name."""
    return {
      name: metrics_lib.evaluate(task, self._labels(task, name), values)
      for name, values in answers.items()
    }

  def _labels(self, task: tasks_lib.Task, split: str) -> np.ndarray:
    labels = self.splits[task.name][split].labels
    assert labels is not None  # Train and dev have a label column.
    return labels

  def _rows_of_others(self, files: run_files.RunFiles) -> list[_Row]:
    """Returns what earlier commands found for other tasks and checkpoints.

    Raises:
      errors.InputError: the file cannot be read, or shows a task of this
        command by another metric.
    """
    path = os.path.join(files.path, _RESULTS)
    if not tf.io.gfile.exists(path):
      return []
    content = run_directory.RunDirectory(files.path).read_json(_RESULTS)
    summaries = results_lib.from_list(content, path)
    mine = {(run.checkpoint, run.task) for run in self.runs}
    headlines = {task.name: task.headline for task in self.tasks}
    kept = []
    for tree, summary in zip(content, summaries, strict=True):
      name = summary.task.name
      if (summary.checkpoint, name) in mine:
        continue
      if tree["metric"] != headlines.get(name, tree["metric"]):
        raise errors.InputError(
          f"{path} has task {name} by {tree['metric']}, not by"
          f" {headlines[name]}; take another workdir."
        )
      kept.append((tree, summary))
    return kept

  def _write_tables(
    self, files: run_files.RunFiles, others: Sequence[_Row]
  ) -> str:
    """Writes and returns the tables of all that the workdir has results of."""
    summaries = results_lib.summarize(
      [files.read_result(run) for run in self.runs if files.is_finished(run)],
      tasks=self.tasks,
      protocol=self.protocol,
      constants={
        task.name: {
          split.name: metrics_lib.constant(task, self._labels(task, split.name))
          for split in task.dev
        }
        for task in self.tasks
      },
    )
    directory = run_directory.RunDirectory(files.path)
    report = tables.report([*(each for _, each in others), *summaries])
    directory.write_json(
      _RESULTS,
      [*(tree for tree, _ in others), *results_lib.as_dict(summaries)],
    )
    directory.write_text("results.md", tables.as_markdown(report))
    return tables.as_text(report)

  @functools.cached_property
  def _models(self) -> dict[str, pretrained.PretrainedBert]:
    return {
      name: pretrained.PretrainedBert(
        architecture=found.architecture,
        lower_case=found.lower_case,
        vocabulary=found.read_vocabulary(),
        weights=found.read_weights(),
        history=found.history,
      )
      for name, found in self._stages.items()
    }

  def _trainer(
    self, checkpoint: str, task: tasks_lib.Task
  ) -> trainer_lib.Trainer:
    """Returns the one for models of this shape, made when first needed."""
    architecture = self._models[checkpoint].architecture
    key = (architecture, task.num_outputs, task.is_regression)
    if key not in self._trainers:
      self._trainers[key] = trainer_lib.Trainer(
        architecture,
        self.protocol,
        num_outputs=task.num_outputs,
        is_regression=task.is_regression,
      )
    return self._trainers[key]

  def _inputs(
    self, checkpoint: str, task: tasks_lib.Task, split: str
  ) -> inputs_lib.Inputs:
    """Returns tokens, made once for all checkpoints of a vocabulary."""
    model = self._models[checkpoint]
    key = (model.vocabulary.sha256, model.lower_case, task.name, split)
    if key not in self._encoded:
      encoded = self._encode(checkpoint, self.splits[task.name][split])
      if encoded.num_cut:
        logging.info(
          "%s %s: %s of %s examples are longer than max_sequence_length=%d",
          task.name,
          split,
          f"{encoded.num_cut:,}",
          f"{len(encoded):,}",
          self.protocol.max_sequence_length,
        )
      self._encoded[key] = encoded
    return self._encoded[key]

  def _encode(
    self, checkpoint: str, examples: examples_lib.Examples
  ) -> inputs_lib.Inputs:
    model = self._models[checkpoint]
    return inputs_lib.encode(
      examples,
      vocabulary_lib.make_tokenizer(
        model.vocabulary, lower_case=model.lower_case
      ),
      model.vocabulary,
      max_length=self.protocol.max_sequence_length,
    )


def _read(task: tasks_lib.Task, data_dir: str) -> Splits:
  """Returns the splits to train on and to evaluate on, by name."""
  if task.name in tasks_lib.GLUE and not data_dir:
    raise errors.InputError(
      f"--data_dir is missing; task {task.name} needs it. Task reviews needs"
      " none."
    )
  splits = {}
  for split in (task.train, *task.dev):
    assert split is not None  # `protocol.runs` has seen to it.
    examples = reading.read(task, split, data_dir)
    if remark := examples_lib.count_remark(task, split, examples):
      logging.warning("%s", remark)
    splits[split.name] = examples
  return splits


def _check_fit(
  name: str,
  found: finished_model.FinishedStage,
  protocol: protocol_lib.Protocol,
  splits: Mapping[str, Splits],
) -> None:
  """Raises `InputError` where a checkpoint cannot be fine-tuned so."""
  found.read_vocabulary()
  architecture = found.architecture
  if protocol.max_sequence_length > architecture.max_positions:
    raise errors.InputError(
      f"max_sequence_length={protocol.max_sequence_length} is more than the"
      f" {architecture.max_positions} positions of checkpoint {name}."
    )
  for task, of_task in splits.items():
    has_pairs = any(each.second is not None for each in of_task.values())
    if has_pairs and architecture.num_segments < 2:
      raise errors.InputError(
        f"checkpoint {name} has {architecture.num_segments} segment embedding;"
        f" task {task} has pairs, which need 2."
      )
