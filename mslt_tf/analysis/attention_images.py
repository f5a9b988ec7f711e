"""A sentence's attention as an image in TensorBoard, at the end of a stage."""

import numpy as np
import tensorflow as tf

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import finished_model
from mslt_tf.analysis import attention_text
from mslt_tf.analysis import sentence_pictures
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.data.reading import manifest
from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import pretrained
from mslt_tf.training import run_directory

TAG = "attention"
_FIELD = "training.attention_sentence"


def check(config: config_lib.Config, data: manifest.Data) -> None:
  """Tells before a run whether its sentence could not be drawn after a stage.

  Raises:
    InputError: It has no word or too many, or the data tell no vocabulary.
  """
  sentence = config.training.attention_sentence
  if not sentence:
    return
  if data.vocab_file is None:
    raise errors.InputError(
      f"{_FIELD}={sentence!r} needs data.directory: shards made elsewhere come"
      " without a vocabulary."
    )
  without_weights = pretrained.PretrainedBert(
    architecture=architecture_lib.of(config.model),
    lower_case=config.model.lower_case,
    vocabulary=vocabulary_lib.load(data.vocab_file),
    weights={},
  )
  try:
    attention_text.of_sentence(without_weights, sentence)
  except errors.InputError as error:
    raise errors.InputError(f"{_FIELD}: {error}") from error


def write(
  directory: run_directory.RunDirectory, number: int, sentence: str
) -> None:
  """Writes the picture of all heads of a finished stage, at the run's step.

  Args:
    directory: Of the run.
    number: Of the stage.
    sentence: That `check` found nothing wrong with; nothing is drawn of "".
  """
  if not sentence:
    return
  model = finished_model.load(directory.path, stage=number)
  picture = sentence_pictures.pixels(
    model, sentence, title=f"Attention after stage {number}"
  )
  step = directory.read_results(number)["step"]
  with run_directory.writing(directory.tensorboard):
    writer = tf.summary.create_file_writer(directory.tensorboard)
    with writer.as_default(step=step):
      tf.summary.image(TAG, picture[np.newaxis])
    writer.close()
