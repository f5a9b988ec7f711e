"""The whole model equals its peers, and its frozen part stands still.

Letters: B batch, S sequence, P predictions, D hidden, V vocabulary.
"""

import numpy as np
import pytest
import tensorflow as tf
from official.nlp.modeling import layers
from official.nlp.modeling import models
from official.nlp.modeling import networks

from mslt_tf.models import bert
from mslt_tf.models import dropout
from mslt_tf.models import weights

B, S, P, D, V = 3, 7, 4, 12, 37
NUM_HEADS, INTERMEDIATE, MAX_POSITIONS = 3, 20, 11

EMBEDDINGS = [
  "bert/embeddings/word_embeddings",
  "bert/embeddings/position_embeddings",
  "bert/embeddings/token_type_embeddings",
  "bert/embeddings/LayerNorm/gamma",
  "bert/embeddings/LayerNorm/beta",
]
LAYER = [
  "attention/self/query/kernel",
  "attention/self/query/bias",
  "attention/self/key/kernel",
  "attention/self/key/bias",
  "attention/self/value/kernel",
  "attention/self/value/bias",
  "attention/output/dense/kernel",
  "attention/output/dense/bias",
  "attention/output/LayerNorm/gamma",
  "attention/output/LayerNorm/beta",
  "intermediate/dense/kernel",
  "intermediate/dense/bias",
  "output/dense/kernel",
  "output/dense/bias",
  "output/LayerNorm/gamma",
  "output/LayerNorm/beta",
]
HEADS = [
  "bert/pooler/dense/kernel",
  "bert/pooler/dense/bias",
  "cls/predictions/transform/dense/kernel",
  "cls/predictions/transform/dense/bias",
  "cls/predictions/transform/LayerNorm/gamma",
  "cls/predictions/transform/LayerNorm/beta",
  "cls/predictions/output_bias",
  "cls/seq_relationship/output_weights",
  "cls/seq_relationship/output_bias",
]


def _layer(index: int) -> list[str]:
  return [f"bert/encoder/layer_{index}/{name}" for name in LAYER]


def _make_model(num_layers: int = 3, **kwargs) -> bert.Bert:
  arguments = dict(
    vocab_size=V,
    hidden_size=D,
    num_layers=num_layers,
    num_heads=NUM_HEADS,
    intermediate_size=INTERMEDIATE,
    max_positions=MAX_POSITIONS,
    seed=5,
  )
  return bert.Bert(**(arguments | kwargs))


def _randomize(model: bert.Bert) -> None:
  """Makes every weight, biases and norms too, count."""
  rng = np.random.default_rng(1)
  for weight in model.weights:
    offset = 1.0 if weight.name.endswith("gamma:0") else 0.0
    weight.assign(offset + rng.normal(scale=0.3, size=weight.shape))


@pytest.fixture(scope="module")
def features() -> dict[str, tf.Tensor]:
  rng = np.random.default_rng(2)
  mask = np.array([[1] * 7, [1] * 5 + [0] * 2, [1] * 6 + [0]])
  return {
    "input_ids": tf.constant(rng.integers(V, size=[B, S]) * mask, tf.int32),
    "input_mask": tf.constant(mask, tf.int32),
    "segment_ids": tf.constant(
      [[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1, 0]],
      tf.int32,
    ),
    "masked_lm_positions": tf.constant(
      [[1, 2, 5, 6], [2, 3, 0, 0], [4, 0, 0, 0]], tf.int32
    ),
    "masked_lm_ids": tf.constant(
      [[9, 1, 36, 4], [2, 30, 0, 0], [7, 0, 0, 0]], tf.int32
    ),
    "masked_lm_weights": tf.constant(
      [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], tf.float32
    ),
    "next_sentence_labels": tf.constant([0, 1, 1], tf.int32),
  }


@pytest.fixture(scope="module")
def all_trained() -> bert.Bert:
  model = _make_model()
  _randomize(model)
  return model


@pytest.fixture(scope="module")
def frozen() -> bert.Bert:
  """The second stage of a run that adds one layer: two layers are frozen."""
  model = _make_model(num_frozen_layers=2, freeze_embeddings=True)
  _randomize(model)
  return model


def _make_model_garden_pretrainer(arrays) -> tf.keras.Model:
  """Returns Model Garden's BERT with both heads and the given weights."""

  def gelu(x):
    return tf.keras.activations.gelu(x, approximate=True)

  pretrainer = models.BertPretrainerV2(
    networks.BertEncoderV2(
      vocab_size=V,
      hidden_size=D,
      num_layers=3,
      num_attention_heads=NUM_HEADS,
      inner_dim=INTERMEDIATE,
      inner_activation=gelu,
      max_sequence_length=MAX_POSITIONS,
      type_vocab_size=2,
    ),
    mlm_activation=gelu,
    classification_heads=[
      layers.ClassificationHead(
        inner_dim=D, num_classes=2, dropout_rate=0.0, name="next_sentence"
      )
    ],
  )
  pretrainer(
    {
      "input_word_ids": tf.zeros([1, 2], tf.int32),
      "input_mask": tf.ones([1, 2], tf.int32),
      "input_type_ids": tf.zeros([1, 2], tf.int32),
      "masked_lm_positions": tf.zeros([1, 1], tf.int32),
    }
  )
  renamed = [
    ("bert_encoder_v2/word_embeddings/embeddings", EMBEDDINGS[0]),
    ("bert_encoder_v2/position_embedding/embeddings", EMBEDDINGS[1]),
    ("bert_encoder_v2/type_embeddings/embeddings", EMBEDDINGS[2]),
    ("bert_encoder_v2/embeddings/layer_norm", "bert/embeddings/LayerNorm"),
    ("bert_encoder_v2/transformer", "bert/encoder"),
    ("self_attention_layer_norm", "attention/output/LayerNorm"),
    ("self_attention/attention_output", "attention/output/dense"),
    ("output_layer_norm", "output/LayerNorm"),
    ("self_attention", "attention/self"),
    ("intermediate", "intermediate/dense"),
    ("output/kernel", "output/dense/kernel"),
    ("output/bias", "output/dense/bias"),
    ("bert/next_sentence/pooler_dense", "bert/pooler/dense"),
    ("bert/next_sentence/logits/kernel", "cls/seq_relationship/output_weights"),
    ("bert/next_sentence/logits/bias", "cls/seq_relationship/output_bias"),
    ("bert/cls/predictions/output_bias/bias", "cls/predictions/output_bias"),
    ("bert/cls", "cls"),
  ]
  for weight in pretrainer.weights:
    name = weight.name.removesuffix(":0")
    if "pooler_transform" in name:  # Not on the way to either loss.
      continue
    for theirs, ours in renamed:
      name = name.replace(theirs, ours)
    array = arrays[name]
    if "seq_relationship/output_weights" in name:
      array = array.T
    weight.assign(array.reshape(weight.shape))
  return pretrainer


def test_hidden_states_and_logits_are_those_of_model_garden(
  all_trained, features
):
  pretrainer = _make_model_garden_pretrainer(weights.to_arrays(all_trained))
  expected = pretrainer(
    {
      "input_word_ids": features["input_ids"],
      "input_mask": features["input_mask"],
      "input_type_ids": features["segment_ids"],
      "masked_lm_positions": features["masked_lm_positions"],
    },
    training=False,
  )
  outputs = all_trained(features)
  assert len(outputs.hidden_states) == 4
  tolerance = {"rtol": 1e-4, "atol": 1e-5}
  for ours, theirs in zip(
    outputs.hidden_states[1:], expected["encoder_outputs"], strict=True
  ):
    np.testing.assert_allclose(ours, theirs, **tolerance)
  np.testing.assert_allclose(
    outputs.masked_lm_logits, expected["mlm_logits"], **tolerance
  )
  np.testing.assert_allclose(
    outputs.next_sentence_logits, expected["next_sentence"], **tolerance
  )


def _hugging_face_name(name: str) -> str:
  """Returns Hugging Face's name of a weight of Google's checkpoints."""
  special = {
    "bert/embeddings/word_embeddings": "bert.embeddings.word_embeddings.weight",
    "bert/embeddings/position_embeddings": (
      "bert.embeddings.position_embeddings.weight"
    ),
    "bert/embeddings/token_type_embeddings": (
      "bert.embeddings.token_type_embeddings.weight"
    ),
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
    "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
  }
  if name in special:
    return special[name]
  name = name.replace("/layer_", "/layer/").replace("/", ".")
  for theirs, ours in (("kernel", "weight"), ("gamma", "weight")):
    name = name.replace(f".{theirs}", f".{ours}")
  return name.replace(".beta", ".bias")


@pytest.mark.parametrize(
  "activation, hidden_act", [("gelu_tanh", "gelu_new"), ("gelu_exact", "gelu")]
)
def test_losses_logits_and_hidden_states_are_those_of_hugging_face(
  activation, hidden_act, features
):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  model = _make_model(activation=activation)
  _randomize(model)
  peer = transformers.BertForPreTraining(
    transformers.BertConfig(
      vocab_size=V,
      hidden_size=D,
      num_hidden_layers=3,
      num_attention_heads=NUM_HEADS,
      intermediate_size=INTERMEDIATE,
      max_position_embeddings=MAX_POSITIONS,
      type_vocab_size=2,
      hidden_act=hidden_act,
    )
  )
  state = {}
  for name, array in weights.to_arrays(model).items():
    # PyTorch's kernels are [outputs, inputs].
    array = array.T if name.endswith("kernel") else array
    state[_hugging_face_name(name)] = torch.from_numpy(array.copy())
  missing, unexpected = peer.load_state_dict(state, strict=False)
  assert not unexpected
  # Tied to the word embeddings and to the output bias.
  assert set(missing) <= {
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
    "bert.embeddings.position_ids",
    "bert.embeddings.token_type_ids",
  }
  peer.tie_weights()
  peer.eval()

  labels = np.full([B, S], -100)  # What Hugging Face does not count.
  for b in range(B):
    for p in range(P):
      if features["masked_lm_weights"][b, p]:
        position = int(features["masked_lm_positions"][b, p])
        labels[b, position] = int(features["masked_lm_ids"][b, p])

  def to_torch(name):
    return torch.from_numpy(features[name].numpy().astype(np.int64))

  with torch.no_grad():
    expected = peer(
      input_ids=to_torch("input_ids"),
      attention_mask=to_torch("input_mask"),
      token_type_ids=to_torch("segment_ids"),
      labels=torch.from_numpy(labels),
      next_sentence_label=to_torch("next_sentence_labels"),
      output_hidden_states=True,
    )
  outputs = model(features)
  tolerance = {"rtol": 1e-4, "atol": 1e-5}
  assert len(outputs.hidden_states) == 4
  for ours, theirs in zip(
    outputs.hidden_states, expected.hidden_states, strict=True
  ):
    np.testing.assert_allclose(ours, theirs.numpy(), **tolerance)
  np.testing.assert_allclose(
    outputs.masked_lm_logits,
    np.take_along_axis(
      expected.prediction_logits.numpy(),
      features["masked_lm_positions"].numpy()[:, :, np.newaxis],
      axis=1,
    ),
    **tolerance,
  )
  np.testing.assert_allclose(
    outputs.next_sentence_logits,
    expected.seq_relationship_logits.numpy(),
    **tolerance,
  )
  sums = bert.pretraining_sums(outputs, features)
  losses = [
    float(total) / float(count)
    for total, count in (sums["mlm_loss"], sums["nsp_loss"])
  ]
  assert sum(losses) == pytest.approx(float(expected.loss), rel=1e-5)


def test_the_losses_are_sums_with_their_counts(features):
  mlm_logits = np.zeros([B, P, V], np.float32)
  mlm_logits[0, 0, 9] = mlm_logits[1, 1, 30] = 50.0  # Right, and sure of it.
  outputs = bert.Outputs(
    hidden_states=[],
    pooled=tf.zeros([B, D]),
    masked_lm_logits=tf.constant(mlm_logits),
    next_sentence_logits=tf.constant([[0.0, 1.0], [0.0, 1.0], [2.0, 0.0]]),
  )
  sums = bert.pretraining_sums(outputs, features)
  assert {
    name: (float(total), float(count)) for name, (total, count) in sums.items()
  } == {
    # Five of seven predictions at ln 37 = 3.610918.
    "mlm_loss": pytest.approx((18.05459, 7.0)),
    "mlm_accuracy": (2.0, 7.0),
    # ln(1 + e), ln(1 + 1/e), ln(1 + e^2).
    "nsp_loss": pytest.approx((1.313262 + 0.313262 + 2.126928, 3.0)),
    "nsp_accuracy": (1.0, 3.0),
  }


def _filled_up(features) -> dict[str, tf.Tensor]:
  """Appends two examples that are padding: all of their features are zero."""
  return {
    name: tf.concat([value, tf.zeros_like(value)[:2]], 0)
    for name, value in features.items()
  }


def test_what_fills_up_a_batch_counts_for_nothing(all_trained, features):
  padded = _filled_up(features)
  assert padded["input_ids"].shape == [5, S]
  results = []
  for inputs in (features, padded):
    with tf.GradientTape() as tape:
      sums = bert.pretraining_sums(all_trained(inputs), inputs)
      loss = sums["mlm_loss"][0] + sums["nsp_loss"][0]
    gradients = tape.gradient(loss, all_trained.trainable_variables)
    results.append((sums, [tf.convert_to_tensor(each) for each in gradients]))
  for expected, actual in zip(*map(tf.nest.flatten, results), strict=True):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_counts_are_known_without_a_forward_pass(features):
  for inputs in (features, _filled_up(features)):
    counts = bert.pretraining_counts(inputs)
    assert {count.dtype for count in counts.values()} == {tf.float32}
    assert {name: float(count) for name, count in counts.items()} == {
      "mlm_loss": 7.0,
      "nsp_loss": 3.0,
    }


def test_a_fresh_model_guesses(features):
  sums = bert.pretraining_sums(_make_model()(features), features)
  mlm_loss, nsp_loss = (
    float(tf.divide(*sums[name])) for name in ("mlm_loss", "nsp_loss")
  )
  assert mlm_loss == pytest.approx(3.61, abs=0.1)  # ln 37
  assert nsp_loss == pytest.approx(0.693, abs=0.02)  # ln 2


def test_all_weights_have_the_names_of_google_checkpoints(all_trained):
  names = [weights.name_of(weight) for weight in all_trained.weights]
  expected = EMBEDDINGS + _layer(0) + _layer(1) + _layer(2) + HEADS
  assert sorted(names) == sorted(expected)


def test_without_freezing_everything_is_trained_and_has_a_gradient(
  all_trained, features
):
  names = _names(all_trained.trainable_variables)
  assert names == sorted(EMBEDDINGS + _layer(0) + _layer(1) + _layer(2) + HEADS)
  assert _names_with_gradient(all_trained, features) == names


def test_a_frozen_stage_trains_its_new_layers_and_the_heads(frozen):
  names = _names(frozen.trainable_variables)
  assert names == sorted(_layer(2) + HEADS)
  assert "bert/embeddings/word_embeddings" not in names
  table = frozen.embeddings.word_embeddings
  assert all(variable is not table for variable in frozen.trainable_variables)
  assert _names(frozen.non_trainable_variables) == sorted(
    EMBEDDINGS + _layer(0) + _layer(1)
  )


def test_the_gradient_of_a_frozen_variable_is_none(frozen, features):
  assert _names_with_gradient(frozen, features) == sorted(_layer(2) + HEADS)


def test_embeddings_alone_can_be_frozen(features):
  model = _make_model(num_layers=2, freeze_embeddings=True)
  expected = sorted(_layer(0) + _layer(1) + HEADS)
  assert _names(model.trainable_variables) == expected
  assert _names_with_gradient(model, features) == expected


def test_all_layers_can_be_frozen_and_the_heads_trained(features):
  model = _make_model(num_layers=2, num_frozen_layers=2, freeze_embeddings=True)
  assert _names(model.trainable_variables) == sorted(HEADS)
  assert _names_with_gradient(model, features) == sorted(HEADS)


@pytest.fixture(scope="module")
def words_trained(all_trained) -> bert.Bert:
  """Two layers are frozen, the word table is trained as the output matrix."""
  model = _make_model(num_frozen_layers=2, freeze_embeddings=False)
  weights.fill(model, weights.to_arrays(all_trained))
  return model


def test_above_frozen_layers_the_word_table_alone_can_be_trained(
  words_trained, features
):
  expected = sorted([*EMBEDDINGS[:1], *_layer(2), *HEADS])
  assert EMBEDDINGS[0] == "bert/embeddings/word_embeddings"
  assert _names(words_trained.trainable_variables) == expected
  assert _names(words_trained.non_trainable_variables) == sorted(
    EMBEDDINGS[1:] + _layer(0) + _layer(1)
  )
  assert _names_with_gradient(words_trained, features) == expected


def test_such_a_word_table_has_the_output_matrix_gradient_alone(
  words_trained, features
):
  table = words_trained.embeddings.word_embeddings
  with tf.GradientTape() as tape:
    outputs = words_trained(features)
    tape.watch(outputs.masked_lm_logits)
    loss = bert.pretraining_sums(outputs, features)["mlm_loss"][0]
  actual, of_logits = tape.gradient(loss, [table, outputs.masked_lm_logits])
  head = words_trained.masked_lm_head
  rows = tf.gather(
    outputs.hidden_states[-1], features["masked_lm_positions"], batch_dims=1
  )
  # The head's states before the product with the table, which they solve.
  without_bias = outputs.masked_lm_logits - head.output_bias
  states = tf.transpose(
    tf.linalg.lstsq(
      tf.cast(table, tf.float64),
      tf.transpose(tf.cast(tf.reshape(without_bias, [-1, V]), tf.float64)),
    )
  )
  assert states.shape == [rows.shape[0] * rows.shape[1], D]
  expected = tf.matmul(
    tf.cast(tf.reshape(of_logits, [-1, V]), tf.float64),
    states,
    transpose_a=True,
  )
  assert np.abs(actual).max() > 0.01
  np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def test_what_is_looked_up_in_a_trained_word_table_has_no_dropout_when_frozen(
  words_trained, features
):
  for first, second in zip(
    _hidden_states(words_trained, features, seed=1)[:3],
    _hidden_states(words_trained, features, seed=2)[:3],
    strict=True,
  ):
    np.testing.assert_array_equal(first, second)


def _names(variables) -> list[str]:
  return sorted(weights.name_of(variable) for variable in variables)


def _names_with_gradient(model, features) -> list[str]:
  """Names the weights that have a gradient, with all of them watched."""
  source = dropout.Dropout(1, tf.constant(0, tf.int64))
  with tf.GradientTape(persistent=True) as tape:
    tape.watch(model.weights)
    sums = bert.pretraining_sums(model(features, source), features)
    loss = sums["mlm_loss"][0] + sums["nsp_loss"][0]
  gradients = tape.gradient(loss, model.weights)
  return _names(
    weight
    for weight, gradient in zip(model.weights, gradients, strict=True)
    if gradient is not None
  )


def test_the_gradients_that_are_left_do_not_depend_on_freezing(
  all_trained, frozen, features
):
  weights.fill(frozen, weights.to_arrays(all_trained))
  gradients = []
  for model in (all_trained, frozen):
    variables = {weights.name_of(weight): weight for weight in model.weights}
    variables = [variables[name] for name in _layer(2) + HEADS]
    with tf.GradientTape() as tape:
      sums = bert.pretraining_sums(model(features), features)
      loss = sums["mlm_loss"][0] + sums["nsp_loss"][0]
    gradients.append(tape.gradient(loss, variables))
  for name, expected, actual in zip(_layer(2) + HEADS, *gradients, strict=True):
    np.testing.assert_allclose(
      actual, expected, rtol=1e-5, atol=1e-5, err_msg=name
    )


def _hidden_states(model, features, seed: int | None) -> list[np.ndarray]:
  source = None
  if seed is not None:
    source = dropout.Dropout(seed, tf.constant(3, tf.int64))
  return [state.numpy() for state in model(features, source).hidden_states]


def test_the_frozen_part_runs_as_at_inference(frozen, features):
  plain = _hidden_states(frozen, features, None)
  first = _hidden_states(frozen, features, 1)
  second = _hidden_states(frozen, features, 2)
  for index in (0, 1, 2):  # The embeddings and both frozen layers.
    np.testing.assert_array_equal(first[index], plain[index])
    np.testing.assert_array_equal(second[index], plain[index])
  assert not np.allclose(first[3], plain[3])
  assert not np.allclose(first[3], second[3])


def test_a_step_from_frozen_states_is_the_step_that_computes_them(
  frozen, features
):
  states = frozen.frozen_states(features)
  given = {**features, "frozen_states": states}
  # The inputs that only the frozen part reads do not count any more.
  given["input_ids"] = tf.zeros([B, S], tf.int32)
  given["segment_ids"] = tf.zeros([B, S], tf.int32)
  results = []
  for each in (features, given):
    masks = dropout.Dropout(9, tf.constant(4, tf.int64))
    with tf.GradientTape() as tape:
      outputs = frozen(each, masks)
      sums = bert.pretraining_sums(outputs, each)
      loss = sums["mlm_loss"][0] + sums["nsp_loss"][0]
    gradients = tape.gradient(loss, frozen.trainable_variables)
    results.append([loss, *map(tf.convert_to_tensor, gradients)])
  assert len(results[0]) == 1 + len(LAYER) + len(HEADS)
  for computed, stored in zip(*results, strict=True):
    np.testing.assert_array_equal(computed, stored)


def test_the_frozen_part_drops_out_where_the_config_says_so(features):
  model = _make_model(
    num_frozen_layers=2, freeze_embeddings=True, dropout_when_frozen=True
  )
  plain = _hidden_states(model, features, None)
  first = _hidden_states(model, features, 1)
  second = _hidden_states(model, features, 2)
  for index in range(4):
    assert not np.allclose(first[index], plain[index])
    assert not np.allclose(first[index], second[index])
  # And its gradients are none all the same.
  assert _names_with_gradient(model, features) == sorted(_layer(2) + HEADS)


def test_trained_layers_and_embeddings_drop_out(all_trained, features):
  plain = _hidden_states(all_trained, features, None)
  first = _hidden_states(all_trained, features, 1)
  second = _hidden_states(all_trained, features, 2)
  for index in range(4):
    assert not np.allclose(first[index], plain[index])
    assert not np.allclose(first[index], second[index])


def test_a_frozen_layer_is_as_at_inference_under_embeddings_that_are_trained(
  features,
):
  # No schedule has it, but the two switches are independent.
  rates = {"hidden_dropout": 0.0, "attention_dropout": 0.3}
  model = _make_model(num_layers=2, num_frozen_layers=1, **rates)
  plain = _hidden_states(model, features, None)
  dropped = _hidden_states(model, features, 1)
  np.testing.assert_array_equal(dropped[1], plain[1])
  assert not np.array_equal(dropped[2], plain[2])


def test_every_dropout_of_a_model_draws_masks_of_its_own(all_trained, features):
  class Recorder:
    """Stands in for a source of masks and notes its sites."""

    def __init__(self):
      self.sites = []

    def key(self, site):
      self.sites.append(site)
      return tf.zeros([3], tf.uint32)

  recorder = Recorder()
  all_trained(features, recorder)
  assert recorder.sites == list(range(1 + 3 * 3))


def test_initial_values_depend_on_the_seed_and_the_name_alone():
  shallow = weights.to_arrays(_make_model(num_layers=2))
  deep = weights.to_arrays(
    _make_model(num_layers=4, num_frozen_layers=3, freeze_embeddings=True)
  )
  other = weights.to_arrays(_make_model(num_layers=2, seed=6))
  for name, array in shallow.items():
    np.testing.assert_array_equal(array, deep[name], err_msg=name)
    is_drawn = array.ndim == 2
    assert np.array_equal(array, other[name]) != is_drawn, name
  first, second = (
    deep[f"bert/encoder/layer_{index}/output/dense/kernel"] for index in (0, 1)
  )
  assert not np.allclose(first, second)


def test_eager_equals_a_function(frozen, features):
  @tf.function
  def run(inputs, batch_index):
    outputs = frozen(inputs, dropout.Dropout(1, batch_index))
    return outputs.hidden_states, bert.pretraining_sums(outputs, inputs)

  index = tf.constant(3, tf.int64)
  outputs = frozen(features, dropout.Dropout(1, index))
  expected = outputs.hidden_states, bert.pretraining_sums(outputs, features)
  for actual, wanted in zip(
    tf.nest.flatten(run(features, index)),
    tf.nest.flatten(expected),
    strict=True,
  ):
    np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)


def test_a_batch_may_have_any_size_and_length(all_trained, features):
  whole = all_trained(features)
  short = {
    name: value[1:2, :5] if value.shape[1:] == [S] else value[1:2]
    for name, value in features.items()
  }
  part = all_trained(short)
  # The second example's padding is what was cut off.
  np.testing.assert_allclose(
    part.hidden_states[-1], whole.hidden_states[-1][1:2, :5], atol=1e-5
  )
  np.testing.assert_allclose(
    part.masked_lm_logits, whole.masked_lm_logits[1:2], atol=1e-5
  )
