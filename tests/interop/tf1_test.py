"""Google's layout: names, shapes, and checkpoints that are not ours."""

import json

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.interop import tf1
from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import pretrained

# What google-research/bert's published checkpoints hold, for this many layers.
EMBEDDINGS = """
bert/embeddings/LayerNorm/beta                                    D
bert/embeddings/LayerNorm/gamma                                   D
bert/embeddings/position_embeddings                               S D
bert/embeddings/token_type_embeddings                             2 D
bert/embeddings/word_embeddings                                   V D
"""
LAYER = """
bert/encoder/layer_{}/attention/output/LayerNorm/beta             D
bert/encoder/layer_{}/attention/output/LayerNorm/gamma            D
bert/encoder/layer_{}/attention/output/dense/bias                 D
bert/encoder/layer_{}/attention/output/dense/kernel               D D
bert/encoder/layer_{}/attention/self/key/bias                     D
bert/encoder/layer_{}/attention/self/key/kernel                   D D
bert/encoder/layer_{}/attention/self/query/bias                   D
bert/encoder/layer_{}/attention/self/query/kernel                 D D
bert/encoder/layer_{}/attention/self/value/bias                   D
bert/encoder/layer_{}/attention/self/value/kernel                 D D
bert/encoder/layer_{}/intermediate/dense/bias                     F
bert/encoder/layer_{}/intermediate/dense/kernel                   D F
bert/encoder/layer_{}/output/LayerNorm/beta                       D
bert/encoder/layer_{}/output/LayerNorm/gamma                      D
bert/encoder/layer_{}/output/dense/bias                           D
bert/encoder/layer_{}/output/dense/kernel                         F D
"""
HEADS = """
bert/pooler/dense/bias                                            D
bert/pooler/dense/kernel                                          D D
cls/predictions/output_bias                                       V
cls/predictions/transform/LayerNorm/beta                          D
cls/predictions/transform/LayerNorm/gamma                         D
cls/predictions/transform/dense/bias                              D
cls/predictions/transform/dense/kernel                            D D
cls/seq_relationship/output_bias                                  2
cls/seq_relationship/output_weights                               2 D
"""
BASE = {"num_layers": 12, "D": 768, "F": 3072, "S": 512, "V": 30522}
TINY = {"num_layers": 3, "D": 6, "F": 10, "S": 20, "V": 46}


def published(num_layers, **sizes) -> dict[str, list[int]]:
  """Returns the shapes by name of a published checkpoint of these sizes."""
  layers = [LAYER.replace("{}", str(index)) for index in range(num_layers)]
  return {
    name: [int(sizes.get(letter, letter)) for letter in dims]
    for line in "".join([EMBEDDINGS, *layers, HEADS]).split("\n")
    if line
    for name, *dims in [line.split()]
  }


@pytest.fixture(scope="module")
def model(make_pretrained):
  return make_pretrained()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
  directory = tmp_path_factory.mktemp("exported")
  tf1.export(model, str(directory))
  return directory


@pytest.fixture
def copied(exported, tmp_path):
  for path in exported.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  return tmp_path


def save(path, arrays):
  names = sorted(arrays)
  tf.raw_ops.SaveV2(
    prefix=str(path),
    tensor_names=names,
    shape_and_slices=[""] * len(names),
    tensors=[arrays[name] for name in names],
  )


def change_config(directory, **fields):
  path = directory / "bert_config.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_files_names_and_shapes_are_those_of_published_checkpoints(exported):
  assert {path.name for path in exported.iterdir()} == {
    "bert_config.json",
    "bert_model.ckpt.data-00000-of-00001",
    "bert_model.ckpt.index",
    "vocab.txt",
  }
  listed = dict(tf.train.list_variables(str(exported / "bert_model.ckpt")))
  assert listed == published(**TINY)


def test_base_has_the_names_and_shapes_of_the_published_base():
  shapes = architecture_lib.weight_shapes(
    architecture_lib.Architecture(
      vocab_size=30522,
      hidden_size=768,
      num_layers=12,
      num_heads=12,
      intermediate_size=3072,
    )
  )
  expected = published(**BASE)
  assert len(expected) == 206
  assert {name: list(shape) for name, shape in shapes.items()} == expected


def test_the_config_has_the_fields_of_the_published_one(exported):
  assert json.loads((exported / "bert_config.json").read_text()) == {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 6,
    "initializer_range": 0.02,
    "intermediate_size": 10,
    "max_position_embeddings": 20,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "type_vocab_size": 2,
    "vocab_size": 46,
  }


def test_a_graph_of_tf1_restores_it(exported, model):
  name = "bert/encoder/layer_2/output/dense/kernel"
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    variable = tf.compat.v1.get_variable(name, [10, 6])
    tf.compat.v1.train.init_from_checkpoint(
      str(exported / "bert_model.ckpt"), {name: variable}
    )
    session.run(tf.compat.v1.global_variables_initializer())
    np.testing.assert_array_equal(session.run(variable), model.weights[name])


@pytest.mark.parametrize("place", ["", "bert_model.ckpt"])
def test_a_round_trip_changes_no_bit(model, exported, place):
  back = tf1.load(str(exported / place))
  assert pretrained.fingerprint(back.weights) == pretrained.fingerprint(
    model.weights
  )
  assert back.architecture == model.architecture
  assert back.vocabulary == model.vocabulary
  assert back.lower_case


def test_the_exact_gelu_is_told_and_survives_by_a_flag(
  make_pretrained, tmp_path, caplog
):
  model = make_pretrained(activation="gelu_exact")
  with caplog.at_level("WARNING"):
    tf1.export(model, str(tmp_path))
  assert "exact GELU" in caplog.text
  assert tf1.load(str(tmp_path)).architecture.activation == "gelu_tanh"
  back = tf1.load(str(tmp_path), activation="gelu_exact")
  assert back.architecture == model.architecture


def test_what_an_optimizer_left_is_left_out(copied, model):
  arrays = dict(model.weights)
  for name in model.weights:
    arrays[f"{name}/adam_m"] = arrays[f"{name}/adam_v"] = model.weights[name]
  arrays["global_step"] = np.int64(7)
  save(copied / "bert_model.ckpt", arrays)
  assert tf1.load(str(copied)).weights.keys() == model.weights.keys()


def test_heads_may_be_missing(copied, model):
  arrays = {
    name: array
    for name, array in model.weights.items()
    if name.startswith(("bert/embeddings/", "bert/encoder/"))
  }
  save(copied / "bert_model.ckpt", arrays)
  assert tf1.load(str(copied)).weights.keys() == arrays.keys()


def test_half_precision_is_widened(copied, model):
  arrays = {
    name: array.astype(np.float16) for name, array in model.weights.items()
  }
  save(copied / "bert_model.ckpt", arrays)
  found = tf1.load(str(copied)).weights["bert/embeddings/word_embeddings"]
  assert found.dtype == np.float32
  np.testing.assert_array_equal(
    found, arrays["bert/embeddings/word_embeddings"].astype(np.float32)
  )


def test_a_directory_of_several_checkpoints_wants_one_named(copied, model):
  save(copied / "model.ckpt-7", model.weights)
  with pytest.raises(errors.InputError, match="holds 2 checkpoints; name one"):
    tf1.load(str(copied))
  assert tf1.load(str(copied / "model.ckpt-7")).architecture.num_layers == 3


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"num_hidden_layers": 2}, "has 3 layers; its bert_config.json has"),
    ({"num_hidden_layers": 4}, "16 of 78 weights are missing"),
    ({"hidden_size": 8}, "has shape [46, 6]; the config makes it [46, 8]"),
    ({"vocab_size": 47}, "vocab_size=47, but the vocabulary"),
    ({"hidden_act": "relu"}, "hidden_act=relu must be one of gelu"),
    ({"hidden_size": None}, "hidden_size=None must be a whole number"),
  ],
)
def test_a_config_that_does_not_fit_is_one_clear_line(copied, fields, message):
  change_config(copied, **fields)
  with pytest.raises(errors.InputError) as error:
    tf1.load(str(copied))
  assert message in str(error.value)
  assert "\n" not in str(error.value)


def test_integers_in_place_of_weights_are_told(copied, model):
  name = "bert/embeddings/LayerNorm/beta"
  save(
    copied / "bert_model.ckpt",
    {**model.weights, name: np.arange(6, dtype=np.int64)},
  )
  with pytest.raises(errors.InputError, match="has dtype=int64"):
    tf1.load(str(copied))


@pytest.mark.parametrize(
  ("name", "damage"),
  [
    ("bert_model.ckpt.index", lambda content: b""),
    ("bert_model.ckpt.index", lambda content: content[:-50]),
    ("bert_model.ckpt.index", lambda content: b"\xff" * len(content)),
    ("bert_model.ckpt.data-00000-of-00001", lambda content: content[:100]),
    (
      "bert_model.ckpt.data-00000-of-00001",
      lambda content: content[:50] + b"\xff" * 50 + content[100:],
    ),
  ],
)
def test_damage_is_one_clear_line(copied, name, damage):
  path = copied / name
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(errors.InputError, match="cannot be read") as error:
    tf1.load(str(copied))
  assert "\n" not in str(error.value)


def test_no_memory_is_taken_for_what_the_files_cannot_hold(
  copied, model, monkeypatch
):
  # As of an index that promises a large table.
  class Reader:
    def get_variable_to_shape_map(self):
      shapes = {name: list(each.shape) for name, each in model.weights.items()}
      wide = {
        name: [2**24 if d == 6 else d for d in shapes[name]] for name in shapes
      }
      return wide

    def get_variable_to_dtype_map(self):
      return dict.fromkeys(model.weights, tf.float32)

    def get_tensor(self, name):
      raise AssertionError(f"{name} was read")

  change_config(copied, hidden_size=2**24)
  monkeypatch.setattr(tf.train, "load_checkpoint", lambda prefix: Reader())
  with pytest.raises(errors.InputError, match="bytes do not hold the"):
    tf1.load(str(copied))


@pytest.mark.parametrize(
  ("missing", "message"),
  [
    ("bert_config.json", "bert_config.json cannot be read"),
    ("vocab.txt", "vocab.txt' cannot be read"),
    ("bert_model.ckpt.index", "holds 0 checkpoints"),
    ("bert_model.ckpt.data-00000-of-00001", "cannot be read"),
  ],
)
def test_a_missing_file_is_told(copied, missing, message):
  (copied / missing).unlink()
  with pytest.raises(errors.InputError) as error:
    tf1.load(str(copied))
  assert message in str(error.value)
