"""However a global batch is split, it makes the same update."""

import collections
import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import costs
from mslt_tf import schedules
from mslt_tf.models import bert
from mslt_tf.models import weights
from mslt_tf.optimization import lamb
from mslt_tf.training import cluster
from mslt_tf.training import loop
from mslt_tf.training import loss_scale

B, S, P, V = 8, 7, 3, 37
METRICS = ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")
# Predictions an example: of the two halves 9 and 5, of the quarters 5, 4, 2, 3.
PREDICTIONS = (3, 2, 3, 1, 1, 1, 0, 3)


class _Descent(tf.keras.optimizers.legacy.SGD):
  def apply_scaled_gradients(self, gradients, variables, scale):
    self.apply_gradients(
      zip([scale * each for each in gradients], variables, strict=True),
      experimental_aggregate_gradients=False,
    )


def _features() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(2)
  return {
    "input_ids": rng.integers(V, size=[B, S]).astype(np.int32),
    "input_mask": np.ones([B, S], np.int32),
    "segment_ids": rng.integers(2, size=[B, S]).astype(np.int32),
    "masked_lm_positions": rng.integers(S, size=[B, P]).astype(np.int32),
    "masked_lm_ids": rng.integers(V, size=[B, P]).astype(np.int32),
    "masked_lm_weights": np.array(
      [[1.0] * count + [0.0] * (P - count) for count in PREDICTIONS],
      np.float32,
    ),
    "next_sentence_labels": rng.integers(2, size=[B]).astype(np.int32),
  }


def _mirrored() -> tf.distribute.Strategy:
  # The one of this process: a second would mix its collectives up with it.
  strategy = cluster.connect("mirrored", timeout=60.0).strategy
  assert strategy.num_replicas_in_sync == 2
  return strategy


def _one_device() -> tf.distribute.Strategy:
  return tf.distribute.OneDeviceStrategy("CPU:0")


def _batches(strategy: tf.distribute.Strategy):
  """Repeats one global batch for ever, a share of it for each replica."""
  size = B // strategy.num_replicas_in_sync
  dataset = tf.data.Dataset.from_tensor_slices(_features())
  dataset = dataset.batch(size, drop_remainder=True).repeat()
  return iter(strategy.distribute_datasets_from_function(lambda _: dataset))


def _make_steps(
  strategy: tf.distribute.Strategy,
  *,
  precision="float32",
  initializer_range=0.02,
  **kwargs,
) -> tuple[bert.Bert, loop.TrainingSteps]:
  with strategy.scope():
    model = bert.Bert(
      vocab_size=V,
      hidden_size=12,
      num_layers=2,
      num_heads=3,
      intermediate_size=20,
      max_positions=11,
      num_frozen_layers=1,
      freeze_embeddings=True,
      hidden_dropout=0.0,
      attention_dropout=0.0,
      precision=precision,
      initializer_range=initializer_range,
      seed=5,
    )
    optimizer = lamb.make(
      lambda: tf.constant(0.01),
      weight_decay=0.01,
      beta_1=0.9,
      beta_2=0.999,
      epsilon=1e-6,
      adapt_norms_and_biases=False,
    )
    optimizer.prepare(model.trainable_variables)
    step = tf.Variable(0, dtype=tf.int64)
    batch_index = tf.Variable(0, dtype=tf.int64)
    scale = None
    if precision == "mixed_float16":
      scale = loss_scale.DynamicLossScale()
  arguments = dict(
    strategy=strategy,
    compute_sums=lambda features, place: bert.pretraining_sums(
      model(features), features
    ),
    compute_counts=bert.pretraining_counts,
    metrics=METRICS,
    variables=model.trainable_variables,
    optimizer=optimizer,
    clip_norm=0.1,  # Clips, so that a gradient of another length would show.
    step=step,
    batch_index=batch_index,
    is_asked_to_stop=tf.Variable(False),
    use_xla=False,
    loss_scale=scale,
  )
  return model, loop.TrainingSteps(**(arguments | kwargs))


@pytest.fixture(scope="module")
def whole():
  """Three steps of whole batches on one device: weights and means."""
  model, steps = _make_steps(_one_device())
  stretch = steps(_batches(_one_device()), 3)
  return weights.to_arrays(model), stretch


@pytest.mark.parametrize(
  ("make_strategy", "num_micro_batches", "use_xla"),
  [
    pytest.param(
      _mirrored, 1, False, id="two replicas", marks=pytest.mark.slow
    ),
    pytest.param(
      _one_device, 2, False, id="two micro-batches", marks=pytest.mark.slow
    ),
    pytest.param(_one_device, 8, False, id="a micro-batch an example"),
    pytest.param(
      _mirrored,
      2,
      False,
      id="two replicas of two micro-batches",
      marks=pytest.mark.slow,
    ),
    pytest.param(_mirrored, 2, True, id="the same under XLA"),
    pytest.param(_one_device, 1, True, id="one device, the update too in XLA"),
  ],
)
def test_a_split_batch_makes_the_same_update(
  make_strategy, num_micro_batches, use_xla, whole
):
  strategy = make_strategy()
  model, steps = _make_steps(
    strategy, num_micro_batches=num_micro_batches, use_xla=use_xla
  )
  stretch = steps(_batches(strategy), 3)
  expected_arrays, expected = whole
  assert stretch.num_steps == expected.num_steps == 3
  for name, mean in expected.means.items():
    assert stretch.means[name] == pytest.approx(mean, rel=1e-5), name
  assert stretch.loss == pytest.approx(expected.loss, rel=1e-5)
  # Its gradient is zero but for rounding, which is all that LAMB then sees.
  key_bias = "bert/encoder/layer_1/attention/self/key/bias"
  for name, array in weights.to_arrays(model).items():
    if name != key_bias:
      np.testing.assert_allclose(
        array, expected_arrays[name], rtol=1e-4, atol=2e-6, err_msg=name
      )


def test_the_loss_is_the_sum_over_all_divided_by_the_count_of_all():
  # Losses far from each other, of weights that are far from zero.
  model, steps = _make_steps(_mirrored(), initializer_range=0.5)
  features = {name: tf.constant(each) for name, each in _features().items()}
  logits = model(features).masked_lm_logits.numpy().astype(np.float64)
  labels, counted = features["masked_lm_ids"].numpy(), _features()
  log_z = np.log(np.exp(logits).sum(-1))
  right = np.take_along_axis(logits, labels[..., None], -1)[..., 0]
  losses = (log_z - right) * counted["masked_lm_weights"]
  stretch = steps(_batches(_mirrored()), 1)
  # 14 predictions in all; the mean of the halves' means would be another.
  assert sum(PREDICTIONS) == 14
  assert stretch.means["mlm_loss"] == pytest.approx(losses.sum() / 14, rel=1e-5)
  halves = losses[:4].sum() / 9 + losses[4:].sum() / 5
  assert abs(halves / 2 - losses.sum() / 14) > 0.01


def test_every_replica_and_micro_batch_has_a_place_of_its_own():
  strategy = _mirrored()

  def compute_sums(features, place):
    sums = bert.pretraining_sums(model(features), features)
    number = 10 * place.replica + place.micro_batch
    return {**sums, "place": (tf.cast(number, tf.float32), tf.constant(1.0))}

  model, steps = _make_steps(
    strategy,
    compute_sums=compute_sums,
    metrics=(*METRICS, "place"),
    num_micro_batches=2,
  )
  # 0 and 1, 10 and 11.
  assert steps(_batches(strategy), 1).means["place"] == 22 / 4


@pytest.mark.parametrize(
  "make_strategy",
  [pytest.param(_one_device, marks=pytest.mark.slow), _mirrored],
)
def test_a_step_whose_gradients_overflow_makes_no_update(make_strategy):
  strategy = make_strategy()
  model, steps = _make_steps(strategy, precision="mixed_float16")
  before = weights.to_arrays(model)
  scale = steps._loss_scale
  scale.scale.assign(2.0**24)  # More than float16 holds; halved until it fits.
  stretch = steps(_batches(strategy), 1)
  num_skipped = int(scale.num_skipped.numpy())
  assert num_skipped >= 1
  assert float(scale.scale.numpy()) == 2.0 ** (24 - num_skipped)
  # The step counts updates, the batch index batches; LAMB's count is right.
  assert stretch.num_steps == int(steps.step.numpy()) == 1
  assert int(steps.batch_index.numpy()) == 1 + num_skipped
  assert int(steps._optimizer.iterations.numpy()) == 1
  assert not stretch.is_bad
  assert math.isfinite(stretch.means["gradient_norm"])
  after = weights.to_arrays(model)
  for variable in model.trainable_variables:
    name = weights.name_of(variable)
    assert np.isfinite(after[name]).all(), name
    assert (after[name] != before[name]).any(), name


def test_float16_and_bfloat16_make_about_the_update_of_float32(whole):
  expected = whole[1].means
  for precision in ("mixed_float16", "mixed_bfloat16"):
    strategy = _mirrored()
    _, steps = _make_steps(strategy, precision=precision)
    stretch = steps(_batches(strategy), 3)
    assert stretch.means["mlm_loss"] == pytest.approx(
      expected["mlm_loss"], rel=0.01
    )
    assert stretch.means["gradient_norm"] == pytest.approx(
      expected["gradient_norm"], rel=0.03
    )


def test_a_skipped_step_can_be_the_last_one():
  strategy = _mirrored()
  asked = tf.Variable(True)
  _, steps = _make_steps(
    strategy, precision="mixed_float16", is_asked_to_stop=asked
  )
  steps._loss_scale.scale.assign(2.0**24)
  stretch = steps(_batches(strategy), 5)
  assert stretch.is_asked_to_stop
  assert stretch.num_steps == int(steps.step.numpy()) == 0
  assert int(steps.batch_index.numpy()) == 1


def test_every_replica_goes_on_with_the_moments_that_were_carried():
  strategy = _mirrored()
  model, steps = _make_steps(strategy)
  state = {}
  for variable in model.trainable_variables:
    name = weights.name_of(variable)
    state[f"{name}/m"] = np.full(variable.shape, 0.01, np.float32)
    state[f"{name}/v"] = np.full(variable.shape, 0.001, np.float32)
    state[f"{name}/num_updates"] = np.asarray(7)
  steps._optimizer.prepare(model.trainable_variables, state)
  steps(_batches(strategy), 1)
  for variable in model.trainable_variables:
    first, second = strategy.experimental_local_results(variable)
    np.testing.assert_array_equal(first, second, err_msg=variable.name)


def test_a_worker_that_is_asked_to_stop_ends_the_call_after_the_step():
  strategy = _mirrored()
  asked = tf.Variable(False)
  _, steps = _make_steps(strategy, is_asked_to_stop=asked)
  iterator = _batches(strategy)
  assert not steps(iterator, 2).is_asked_to_stop
  asked.assign(True)
  stretch = steps(iterator, 5)
  assert stretch.is_asked_to_stop
  assert stretch.num_steps == 1
  assert int(steps.step.numpy()) == 3


@pytest.mark.parametrize("largest_loss", [math.inf, 1.0])
def test_a_bad_step_ends_the_call(largest_loss):
  strategy = _mirrored()
  model, steps = _make_steps(strategy, largest_loss=largest_loss)
  if largest_loss == math.inf:
    model.pooler.trainable_variables[0].assign(np.full([12, 12], np.nan))
  stretch = steps(_batches(strategy), 5)
  assert stretch.is_bad
  assert stretch.num_steps == 1


def _sent_bytes(steps: loop.TrainingSteps, iterator) -> list[int]:
  """Returns the bytes that one replica sends in each collective of a step."""
  concrete = steps._run.get_concrete_function(
    iterator, tf.TensorSpec([], tf.int64)
  )
  graph = concrete.graph.as_graph_def(add_shapes=True)
  sizes = collections.Counter()
  for function in graph.library.function:
    for node in function.node_def:
      if node.op.startswith("CollectiveReduce"):
        (shape,) = node.attr["_output_shapes"].list.shape
        count = math.prod(dim.size for dim in shape.dim)
        dtype = tf.dtypes.as_dtype(node.attr["T"].type)
        sizes[node.device, count * dtype.size] += 1
  devices = {device for device, _ in sizes}
  assert len(devices) == 2
  by_device = [
    sorted(
      size
      for (where, size), count in sizes.items()
      if where == device
      for _ in range(count)
    )
    for device in sorted(devices)
  ]
  assert by_device[0] == by_device[1]
  return by_device[0]


BASE = costs.Shape(
  vocab_size=30522,
  hidden_size=768,
  intermediate_size=3072,
  max_positions=512,
  num_segments=2,
  sequence_length=8,
  max_predictions=2,
)
LARGE = dataclasses.replace(BASE, hidden_size=1024, intermediate_size=4096)


# Weights of a layer, of the embeddings and of the heads: 7,087,872, 23,837,184
# and 1,214,780 in Base; 12,596,224, 31,782,912 and 2,133,820 in Large. A stage
# adds three (six) layers, and a weight has four bytes.
@pytest.mark.parametrize(
  ("shape", "number", "expected"),
  [
    pytest.param(
      "BASE", 1, 185_262_320, id="Base, stage 1", marks=pytest.mark.slow
    ),
    pytest.param("BASE", 2, 89_913_584, id="Base, stage 2"),
    pytest.param(
      "BASE", 3, 89_913_584, id="Base, stage 3", marks=pytest.mark.slow
    ),
    pytest.param(
      "BASE", 5, 440_425_712, id="Base, stage 5", marks=pytest.mark.slow
    ),
    pytest.param(
      "BASE", 4, 89_913_584, id="Base, stage 4", marks=pytest.mark.slow
    ),
    *[
      pytest.param(
        "LARGE", number, size, id=f"Large, {number}", marks=pytest.mark.slow
      )
      for number, size in {
        1: 437_976_304,
        2: 310_844_656,
        3: 310_844_656,
        4: 310_844_656,
        5: 1_344_904_432,
      }.items()
    ],
  ],
)
def test_a_stage_sends_its_own_gradients_and_no_others(shape, number, expected):
  num_layers = {"BASE": 12, "LARGE": 24}[shape]
  shape = {"BASE": BASE, "LARGE": LARGE}[shape]
  schedule = schedules.mslt(num_layers, 10, num_growing_stages=4)
  stage = schedule.stages[number - 1]
  sizes = _bytes_of_stage(shape, stage, num_heads=shape.hidden_size // 64)
  cost = costs.stage_cost(shape, stage, num_layers=num_layers)
  assert sum(sizes) - sum(_SMALL) == cost.gradient_bytes == expected


# Beside gradients: the two counts and whether to stop, and the metrics' sums.
_SMALL = (3 * 4, 8 * 4)


def _bytes_of_stage(shape, stage, *, num_heads) -> list[int]:
  strategy = _mirrored()
  with strategy.scope():
    model = bert.Bert(
      vocab_size=shape.vocab_size,
      hidden_size=shape.hidden_size,
      num_layers=stage.num_layers,
      num_heads=num_heads,
      intermediate_size=shape.intermediate_size,
      max_positions=shape.max_positions,
      num_frozen_layers=stage.num_frozen_layers,
      freeze_embeddings=stage.freeze_embeddings,
    )
    optimizer = _Descent(0.1)  # Without slots to fill.
    counters = [tf.Variable(0, dtype=tf.int64) for _ in range(2)]
  steps = loop.TrainingSteps(
    strategy=strategy,
    compute_sums=lambda features, place: bert.pretraining_sums(
      model(features), features
    ),
    compute_counts=bert.pretraining_counts,
    metrics=METRICS,
    variables=model.trainable_variables,
    optimizer=optimizer,
    clip_norm=1.0,
    step=counters[0],
    batch_index=counters[1],
    is_asked_to_stop=tf.Variable(False),
    use_xla=False,
  )
  return _sent_bytes(steps, _batches(strategy))
