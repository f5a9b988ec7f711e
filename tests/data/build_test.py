"""A data set is complete, honest about itself and always the same."""

import hashlib
import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import build
from mslt_tf.data import vocabulary

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
WORDS = (
  "alpha",
  "beta",
  "gamma",
  "delta",
  "epsilon",
  "zeta",
  "eta",
  "theta",
  "iota",
  "kappa",
)


def _document(index: int, num_sentences: int = 9) -> str:
  """Sentences in which the word `docN` tells where they are from."""
  rng = np.random.default_rng(index)
  return "".join(
    f"doc{index} " + " ".join(rng.choice(WORDS, size=7)) + " .\n"
    for _ in range(num_sentences)
  )


@pytest.fixture
def corpus(tmp_path) -> str:
  path = tmp_path / "corpus.txt"
  path.write_text("\n".join(_document(index) for index in range(31)))
  return str(path)


@pytest.fixture
def vocab(tmp_path) -> str:
  """Every word of the corpus is one token: examples can be read back."""
  path = tmp_path / "words.txt"
  tokens = (
    *vocabulary.SPECIAL_TOKENS,
    ".",
    *WORDS,
    *(f"doc{index}" for index in range(31)),
  )
  vocabulary.save(vocabulary.Vocabulary(tokens), str(path))
  return str(path)


def _text(path: str) -> str:
  return pathlib.Path(path).read_text()


def _build(corpus, directory, **kwargs) -> build.Result:
  arguments = dict(
    sequence_length=29,
    max_predictions=5,
    heldout_fraction=0.2,
    num_shards=3,
    seed=7,
  )
  settings = build.Settings(**(arguments | kwargs))
  return build.build([corpus], str(directory), settings)


def _digests(directory) -> dict[str, str]:
  return {
    name: hashlib.sha256(
      (pathlib.Path(directory) / name).read_bytes()
    ).hexdigest()
    for name in sorted(os.listdir(directory))
  }


def _examples(directory, split: str) -> list[dict[str, list]]:
  result = []
  for name in sorted(os.listdir(directory)):
    if name.startswith(split) and name.endswith(".tfrecord"):
      for raw in tf.data.TFRecordDataset(os.path.join(directory, name)):
        feature = tf.train.Example.FromString(raw.numpy()).features.feature
        result.append(
          {
            key: list(value.int64_list.value or value.float_list.value)
            for key, value in feature.items()
          }
        )
  return result


def _restored(example) -> list[int]:
  """The ids before masking."""
  ids = list(example["input_ids"])
  for position, token, weight in zip(
    example["masked_lm_positions"],
    example["masked_lm_ids"],
    example["masked_lm_weights"],
    strict=True,
  ):
    if weight:
      ids[position] = token
  return ids


def _sources(ids, first_document_id: int) -> set[int]:
  return {
    token - first_document_id for token in ids if token >= first_document_id
  }


def test_the_files_are_those_of_the_manifest(corpus, tmp_path):
  result = _build(corpus, tmp_path / "data", vocab_size=80)
  assert result.is_new
  assert sorted(os.listdir(tmp_path / "data")) == [
    "heldout-00000-of-00001.tfrecord",
    "heldout-00000-of-00001.tfrecord.index",
    "manifest.json",
    "train-00000-of-00003.tfrecord",
    "train-00000-of-00003.tfrecord.index",
    "train-00001-of-00003.tfrecord",
    "train-00001-of-00003.tfrecord.index",
    "train-00002-of-00003.tfrecord",
    "train-00002-of-00003.tfrecord.index",
    "vocab.txt",
  ]
  manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
  assert manifest == result.manifest
  digest = hashlib.sha256((tmp_path / "data" / "vocab.txt").read_bytes())
  assert manifest["vocab"] == {
    "file": "vocab.txt",
    "size": 80,
    "sha256": digest.hexdigest(),
  }
  splits = manifest["splits"]
  assert (
    splits["train"]["num_documents"] + (splits["heldout"]["num_documents"])
    == 31
  )
  assert splits["train"]["num_sentences"] == (
    9 * splits["train"]["num_documents"]
  )
  sizes = [shard["num_examples"] for shard in splits["train"]["shards"]]
  assert (
    sum(sizes)
    == splits["train"]["num_examples"]
    == len(_examples(tmp_path / "data", "train"))
  )
  assert max(sizes) - min(sizes) <= 1


def test_the_same_input_and_seed_give_the_same_bytes(corpus, tmp_path):
  copy = tmp_path / "renamed.md"
  copy.write_text(_text(corpus))
  _build(corpus, tmp_path / "first", vocab_size=80)
  _build(str(copy), tmp_path / "second", vocab_size=80)
  assert _digests(tmp_path / "first") == _digests(tmp_path / "second")


def test_another_seed_changes_examples_and_not_what_is_held_out(
  corpus, vocab, tmp_path
):
  documents = []
  for seed in (7, 8):
    _build(corpus, tmp_path / str(seed), vocab_path=vocab, seed=seed)
    ids = [
      _restored(example)
      for example in _examples(tmp_path / str(seed), "heldout")
    ]
    documents.append(set().union(*(_sources(row, 16) for row in ids)))
  assert documents[0] == documents[1]
  first, second = _digests(tmp_path / "7"), _digests(tmp_path / "8")
  assert (
    first["train-00000-of-00003.tfrecord"]
    != (second["train-00000-of-00003.tfrecord"])
  )


def test_heldout_documents_are_not_trained_on(corpus, vocab, tmp_path):
  _build(corpus, tmp_path / "data", vocab_path=vocab)
  sources = {}
  for split in ("train", "heldout"):
    sources[split] = set().union(
      *(
        _sources(_restored(example), 16)
        for example in _examples(tmp_path / "data", split)
      )
    )
  assert sources["train"] | sources["heldout"] == set(range(31))
  assert not sources["train"] & sources["heldout"]


def test_copies_of_a_document_are_on_one_side(tmp_path):
  path = tmp_path / "corpus.txt"
  path.write_text("\n".join(_document(index % 4) for index in range(12)))
  result = _build(str(path), tmp_path / "data", vocab_size=80)
  splits = result.manifest["splits"]
  assert splits["train"]["num_documents"] == 6
  assert splits["heldout"]["num_documents"] == 6


def test_labels_say_whether_the_segments_belong_together(
  corpus, vocab, tmp_path
):
  _build(corpus, tmp_path / "data", vocab_path=vocab)
  labels = set()
  for example in _examples(tmp_path / "data", "train"):
    ids = np.array(_restored(example))
    segments = np.array(example["segment_ids"])
    first = _sources(ids[segments == 0].tolist(), 16)
    second = _sources(ids[segments == 1].tolist(), 16)
    (label,) = example["next_sentence_labels"]
    labels.add(label)
    assert len(first) <= 1 and len(second) <= 1
    if first and second:  # Truncation may have cut the word off.
      assert (first != second) == bool(label)
  assert labels == {0, 1}


def test_examples_are_shaped_as_bert_reads_them(corpus, vocab, tmp_path):
  _build(corpus, tmp_path / "data", vocab_path=vocab)
  for example in _examples(tmp_path / "data", "train"):
    ids = _restored(example)
    num_tokens = sum(example["input_mask"])
    assert len(ids) == 29 and num_tokens <= 29
    assert example["input_mask"] == [1] * num_tokens + [0] * (29 - num_tokens)
    assert ids[num_tokens:] == [0] * (29 - num_tokens)
    separators = [place for place, token in enumerate(ids) if token == 3]
    assert ids[0] == 2
    assert len(separators) == 2 and separators[1] == num_tokens - 1
    middle = separators[0] + 1
    assert example["segment_ids"] == (
      [0] * middle + [1] * (num_tokens - middle) + [0] * (29 - num_tokens)
    )
    num_masked = int(sum(example["masked_lm_weights"]))
    assert num_masked == min(5, max(1, round(num_tokens * 0.15)))


def test_dupe_factor_masks_anew_and_leaves_heldout_alone(
  corpus, vocab, tmp_path
):
  once = _build(corpus, tmp_path / "1", vocab_path=vocab).manifest
  twice = _build(
    corpus, tmp_path / "2", vocab_path=vocab, dupe_factor=2
  ).manifest
  ratio = (
    twice["splits"]["train"]["num_examples"]
    / once["splits"]["train"]["num_examples"]
  )
  assert 1.7 < ratio < 2.3
  assert twice["splits"]["heldout"] == once["splits"]["heldout"]


def test_the_unigram_loss_is_that_of_the_training_frequencies(
  corpus, vocab, tmp_path
):
  loss = _build(corpus, tmp_path / "data", vocab_path=vocab).manifest[
    "unigram_mlm_loss"
  ]
  heldout = _examples(tmp_path / "data", "heldout")
  documents = set().union(*(_sources(_restored(one), 16) for one in heldout))
  lines = _text(corpus).replace(".", "").split("\n")
  training = " ".join(
    line + " ."
    for line in lines
    if line and int(line.split()[0][3:]) not in documents
  ).split()
  tokens = _text(vocab).split()
  total = len(training) + len(tokens)
  losses = [
    -math.log((training.count(tokens[token]) + 1) / total)
    for example in heldout
    for token, weight in zip(
      example["masked_lm_ids"], example["masked_lm_weights"], strict=True
    )
    if weight
  ]
  assert loss == pytest.approx(np.mean(losses), rel=1e-9)


def test_the_same_command_again_does_nothing(corpus, tmp_path):
  first = _build(corpus, tmp_path / "data", vocab_size=80)
  before = {
    name: os.stat(tmp_path / "data" / name).st_mtime_ns
    for name in os.listdir(tmp_path / "data")
  }
  second = _build(corpus, tmp_path / "data", vocab_size=80)
  assert not second.is_new
  assert second.manifest == first.manifest
  assert before == {
    name: os.stat(tmp_path / "data" / name).st_mtime_ns
    for name in os.listdir(tmp_path / "data")
  }


def test_other_arguments_or_input_for_existing_data_are_an_error(
  corpus, tmp_path
):
  _build(corpus, tmp_path / "data", vocab_size=80)
  with pytest.raises(errors.InputError, match=r"seed=8, but .* seed=7"):
    _build(corpus, tmp_path / "data", vocab_size=80, seed=8)
  with open(corpus, "a") as file:
    file.write("one more .\n")
  with pytest.raises(errors.InputError, match=r"input_sha256"):
    _build(corpus, tmp_path / "data", vocab_size=80)


def test_an_unfinished_build_is_built_again(corpus, tmp_path):
  _build(corpus, tmp_path / "whole", vocab_size=80)
  unfinished = tmp_path / "unfinished"
  (unfinished / "unfinished").mkdir(parents=True)
  (unfinished / "unfinished" / "train-0.dealt").write_bytes(b"half a reco")
  (unfinished / "train-00000-of-00003.tfrecord").write_bytes(b"old")
  assert _build(corpus, unfinished, vocab_size=80).is_new
  assert _digests(unfinished) == _digests(tmp_path / "whole")


@pytest.mark.parametrize("num_documents, heldout", [(4, 2), (5, 2)])
def test_small_corpora_have_two_documents_on_each_side(
  tmp_path, num_documents, heldout
):
  path = tmp_path / "corpus.txt"
  path.write_text("\n".join(map(_document, range(num_documents))))
  splits = _build(
    str(path), tmp_path / "data", vocab_size=80, heldout_fraction=0.01
  ).manifest["splits"]
  assert splits["heldout"]["num_documents"] == heldout
  assert splits["train"]["num_documents"] == num_documents - heldout


def test_too_few_documents_are_an_error_that_says_what_to_do(tmp_path):
  path = tmp_path / "corpus.txt"
  path.write_text("\n".join(map(_document, range(3))))
  with pytest.raises(errors.InputError, match=r"3 different documents.*blank"):
    _build(str(path), tmp_path / "data", vocab_size=80)


def test_input_without_text_is_an_error_that_names_it(tmp_path):
  path = tmp_path / "blank.txt"
  path.write_text("\n \n")
  with pytest.raises(errors.InputError, match=r"blank.txt holds no text"):
    _build(str(path), tmp_path / "data", vocab_size=80)


@pytest.mark.parametrize(
  "arguments, message",
  [
    (dict(), "exactly one"),
    (dict(vocab_size=80, vocab_path="vocab.txt"), "exactly one"),
    (dict(vocab_size=80, sequence_length=7), "sequence_length=7 must"),
    (dict(vocab_size=80, max_predictions=0), "max_predictions=0 must"),
    (dict(vocab_size=80, masked_lm_prob=1.5), "masked_lm_prob=1.5 must"),
    (dict(vocab_size=80, short_sequence_prob=-1.0), "short_sequence_prob"),
    (dict(vocab_size=80, heldout_fraction=0.0), "heldout_fraction=0.0 must"),
    (dict(vocab_size=80, dupe_factor=0), "dupe_factor=0 must"),
    (dict(vocab_size=80, num_shards=0), "num_shards=0 must"),
    (dict(vocab_size=80, num_shards=5000), "num_shards=5000 is more"),
    (dict(vocab_size=80, seed=-1), "seed=-1 must"),
    (dict(vocab_size=80, input_format="pdf"), "input_format='pdf'"),
    (dict(vocab_size=9), "vocab_size=9 is too small"),
  ],
)
def test_arguments_out_of_range_are_errors(
  corpus, tmp_path, arguments, message
):
  with pytest.raises(errors.InputError, match=message):
    _build(corpus, tmp_path / "data", **arguments)
  left = os.listdir(tmp_path / "data") if (tmp_path / "data").exists() else []
  assert left == []


def test_the_binary_reports_missing_input_in_one_line(tmp_path):
  result = subprocess.run(
    [
      sys.executable,
      os.path.join(ROOT, "bin", "create_pretraining_data.py"),
      f"--input={tmp_path}/none.txt",
      f"--output_dir={tmp_path}/data",
      "--vocab_size=80",
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 1
  assert "Traceback" not in result.stderr
  last = result.stderr.strip().split("\n")[-1]
  assert last.startswith("create_pretraining_data.py: error: ")
  assert f"{tmp_path}/none.txt" in last
