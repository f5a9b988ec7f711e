"""AdamW (Loshchilov and Hutter 2019), as BERT is fine-tuned with.

It is LAMB without layer adaptation: weight decay is decoupled, and off for
norms and biases. The bias correction, which BERT's first code left out, is on:
without it fine-tuning on small data sets fails more often (Zhang et al. 2021).
"""

from collections.abc import Callable

import tensorflow as tf

from mslt_tf.optimization import lamb

_EVERYTHING = ("",)  # A pattern that is found in every name.


def make(
  learning_rate: Callable[[], tf.Tensor],
  *,
  weight_decay: float,
  beta_1: float,
  beta_2: float,
  epsilon: float,
) -> lamb.Lamb:
  """Returns the optimizer; the learning rate is called at every update."""
  return lamb.Lamb(
    learning_rate=learning_rate,
    weight_decay=weight_decay,
    beta_1=beta_1,
    beta_2=beta_2,
    epsilon=epsilon,
    exclude_from_weight_decay=list(lamb.NORMS_AND_BIASES),
    exclude_from_layer_adaptation=list(_EVERYTHING),
  )
