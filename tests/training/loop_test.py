"""Training steps move what is trained, and the loop keeps its appointments."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from mslt_tf.models import bert
from mslt_tf.models import dropout
from mslt_tf.models import weights
from mslt_tf.optimization import lamb
from mslt_tf.training import loop
from mslt_tf.training import loss_scale

B, S, P, V = 3, 7, 4, 37
METRICS = ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")


class _Descent(tf.keras.optimizers.legacy.SGD):
  def apply_scaled_gradients(self, gradients, variables, scale):
    self.apply_gradients(
      zip([scale * each for each in gradients], variables, strict=True),
      experimental_aggregate_gradients=False,
    )


def _make_model(**kwargs) -> bert.Bert:
  arguments = dict(
    vocab_size=V,
    hidden_size=12,
    num_layers=3,
    num_heads=3,
    intermediate_size=20,
    max_positions=11,
    seed=5,
  )
  return bert.Bert(**(arguments | kwargs))


def _features(seed: int = 1) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(seed)
  mask = np.ones([B, S], np.int32)
  mask[1, 5:] = 0
  return {
    "input_ids": rng.integers(V, size=[B, S]).astype(np.int32),
    "input_mask": mask,
    "segment_ids": rng.integers(2, size=[B, S]).astype(np.int32),
    "masked_lm_positions": rng.integers(S, size=[B, P]).astype(np.int32),
    "masked_lm_ids": rng.integers(V, size=[B, P]).astype(np.int32),
    "masked_lm_weights": np.array(
      [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], np.float32
    ),
    "next_sentence_labels": rng.integers(2, size=[B]).astype(np.int32),
  }


def _make_steps(
  model: bert.Bert,
  *,
  use_xla: bool = False,
  clip_norm: float = 1.0,
  **kwargs,
) -> loop.TrainingSteps:
  optimizer = lamb.make(
    lambda: tf.constant(0.01),
    weight_decay=0.01,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-6,
    adapt_norms_and_biases=False,
  )
  optimizer.prepare(model.trainable_variables)

  def compute_sums(features, place):
    source = dropout.Dropout(
      1, place.batch_index, place.replica, place.micro_batch
    )
    return bert.pretraining_sums(model(features, source), features)

  return loop.TrainingSteps(
    strategy=tf.distribute.get_strategy(),
    compute_sums=compute_sums,
    compute_counts=bert.pretraining_counts,
    metrics=METRICS,
    variables=model.trainable_variables,
    optimizer=optimizer,
    clip_norm=clip_norm,
    step=tf.Variable(0, dtype=tf.int64),
    batch_index=tf.Variable(0, dtype=tf.int64),
    is_asked_to_stop=tf.Variable(False),
    use_xla=use_xla,
    **kwargs,
  )


def _batches():
  """Repeats four batches for ever."""
  batches = [_features(seed) for seed in range(4)]
  stacked = {
    name: np.stack([batch[name] for batch in batches]) for name in batches[0]
  }
  return iter(tf.data.Dataset.from_tensor_slices(stacked).repeat())


def _num_products(step) -> int:
  """Counts the matrix products in the graphs that `step()` runs.

  They are counted in the graphs that are left after all optimisation.
  """
  context.enable_run_metadata()
  try:
    step()
    metadata = context.export_run_metadata()
  finally:
    context.disable_run_metadata()
  operations = collections.Counter(
    node.op
    for graphs in metadata.function_graphs
    for graph in graphs.partition_graphs
    for body in (graph.node, *[f.node_def for f in graph.library.function])
    for node in body
  )
  # MatMul, BatchMatMulV2, _FusedMatMul and oneDNN's kinds of them.
  return (
    sum(count for name, count in operations.items() if "MatMul" in name)
    + operations["Einsum"]
  )


@pytest.fixture(scope="module")
def one_frozen_step():
  """A stage that adds a third layer, one step into it."""
  model = _make_model(num_frozen_layers=2, freeze_embeddings=True)
  before = weights.to_arrays(model)
  steps = _make_steps(model)
  iterator = _batches()
  num_products = _num_products(lambda: steps(iterator, 1))
  return model, before, weights.to_arrays(model), num_products


def test_in_a_frozen_stage_every_frozen_variable_keeps_its_bits(
  one_frozen_step,
):
  model, before, after, _ = one_frozen_step
  names = [weights.name_of(each) for each in model.non_trainable_variables]
  # The embeddings' 5 and the 16 of either frozen layer.
  assert len(names) == 5 + 2 * 16
  assert "bert/embeddings/word_embeddings" in names
  for name in names:
    assert after[name].tobytes() == before[name].tobytes(), name


def test_in_a_frozen_stage_every_trained_variable_moves(one_frozen_step):
  model, before, after, _ = one_frozen_step
  names = [weights.name_of(each) for each in model.trainable_variables]
  assert len(names) == 16 + 9  # One layer and the heads.
  for name in names:
    assert (after[name] != before[name]).any(), name


# Of a layer's forward pass: query, key and value in one, scores, context,
# output, intermediate and the second dense layer. Of the heads': transform,
# logits, pooler and NSP logits. A backward pass makes two for each.
def test_a_frozen_stages_step_has_the_matrix_products_of_what_it_trains(
  one_frozen_step,
):
  *_, num_products = one_frozen_step
  forward = 3 * 6 + 4
  # Of the third layer and the heads. Neither the tied table's gradient nor the
  # input gradient of the border's query, key and value is wanted.
  backward = 2 * (6 + 4) - 1 - 1
  # Sums over rows are products with ones: for the third layer's 4 biases, of
  # which query, key and value count once, and the 4 weights of its norms; for
  # two biases of the heads and the weights of their norm.
  sums = 8 + 4
  assert num_products == forward + backward + sums == 52


@pytest.fixture(scope="module")
def five_steps():
  """Five steps of a model that trains everything, in one call."""
  model = _make_model()
  steps = _make_steps(model)
  iterator = _batches()
  results = []
  num_products = _num_products(lambda: results.append(steps(iterator, 5)))
  assert results[0].num_steps == 5
  return model, steps, results[0].means, num_products


def test_a_step_that_trains_everything_has_more_matrix_products(five_steps):
  *_, num_products = five_steps
  # The compiled loop has the products of one step in it.
  sums = 3 * 8 + 4 + 2  # Over rows; the last of the embeddings' norm.
  assert num_products == 3 * (3 * 6 + 4) + sums == 96


def test_a_call_of_n_steps_equals_n_calls_of_one(five_steps):
  model, steps, means, _ = five_steps
  other = _make_model()
  one_by_one = _make_steps(other)
  iterator = _batches()
  results = [one_by_one(iterator, 1).means for _ in range(5)]
  for name, array in weights.to_arrays(other).items():
    np.testing.assert_allclose(
      weights.to_arrays(model)[name], array, rtol=1e-5, atol=1e-6, err_msg=name
    )
  # Every batch has 7 predictions and 3 examples, so the mean of means is exact.
  assert means.keys() == results[0].keys()
  for name, mean in means.items():
    expected = np.mean([result[name] for result in results])
    assert mean == pytest.approx(expected, rel=1e-5), name
  for each in (steps, one_by_one):
    assert int(each.step) == int(each.batch_index) == 5


def test_everything_is_trained_without_freezing(five_steps):
  model, *_ = five_steps
  fresh = weights.to_arrays(_make_model())
  after = weights.to_arrays(model)
  assert len(fresh) == 5 + 3 * 16 + 9
  for name, array in fresh.items():
    assert (after[name] != array).any(), name


def test_training_lowers_the_loss_and_gradients_change_nothing(five_steps):
  model, steps, _, _ = five_steps
  features = {name: tf.constant(value) for name, value in _features(0).items()}
  before = weights.to_arrays(model)
  gradients, sums = steps.gradients(features)
  assert [each.shape for each in gradients] == [
    each.shape for each in model.trainable_variables
  ]
  assert float(sums["mlm_loss"][1]) == 7.0
  assert int(steps.step) == 5
  for name, array in weights.to_arrays(model).items():
    np.testing.assert_array_equal(array, before[name])
  fresh = bert.pretraining_sums(_make_model()(features), features)
  trained = bert.pretraining_sums(model(features), features)
  assert float(trained["mlm_loss"][0]) < float(fresh["mlm_loss"][0])


@pytest.mark.parametrize(
  "kwargs",
  [
    pytest.param({}, id="all trained"),
    pytest.param(
      {"num_frozen_layers": 1, "freeze_embeddings": True}, id="frozen"
    ),
    pytest.param({"activation": "gelu_exact"}, id="exact GELU"),
  ],
)
def test_the_gradients_under_xla_are_those_without(kwargs):
  model = _make_model(
    hidden_size=6, num_layers=2, hidden_dropout=0.0, attention_dropout=0.0,
    **kwargs,
  )  # fmt: skip
  features = {name: tf.constant(value) for name, value in _features().items()}
  plain, plain_sums = _make_steps(model).gradients(features)
  compiled, compiled_sums = _make_steps(model, use_xla=True).gradients(features)
  for variable, expected, actual in zip(
    model.trainable_variables, plain, compiled, strict=True
  ):
    np.testing.assert_allclose(
      actual, expected, rtol=1e-5, atol=1e-5, err_msg=variable.name
    )
  for name, pair in plain_sums.items():
    np.testing.assert_allclose(compiled_sums[name], pair, rtol=1e-5)


def test_a_step_under_xla_moves_the_weights_as_one_without():
  arrays = []
  for use_xla in (False, True):
    model = _make_model(
      hidden_size=6, num_layers=1, hidden_dropout=0.0, attention_dropout=0.0
    )
    means = _make_steps(model, use_xla=use_xla)(_batches(), 1).means
    arrays.append(weights.to_arrays(model) | {"loss": means["mlm_loss"]})
  # Its gradient is zero but for rounding, which is all that LAMB then sees.
  key_bias = "bert/encoder/layer_0/attention/self/key/bias"
  for name, array in arrays[0].items():
    if name != key_bias:
      np.testing.assert_allclose(
        arrays[1][name], array, rtol=1e-4, atol=1e-5, err_msg=name
      )


def _make_plain_steps(
  variable: tf.Variable,
  compute_sums,
  *,
  clip_norm: float = 1e9,
  losses=("loss",),
  metrics=("loss",),
  **kwargs,
) -> loop.TrainingSteps:
  """Steps of plain gradient descent at rate 1."""
  nowhere = loop.Place(*[tf.constant(0)] * 3)
  return loop.TrainingSteps(
    strategy=tf.distribute.get_strategy(),
    compute_sums=compute_sums,
    compute_counts=lambda features: {
      name: compute_sums(features, nowhere)[name][1] for name in losses
    },
    metrics=metrics,
    variables=[variable],
    optimizer=_Descent(1.0),
    clip_norm=clip_norm,
    step=tf.Variable(0, dtype=tf.int64),
    batch_index=tf.Variable(0, dtype=tf.int64),
    is_asked_to_stop=tf.Variable(False),
    use_xla=False,
    **kwargs,
  )


def _constant_batches(batches) -> tf.data.Iterator:
  return iter(
    tf.data.Dataset.from_tensor_slices({"x": tf.constant(batches)}).repeat()
  )


@pytest.mark.parametrize(
  "clip_norm, expected", [(1.0, [-0.6, -0.8]), (9.0, [-3.0, -4.0])]
)
@pytest.mark.parametrize("is_scaled", [False, True])
def test_gradients_are_clipped_at_their_global_norm(
  clip_norm, expected, is_scaled
):
  variable = tf.Variable([0.0, 0.0])
  scale = loss_scale.DynamicLossScale() if is_scaled else None

  def compute_sums(features, place):
    del place
    # Half of the sum is the loss: its gradient is x.
    return {
      "loss": (2 * tf.reduce_sum(variable * features["x"]), tf.constant(2.0))
    }

  steps = _make_plain_steps(
    variable, compute_sums, clip_norm=clip_norm, loss_scale=scale
  )
  means = steps(_constant_batches([[3.0, 4.0]]), 1).means
  np.testing.assert_allclose(variable, expected, rtol=1e-6)
  # The norm is that before clipping.
  assert means["gradient_norm"] == pytest.approx(5.0)


@pytest.mark.parametrize("is_scaled", [False, True])
def test_a_gradient_that_is_not_finite_ends_the_call(is_scaled):
  variable = tf.Variable([0.0])
  scale = loss_scale.DynamicLossScale() if is_scaled else None

  def compute_sums(features, place):
    del features, place
    # The root is 0, and as steep there as can be.
    return {"loss": (tf.sqrt(variable[0]), tf.constant(1.0))}

  steps = _make_plain_steps(variable, compute_sums, loss_scale=scale)
  batches = iter(tf.data.Dataset.from_tensors({"x": tf.zeros([])}).repeat(40))
  stretch = steps(batches, 5)
  assert (stretch.is_bad, stretch.loss) == (True, 0.0)
  if is_scaled:
    # Halved from 2^15 to 1, and once more: no step was an update.
    assert (stretch.num_steps, int(scale.num_skipped.numpy())) == (0, 16)
    assert variable.numpy() == [0.0]
  else:
    assert stretch.num_steps == 1


def test_metrics_are_quotients_of_sums():
  variable = tf.Variable([0.0])

  def compute_sums(features, place):
    del place
    total, count = tf.unstack(features["x"])
    return {
      "loss": (total + 0 * variable[0], count),
      "accuracy": (tf.constant(1.0), count),
      "nothing": (tf.constant(0.0), tf.constant(0.0)),
    }

  steps = _make_plain_steps(
    variable, compute_sums, metrics=("loss", "accuracy", "nothing")
  )
  batches = _constant_batches([[6.0, 2.0], [1.0, 1.0]])
  # (6 + 1) / (2 + 1); the mean of the quotients would be 2.
  assert steps(batches, 2).means == pytest.approx(
    {"loss": 7 / 3, "accuracy": 2 / 3, "nothing": 0.0, "gradient_norm": 0.0}
  )
  # The next call starts new sums.
  assert steps(batches, 1).means["loss"] == pytest.approx(3.0)


def test_the_loss_is_the_sum_of_the_named_quotients():
  variable = tf.Variable([1.0])

  def compute_sums(features, place):
    del features, place
    return {
      "a": (6 * variable[0], tf.constant(3.0)),  # Gradient 2.
      "b": (5 * variable[0], tf.constant(1.0)),  # Gradient 5.
      "no loss": (100 * variable[0], tf.constant(1.0)),
    }

  steps = _make_plain_steps(
    variable,
    compute_sums,
    losses=("a", "b"),
    metrics=("a", "no loss", "b"),
  )
  assert steps(_constant_batches([[0.0]]), 1).means["gradient_norm"] == 7.0
  np.testing.assert_allclose(variable, [-6.0])


def test_every_step_takes_the_next_batch_with_its_index():
  variable = tf.Variable([0.0])

  def compute_sums(features, place):
    index = tf.cast(place.batch_index, tf.float32)
    product = 10 * index + features["x"][0]
    return {"loss": (product * variable[0], tf.constant(1.0))}

  steps = _make_plain_steps(variable, compute_sums)
  steps.batch_index.assign(4)
  steps.step.assign(2)  # Two batches made no update.
  steps(_constant_batches([[1.0], [2.0], [3.0]]), 3)
  np.testing.assert_allclose(variable, [-(41.0 + 52.0 + 63.0)])
  assert (int(steps.step), int(steps.batch_index)) == (5, 7)


def test_evaluation_gives_the_exact_mean_with_a_short_last_batch():
  values = np.array([1, 2, 3, 4, 5, 6, 7, 8, 90, 100], np.float32)
  dataset = tf.data.Dataset.from_tensor_slices({"x": values}).batch(4)
  num_traces = []

  def compute_sums(features):
    num_traces.append(1)
    x = features["x"]
    return {
      "mean": (tf.reduce_sum(x), tf.cast(tf.size(x), tf.float32)),
      "nothing": (tf.constant(0.0), tf.constant(0.0)),
    }

  evaluation = loop.Evaluation(
    tf.distribute.get_strategy(),
    compute_sums,
    dataset,
    metrics=("mean", "nothing"),
    num_batches=3,
  )
  for _ in range(2):  # It starts anew.
    means = evaluation()
    assert means["mean"] == pytest.approx(22.6)  # 226 / 10
    assert np.isnan(means["nothing"])
  assert len(num_traces) == 1


@pytest.mark.parametrize(
  "step, last_step, expected",
  [
    (0, 100, 4),
    (1, 100, 4),
    (4, 100, 6),
    (6, 100, 8),
    (9, 100, 10),
    (10, 100, 12),
    (10, 11, 11),
    (58, 100, 60),
    (59, 60, 60),
  ],
)
def test_the_next_border_is_the_nearest_multiple_of_any_interval(
  step, last_step, expected
):
  intervals = loop.Intervals(steps_per_loop=4, evaluate=6, save=10)
  assert intervals.next_border(step, last_step) == expected


class _Fakes:
  """Notes what the loop calls, and at which step."""

  def __init__(
    self,
    step: int = 0,
    stop_at: int | None = None,
    asked_at: int | None = None,
  ):
    self.step, self.calls = step, []
    self._stop_at, self._asked_at = stop_at, asked_at

  def train(self, num_steps: int) -> loop.Stretch:
    is_asked = (
      self._asked_at is not None and self.step + num_steps >= self._asked_at
    )
    if is_asked:
      num_steps = self._asked_at - self.step
    self.step += num_steps
    self.calls.append(f"train {num_steps}")
    return loop.Stretch(
      num_steps=num_steps,
      means={},
      loss=1.0,
      is_bad=False,
      is_asked_to_stop=is_asked,
    )

  def evaluate(self) -> None:
    self.calls.append(f"evaluate at {self.step}")

  def save(self) -> None:
    self.calls.append(f"save at {self.step}")

  def should_stop(self) -> bool:
    return self._stop_at is not None and self.step >= self._stop_at


def _run(fakes: _Fakes, last_step: int, **intervals) -> bool:
  return loop.run(
    step=fakes.step,
    last_step=last_step,
    intervals=loop.Intervals(**intervals),
    train=fakes.train,
    evaluate=fakes.evaluate,
    save=fakes.save,
    should_stop=fakes.should_stop,
  )


def test_the_loop_trains_evaluates_and_saves_when_each_is_due():
  fakes = _Fakes()
  assert _run(fakes, 13, steps_per_loop=4, evaluate=6, save=5)
  assert fakes.calls == [
    "train 1",
    "train 3",
    "train 1",
    "save at 5",
    "train 1",
    "evaluate at 6",
    "train 2",
    "train 2",
    "save at 10",
    "train 2",
    "evaluate at 12",
    "train 1",
    "evaluate at 13",
  ]


def test_the_loop_returns_at_further_steps():
  fakes = _Fakes()
  assert _run(fakes, 9, steps_per_loop=5, evaluate=9, save=9, others=(3, 7, 12))
  assert [call for call in fakes.calls if call.startswith("train")] == [
    *["train 1", "train 2", "train 2", "train 2", "train 2"]
  ]


def test_evaluation_comes_before_saving_and_the_end_is_not_saved():
  fakes = _Fakes()
  assert _run(fakes, 4, steps_per_loop=100, evaluate=2, save=2)
  assert fakes.calls == [
    "train 1",
    "train 1",
    "evaluate at 2",
    "save at 2",
    "train 2",
    "evaluate at 4",
  ]


def test_a_resumed_loop_meets_the_same_borders():
  fakes = _Fakes(step=5)
  assert _run(fakes, 13, steps_per_loop=4, evaluate=6, save=5)
  assert fakes.calls == [
    "train 1",
    "evaluate at 6",
    "train 2",
    "train 2",
    "save at 10",
    "train 2",
    "evaluate at 12",
    "train 1",
    "evaluate at 13",
  ]


def test_a_first_step_that_is_a_border_is_kept():
  fakes = _Fakes()
  assert _run(fakes, 2, steps_per_loop=5, evaluate=1, save=1)
  assert fakes.calls == [
    "train 1",
    "evaluate at 1",
    "save at 1",
    "train 1",
    "evaluate at 2",
  ]


def test_a_loop_that_should_stop_saves_and_says_it_is_not_finished():
  fakes = _Fakes(stop_at=4)
  assert not _run(fakes, 13, steps_per_loop=4, evaluate=6, save=5)
  assert fakes.calls == ["train 1", "train 3", "save at 4"]


def test_a_loop_that_is_asked_to_stop_within_a_stretch_saves_there():
  fakes = _Fakes(asked_at=3)
  assert not _run(fakes, 13, steps_per_loop=4, evaluate=6, save=5)
  assert fakes.calls == ["train 1", "train 2", "save at 3"]


def test_being_asked_to_stop_leaves_out_no_evaluation_that_is_due():
  fakes = _Fakes(asked_at=6)
  assert not _run(fakes, 13, steps_per_loop=6, evaluate=6, save=5)
  assert fakes.calls[-3:] == ["train 1", "evaluate at 6", "save at 6"]


def test_being_asked_to_stop_in_a_skipped_step_evaluates_nothing_again():
  fakes = _Fakes(step=6, asked_at=6)
  assert not _run(fakes, 13, steps_per_loop=6, evaluate=6, save=5)
  assert fakes.calls == ["train 0", "save at 6"]


def test_being_asked_to_stop_in_the_last_step_finishes():
  fakes = _Fakes(asked_at=5)
  assert _run(fakes, 5, steps_per_loop=9, evaluate=9, save=9)
  assert fakes.calls == ["train 1", "train 4", "evaluate at 5"]


def test_a_loop_at_its_end_does_nothing():
  fakes = _Fakes(step=13, stop_at=0)
  assert _run(fakes, 13, steps_per_loop=4, evaluate=6, save=5)
  assert fakes.calls == []


def test_a_deadline_is_near_when_the_longest_stretch_no_longer_fits():
  times = iter([0.0, 3.0, 4.0, 7.0, 8.0])
  deadline = loop.Deadline(10.0, now=lambda: next(times))
  # Stretches of 3, 1, 3 and 1: at 7 another 3 just fits, at 8 it does not.
  assert [deadline.is_near() for _ in range(5)] == [False] * 4 + [True]
