"""SavedModels: text in, states, logits or labels out, without this package.

Letters: B batch, S sequence, P predictions, D hidden, C classes, V vocabulary.
"""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from official.nlp.modeling import layers
from official.nlp.tools import export_tfhub_lib

from mslt_tf import errors
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.interop import graph_text
from mslt_tf.models import bert
from mslt_tf.models import dropout as dropout_lib
from mslt_tf.models import encoder
from mslt_tf.models import fused
from mslt_tf.models import pretrained
from mslt_tf.models import weights as weights_lib

_DEFAULT_LENGTH = 128  # Of TF Hub's preprocessing models.
_NUM_BATCHES = 1 << 24  # A dropout key's batch index is below it.

Tensors = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier:
  """What fine-tuning puts on top of the pooled state.

  Attributes:
    labels: Their names, by class; empty for a regression, where C is 1.
    output_weights: float32 [C, D].
    output_bias: float32 [C].
    max_sequence_length: Of text, in tokens, as in training; the rest is cut
      off. Positions beyond may be untrained.
  """

  labels: tuple[str, ...]
  output_weights: np.ndarray
  output_bias: np.ndarray
  max_sequence_length: int


def export(model: pretrained.PretrainedBert, directory: str) -> None:
  """Writes an encoder with TF Hub's interface that also takes text.

  `directory` is the SavedModel of the encoder, `directory/preprocessing` that
  of its text. docs/checkpoints.md lists functions and signatures.
  """
  network = _Network(model, model.architecture.max_positions)
  with fused.plain_operations():
    root = _encoder(network)
    _save(root, _signatures(network), model, directory)
  _save_preprocessing(network.text, os.path.join(directory, "preprocessing"))


def export_classifier(
  model: pretrained.PretrainedBert, classifier: Classifier, directory: str
) -> None:
  """Writes a fine-tuned model: text or its tokens in, labels or a score out.

  Args:
    model: The encoder after fine-tuning.
    classifier: The rest of it.
    directory: Of the SavedModel, and with `preprocessing` in it.

  Raises:
    InputError: The classifier does not fit the encoder or its labels.
  """
  _check(classifier, model.architecture.hidden_size)
  network = _Network(model, classifier.max_sequence_length)
  with fused.plain_operations():
    root, signatures = _classifier(network, classifier)
    _save(root, signatures, model, directory)
  _save_preprocessing(network.text, os.path.join(directory, "preprocessing"))


class _Network:
  """The model as functions of TF Hub's inputs, and of text."""

  def __init__(self, model: pretrained.PretrainedBert, max_length: int):
    self.bert = bert.Bert(**dataclasses.asdict(model.architecture))
    weights_lib.fill(self.bert, model.weights)
    self.text = graph_text.TextInputs(
      vocabulary=model.vocabulary,
      lower_case=model.lower_case,
      max_length=max_length,
    )

  @property
  def encoder_variables(self) -> list[tf.Variable]:
    parts = [self.bert.embeddings, *self.bert.encoder_layers, self.bert.pooler]
    return [weight for part in parts for weight in part.weights]

  # One function for all that call it: BERT-Base takes seconds to trace.
  @tf.function(autograph=False)
  def encode(self, inputs: Mapping[str, tf.Tensor], training: bool) -> Tensors:
    """Returns TF Hub's outputs, `encoder_outputs` being those of each layer."""
    source = None
    if training:
      source = dropout_lib.Dropout(
        seed=0,
        batch_index=tf.random.uniform([], maxval=_NUM_BATCHES, dtype=tf.int64),
      )
    # Not `Bert.call`, which computes both heads as well.
    score_bias = encoder.attention_bias(inputs["input_mask"])
    hidden = self.bert.embeddings(
      inputs["input_word_ids"], inputs["input_type_ids"], source
    )
    states = []
    for layer in self.bert.encoder_layers:
      hidden = layer(hidden, score_bias, source)
      states.append(hidden)
    pooled = self.bert.pooler(hidden)
    return {
      "pooled_output": pooled,  # [B, D]
      "default": pooled,
      "sequence_output": hidden,  # [B, S, D]
      "encoder_outputs": states,
    }

  def predict(self, hidden: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Returns the MLM logits [B, P, V] of states [B, S, D]; P is any."""
    hidden_size = hidden.shape[-1]
    states = tf.gather(hidden, positions, batch_dims=1)  # [B, P, D]
    # The head wants to know P, so it is 1.
    states = tf.reshape(states, [-1, 1, hidden_size])
    table = tf.convert_to_tensor(self.bert.embeddings.word_embeddings)
    first = tf.zeros([tf.shape(states)[0], 1], tf.int32)
    logits = self.bert.masked_lm_head(states, first, table)  # [BP, 1, V]
    return tf.reshape(
      logits, tf.concat([tf.shape(positions), [logits.shape[-1]]], 0)
    )


def _encoder(network: _Network) -> tf.train.Checkpoint:
  """Returns an object with TF Hub's interface of a text encoder."""
  root = _callable(network.encode, _ids_spec(), network.encoder_variables)

  def predict(inputs, training):
    outputs = network.encode(inputs, training)
    logits = network.predict(
      outputs["sequence_output"], inputs["masked_lm_positions"]
    )
    return {**outputs, "mlm_logits": logits}

  root.mlm = _callable(
    predict,
    {**_ids_spec(), "masked_lm_positions": _ids("masked_lm_positions")},
    [*network.encoder_variables, *network.bert.masked_lm_head.weights],
  )
  return root


def _callable(
  function: Callable[[Mapping[str, tf.Tensor], bool], Tensors],
  spec: Mapping[str, tf.TensorSpec],
  variables: Sequence[tf.Variable],
) -> tf.train.Checkpoint:
  """Returns what hub.KerasLayer calls and trains."""
  root = tf.train.Checkpoint()

  @tf.function(autograph=False)
  def call(inputs, training=False):
    return function(inputs, training)

  for training in (False, True):
    call.get_concrete_function(dict(spec), training=training)
  root.__call__ = call
  root.variables = list(variables)
  root.trainable_variables = list(variables)
  root.regularization_losses = []
  return root


def _signatures(network: _Network) -> dict[str, Callable]:
  """Returns TensorFlow Serving's signatures of an encoder."""
  text, tokenize = network.text, network.text.tokenize

  def states(inputs):
    outputs = network.encode(inputs, training=False)
    names = ("pooled_output", "sequence_output")
    return {name: outputs[name] for name in names}

  def states_of_text(*segments):
    inputs = text.pack(list(map(tokenize, segments)))
    return {**states(inputs), **inputs}

  def logits(masked_lm_positions, **inputs):
    hidden = states(inputs)["sequence_output"]
    return {"mlm_logits": network.predict(hidden, masked_lm_positions)}

  def logits_of_text(text_with_masks):
    inputs = text.pack([text.tokenize_with_masks(text_with_masks)])
    is_mask = inputs["input_word_ids"] == text.special_ids["mask_id"]
    places = tf.ragged.boolean_mask(_places(is_mask), is_mask)  # [B, (P)]
    positions = places.to_tensor()
    return {
      **logits(positions, **inputs),
      "masked_lm_positions": positions,
      "masked_lm_weights": tf.ones_like(places, tf.float32).to_tensor(),
    }

  return {
    "serving_default": _traced(states_of_text, _strings("text")),
    "text_pair": _traced(
      states_of_text, _strings("text"), _strings("text_pair")
    ),
    "encoder": _traced(lambda **inputs: states(inputs), **_ids_spec()),
    "mlm": _traced(logits, _ids("masked_lm_positions"), **_ids_spec()),
    "mlm_text": _traced(logits_of_text, _strings("text")),
  }


def _classifier(
  network: _Network, classifier: Classifier
) -> tuple[tf.train.Checkpoint, dict[str, Callable]]:
  """Returns a fine-tuned model and its signatures."""
  text, tokenize = network.text, network.text.tokenize
  weights = tf.Variable(classifier.output_weights, name="output_weights")
  bias = tf.Variable(classifier.output_bias, name="output_bias")
  labels = tf.constant(classifier.labels, tf.string)

  def logits(inputs, training):
    pooled = network.encode(inputs, training)["pooled_output"]
    return tf.matmul(pooled, weights, transpose_b=True) + bias  # [B, C]

  def answers(inputs):
    values = logits(inputs, training=False)
    if not classifier.labels:
      return {"score": values[:, 0]}
    return {
      "logits": values,
      "probabilities": tf.nn.softmax(values),
      "label": tf.gather(labels, tf.argmax(values, -1)),
    }

  def answers_of_text(*segments):
    return answers(text.pack(list(map(tokenize, segments))))

  root = _callable(
    logits, _ids_spec(), [*network.encoder_variables, weights, bias]
  )
  root.labels = tf.Variable(labels, trainable=False, name="labels")
  return root, {
    "serving_default": _traced(answers_of_text, _strings("text")),
    "text_pair": _traced(
      answers_of_text, _strings("text"), _strings("text_pair")
    ),
    "tokens": _traced(lambda **inputs: answers(inputs), **_ids_spec()),
  }


def _check(classifier: Classifier, hidden_size: int) -> None:
  num_classes = len(classifier.labels) or 1
  for name, array, shape in (
    ("output_weights", classifier.output_weights, (num_classes, hidden_size)),
    ("output_bias", classifier.output_bias, (num_classes,)),
  ):
    if array.shape != shape:
      raise errors.InputError(
        f"{name} has shape {list(array.shape)}; for {len(classifier.labels)}"
        f" labels and hidden_size={hidden_size} it is {list(shape)}."
      )


def _save(
  root: tf.train.Checkpoint,
  signatures: Mapping[str, Callable],
  model: pretrained.PretrainedBert,
  directory: str,
) -> None:
  """Writes a SavedModel with the vocabulary as an asset."""
  root.do_lower_case = tf.Variable(model.lower_case, trainable=False)
  with tempfile.TemporaryDirectory() as assets:
    path = os.path.join(assets, "vocab.txt")
    vocabulary_lib.save(model.vocabulary, path)
    root.vocab_file = tf.saved_model.Asset(path)
    tf.saved_model.save(root, directory, signatures=dict(signatures))


def _save_preprocessing(text: graph_text.TextInputs, directory: str) -> None:
  """Writes a SavedModel with TF Hub's interface of a preprocessor."""
  root = tf.train.Checkpoint()
  pack = export_tfhub_lib.BertPackInputsSavedModelWrapper(
    layers.BertPackInputs(
      seq_length=min(_DEFAULT_LENGTH, text.max_length),
      special_tokens_dict=text.special_ids,
    )
  )
  root.tokenize = tf.train.Checkpoint()
  root.tokenize.__call__ = text.tokenize
  root.tokenize.get_special_tokens_dict = tf.train.Checkpoint()
  root.tokenize.get_special_tokens_dict.__call__ = tf.function(
    lambda: dict(text.special_ids), input_signature=[], autograph=False
  )
  root.bert_pack_inputs = pack
  root.__call__ = tf.function(
    lambda sentences: pack.__call__([text.tokenize(sentences)]),
    input_signature=[_strings("sentences")],
    autograph=False,
  )
  tf.saved_model.save(root, directory, signatures=root.__call__)


def _places(matrix: tf.Tensor) -> tf.Tensor:
  """Returns int32 [B, S], the column of each entry of a matrix [B, S]."""
  columns = tf.range(tf.shape(matrix)[1])
  return tf.broadcast_to(columns, tf.shape(matrix))


def _traced(function: Callable, *specs, **named):
  traced = tf.function(function, autograph=False)
  return traced.get_concrete_function(*specs, **named)


def _strings(name: str) -> tf.TensorSpec:
  return tf.TensorSpec([None], tf.string, name=name)


def _ids(name: str) -> tf.TensorSpec:
  return tf.TensorSpec([None, None], tf.int32, name=name)


def _ids_spec() -> dict[str, tf.TensorSpec]:
  names = ("input_word_ids", "input_mask", "input_type_ids")
  return {name: _ids(name) for name in names}
