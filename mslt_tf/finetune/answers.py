"""Texts in, answers of a fine-tuned model out, as lines."""

import json
from collections.abc import Iterator

import numpy as np

from mslt_tf import errors
from mslt_tf.finetune import fine_tuned_model

_DIGITS = 6


def answer(
  text: str, *, source: str, checkpoint: str, task: str = "", form: str
) -> str:
  """Returns a line an input line.

  Args:
    text: A text a line, or two with a tab between.
    source: What to call it in errors.
    checkpoint: As of `fine_tuned_model.load`.
    task: As of `fine_tuned_model.load`.
    form: `jsonl`: an object with `label` and `probabilities`, or `value`.
      `tsv`: a header, then the label and the probability of each, or the value.

  Raises:
    errors.InputError: no model, or a line that has not as many texts as the
      task.
  """
  model = fine_tuned_model.load(checkpoint, task=task)
  lines = text.split("\n")
  if not lines[-1]:
    del lines[-1]  # What the last line's end leaves.
  if not lines:
    raise errors.InputError(f"{source} is empty.")
  rows = [line.removesuffix("\r").split("\t") for line in lines]
  num_texts = 2 if model.takes_pairs else 1
  for number, row in enumerate(rows, start=1):
    if len(row) != num_texts:
      raise errors.InputError(
        f"{source}, line {number}: {len(row)} texts; the task has {num_texts},"
        " with tabs between."
      )
  outputs = model.outputs(
    [row[0] for row in rows],
    [row[1] for row in rows] if model.takes_pairs else None,
  )
  write = _json_lines if form == "jsonl" else _tsv_lines
  return "".join(f"{line}\n" for line in write(outputs, model.labels))


def _json_lines(outputs: np.ndarray, labels: tuple[str, ...]) -> Iterator[str]:
  for row, best in zip(_rounded(outputs), outputs.argmax(1), strict=True):
    if labels:
      yield json.dumps(
        {
          "label": labels[best],
          "probabilities": dict(zip(labels, row, strict=True)),
        },
        ensure_ascii=False,
      )
    else:
      yield json.dumps({"value": row[0]})


def _tsv_lines(outputs: np.ndarray, labels: tuple[str, ...]) -> Iterator[str]:
  if not labels:
    yield "value"
    yield from (str(row[0]) for row in _rounded(outputs))
    return
  yield "\t".join(["label", *labels])
  for row, best in zip(_rounded(outputs), outputs.argmax(1), strict=True):
    yield "\t".join([labels[best], *map(str, row)])


def _rounded(outputs: np.ndarray) -> list[list[float]]:
  return [
    [round(value, _DIGITS) for value in row]
    for row in outputs.astype(np.float64).tolist()
  ]
