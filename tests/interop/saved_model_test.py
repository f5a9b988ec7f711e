"""Exported models answer as ours do, in programs that do not have ours."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub
from tensorflow.core.protobuf import saved_model_pb2

from mslt_tf import errors
from mslt_tf.data.examples import vocabulary
from mslt_tf.interop import saved_model
from mslt_tf.models import bert
from mslt_tf.models import pretrained
from mslt_tf.models import weights

TOKENS = (
  *vocabulary.SPECIAL_TOKENS,
  *("a", "##b", "b", "e", "i", "##i", "x", "##y", ".", "中", "…", "ß", "😀"),
  *(f"w{index}" for index in range(28)),
)
MASK_ID = 4
TEXTS = (
  "É İIi. 中x\x07y",
  "",
  "ab " * 30,
  "W7 ß… 😀 e\u0301",
  "a" * 300 + " b",
)
PAIRS = ("b", "w1 w2 w3 " * 9, "", "x", "a b")
MASKED = ("[MASK] a.", "b", "w5 [MASK] w6[MASK]")

# Run where nothing but TensorFlow is, in a Turkish locale, whose "I" is no "i".
PROGRAM = """
import sys

for name in ("mslt_tf", "official", "tensorflow_addons"):
  sys.modules[name] = None

import numpy as np
import tensorflow as tf
import tensorflow_text

given = np.load(sys.argv[3], allow_pickle=False)
results = {}
for path in sys.argv[1:3]:
  signatures = tf.saved_model.load(path).signatures
  for name, signature in signatures.items():
    arguments = {
      key.split("/")[1]: tf.constant(given[key])
      for key in given
      if key.split("/")[0] == name
    }
    for output, tensor in signature(**arguments).items():
      array = tensor.numpy()
      if array.dtype == object:
        array = np.array([each.decode() for each in array])
      results[f"{path}/{name}/{output}"] = array
np.savez(sys.argv[4], **results)
"""


@pytest.fixture(scope="module")
def model(make_pretrained) -> pretrained.PretrainedBert:
  return dataclasses.replace(
    make_pretrained(), vocabulary=vocabulary.Vocabulary(TOKENS)
  )


@pytest.fixture(scope="module")
def ours(model) -> bert.Bert:
  made = bert.Bert(
    vocab_size=46,
    hidden_size=6,
    num_layers=3,
    num_heads=2,
    intermediate_size=10,
    max_positions=20,
  )
  weights.fill(made, model.weights)
  return made


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> str:
  directory = tmp_path_factory.mktemp("encoder")
  saved_model.export(model, str(directory / "unfinished"))
  (directory / "unfinished").rename(directory / "moved")
  return str(directory / "moved")


@pytest.fixture(scope="module")
def classifier() -> saved_model.Classifier:
  rng = np.random.default_rng(3)
  return saved_model.Classifier(
    labels=("no", "maybe", "yes"),
    output_weights=rng.normal(size=[3, 6]).astype(np.float32),
    output_bias=rng.normal(size=[3]).astype(np.float32),
    max_sequence_length=20,
  )


@pytest.fixture(scope="module")
def exported_classifier(model, classifier, tmp_path_factory) -> str:
  directory = str(tmp_path_factory.mktemp("classifier"))
  saved_model.export_classifier(model, classifier, directory)
  return directory


@pytest.fixture(scope="module")
def elsewhere(exported, exported_classifier, tmp_path_factory) -> dict:
  """What both models answer in a process of another program."""
  folder = tmp_path_factory.mktemp("elsewhere")
  given = {}
  ids = _inputs(TEXTS)
  for name in ("serving_default", "text_pair"):
    given[f"{name}/text"] = np.array([text.encode() for text in TEXTS])
  given["text_pair/text_pair"] = np.array([text.encode() for text in PAIRS])
  given["mlm_text/text"] = np.array([text.encode() for text in MASKED])
  for name in ("encoder", "mlm", "tokens"):
    given |= {f"{name}/{key}": array for key, array in ids.items()}
  given["mlm/masked_lm_positions"] = np.array([[0, 1]] * len(TEXTS), np.int32)
  np.savez(folder / "given.npz", **given)
  environment = {
    name: value
    for name, value in os.environ.items()
    if name != "PYTHONPATH" and not name.startswith("LC_")
  }
  finished = subprocess.run(
    [
      *(sys.executable, "-c", PROGRAM, exported, exported_classifier),
      *(folder / "given.npz", folder / "results.npz"),
    ],
    cwd=folder,
    env={**environment, "LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert finished.returncode == 0, finished.stderr[-2000:]
  results: dict = {"encoder": {}, "classifier": {}}
  for key, array in np.load(folder / "results.npz").items():
    path, signature, output = key.rsplit("/", maxsplit=2)
    kind = "encoder" if path == exported else "classifier"
    results[kind].setdefault(signature, {})[output] = array
  return results


def _inputs(*segments) -> dict[str, np.ndarray]:
  """Packs one or two texts a row, of at most 20 tokens, the longer cut."""
  tokenizer = vocabulary.make_tokenizer(
    vocabulary.Vocabulary(TOKENS), lower_case=True
  )
  rows = []
  for texts in zip(*segments, strict=True):
    parts = [vocabulary.tokenize(tokenizer, [t])[0].tolist() for t in texts]
    while sum(map(len, parts)) > 19 - len(parts):
      # Of equals the second.
      max(reversed(parts), key=len).pop()
    ids, types = [2], [0]
    for index, part in enumerate(parts):
      ids += [*part, 3]
      types += [index] * (len(part) + 1)
    rows.append((ids, [1] * len(ids), types))
  width = max(len(ids) for ids, _, _ in rows)
  padded = np.array(
    [[each + [0] * (width - len(each)) for each in row] for row in rows],
    np.int32,
  )
  names = ("input_word_ids", "input_mask", "input_type_ids")
  return {name: padded[:, index] for index, name in enumerate(names)}


def _answers(ours, inputs, positions=None) -> bert.Outputs:
  if positions is None:
    positions = np.zeros([len(inputs["input_mask"]), 1], np.int32)
  return ours(
    {
      "input_ids": tf.constant(inputs["input_word_ids"]),
      "input_mask": tf.constant(inputs["input_mask"]),
      "segment_ids": tf.constant(inputs["input_type_ids"]),
      "masked_lm_positions": tf.constant(positions),
    }
  )


def assert_near(actual, wanted) -> None:
  """Equal to 1e-5 of the largest absolute value."""
  wanted = np.asarray(wanted)
  assert actual.shape == wanted.shape
  np.testing.assert_allclose(
    actual, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max()
  )


def assert_states(answer, inputs, ours) -> None:
  expected = _answers(ours, inputs)
  assert_near(answer["pooled_output"], expected.pooled)
  assert_near(answer["sequence_output"], expected.hidden_states[-1])


@pytest.mark.parametrize(
  "signature, segments",
  [("serving_default", [TEXTS]), ("text_pair", [TEXTS, PAIRS])],
)
def test_text_is_answered_elsewhere_as_here(
  signature, segments, elsewhere, ours
):
  answer = elsewhere["encoder"][signature]
  inputs = _inputs(*segments)
  assert inputs["input_word_ids"].shape == (5, 20)
  for name, array in inputs.items():
    np.testing.assert_array_equal(answer[name], array, err_msg=name)
  assert_states(answer, inputs, ours)


def test_tokens_are_answered_elsewhere_as_here(elsewhere, ours):
  assert_states(elsewhere["encoder"]["encoder"], _inputs(TEXTS), ours)


def test_masked_lm_logits_of_tokens_are_ours(elsewhere, ours):
  positions = np.array([[0, 1]] * len(TEXTS), np.int32)
  assert_near(
    elsewhere["encoder"]["mlm"]["mlm_logits"],
    _answers(ours, _inputs(TEXTS), positions).masked_lm_logits,
  )


def test_masks_in_text_are_predicted(elsewhere, ours):
  answer = elsewhere["encoder"]["mlm_text"]
  positions = np.array([[1, 0], [0, 0], [2, 4]], np.int32)
  np.testing.assert_array_equal(answer["masked_lm_positions"], positions)
  np.testing.assert_array_equal(
    answer["masked_lm_weights"], [[1, 0], [0, 0], [1, 1]]
  )
  # No word is split at a mask here, so a word can stand for it.
  inputs = _inputs([text.replace("[MASK]", " w27 ") for text in MASKED])
  ids = inputs["input_word_ids"]
  ids[ids == TOKENS.index("w27")] = MASK_ID
  assert_near(
    answer["mlm_logits"], _answers(ours, inputs, positions).masked_lm_logits
  )


def test_a_classifier_answers_elsewhere_with_labels(
  elsewhere, ours, classifier
):
  for signature, segments in (
    ("serving_default", [TEXTS]),
    ("text_pair", [TEXTS, PAIRS]),
    ("tokens", [TEXTS]),
  ):
    answer = elsewhere["classifier"][signature]
    pooled = _answers(ours, _inputs(*segments)).pooled.numpy()
    logits = pooled @ classifier.output_weights.T + classifier.output_bias
    assert_near(answer["logits"], logits)
    powers = np.exp(logits)
    assert_near(
      answer["probabilities"], powers / powers.sum(axis=1, keepdims=True)
    )
    names = [classifier.labels[index] for index in logits.argmax(axis=1)]
    assert answer["label"].tolist() == names


@pytest.mark.parametrize("kind", ["exported", "exported_classifier"])
def test_no_function_is_compiled_or_has_a_gradient_of_ours(kind, request):
  # A server would compile at every new length; Python's gradients stay behind.
  held = saved_model_pb2.SavedModel()
  path = os.path.join(request.getfixturevalue(kind), "saved_model.pb")
  with open(path, "rb") as file:
    held.ParseFromString(file.read())
  functions = held.meta_graphs[0].graph_def.library.function
  assert len(functions) > 10
  compiled = [
    each.signature.name
    for each in functions
    if each.attr["_XlaMustCompile"].b or each.attr["_gradient_op_type"].s
  ]
  assert compiled == []
  operations = {node.op for each in functions for node in each.node_def}
  assert "MatMul" in operations and "IdentityN" not in operations


def test_tensorflow_hub_uses_and_trains_the_encoder(exported, ours):
  layer = hub.KerasLayer(exported, trainable=True)
  inputs = {name: tf.constant(array) for name, array in _inputs(TEXTS).items()}
  with tf.GradientTape() as tape:
    outputs = layer(inputs, training=False)
    loss = tf.reduce_sum(outputs["pooled_output"][:, 0])
  assert outputs.keys() == {
    *("pooled_output", "sequence_output", "encoder_outputs", "default")
  }
  with tf.GradientTape() as our_tape:
    expected = _answers(ours, _inputs(TEXTS))
    our_loss = tf.reduce_sum(expected.pooled[:, 0])
  assert_near(outputs["default"], expected.pooled)
  assert len(outputs["encoder_outputs"]) == 3
  for theirs, state in zip(
    outputs["encoder_outputs"], expected.hidden_states[1:], strict=True
  ):
    assert_near(theirs, state)
  # 5 of the embeddings, 16 of each layer, 2 of the pooler.
  assert len(layer.trainable_variables) == 5 + 3 * 16 + 2
  by_name = {weights.name_of(each): each for each in ours.weights}
  variables = {weights.name_of(each): each for each in layer.variables}
  theirs = tape.gradient(loss, variables)
  for name, wanted in our_tape.gradient(
    our_loss, {name: by_name[name] for name in variables}
  ).items():
    np.testing.assert_allclose(
      tf.convert_to_tensor(theirs[name]),
      tf.convert_to_tensor(wanted),
      rtol=1e-4,
      atol=1e-5,
      err_msg=name,
    )


def test_dropout_is_on_in_training_and_new_every_time(exported):
  layer = hub.KerasLayer(exported, trainable=True)
  inputs = {name: tf.constant(array) for name, array in _inputs(TEXTS).items()}
  first, second, plain, again = (
    layer(inputs, training=training)["sequence_output"].numpy()
    for training in (True, True, False, False)
  )
  assert np.abs(first - plain).max() > 1e-3
  assert np.abs(first - second).max() > 1e-3
  np.testing.assert_array_equal(plain, again)


def test_tensorflow_hub_calls_the_masked_lm_head(exported, ours):
  loaded = hub.load(exported)
  positions = np.array([[3], [0], [7], [1], [1]], np.int32)
  inputs = {**_inputs(TEXTS), "masked_lm_positions": positions}
  outputs = loaded.mlm(
    {name: tf.constant(array) for name, array in inputs.items()}
  )
  expected = _answers(ours, inputs, positions)
  assert_near(outputs["mlm_logits"], expected.masked_lm_logits)
  assert_near(outputs["sequence_output"], expected.hidden_states[-1])


def test_the_preprocessing_has_tensorflow_hubs_interface(exported):
  preprocessing = hub.load(os.path.join(exported, "preprocessing"))
  expected = _inputs(TEXTS)
  layer = hub.KerasLayer(preprocessing)
  for name, tensor in layer(tf.constant(TEXTS)).items():
    np.testing.assert_array_equal(tensor, expected[name], err_msg=name)
  segments = [preprocessing.tokenize(tf.constant(t)) for t in (TEXTS, PAIRS)]
  pack = hub.KerasLayer(
    preprocessing.bert_pack_inputs, arguments={"seq_length": 20}
  )
  expected = _inputs(TEXTS, PAIRS)
  for name, tensor in pack(segments).items():
    np.testing.assert_array_equal(tensor, expected[name], err_msg=name)
  ids = preprocessing.tokenize.get_special_tokens_dict()
  assert {name: int(value) for name, value in ids.items()} == {
    "vocab_size": 46,
    "padding_id": 0,
    "start_of_sequence_id": 2,
    "end_of_segment_id": 3,
    "mask_id": 4,
  }


def test_the_vocabulary_is_an_asset(exported):
  loaded = hub.load(exported)
  with open(loaded.vocab_file.asset_path.numpy(), encoding="utf-8") as file:
    assert file.read() == "\n".join(TOKENS) + "\n"
  assert os.path.dirname(loaded.vocab_file.asset_path.numpy().decode()) == (
    os.path.join(exported, "assets")
  )
  assert loaded.do_lower_case.numpy()


def test_weights_keep_googles_names_and_their_values(exported, model):
  loaded = hub.load(exported)
  held = {weights.name_of(each): each for each in loaded.mlm.variables}
  assert set(model.weights) - set(held) == {
    "cls/seq_relationship/output_weights",
    "cls/seq_relationship/output_bias",
  }
  for name, variable in held.items():
    np.testing.assert_array_equal(variable, model.weights[name], err_msg=name)


@pytest.mark.slow
def test_a_regression_answers_with_a_score(model, ours, tmp_path):
  regression = saved_model.Classifier(
    labels=(),
    output_weights=np.array([[1, -2, 3, 0, 0.5, 1]], np.float32),
    output_bias=np.array([0.25], np.float32),
    max_sequence_length=20,
  )
  saved_model.export_classifier(model, regression, str(tmp_path))
  signature = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
  answer = signature(tf.constant(TEXTS))
  pooled = _answers(ours, _inputs(TEXTS)).pooled.numpy()
  assert answer.keys() == {"score"}
  assert_near(answer["score"], pooled @ regression.output_weights[0] + 0.25)


def test_a_classifier_that_does_not_fit_is_an_error(
  model, classifier, tmp_path
):
  wrong = dataclasses.replace(classifier, labels=("no", "yes"))
  with pytest.raises(
    errors.InputError,
    match=r"output_weights has shape \[3, 6\]; for 2 labels.* \[2, 6\]",
  ):
    saved_model.export_classifier(model, wrong, str(tmp_path))
  assert not os.listdir(tmp_path)
