"""Attention maps of a model, and numbers that say what is in them.

Letters: L layers, B batch, N heads, S sequence, D hidden, H head size (D / N).
An attention map [S, S] has a row for each position that looks, the query, and a
column for each that is looked at; a row sums to 1.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from scipy import special

from mslt_tf.models import bert
from mslt_tf.models import encoder
from mslt_tf.models import fused
from mslt_tf.models import pretrained
from mslt_tf.models import weights as weights_lib

# How far a key is from its query, at most, to be local; the query's own
# position is local too.
LOCAL_DISTANCE = 1
PATTERNS = ("local", "cls", "sep")

Features = Mapping[str, np.ndarray]


class AttentionMaps:
  """Computes a model's attention maps in float32, as at inference."""

  def __init__(self, model: pretrained.PretrainedBert):
    self._num_heads = model.architecture.num_heads
    self._bert = bert.Bert(**dataclasses.asdict(model.architecture))
    weights_lib.fill(self._bert, model.weights)

  def __call__(self, features: Features) -> np.ndarray:
    """Returns float32 [L, B, N, S, S], without dropout.

    Args:
      features: `input_ids`, `input_mask` and `segment_ids` [B, S].
    """
    names = ("input_ids", "input_mask", "segment_ids")
    # Kernels would be compiled anew for every batch size and length.
    with fused.plain_operations():
      maps = self._maps(*(tf.cast(features[name], tf.int32) for name in names))
    return maps.numpy()

  @tf.function(
    autograph=False, input_signature=[tf.TensorSpec([None, None], tf.int32)] * 3
  )
  def _maps(self, input_ids, input_mask, segment_ids) -> tf.Tensor:
    score_bias = encoder.attention_bias(input_mask)
    hidden = self._bert.embeddings(input_ids, segment_ids, None)
    maps = []
    for layer in self._bert.encoder_layers:
      # The layer's own kernel does not give them out.
      maps.append(_map_of_layer(layer, hidden, score_bias, self._num_heads))
      hidden = layer(hidden, score_bias, None)
    return tf.stack(maps)


def _map_of_layer(
  layer: encoder.EncoderLayer,
  hidden: tf.Tensor,  # [B, S, D]
  score_bias: tf.Tensor,  # [B, 1, 1, S]
  num_heads: int,
) -> tf.Tensor:
  """Returns [B, N, S, S]."""
  head_size = hidden.shape[-1] // num_heads
  shape = tf.concat([tf.shape(hidden)[:2], [num_heads, head_size]], 0)
  queries, keys = (
    tf.reshape(tf.tensordot(hidden, kernel, 1) + bias, shape)
    for kernel, bias in (layer.query, layer.key)
  )  # [B, S, N, H] each
  scores = tf.einsum("bsnh,btnh->bnst", queries, keys) * head_size**-0.5
  return tf.nn.softmax(scores + score_bias)


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Returns the Jensen-Shannon divergence in bits, from 0 to 1.

  Args:
    first: [..., S], distributions.
    second: [..., S], as many.

  Returns:
    float64 [...].
  """
  first, second = first.astype(np.float64), second.astype(np.float64)
  middle = (first + second) / 2
  nats = special.rel_entr(first, middle) + special.rel_entr(second, middle)
  # Rounding makes some of equal distributions less than 0.
  return np.maximum(nats.sum(-1) / 2 / np.log(2), 0)


def keys_of_patterns(features: Features, *, sep_id: int) -> np.ndarray:
  """Returns [3, B, S, S], 1 where a key is of a query's pattern, else 0.

  The patterns are those of `PATTERNS`, which share no key: local is what is at
  most `LOCAL_DISTANCE` away and neither [CLS] nor [SEP].

  Args:
    features: `input_ids` and `input_mask` [B, S].
    sep_id: Of [SEP].
  """
  is_token = features["input_mask"] > 0  # [B, S]
  places = np.arange(is_token.shape[1])
  is_cls = is_token & (places == 0)
  is_sep = is_token & (features["input_ids"] == sep_id)
  distances = np.abs(places[:, np.newaxis] - places)  # [S, S]
  is_local = (distances <= LOCAL_DISTANCE) & (is_token & ~is_cls & ~is_sep)[
    :, np.newaxis
  ]
  patterns = [
    is_local,
    *(
      np.broadcast_to(keys[:, np.newaxis], is_local.shape)
      for keys in (is_cls, is_sep)
    ),
  ]
  return np.stack(patterns).astype(np.float32)


def shares(maps: np.ndarray, keys: np.ndarray) -> np.ndarray:
  """Returns the share of a query's attention on each pattern.

  Args:
    maps: [L, B, N, S, S].
    keys: [3, B, S, S], of `keys_of_patterns`.

  Returns:
    [3, L, B, N, S].
  """
  return np.einsum("lbnst,pbst->plbns", maps, keys, optimize=True)


def sum_over_queries(values: np.ndarray, input_mask: np.ndarray) -> np.ndarray:
  """Returns [..., N], the sum over all queries that are not padding.

  Args:
    values: [..., B, N, S], one of each query.
    input_mask: [B, S], 0 at padding.
  """
  return np.einsum("...bns,bs->...n", values, input_mask > 0)
