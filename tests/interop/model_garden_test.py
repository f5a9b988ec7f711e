"""Model Garden's own programs start from our checkpoint, to equal outputs."""

import numpy as np
import pytest
import tensorflow as tf
import yaml
from official.modeling import hyperparams
from official.nlp.configs import bert as bert_configs
from official.nlp.configs import encoders
from official.nlp.data import pretrain_dataloader
from official.nlp.data import sentence_prediction_dataloader
from official.nlp.tasks import masked_lm
from official.nlp.tasks import sentence_prediction

from mslt_tf.interop import model_garden
from mslt_tf.models import bert
from mslt_tf.models import pretrained
from mslt_tf.models import weights

# B batch, S sequence, P predictions, V vocabulary, D hidden.
B, S, P, V, D = 3, 7, 4, 46, 6


@pytest.fixture(scope="module")
def model(make_pretrained) -> pretrained.PretrainedBert:
  return make_pretrained()


@pytest.fixture(scope="module")
def directory(model, tmp_path_factory) -> str:
  """An export that was moved to where it is."""
  folder = tmp_path_factory.mktemp("export")
  model_garden.export(model, str(folder / "unfinished"))
  (folder / "unfinished").rename(folder / "moved")
  return str(folder / "moved")


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(2)
  lengths = np.array([[7], [4], [2]])
  return {
    "input_word_ids": rng.integers(V, size=[B, S]).astype(np.int32),
    "input_mask": (np.arange(S) < lengths).astype(np.int32),
    "input_type_ids": rng.integers(2, size=[B, S]).astype(np.int32),
    "masked_lm_positions": rng.integers(S, size=[B, P]).astype(np.int32),
  }


@pytest.fixture(scope="module")
def expected(model, inputs) -> bert.Outputs:
  ours = bert.Bert(
    vocab_size=V,
    hidden_size=D,
    num_layers=3,
    num_heads=2,
    intermediate_size=10,
    max_positions=20,
  )
  weights.fill(ours, model.weights)
  return ours(
    {
      "input_ids": tf.constant(inputs["input_word_ids"]),
      "input_mask": tf.constant(inputs["input_mask"]),
      "segment_ids": tf.constant(inputs["input_type_ids"]),
      "masked_lm_positions": tf.constant(inputs["masked_lm_positions"]),
    }
  )


def assert_near(actual, wanted) -> None:
  """Equal to 1e-5 of the largest absolute value."""
  wanted = np.asarray(wanted)
  np.testing.assert_allclose(
    actual, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max()
  )


def _encoder_config(kind: str, **changes) -> encoders.EncoderConfig:
  sizes = dict(
    vocab_size=V,
    hidden_size=D,
    num_layers=3,
    num_attention_heads=2,
    intermediate_size=10,
    max_position_embeddings=20,
    type_vocab_size=2,
  )
  return encoders.EncoderConfig(
    type=kind, **{kind: encoders.BertEncoderConfig(**sizes | changes)}
  )


def _fine_tuning(kind: str, directory: str, **changes):
  return sentence_prediction.SentencePredictionTask(
    sentence_prediction.SentencePredictionConfig(
      init_checkpoint=directory,
      init_cls_pooler=True,
      model=sentence_prediction.ModelConfig(
        num_classes=5, encoder=_encoder_config(kind, **changes)
      ),
      train_data=sentence_prediction_dataloader.SentencePredictionDataConfig(
        input_path="dummy", seq_length=S, global_batch_size=1
      ),
    )
  )


@pytest.mark.parametrize("kind", ["bert", "bert_v2"])
def test_fine_tuning_starts_from_the_encoder_and_the_pooler(
  kind, model, directory, inputs, expected
):
  task = _fine_tuning(kind, directory)
  classifier = task.build_model()
  task.initialize(classifier)  # Asserts that all it has was found.
  names = ("input_word_ids", "input_mask", "input_type_ids")
  encoder = classifier.checkpoint_items["encoder"]
  outputs = encoder({name: tf.constant(inputs[name]) for name in names})
  assert_near(outputs["sequence_output"], expected.hidden_states[-1])
  assert_near(outputs["pooled_output"], expected.pooled)
  for theirs, ours in zip(
    outputs["encoder_outputs"], expected.hidden_states[1:], strict=True
  ):
    assert_near(theirs, ours)
  pooler = classifier.checkpoint_items["sentence_prediction.pooler_dense"]
  np.testing.assert_array_equal(
    pooler.kernel, model.weights["bert/pooler/dense/kernel"]
  )
  np.testing.assert_array_equal(
    pooler.bias, model.weights["bert/pooler/dense/bias"]
  )


def test_fine_tuning_makes_a_step_from_it(directory):
  task = _fine_tuning("bert", directory)
  classifier = task.build_model()
  task.initialize(classifier)
  batch = next(iter(task.build_inputs(task.task_config.train_data)))
  before = [weight.numpy() for weight in classifier.trainable_variables]
  logs = task.train_step(
    batch, classifier, tf.keras.optimizers.legacy.SGD(0.5), metrics=[]
  )
  assert 0.0 < logs["loss"] < 20.0
  assert any(
    not np.array_equal(old, new)
    for old, new in zip(before, classifier.trainable_variables, strict=True)
  )


def test_a_deeper_encoder_is_not_restored_in_part(directory):
  task = _fine_tuning("bert", directory, num_layers=4)
  with pytest.raises(AssertionError, match="layer_3"):
    task.initialize(task.build_model())


def _pre_training(directory: str) -> masked_lm.MaskedLMTask:
  head = bert_configs.ClsHeadConfig(
    inner_dim=D, num_classes=2, name="next_sentence"
  )
  return masked_lm.MaskedLMTask(
    masked_lm.MaskedLMConfig(
      init_checkpoint=directory,
      model=bert_configs.PretrainerConfig(
        encoder=_encoder_config("bert"), cls_heads=[head]
      ),
      train_data=pretrain_dataloader.BertPretrainDataConfig(),
    )
  )


def test_pre_training_goes_on_with_the_masked_lm_head(
  directory, inputs, expected
):
  task = _pre_training(directory)
  pretrainer = task.build_model()
  tensors = {name: tf.constant(array) for name, array in inputs.items()}
  pretrainer(tensors)
  task.initialize(pretrainer)
  assert_near(pretrainer(tensors)["mlm_logits"], expected.masked_lm_logits)


def test_the_whole_pre_training_model_is_in_the_checkpoint(
  directory, inputs, expected
):
  pretrainer = _pre_training("").build_model()
  tensors = {name: tf.constant(array) for name, array in inputs.items()}
  pretrainer(tensors)
  status = tf.train.Checkpoint(model=pretrainer).read(
    tf.train.latest_checkpoint(directory)
  )
  status.expect_partial().assert_existing_objects_matched()
  outputs = pretrainer(tensors)
  assert_near(outputs["next_sentence"], expected.next_sentence_logits)
  assert_near(outputs["mlm_logits"], expected.masked_lm_logits)


def test_the_yaml_file_describes_the_encoder(directory):
  with open(f"{directory}/encoder.yaml", encoding="utf-8") as file:
    tree = yaml.safe_load(file)
  config = sentence_prediction.SentencePredictionConfig()
  assert config.model.encoder.bert.num_layers == 12
  hyperparams.override_params_dict(config, tree["task"], is_strict=True)
  held = config.model.encoder.get()
  assert config.model.encoder.type == "bert"
  assert (held.vocab_size, held.hidden_size, held.num_layers) == (V, D, 3)
  assert (held.num_attention_heads, held.intermediate_size) == (2, 10)
  assert (held.max_position_embeddings, held.type_vocab_size) == (20, 2)


def test_the_vocabulary_comes_along(directory, vocab_file):
  with open(f"{directory}/vocab.txt", encoding="utf-8") as file:
    content = file.read()
  with open(vocab_file, encoding="utf-8") as file:
    assert content == file.read()


def test_a_weight_that_bert_does_not_have_is_no_weight():
  with pytest.raises(KeyError, match="embedding_projection"):
    model_garden.googles_name("embedding_projection/kernel")
