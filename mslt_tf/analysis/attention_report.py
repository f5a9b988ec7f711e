"""Draws and measures the attention of a workdir's model: pictures and JSON."""

import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import tensorflow as tf
from matplotlib import figure as figure_lib

from mslt_tf import errors
from mslt_tf import finished_model
from mslt_tf.analysis import attention
from mslt_tf.analysis import attention_figures
from mslt_tf.analysis import attention_measures
from mslt_tf.analysis import attention_tables
from mslt_tf.analysis import attention_text
from mslt_tf.analysis import layer_origins
from mslt_tf.analysis import sentence_pictures
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.models import pretrained
from mslt_tf.training import run_directory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """What is wanted.

  Attributes:
    checkpoint: A workdir with a finished stage, or with an imported model.
    stage: Number of the stage; by default the last finished one.
    vocab_file: For a workdir without one.
    sentence: Whose maps are drawn; none if it is empty.
    second_sentence: Of a pair.
    heads: (layer, head) pairs that are drawn large.
    is_compared: Whether the stage is held against those before it.
    num_examples: Held-out examples to measure on; 0 for none.
    text: Instead of held-out examples, an example a line.
    text_source: Where that is from.
    image_format: `png`, `svg` or `pdf`.
  """

  checkpoint: str
  stage: int | None = None
  vocab_file: str | None = None
  sentence: str = ""
  second_sentence: str = ""
  heads: tuple[tuple[int, int], ...] = ()
  is_compared: bool = False
  num_examples: int = 64
  text: str | None = None
  text_source: str = ""
  image_format: str = "png"


def parse_heads(named: Sequence[str]) -> tuple[tuple[int, int], ...]:
  """Turns `0:3` into layer 0 and head 3, and so on.

  Raises:
    InputError: One is not of this form.
  """
  pairs = []
  for each in named:
    layer, _, head = each.partition(":")
    if not (layer.isdecimal() and head.isdecimal()):
      raise errors.InputError(
        f"heads={each} must be a layer and a head, counted from 0, such as 0:3."
      )
    pairs.append((int(layer), int(head)))
  return tuple(pairs)


def write(request: Request, output_dir: str) -> list[str]:
  """Draws and measures what is asked for.

  Returns:
    Lines for a person: what was left out, the main numbers, the files.

  Raises:
    InputError: Something asked for is not there, or cannot be written.
  """
  number = finished_model.find(request.checkpoint, stage=request.stage).number
  chosen = _open(request, number)
  _check_heads(request, chosen.model)
  numbers = _compared_numbers(request, chosen)
  # What is wrong with the text is told before anything is drawn.
  sentence = _sentence(request, chosen.model)
  text = _text(request, chosen.model)
  if sentence is None and text is None:
    raise errors.InputError(
      "there is nothing to draw: without --sentence, examples to measure on are"
      " needed, from --num_examples or --input."
    )
  pictures: dict[str, figure_lib.Figure] = {}
  if sentence is not None:
    before = _open(request, numbers[-2]) if numbers[1:] else None
    pictures = sentence_pictures.draw(
      sentence,
      chosen,
      before=before,
      heads=request.heads,
      name=_name(request.checkpoint),
    )
  lines = _left_out(numbers)
  measured = None
  if text is not None:
    measured = _measure(request, text, chosen, numbers)
    pictures |= attention_tables.draw(measured)
    lines += attention_tables.summary(measured)
  paths = [
    _write_picture(figure, name, output_dir, request.image_format)
    for name, figure in pictures.items()
  ]
  if measured is not None:  # Last: whoever finds it finds the pictures, too.
    run_directory.RunDirectory(output_dir).write_json(
      "attention.json", attention_tables.as_dict(measured)
    )
  return [*lines, *paths]


def _open(request: Request, number: int) -> sentence_pictures.Stage:
  model = finished_model.load(
    request.checkpoint, stage=number, vocab_file=request.vocab_file
  )
  return sentence_pictures.Stage(number, model, attention.AttentionMaps(model))


def _check_heads(request: Request, model: pretrained.PretrainedBert) -> None:
  sizes = model.architecture
  for layer, head in request.heads:
    if layer >= sizes.num_layers or head >= sizes.num_heads:
      raise errors.InputError(
        f"heads={layer}:{head} is not in the model; it has layers 0 to"
        f" {sizes.num_layers - 1} with heads 0 to {sizes.num_heads - 1}."
      )


def _compared_numbers(
  request: Request, chosen: sentence_pictures.Stage
) -> list[int]:
  """Returns the finished stages up to the chosen one, or that one alone."""
  if not request.is_compared:
    return [chosen.number]
  if not chosen.model.history.stages:
    raise errors.InputError(
      f"{request.checkpoint} is an imported model; --compare needs a run of two"
      " stages."
    )
  directory = run_directory.RunDirectory(request.checkpoint)
  numbers = [
    number
    for number in range(1, chosen.number + 1)
    if directory.is_finished(number)
  ]
  if len(numbers) < 2:
    raise errors.InputError(
      f"--compare needs two finished stages; {request.checkpoint} has none"
      f" before stage {chosen.number}."
    )
  return numbers


def _left_out(numbers: Sequence[int]) -> list[str]:
  missing = sorted({*range(numbers[0], numbers[-1])} - {*numbers})
  return [f"stage {number} is missing, left out" for number in missing]


def _sentence(
  request: Request, model: pretrained.PretrainedBert
) -> attention_text.Sentence | None:
  if request.sentence:
    return attention_text.of_sentence(
      model, request.sentence, request.second_sentence
    )
  for name in ("second_sentence", "heads"):
    if getattr(request, name):
      raise errors.InputError(f"--{name} needs --sentence.")
  return None


def _text(
  request: Request, model: pretrained.PretrainedBert
) -> attention_text.Text | None:
  if request.text is not None:
    return attention_text.of_lines(
      model, request.text.split("\n"), source=request.text_source
    )
  if not request.num_examples or not model.history.stages:
    return None
  return attention_text.of_run(
    model, request.checkpoint, num_examples=request.num_examples
  )


def _measure(
  request: Request,
  text: attention_text.Text,
  chosen: sentence_pictures.Stage,
  numbers: Sequence[int],
) -> attention_tables.Measured:
  stages = [record.stage for record in chosen.model.history.stages]
  sep_id = chosen.model.vocabulary.ids[vocabulary_lib.SEP]
  shares: dict[int, attention_measures.Shares] = {}
  comparisons = []
  before = None
  for number in numbers:
    # Two models at a time, not all.
    after = chosen if number == chosen.number else _open(request, number)
    shares[number] = attention_measures.measure_shares(
      after.maps, text, sep_id=sep_id
    )
    if before is not None:
      copies = layer_origins.copies(stages, number)
      divergences = attention_measures.measure_divergences(
        before.maps,
        after.maps,
        text,
        kept=layer_origins.kept_layers(stages, before.number, number),
        copies=copies,
      )
      comparisons.append(
        attention_tables.Comparison(before.number, number, copies, divergences)
      )
    before = after
  return attention_tables.Measured(
    name=_name(request.checkpoint),
    text=text,
    shares=shares,
    comparisons=tuple(comparisons),
  )


def _name(checkpoint: str) -> str:
  return os.path.basename(os.path.normpath(checkpoint))


def _write_picture(
  figure: figure_lib.Figure, name: str, output_dir: str, image_format: str
) -> str:
  content = io.BytesIO()
  # The same picture has the same bytes.
  metadata: Mapping[str, Any] = {
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
  }[image_format]
  with matplotlib.rc_context({"svg.hashsalt": name}):
    figure.savefig(
      content,
      format=image_format,
      dpi=attention_figures.RESOLUTION,
      metadata=metadata,
    )
  path = os.path.join(output_dir, f"{name}.{image_format}")
  with run_directory.writing(path):
    tf.io.gfile.makedirs(output_dir)
    with tf.io.gfile.GFile(path, "wb") as file:
      file.write(content.getvalue())
  return path
