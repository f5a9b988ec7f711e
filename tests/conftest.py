"""What several tests share."""

import os
import sys
from collections.abc import Callable

import numpy as np
import pytest

WORDS = tuple(f"w{index}" for index in range(40))
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def pytest_configure(config):
  del config
  # Before any test file loads TensorFlow.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_collection_finish(session):
  """Gives TensorFlow a second CPU device, for tests of several replicas."""
  del session
  # Tests without TensorFlow do not wait for its import. A tensor made by a test
  # file while it is imported would be too early for this.
  if tf := sys.modules.get("tensorflow"):
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory) -> str:
  """Thirty documents, a sentence a line, of words that follow a pattern."""
  rng = np.random.default_rng(0)
  documents = []
  for _ in range(30):
    sentences = []
    for start in rng.integers(len(WORDS), size=8):
      words = [WORDS[(start + 3 * offset) % len(WORDS)] for offset in range(5)]
      sentences.append(" ".join(words) + " .")
    documents.append("\n".join(sentences))
  path = tmp_path_factory.mktemp("text") / "corpus.txt"
  path.write_text("\n\n".join(documents) + "\n")
  return str(path)


@pytest.fixture(scope="session")
def vocab_file(tmp_path_factory) -> str:
  path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
  path.write_text("\n".join([*SPECIAL_TOKENS, ".", *WORDS]) + "\n")
  return str(path)


@pytest.fixture(scope="session")
def shards(tmp_path_factory, text_file, vocab_file) -> str:
  """A data set: 46 tokens, sequences of 16, at most 3 predictions."""
  from mslt_tf.data.building import build

  directory = tmp_path_factory.mktemp("shards")
  build.build(
    [text_file],
    str(directory),
    build.Settings(
      vocab_path=vocab_file,
      input_format="sentences",
      sequence_length=16,
      max_predictions=3,
      heldout_fraction=0.2,
      num_shards=2,
      dupe_factor=2,
    ),
  )
  return str(directory)


@pytest.fixture(scope="session")
def make_batch() -> Callable:
  """Makes a batch from texts such as `[CLS] a b/[MASK] [SEP] ##a c/a [SEP]`.

  A token with a stroke is predicted; what the model reads stands behind it. The
  ids are 0 to 4 for the special tokens, then come a, b, c, ##a and ##b.
  """
  from mslt_tf.data.examples import vocabulary
  from mslt_tf.data.verification import example_batch

  tokens = (*SPECIAL_TOKENS, "a", "b", "c", "##a", "##b")
  ids = {token: index for index, token in enumerate(tokens)}

  def make(
    *texts: str, whole_word_masking: bool = False
  ) -> example_batch.Batch:
    sequences = np.zeros((3, len(texts), 11), np.int32)
    predictions = np.zeros((2, len(texts), 3), np.int32)
    weights = np.zeros((len(texts), 3), np.float32)
    for row, text in enumerate(texts):
      pairs = [each.partition("/") for each in text.split()]
      originals = [original for original, _, _ in pairs]
      second = originals.index("[SEP]") + 1
      sequences[:, row, : len(pairs)] = (
        [ids[read or original] for original, _, read in pairs],
        [1] * len(pairs),
        [int(place >= second) for place in range(len(pairs))],
      )
      predicted = [place for place, pair in enumerate(pairs) if pair[1]]
      predictions[:, row, : len(predicted)] = (
        predicted,
        [ids[originals[place]] for place in predicted],
      )
      weights[row, : len(predicted)] = 1
    return example_batch.Batch(
      vocabulary.Vocabulary(tokens),
      whole_word_masking,
      *sequences,
      *predictions,
      weights,
      np.zeros(len(texts), np.int32),
    )

  return make


@pytest.fixture(scope="session")
def make_pretrained(vocab_file) -> Callable:
  """Makes a model of odd sizes whose weights are all random, norms too."""
  from mslt_tf.data.examples import vocabulary
  from mslt_tf.models import architecture
  from mslt_tf.models import pretrained

  def make(**sizes) -> pretrained.PretrainedBert:
    shape = architecture.Architecture(
      **{
        "vocab_size": 46,
        "hidden_size": 6,
        "num_layers": 3,
        "num_heads": 2,
        "intermediate_size": 10,
        "max_positions": 20,
        **sizes,
      }
    )
    rng = np.random.default_rng(0)
    return pretrained.PretrainedBert(
      architecture=shape,
      lower_case=True,
      vocabulary=vocabulary.load(vocab_file),
      weights={
        name: (0.5 * rng.standard_normal(dims)).astype(np.float32)
        for name, dims in architecture.weight_shapes(shape).items()
      },
    )

  return make
