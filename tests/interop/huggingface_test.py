"""Models that transformers loads, and models that it wrote."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.interop import huggingface
from mslt_tf.interop import safetensors_file
from mslt_tf.models import bert
from mslt_tf.models import weights as weights_lib

# Of the largest absolute value, in float32.
TOLERANCE = 1e-5
POOLER = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
NSP = {"cls.seq_relationship.weight", "cls.seq_relationship.bias"}
MLM = {
  "cls.predictions.bias",
  "cls.predictions.transform.dense.weight",
  "cls.predictions.transform.dense.bias",
  "cls.predictions.transform.LayerNorm.weight",
  "cls.predictions.transform.LayerNorm.bias",
}


@pytest.fixture(scope="module")
def model(make_pretrained):
  return make_pretrained()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
  """A directory that is read only; tests that spoil it copy it."""
  directory = tmp_path_factory.mktemp("exported")
  huggingface.export(model, str(directory))
  return directory


@pytest.fixture
def copied(exported, tmp_path):
  for path in exported.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  return tmp_path


@pytest.fixture(scope="module")
def transformers():
  pytest.importorskip("torch", reason="extra interop")
  return pytest.importorskip("transformers", reason="extra interop")


def change_json(path: pathlib.Path, **fields):
  path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def arrays_of(directory) -> dict[str, np.ndarray]:
  path = str(directory / "model.safetensors")
  return {
    name: safetensors_file.read_float32(path, entry)
    for name, entry in safetensors_file.read_entries(path).items()
  }


def assert_same_weights(found, expected):
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert found[name].dtype == np.float32


def test_a_round_trip_changes_no_bit(model, exported):
  back = huggingface.load(str(exported))
  assert_same_weights(back.weights, model.weights)
  assert back.architecture == model.architecture
  assert back.vocabulary == model.vocabulary
  assert back.lower_case


@pytest.mark.parametrize(
  ("activation", "name"), [("gelu_tanh", "gelu_new"), ("gelu_exact", "gelu")]
)
def test_config_names_sizes_and_activation_as_trained(
  make_pretrained, tmp_path, activation, name
):
  model = make_pretrained(activation=activation)
  huggingface.export(model, str(tmp_path))
  fields = json.loads((tmp_path / "config.json").read_text())
  expected = {
    "architectures": ["BertForPreTraining"],
    "model_type": "bert",
    "hidden_act": name,
    "vocab_size": 46,
    "hidden_size": 6,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 10,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
  }
  assert {key: fields.get(key) for key in expected} == expected
  assert huggingface.load(str(tmp_path)).architecture.activation == activation


def test_files_are_those_of_a_model_directory(exported):
  assert {path.name for path in exported.iterdir()} == {
    "README.md",
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
  }


def _features():
  rng = np.random.default_rng(1)
  lengths = np.array([11, 7, 3])
  positions = np.arange(11)
  return {
    "input_ids": rng.integers(46, size=(3, 11)).astype(np.int32),
    "input_mask": (positions < lengths[:, None]).astype(np.int32),
    "segment_ids": (positions[None] >= [[4], [5], [1]]).astype(np.int32),
    "masked_lm_positions": np.tile(positions, (3, 1)).astype(np.int32),
  }


def _ours(model, features):
  network = bert.Bert(**dataclasses.asdict(model.architecture))
  weights_lib.fill(network, model.weights)
  return network({name: tf.constant(each) for name, each in features.items()})


def _theirs(network, features):
  import torch

  with torch.no_grad():
    return network.eval()(
      input_ids=torch.tensor(features["input_ids"], dtype=torch.long),
      attention_mask=torch.tensor(features["input_mask"]),
      token_type_ids=torch.tensor(features["segment_ids"], dtype=torch.long),
      output_hidden_states=True,
    )


def assert_close(found, expected):
  expected = expected.numpy()
  np.testing.assert_allclose(
    found.numpy(), expected, rtol=0, atol=TOLERANCE * np.abs(expected).max()
  )


def _load(loader, directory):
  network, info = loader.from_pretrained(
    str(directory), output_loading_info=True
  )
  assert not info["missing_keys"] and not info["mismatched_keys"], info
  return network, set(info["unexpected_keys"])


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu_exact"])
def test_transformers_gives_our_logits_and_hidden_states(
  make_pretrained, tmp_path, transformers, activation
):
  model = make_pretrained(activation=activation)
  huggingface.export(model, str(tmp_path))
  network, unexpected = _load(transformers.BertForPreTraining, tmp_path)
  assert unexpected == set()
  features = _features()
  ours, theirs = _ours(model, features), _theirs(network, features)
  assert_close(ours.masked_lm_logits, theirs.prediction_logits)
  assert_close(ours.next_sentence_logits, theirs.seq_relationship_logits)
  assert len(ours.hidden_states) == len(theirs.hidden_states) == 4
  for our_state, their_state in zip(
    ours.hidden_states, theirs.hidden_states, strict=True
  ):
    assert_close(our_state, their_state)


@pytest.mark.parametrize(
  ("loader", "no_place_for"),
  [
    ("BertForPreTraining", set()),
    ("AutoModelForPreTraining", set()),
    ("BertForMaskedLM", POOLER | NSP),
    ("AutoModel", MLM | NSP),
  ],
)
def test_a_full_export_misses_nothing_and_other_heads_are_all_that_is_left(
  exported, transformers, loader, no_place_for
):
  _, unexpected = _load(getattr(transformers, loader), exported)
  assert unexpected == no_place_for


@pytest.mark.parametrize(
  ("export", "loaders"),
  [
    (
      huggingface.export_masked_lm,
      ["BertForMaskedLM", "AutoModelForMaskedLM"],
    ),
    (huggingface.export_encoder, ["AutoModel", "BertModel"]),
  ],
)
def test_an_export_for_one_class_holds_its_weights_alone(
  model, tmp_path, transformers, export, loaders
):
  export(model, str(tmp_path))
  features = _features()
  for name in loaders:
    network, unexpected = _load(getattr(transformers, name), tmp_path)
    assert unexpected == set()
    theirs = _theirs(network, features)
    ours = _ours(model, features)
    assert_close(ours.hidden_states[-1], theirs.hidden_states[-1])
    if "MaskedLM" in name:
      assert_close(ours.masked_lm_logits, theirs.logits)
    else:
      assert_close(ours.pooled, theirs.pooler_output)


@pytest.mark.parametrize("lower_case", [True, False])
def test_auto_tokenizer_splits_as_training_does(
  model, tmp_path, transformers, lower_case
):
  pieces = "The the Quick quick ##er ##S é e zürich zurich 東 京 ! ' , x ##y"
  vocabulary = vocabulary_lib.Vocabulary(
    (*vocabulary_lib.SPECIAL_TOKENS, *pieces.split())
  )
  model = dataclasses.replace(
    model, vocabulary=vocabulary, lower_case=lower_case
  )
  huggingface.export(model, str(tmp_path))
  texts = [
    "The quicker, QUICKER Zürich!",
    "é É 東京x it's xyyy",
    "",
    "  tabs\tand\nlines ",
    "w" * 101,
    "[MASK]the",
  ]
  ours = vocabulary_lib.make_tokenizer(vocabulary, lower_case=lower_case)
  loaded = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
  for text in texts[:-1]:
    ids, _ = vocabulary_lib.tokenize(ours, [text])
    assert loaded(text)["input_ids"] == [2, *ids.tolist(), 3], text
  # The special tokens are found in text.
  assert loaded(texts[-1], add_special_tokens=False)["input_ids"][0] == 4
  pair = loaded("the", "quick")
  assert pair["token_type_ids"] == [0, 0, 0, 1, 1]
  assert loaded.model_max_length == 20


def test_a_model_that_transformers_wrote_gives_its_hidden_states(
  model, tmp_path, transformers
):
  import torch

  torch.manual_seed(0)
  network = transformers.BertForPreTraining(
    transformers.BertConfig(
      vocab_size=46,
      hidden_size=10,
      num_hidden_layers=2,
      num_attention_heads=5,
      intermediate_size=14,
      max_position_embeddings=13,
      hidden_act="gelu",
    )
  )
  for parameter in network.parameters():
    torch.nn.init.normal_(parameter, std=0.5)
  network.save_pretrained(str(tmp_path))
  vocabulary_lib.save(model.vocabulary, str(tmp_path / "vocab.txt"))
  imported = huggingface.load(str(tmp_path))
  features = _features()
  ours, theirs = _ours(imported, features), _theirs(network, features)
  assert_close(ours.masked_lm_logits, theirs.prediction_logits)
  for our_state, their_state in zip(
    ours.hidden_states, theirs.hidden_states, strict=True
  ):
    assert_close(our_state, their_state)


def test_a_tokenizer_that_transformers_wrote_is_read(
  model, exported, copied, transformers
):
  loaded = transformers.AutoTokenizer.from_pretrained(str(exported))
  for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
    (copied / name).unlink()
  loaded.save_pretrained(str(copied))
  back = huggingface.load(str(copied))
  assert back.vocabulary == model.vocabulary
  assert back.lower_case


def test_old_names_of_norms_and_names_without_bert_are_understood(
  model, copied
):
  renamed = {}
  for name, array in arrays_of(copied).items():
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
    name = name.replace("LayerNorm.bias", "LayerNorm.beta")
    renamed[name.removeprefix("bert.")] = array
  assert "embeddings.LayerNorm.gamma" in renamed
  safetensors_file.write(str(copied / "model.safetensors"), renamed)
  assert_same_weights(huggingface.load(str(copied)).weights, model.weights)


def test_the_tied_matrix_and_weights_of_no_use_may_be_there(model, copied):
  arrays = arrays_of(copied)
  arrays["cls.predictions.decoder.weight"] = model.weights[
    "bert/embeddings/word_embeddings"
  ]
  arrays["classifier.weight"] = np.ones([2, 6], np.float32)
  safetensors_file.write(str(copied / "model.safetensors"), arrays)
  assert_same_weights(huggingface.load(str(copied)).weights, model.weights)


def test_weights_of_half_precision_are_read_as_float32(
  copied, transformers, model
):
  import torch
  from safetensors import torch as safetensors_torch

  path = str(copied / "model.safetensors")
  arrays = arrays_of(copied)
  for dtype in (torch.bfloat16, torch.float16):
    halved = {
      name: torch.tensor(array).to(dtype) for name, array in arrays.items()
    }
    safetensors_torch.save_file(halved, path)
    found = huggingface.load(str(copied)).weights
    name = "bert/encoder/layer_1/intermediate/dense/kernel"
    expected = torch.tensor(model.weights[name]).to(dtype).float().numpy()
    np.testing.assert_array_equal(found[name], expected)


def test_a_pickle_is_read_only_when_allowed(copied, transformers, model):
  import torch

  # As `dict(model.named_parameters())` has them.
  tensors = {
    name: torch.tensor(array, requires_grad=True)
    for name, array in arrays_of(copied).items()
  }
  torch.save(tensors, copied / "pytorch_model.bin")
  (copied / "model.safetensors").unlink()
  with pytest.raises(errors.InputError, match="--allow_pickle"):
    huggingface.load(str(copied))
  found = huggingface.load(str(copied), allow_pickle=True)
  assert_same_weights(found.weights, model.weights)


@pytest.mark.parametrize("kind", ["expanded", "sparse", "meta"])
def test_a_pickled_array_must_be_there_whole(copied, transformers, kind):
  import torch

  # 16 GiB and more, of a file of some kilobytes.
  array = {
    "expanded": torch.zeros(1).expand(1 << 16, 1 << 16),
    "sparse": torch.sparse_coo_tensor(size=(1 << 16, 1 << 16)),
    "meta": torch.empty(1 << 16, 1 << 16, device="meta"),
  }[kind]
  torch.save({"pooler.dense.weight": array}, copied / "pytorch_model.bin")
  (copied / "model.safetensors").unlink()
  with pytest.raises(errors.InputError, match="no array that the file holds"):
    huggingface.load(str(copied), allow_pickle=True)


class _Hostile:
  """Runs code where it is unpickled by the ordinary loader."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (pathlib.Path.touch, (self.path,))


def test_a_hostile_pickle_runs_nothing(copied, transformers):
  import torch

  torch.save({"a": _Hostile(copied / "ran")}, copied / "pytorch_model.bin")
  (copied / "model.safetensors").unlink()
  with pytest.raises(errors.InputError, match=r"pytorch_model\.bin cannot be"):
    huggingface.load(str(copied), allow_pickle=True)
  assert not (copied / "ran").exists()


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"model_type": "roberta"}, "model_type=roberta; only bert"),
    (
      {"position_embedding_type": "relative_key"},
      "position_embedding_type=relative_key",
    ),
    ({"is_decoder": True}, "is_decoder=True"),
    ({"layer_norm_eps": 1e-5}, "layer_norm_eps=1e-05"),
    ({"tie_word_embeddings": False}, "tie_word_embeddings=False"),
    ({"pad_token_id": 1}, "pad_token_id=1"),
    ({"hidden_act": "relu"}, "hidden_act=relu must be one of gelu"),
    ({"hidden_act": ["gelu"]}, "hidden_act="),
    ({"type_vocab_size": 1}, "type_vocab_size=1"),
    ({"num_hidden_layers": 4}, "16 of 78 weights are missing"),
    ({"num_hidden_layers": 2}, "is no weight of the BERT"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000 must be"),
    ({"hidden_size": 10**30}, "hidden_size=1000"),
    ({"hidden_size": "6"}, "hidden_size=6 must be a whole number"),
    ({"hidden_size": True}, "hidden_size=True must be a whole number"),
    ({"num_attention_heads": 4}, "not divisible by num_attention_heads=4"),
    ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob=1.5"),
    ({"vocab_size": 45}, "vocab_size=45, but the vocabulary"),
    ({"intermediate_size": 12}, "has shape"),
    ({"max_position_embeddings": 21}, "position_embeddings has shape [20, 6]"),
  ],
)
def test_a_config_of_something_else_is_one_clear_line(copied, fields, message):
  change_json(copied / "config.json", **fields)
  with pytest.raises(errors.InputError) as error:
    huggingface.load(str(copied))
  assert message in str(error.value)
  assert "\n" not in str(error.value)


def _without(names):
  return lambda arrays: [arrays.pop(name) for name in names]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (_without(["bert.embeddings.LayerNorm.bias"]), "1 of 62 weights"),
    (_without(["cls.predictions.bias"]), "the MLM head is there in part"),
    (
      lambda arrays: arrays.update(
        {"embeddings.LayerNorm.beta": np.ones(6, np.float32)}
      ),
      "are the same weight",
    ),
    (
      lambda arrays: arrays.update(
        {"cls.predictions.decoder.weight": np.ones([46, 6], np.float32)}
      ),
      "tied to in BERT",
    ),
    (
      lambda arrays: arrays["bert.pooler.dense.bias"].fill(np.nan),
      "bert/pooler/dense/bias holds values that are no number",
    ),
  ],
)
def test_weights_that_do_not_fit_are_one_clear_line(copied, change, message):
  arrays = arrays_of(copied)
  change(arrays)
  safetensors_file.write(str(copied / "model.safetensors"), arrays)
  with pytest.raises(errors.InputError, match=message):
    huggingface.load(str(copied))


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("config.json", "{", "is no JSON"),
    ("config.json", "[]", "is no JSON object"),
    ("config.json", "[" * 100_000, "is no JSON"),
    ("vocab.txt", "a\nb\n", "has no [PAD]"),
    ("model.safetensors", "", "is damaged: it has 0 bytes"),
    ("model.safetensors", None, "model.safetensors is missing"),
    ("config.json", None, "config.json cannot be read"),
    ("vocab.txt", "\udcff", "is not UTF-8"),
  ],
)
def test_damaged_files_are_one_clear_line(copied, name, content, message):
  path = copied / name
  if content is None:
    path.unlink()
  else:
    path.write_bytes(content.encode(errors="surrogateescape"))
  with pytest.raises(errors.InputError) as error:
    huggingface.load(str(copied))
  assert message in str(error.value)


def test_the_vocabulary_tells_case_where_nothing_else_does(copied, model):
  for name in ("tokenizer_config.json", "tokenizer.json"):
    (copied / name).unlink()
  assert huggingface.load(str(copied)).lower_case
  tokens = [*model.vocabulary.tokens[:-1], "Paris"]
  (copied / "vocab.txt").write_text("\n".join(tokens) + "\n")
  assert not huggingface.load(str(copied)).lower_case
  assert huggingface.load(str(copied), lower_case=True).lower_case
