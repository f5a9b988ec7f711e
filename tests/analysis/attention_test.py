"""Attention maps, and the numbers that describe them."""

import json

import numpy as np
import pytest

from mslt_tf.analysis import attention
from mslt_tf.interop import huggingface

SEP = 3
FEATURES = {
  "input_ids": np.array([[2, 9, 14, 8, 3, 40, 3], [2, 30, 11, 3, 0, 0, 0]]),
  "input_mask": np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]]),
  "segment_ids": np.array([[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0]]),
}


@pytest.fixture(scope="module")
def model(make_pretrained):
  return make_pretrained(hidden_size=15, num_heads=5)


@pytest.fixture(scope="module")
def maps(model):
  return attention.AttentionMaps(model)(FEATURES)


def norm(inputs, gamma, beta):
  centred = inputs - inputs.mean(-1, keepdims=True)
  deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
  return centred / deviation * gamma + beta


def gelu(inputs):
  inner = np.sqrt(2 / np.pi) * (inputs + 0.044715 * inputs**3)
  return inputs * (1 + np.tanh(inner)) / 2


def maps_of_one_example(weights, num_heads, ids, segments):
  """Returns [L, N, S, S] of an example without padding, head by head."""
  weights = {name: each.astype(np.float64) for name, each in weights.items()}

  def normed(inputs, prefix):
    names = (f"{prefix}/LayerNorm/gamma", f"{prefix}/LayerNorm/beta")
    return norm(inputs, *(weights[name] for name in names))

  hidden = normed(
    weights["bert/embeddings/word_embeddings"][ids]
    + weights["bert/embeddings/position_embeddings"][: len(ids)]
    + weights["bert/embeddings/token_type_embeddings"][segments],
    "bert/embeddings",
  )
  found = []
  for index in range(3):
    layer = f"bert/encoder/layer_{index}"

    def dense(inputs, name, layer=layer):
      kernel, bias = (
        weights[f"{layer}/{name}/{part}"] for part in ("kernel", "bias")
      )
      return inputs @ kernel + bias

    projected = [
      np.split(dense(hidden, f"attention/self/{name}"), num_heads, axis=1)
      for name in ("query", "key", "value")
    ]
    of_heads, contexts = [], []
    for query, key, value in zip(*projected, strict=True):
      exponentials = np.exp(query @ key.T / np.sqrt(query.shape[1]))
      of_heads.append(exponentials / exponentials.sum(1, keepdims=True))
      contexts.append(of_heads[-1] @ value)
    found.append(of_heads)
    context = dense(np.concatenate(contexts, 1), "attention/output/dense")
    hidden = normed(hidden + context, f"{layer}/attention/output")
    inner = gelu(dense(hidden, "intermediate/dense"))
    hidden = normed(hidden + dense(inner, "output/dense"), f"{layer}/output")
  return np.array(found)


@pytest.mark.parametrize(("row", "length"), [(0, 7), (1, 4)])
def test_maps_are_those_of_the_definition(model, maps, row, length):
  expected = maps_of_one_example(
    model.weights,
    5,
    FEATURES["input_ids"][row, :length],
    FEATURES["segment_ids"][row, :length],
  )
  assert maps.shape == (3, 2, 5, 7, 7)
  assert maps.dtype == np.float32
  found = maps[:, row, :, :length, :length]
  np.testing.assert_allclose(found, expected, atol=2e-6)


def test_nothing_looks_at_padding(maps):
  assert not maps[:, 1, :, :, 4:].any()
  np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-6)


def test_maps_are_those_of_transformers(model, maps, tmp_path):
  torch = pytest.importorskip("torch", reason="extra interop")
  transformers = pytest.importorskip("transformers", reason="extra interop")
  huggingface.export(model, str(tmp_path))
  config = json.loads((tmp_path / "config.json").read_text())
  assert config["num_attention_heads"] == 5
  theirs = transformers.BertModel.from_pretrained(
    str(tmp_path), attn_implementation="eager"
  ).eval()
  with torch.no_grad():
    outputs = theirs(
      input_ids=torch.tensor(FEATURES["input_ids"]),
      attention_mask=torch.tensor(FEATURES["input_mask"]),
      token_type_ids=torch.tensor(FEATURES["segment_ids"]),
      output_attentions=True,
    )
  expected = np.stack([each.numpy() for each in outputs.attentions])
  # Of padding the queries are nothing that a user sees.
  np.testing.assert_allclose(maps[:, 0], expected[:, 0], atol=2e-6)
  np.testing.assert_allclose(
    maps[:, 1, :, :4], expected[:, 1, :, :4], atol=2e-6
  )


def test_divergence_is_in_bits():
  first = np.array([[1, 0, 0], [0.2, 0.3, 0.5], [1, 0, 0]], np.float32)
  second = np.array([[0, 0.5, 0.5], [0.2, 0.3, 0.5], [0.5, 0.5, 0]], np.float32)
  # The last: log2(4/3) / 2 + (log2(2/3) + log2(2)) / 4.
  expected = [1, 0, 0.311278]
  found = attention.jensen_shannon(first, second)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  np.testing.assert_allclose(
    attention.jensen_shannon(second, first), expected, atol=1e-6
  )
  assert found[1] == 0


def test_a_key_is_of_one_pattern_at_most():
  local, cls, sep = attention.keys_of_patterns(
    {
      "input_ids": np.array([[2, 7, 8, 3, 9, 3, 0]]),
      "input_mask": np.array([[1, 1, 1, 1, 1, 1, 0]]),
    },
    sep_id=SEP,
  )
  np.testing.assert_array_equal(
    local[0],
    [
      [0, 1, 0, 0, 0, 0, 0],
      [0, 1, 1, 0, 0, 0, 0],
      [0, 1, 1, 0, 0, 0, 0],
      [0, 0, 1, 0, 1, 0, 0],
      [0, 0, 0, 0, 1, 0, 0],
      [0, 0, 0, 0, 1, 0, 0],
      [0, 0, 0, 0, 0, 0, 0],
    ],
  )
  np.testing.assert_array_equal(cls[0], [[1, 0, 0, 0, 0, 0, 0]] * 7)
  np.testing.assert_array_equal(sep[0], [[0, 0, 0, 1, 0, 1, 0]] * 7)


def test_shares_are_sums_over_the_keys_of_a_pattern():
  maps = np.zeros((1, 1, 2, 3, 3), np.float32)
  maps[0, 0, 0] = [[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [1, 0, 0]]
  maps[0, 0, 1] = [[0, 0, 1], [0, 1, 0], [0, 0.5, 0.5]]
  keys = attention.keys_of_patterns(
    {
      "input_ids": np.array([[2, 9, 3]]),
      "input_mask": np.array([[1, 1, 1]]),
    },
    sep_id=SEP,
  )
  found = attention.shares(maps, keys)
  assert found.shape == (3, 1, 1, 2, 3)
  np.testing.assert_allclose(
    found[:, 0, 0, 0], [[0.2, 0.3, 0], [0.1, 0.3, 1], [0.7, 0.4, 0]], atol=1e-7
  )


def test_queries_of_padding_do_not_count():
  values = np.arange(2 * 3 * 4.0).reshape(2, 3, 4)  # [B, N, S]
  mask = np.array([[1, 1, 0, 0], [1, 0, 0, 0]])
  np.testing.assert_array_equal(
    attention.sum_over_queries(values, mask),
    [0 + 1 + 12, 4 + 5 + 16, 8 + 9 + 20],
  )
