"""The same fine-tuning in transformers and PyTorch, for comparison.

Only the files of data, the protocol and the metrics are shared with ours: the
tokenizer, the model, AdamW, clipping, the order of the data and dropout are
theirs. Batches are random and padded to their longest example.
"""

import dataclasses
import importlib.util
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from mslt_tf import errors
from mslt_tf import written_numbers
from mslt_tf.glue import examples as examples_lib
from mslt_tf.glue import metrics as metrics_lib
from mslt_tf.glue import protocol as protocol_lib
from mslt_tf.glue import reading
from mslt_tf.glue import results as results_lib
from mslt_tf.glue import tables
from mslt_tf.glue import tasks as tasks_lib
from mslt_tf.training import run_directory

_NAME = "hugging_face"
_NOT_DECAYED = ("bias", "LayerNorm.weight")


def run(
  tasks: Sequence[tasks_lib.Task],
  *,
  data_dir: str,
  source: str,
  protocol: protocol_lib.Protocol,
  workdir: str,
) -> str:
  """Fine-tunes and returns tables as text; finished runs are not made again.

  Args:
    tasks: What to fine-tune on.
    data_dir: As of `reading.read`.
    source: Directory of a model that transformers loads.
    protocol: What is run.
    workdir: Where results are written, a JSON file a run.

  Raises:
    errors.InputError: packages or data that are not there.
  """
  for package in ("torch", "transformers"):
    if importlib.util.find_spec(package) is None:
      raise errors.InputError(
        "the peer needs the extra `interop`: pip install"
        f" --constraint requirements.txt '.[interop]' (no {package})."
      )
  if not os.path.isdir(source):
    # transformers would look for it on the network.
    raise errors.InputError(f"--source={source} is no directory.")
  directory = run_directory.claim(workdir, _identity(protocol, source))
  results, constants = [], {}
  for task in tasks:
    splits = {
      split.name: reading.read(task, split, data_dir)
      for split in task.splits
      if split not in task.test
    }
    run_directory.claim(
      os.path.join(workdir, _NAME, task.name),
      {
        "examples_sha256": {
          name: examples_lib.fingerprint(each) for name, each in splits.items()
        }
      },
    )
    constants[task.name] = {
      split.name: metrics_lib.constant(task, _labels(splits[split.name]))
      for split in task.dev
    }
    for each in protocol_lib.runs(protocol, [task], [_NAME]):
      name = f"{each.name}/result.json"
      if not os.path.exists(os.path.join(workdir, name)):
        directory.write_json(
          name, {"metrics": _fine_tune(each, task, splits, source, protocol)}
        )
      results.append(
        results_lib.Result(
          each.task,
          each.checkpoint,
          each.learning_rate,
          each.seed,
          directory.read_json(name)["metrics"],
        )
      )
  summaries = results_lib.summarize(
    results, tasks=tasks, protocol=protocol, constants=constants
  )
  return tables.as_text(tables.report(summaries))


def _identity(protocol: protocol_lib.Protocol, source: str) -> dict[str, Any]:
  fields = dataclasses.asdict(protocol)
  # Rates and seeds may be added to a workdir.
  del fields["learning_rates"], fields["seeds"]
  return {"source": source, "protocol": fields}


def _fine_tune(
  run: protocol_lib.Run,
  task: tasks_lib.Task,
  splits: dict[str, examples_lib.Examples],
  source: str,
  protocol: protocol_lib.Protocol,
) -> dict[str, dict[str, float]]:
  """Returns the metrics of each dev split."""
  import torch
  import transformers

  started = time.monotonic()
  torch.manual_seed(run.seed)
  tokenizer = transformers.AutoTokenizer.from_pretrained(source)
  model = transformers.BertForSequenceClassification.from_pretrained(
    source,
    num_labels=task.num_outputs,
    problem_type=(
      "regression" if task.is_regression else "single_label_classification"
    ),
    hidden_dropout_prob=protocol.dropout,
    attention_probs_dropout_prob=protocol.dropout,
  )
  train = splits["train"]
  num_steps = run.num_steps(len(train))
  optimizer, curve = _optimizer(model, run, protocol, num_steps, len(train))
  model.train()
  labels = torch.tensor(_labels(train).tolist())
  for indices in _random_batches(len(train), run):
    features = _tokens(tokenizer, train, indices, protocol)
    with _autocast(protocol):
      loss = model(**features, labels=labels[indices]).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), protocol.clip_norm)
    optimizer.step()
    curve.step()
    optimizer.zero_grad()
  model.eval()
  metrics = {
    split.name: metrics_lib.evaluate(
      task,
      _labels(splits[split.name]),
      _answers(model, tokenizer, splits[split.name], task, protocol),
    )
    for split in task.dev
  }
  logging.info(
    "%s: %d steps in %s, %s",
    run.name,
    num_steps,
    written_numbers.duration(time.monotonic() - started),
    metrics,
  )
  return metrics


def _optimizer(
  model: Any,
  run: protocol_lib.Run,
  protocol: protocol_lib.Protocol,
  num_steps: int,
  num_examples: int,
) -> tuple[Any, Any]:
  import torch

  decayed: list[Any] = []
  others: list[Any] = []
  for name, parameter in model.named_parameters():
    (others if name.endswith(_NOT_DECAYED) else decayed).append(parameter)
  optimizer = torch.optim.AdamW(
    [
      {"params": decayed, "weight_decay": protocol.weight_decay},
      {"params": others, "weight_decay": 0.0},
    ],
    lr=run.learning_rate,
    betas=(protocol.beta_1, protocol.beta_2),
    eps=protocol.epsilon,
  )
  warmup_steps = run.num_warmup_steps(num_examples)

  def share_of_peak(step: int) -> float:
    if step < warmup_steps:
      return step / warmup_steps
    return 1 - step / num_steps

  return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_peak)


def _random_batches(
  num_examples: int, run: protocol_lib.Run
) -> Iterator[list[int]]:
  import torch

  for _ in range(run.num_epochs):
    order = torch.randperm(num_examples).tolist()
    for start in range(0, num_examples, run.batch_size):
      yield order[start : start + run.batch_size]


def _tokens(
  tokenizer: Any,
  examples: examples_lib.Examples,
  indices: Sequence[int],
  protocol: protocol_lib.Protocol,
) -> Any:
  texts = [
    [column[index] for index in indices]
    for column in (examples.first, examples.second)
    if column is not None
  ]
  return tokenizer(
    *texts,
    truncation=True,
    max_length=protocol.max_sequence_length,
    padding=True,
    return_tensors="pt",
  )


def _answers(
  model: Any,
  tokenizer: Any,
  examples: examples_lib.Examples,
  task: tasks_lib.Task,
  protocol: protocol_lib.Protocol,
) -> np.ndarray:
  import torch

  outputs = []
  with torch.no_grad():
    for start in range(0, len(examples), protocol.batch_size):
      end = min(start + protocol.batch_size, len(examples))
      features = _tokens(tokenizer, examples, range(start, end), protocol)
      with _autocast(protocol):
        outputs.append(model(**features).logits.float().numpy())
  logits = np.concatenate(outputs)
  return logits[:, 0] if task.is_regression else logits.argmax(1)


def _autocast(protocol: protocol_lib.Protocol) -> Any:
  """Returns a context in which matrix products have the protocol's precision.

  Weights, softmax and losses are float32 in it, as ours are.
  """
  import torch

  return torch.autocast(
    "cpu", torch.bfloat16, enabled=protocol.precision == "mixed_bfloat16"
  )


def _labels(examples: examples_lib.Examples) -> np.ndarray:
  assert examples.labels is not None  # Train and dev have a label column.
  return examples.labels
