"""The list of weights is that of the model, and that of published BERTs."""

import dataclasses

import pytest

from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import bert
from mslt_tf.models import weights as weights_lib

BASE = architecture_lib.Architecture(
  vocab_size=30522,
  hidden_size=768,
  num_layers=12,
  num_heads=12,
  intermediate_size=3072,
)
TINY = architecture_lib.Architecture(
  vocab_size=11,
  hidden_size=6,
  num_layers=2,
  num_heads=3,
  intermediate_size=10,
  max_positions=7,
  num_segments=3,
)


def test_weights_are_those_of_the_model():
  model = bert.Bert(**dataclasses.asdict(TINY))
  assert architecture_lib.weight_shapes(TINY) == {
    weights_lib.name_of(variable): tuple(variable.shape)
    for variable in model.weights
  }


@pytest.mark.parametrize(
  ("changes", "parameters"),
  [
    ({}, 110_106_428),  # What Hugging Face's BertForPreTraining counts.
    (
      {
        "hidden_size": 1024,
        "num_layers": 24,
        "num_heads": 16,
        "intermediate_size": 4096,
      },
      336_226_108,
    ),
  ],
)
def test_published_sizes_have_the_published_number_of_weights(
  changes, parameters
):
  published = dataclasses.replace(BASE, **changes)
  assert architecture_lib.num_parameters(published) == parameters
