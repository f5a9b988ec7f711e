"""transformers makes the same runs, from an exported model."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.benchmark import fine_tuning_peer
from mslt_tf.finetune import trainer as trainer_lib
from mslt_tf.glue import batches as batches_lib
from mslt_tf.glue import inputs as inputs_lib
from mslt_tf.glue import own_tasks
from mslt_tf.glue import protocol as protocol_lib
from mslt_tf.interop import huggingface
from mslt_tf.interop import huggingface_names
from mslt_tf.models import classifier as classifier_lib

PROTOCOL = protocol_lib.Protocol(
  batch_size=4,
  learning_rates=(0.01,),
  seeds=(1, 2),
  num_epochs=2,
  max_sequence_length=18,
)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
  folder = tmp_path_factory.mktemp("own")
  for name, number in (("train", 9), ("dev", 7)):
    rows = [f"w{index} w3\t{index % 2}" for index in range(number)]
    text = "\n".join(["text\tlabel", *rows]) + "\n"
    (folder / f"{name}.tsv").write_text(text)
  return own_tasks.make(str(folder / "train.tsv"), str(folder / "dev.tsv"))


def test_finished_runs_are_shown_and_not_made_again(
  make_pretrained, task, tmp_path
):
  pytest.importorskip("torch", reason="extra interop")
  pytest.importorskip("transformers", reason="extra interop")

  source = tmp_path / "source"
  source.mkdir()
  huggingface.export(make_pretrained(), str(source))

  def run(protocol):
    return fine_tuning_peer.run(
      [task],
      data_dir="",
      source=str(source),
      protocol=protocol,
      workdir=str(tmp_path / "runs"),
    )

  text = run(PROTOCOL)
  assert text.splitlines()[2].split()[0] == "hugging_face"
  results = sorted((tmp_path / "runs").glob("*/own/*/result.json"))
  assert len(results) == 2
  for path in results:
    metrics = json.loads(path.read_text())["metrics"]["dev"]
    # Of seven examples.
    assert metrics["accuracy"] * 7 == pytest.approx(
      round(metrics["accuracy"] * 7)
    )
  before = [path.stat().st_mtime_ns for path in results]
  assert run(PROTOCOL) == text
  assert [path.stat().st_mtime_ns for path in results] == before
  other = dataclasses.replace(PROTOCOL, dropout=0.3)
  with pytest.raises(errors.InputError, match="holds another run"):
    run(other)
  other = dataclasses.replace(PROTOCOL, weight_decay=0.5)
  with pytest.raises(errors.InputError, match=r"weight_decay is 0\.01 there"):
    run(other)
  path = pathlib.Path(task.train.paths[0])
  path.write_text(path.read_text() + "w1\t1\n")
  with pytest.raises(errors.InputError, match=r"examples_sha256\.train is"):
    run(PROTOCOL)


def test_the_same_batches_make_the_same_model(make_pretrained, tmp_path):
  """Without dropout ours is torch's training, step by step."""
  torch = pytest.importorskip("torch", reason="extra interop")
  transformers = pytest.importorskip("transformers", reason="extra interop")
  model = make_pretrained()
  huggingface.export(model, str(tmp_path))
  protocol = protocol_lib.Protocol(
    batch_size=4, max_sequence_length=18, dropout=0.0, clip_norm=2.0
  )
  run = protocol_lib.Run("task", "base", 0.01, 5, 3, 4, 0.1)
  rng = np.random.default_rng(0)
  lengths = rng.integers(4, 19, 30)
  inputs = inputs_lib.Inputs(
    ids=rng.integers(5, 46, lengths.sum()).astype(np.int32),
    lengths=lengths,
    second_starts=lengths // 2,
    labels=rng.uniform(0, 5, 30),
    num_cut=0,
  )
  trainer = trainer_lib.Trainer(
    model.architecture, protocol, num_outputs=1, is_regression=True
  )
  trainer.train(run, model.weights, inputs, lambda *_: None)

  peer = transformers.BertForSequenceClassification.from_pretrained(
    str(tmp_path),
    num_labels=1,
    problem_type="regression",
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
  )
  fresh = classifier_lib.fresh_output(model.architecture, num_outputs=1, seed=5)
  with torch.no_grad():
    peer.classifier.weight.copy_(torch.tensor(fresh["output_weights"]))
    peer.classifier.bias.zero_()
  is_decayed = {False: [], True: []}
  for name, parameter in peer.named_parameters():
    is_decayed["bias" not in name and "LayerNorm" not in name].append(parameter)
  optimizer = torch.optim.AdamW(
    [
      {"params": is_decayed[False], "weight_decay": 0.0},
      {"params": is_decayed[True], "weight_decay": 0.01},
    ],
    eps=1e-6,
  )
  peer.train()
  batches = batches_lib.shuffled(
    lengths, batch_size=4, max_length=18, seed=5, num_epochs=3
  )
  num_steps = 0
  for step, batch in enumerate(batches):  # 24, of which 3 are the warmup.
    rate = 0.01 * (step / 3 if step < 3 else 1 - step / 24)
    for group in optimizer.param_groups:
      group["lr"] = rate
    features = inputs.features(batch.indices, length=batch.length, num_rows=4)
    ids, mask, segments = (
      torch.tensor(features[name][: len(batch.indices)]).long()
      for name in ("input_ids", "input_mask", "segment_ids")
    )
    values = torch.tensor(inputs.labels[batch.indices]).float()
    answers = peer(ids, mask, segments).logits[:, 0]
    loss = torch.nn.functional.mse_loss(answers, values)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(peer.parameters(), 2.0)
    optimizer.step()
    num_steps += 1
  assert num_steps == 24
  trained = peer.state_dict()
  for name, array in trainer.weights().items():
    # Of a key's bias the softmax knows nothing: its gradient is noise.
    if not name.startswith("bert/") or name.endswith("key/bias"):
      continue
    theirs = trained[huggingface_names.to_hugging_face(name)].numpy()
    if huggingface_names.is_transposed(name):
      theirs = theirs.T
    assert np.abs(array - model.weights[name]).max() > 0.01, name
    np.testing.assert_allclose(array, theirs, atol=5e-5, err_msg=name)
