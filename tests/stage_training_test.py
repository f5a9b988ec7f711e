"""A stage makes the updates of its config, against peers written out here."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_addons as tfa

from mslt_tf import config as config_lib
from mslt_tf import pretrain
from mslt_tf import stage_training
from mslt_tf.data.reading import input_pipeline
from mslt_tf.data.reading import manifest
from mslt_tf.models import bert
from mslt_tf.models import dropout
from mslt_tf.models import weights
from mslt_tf.training import loop
from mslt_tf.training import metrics
from mslt_tf.training import run_directory

# No value is a default, and no two are equal that could be taken for each
# other. So large an epsilon lets the size of clipped gradients count.
CONFIG = """
model:
  vocab_size: 46
  hidden_size: 6
  num_layers: 2
  num_heads: 3
  intermediate_size: 10
  max_positions: 20
  activation: gelu_exact
  hidden_dropout: 0.2
  attention_dropout: 0.3
  initializer_range: 0.5
data: {directory: DATA, sequence_length: 16, max_predictions: 3, batch_size: 4}
schedule: {method: baseline, num_steps: 2, extra_steps: 1}
optimizer:
  peak_learning_rate: 0.3
  warmup_steps: 1
  weight_decay: 0.2
  beta_1: 0.7
  beta_2: 0.8
  epsilon: 0.01
  clip_norm: 0.05
  adapt_norms_and_biases: true
training: {seed: 3, eval_batch_size: 7, eval_examples: 10}
"""
MSLT = (
  "schedule={method: mslt, num_steps: 8, num_growing_stages: 2,"
  " retraining_share: 0}",
  "optimizer.curve=stage",
  "optimizer.warmup_steps=4",
  "optimizer.adapt_norms_and_biases=false",
  "model.dropout_when_frozen=true",
)
NORMS_AND_BIASES = ["LayerNorm", "bias"]
# An empty list would mean those.
NONE = ["no such name"]


def run(shards, workdir, *overrides) -> run_directory.RunDirectory:
  config = config_lib.load(
    CONFIG.replace("DATA", shards), source="test", overrides=overrides
  )
  assert pretrain.run(config, workdir)
  return run_directory.RunDirectory(workdir)


@pytest.fixture(scope="module")
def baseline(shards, tmp_path_factory):
  """Two stages of all layers, of two steps and of one; read only."""
  return run(shards, str(tmp_path_factory.mktemp("runs") / "baseline"))


def make_model(num_layers=2, **kwargs) -> bert.Bert:
  return bert.Bert(
    vocab_size=46,
    hidden_size=6,
    num_layers=num_layers,
    num_heads=3,
    intermediate_size=10,
    max_positions=20,
    activation="gelu_exact",
    hidden_dropout=0.2,
    attention_dropout=0.3,
    initializer_range=0.5,
    seed=3,
    **kwargs,
  )


def train(model, batches, rates, *, first_batch, not_adapted):
  """Updates a model once for each rate; returns the gradients' norms."""
  optimizer = tfa.optimizers.LAMB(
    beta_1=0.7,
    beta_2=0.8,
    epsilon=0.01,
    weight_decay=0.2,
    exclude_from_weight_decay=NORMS_AND_BIASES,
    exclude_from_layer_adaptation=not_adapted,
  )
  norms = []
  for index, rate in enumerate(rates, start=first_batch):
    features = batches[index]
    masks = dropout.Dropout(3, tf.constant(index, tf.int64))
    with tf.GradientTape() as tape:
      outputs = model(features, masks)
      predictions = tf.nn.sparse_softmax_cross_entropy_with_logits(
        features["masked_lm_ids"], outputs.masked_lm_logits
      )
      is_counted = features["masked_lm_weights"]
      loss = tf.reduce_sum(predictions * is_counted) / tf.reduce_sum(is_counted)
      loss += tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(
          features["next_sentence_labels"], outputs.next_sentence_logits
        )
      )
    variables = model.trainable_variables
    gradients = [
      tf.convert_to_tensor(each) for each in tape.gradient(loss, variables)
    ]
    gradients, norm = tf.clip_by_global_norm(gradients, 0.05)
    optimizer.learning_rate = rate
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    norms.append(float(norm))
  return norms


def read_batches(shards, count):
  data = manifest.open_data(shards)
  return list(
    input_pipeline.train_batches(data, batch_size=4, seed=3).take(count)
  )


def assert_weights(directory, number, model):
  arrays = directory.read_stage(number)
  for name, expected in weights.to_arrays(model).items():
    np.testing.assert_allclose(
      arrays[name], expected, rtol=1e-4, atol=1e-5, err_msg=name
    )


def test_a_baselines_updates_are_those_of_its_config(shards, baseline):
  batches = read_batches(shards, 3)
  model = make_model()
  # One step of warmup, then the line from 0.3 at step 0 to 0 at step 3.
  norms = train(model, batches, [0.0, 0.2], first_batch=0, not_adapted=NONE)
  assert min(norms) > 0.05
  assert_weights(baseline, 1, model)
  # Another stage: the moments are fresh, the rate and the data go on.
  train(model, batches, [0.1], first_batch=2, not_adapted=NONE)
  assert_weights(baseline, 2, model)
  (*_, last) = [
    record
    for record in metrics.read(baseline.metrics(1))
    if record["kind"] == "train"
  ]
  assert last["gradient_norm"] == pytest.approx(norms[1], rel=1e-4)


def test_a_grown_stages_updates_are_those_of_its_config(shards, tmp_path):
  directory = run(shards, str(tmp_path), *MSLT)
  batches = read_batches(shards, 8)
  shallow = make_model(num_layers=1)
  # Four steps a stage, of which a half of the run's warmup: two.
  rates = [0.0, 0.15, 0.15, 0.075]
  train(shallow, batches, rates, first_batch=0, not_adapted=NORMS_AND_BIASES)
  assert_weights(directory, 1, shallow)
  deep = make_model(
    num_frozen_layers=1, freeze_embeddings=True, dropout_when_frozen=True
  )
  arrays = weights.to_arrays(shallow)
  arrays |= {
    name.replace("layer_0", "layer_1"): array for name, array in arrays.items()
  }
  weights.fill(deep, arrays)
  train(deep, batches, rates, first_batch=4, not_adapted=NORMS_AND_BIASES)
  assert_weights(directory, 2, deep)


def test_held_out_results_are_those_of_the_weights_without_dropout(
  shards, baseline
):
  data = manifest.open_data(shards)
  (batch,) = input_pipeline.heldout_batches(
    data, batch_size=data.heldout.num_examples
  )
  # eval_examples of them, in batches of 7.
  features = {name: each[:10] for name, each in batch.items()}
  model = make_model()
  weights.fill(model, baseline.read_stage(2))
  outputs = model(features)
  is_counted = features["masked_lm_weights"].numpy() == 1

  def loss_and_accuracy(logits, labels):
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(-1, keepdims=True)
    right = np.take_along_axis(probabilities, labels[:, np.newaxis], -1)
    return -np.log(right).mean(), np.mean(logits.argmax(-1) == labels)

  mlm = loss_and_accuracy(
    outputs.masked_lm_logits.numpy()[is_counted],
    features["masked_lm_ids"].numpy()[is_counted],
  )
  nsp = loss_and_accuracy(
    outputs.next_sentence_logits.numpy(),
    features["next_sentence_labels"].numpy(),
  )
  results = baseline.read_results(2)
  assert [
    results[f"eval_{name}"]
    for name in ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")
  ] == pytest.approx([*mlm, *nsp], rel=1e-5)


def test_every_part_of_the_data_and_every_seed_has_masks_of_its_own(shards):
  model = make_model()
  (features,) = read_batches(shards, 1)

  def loss(batch_index, replica, micro_batch, seed):
    place = loop.Place(
      tf.constant(batch_index, tf.int64),
      tf.constant(replica),
      tf.constant(micro_batch),
    )
    sums = stage_training.sums_in_training(model, features, place, seed=seed)
    return float(sums["mlm_loss"][0])

  losses = [
    loss(5, 1, 1, seed=3),
    loss(6, 1, 1, seed=3),
    loss(5, 0, 1, seed=3),
    loss(5, 1, 0, seed=3),
    loss(5, 1, 1, seed=4),
  ]
  assert len(set(losses)) == 5
  assert losses[0] == loss(5, 1, 1, seed=3)


def test_a_worker_reads_its_own_share_in_a_part_a_replica():
  place = stage_training._place_of(
    tf.distribute.InputContext(
      num_input_pipelines=2, input_pipeline_id=1, num_replicas_in_sync=6
    )
  )
  assert place == {"num_workers": 2, "worker": 1, "num_parts": 3}
