"""A data set is complete, honest about itself and always the same."""

import bz2
import contextlib
import decimal
import errno
import gzip
import hashlib
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.building import build
from mslt_tf.data.building import processes
from mslt_tf.data.examples import vocabulary
from mslt_tf.data.reading import manifest
from mslt_tf.data.text import documents

ROOT = os.path.abspath(os.path.join(__file__, "../../../.."))
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


def _left(directory) -> list[str]:
  """Returns what a build that failed has left, but the empty lock."""
  names = os.listdir(directory) if os.path.exists(directory) else []
  return [name for name in names if name != ".lock"]


def _build(corpus, directory, *, num_processes=1, **kwargs) -> build.Result:
  arguments = dict(
    sequence_length=29,
    max_predictions=5,
    heldout_fraction=0.2,
    num_shards=3,
    seed=7,
  )
  settings = build.Settings(**(arguments | kwargs))
  return build.build(
    [corpus], str(directory), settings, num_processes=num_processes
  )


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
    ".lock",
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
  description = json.loads((tmp_path / "data" / "manifest.json").read_text())
  assert description == result.manifest
  digest = hashlib.sha256((tmp_path / "data" / "vocab.txt").read_bytes())
  assert description["vocab"] == {
    "file": "vocab.txt",
    "size": 80,
    "sha256": digest.hexdigest(),
  }
  splits = description["splits"]
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
  counts = [
    training.count(tokens[token]) + 1
    for example in heldout
    for token, weight in zip(
      example["masked_lm_ids"], example["masked_lm_weights"], strict=True
    )
    if weight
  ]
  # One logarithm, of the product of all 1 / frequency, to 60 digits: the same
  # double on every processor.
  with decimal.localcontext() as context:
    context.prec = 60
    product = decimal.Decimal(total ** len(counts)) / math.prod(counts)
    assert loss == float(product.ln() / len(counts))


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
  seed_differs = pytest.raises(errors.InputError, match=r"seed=8, but .*seed=7")
  with _not_hashing(), seed_differs:
    _build(corpus, tmp_path / "data", vocab_size=80, seed=8)
  with open(corpus, "a") as file:
    file.write("one more .\n")
  with pytest.raises(errors.InputError, match=r"input_sha256"):
    _build(corpus, tmp_path / "data", vocab_size=80)


@contextlib.contextmanager
def _not_hashing():
  """Fails where the inputs are hashed, which takes long for many."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(documents, "sorted_by_contents", None)
    yield


def test_an_unfinished_build_is_built_again(corpus, tmp_path):
  _build(corpus, tmp_path / "whole", vocab_size=80)
  unfinished = tmp_path / "unfinished"
  scratch = unfinished / "unfinished"
  scratch.mkdir(parents=True)
  # What a removal may have left: the arguments are the first to go.
  for name in (
    "text-000003-000000",
    "examples-heldout-000000.0123456789abcdef0123456789abcdef",
    "train-00001-of-00002.tfrecord.index",
  ):
    (scratch / name).write_bytes(b"half a reco")
  (unfinished / "train-00000-of-00003.tfrecord").write_bytes(b"old")
  assert _build(corpus, unfinished, vocab_size=80).is_new
  assert _digests(unfinished) == _digests(tmp_path / "whole")


@pytest.mark.parametrize("is_built", [False, True])
def test_a_directory_named_unfinished_that_is_of_no_build_is_kept(
  corpus, tmp_path, is_built
):
  if is_built:
    _build(corpus, tmp_path, vocab_size=80)
  thesis = tmp_path / "unfinished" / "thesis.tex"
  thesis.parent.mkdir()
  thesis.write_text("Dear reader,")
  (thesis.parent / "text.json").write_text("{}")
  if is_built:
    assert not _build(corpus, tmp_path, vocab_size=80).is_new
  else:
    with pytest.raises(
      errors.InputError, match=r"/unfinished' is where .* 'thesis.tex' in it"
    ):
      _build(corpus, tmp_path, vocab_size=80)
  assert sorted(os.listdir(thesis.parent)) == ["text.json", "thesis.tex"]


def test_a_data_set_for_reading_only_is_there_already(
  corpus, tmp_path, monkeypatch
):
  _build(corpus, tmp_path, vocab_size=80)
  _deny(monkeypatch, "os", "open", str(tmp_path))
  assert not _build(corpus, tmp_path, vocab_size=80).is_new


def test_a_directory_that_cannot_be_locked_is_one_line(
  corpus, tmp_path, monkeypatch
):
  _deny(monkeypatch, "os", "open", str(tmp_path / "data"))
  with pytest.raises(
    errors.UnavailableError,
    match=r"^output_dir='.*/data' cannot be written: .*denied: '.*/data/.lock'",
  ):
    _build(corpus, tmp_path / "data", vocab_size=80)


def test_a_full_disk_of_another_directory_is_not_that_of_the_data(
  corpus, tmp_path, monkeypatch
):
  # Nothing else makes temporary files.
  def fail(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/words.tsv")

  monkeypatch.setattr(tempfile, "NamedTemporaryFile", fail)
  with pytest.raises(
    errors.UnavailableError, match=r"^\[.*No space left.*: '/tmp/words.tsv'$"
  ):
    _build(corpus, tmp_path / "data", vocab_size=80)


def _deny(monkeypatch, module: str, name: str, directory: str) -> None:
  """Has a function fail for files in a directory: tests may run as root."""
  function = getattr(sys.modules[module], name)

  def denied(path, *args, **kwargs):
    if os.path.dirname(path) == directory:
      raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return function(path, *args, **kwargs)

  monkeypatch.setattr(f"{module}.{name}", denied)


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


def test_a_build_into_its_input_is_refused(corpus, tmp_path):
  with pytest.raises(errors.InputError, match="lies in the directory input="):
    _build(str(tmp_path), tmp_path / "data", vocab_size=80)
  assert os.listdir(tmp_path) == [os.path.basename(corpus)]


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
    (dict(vocab_size=6), "^vocab_size=6 must be between 7 and 1000000"),
    (
      # The training examples are enough, being made ten times.
      dict(vocab_size=80, num_shards=300, heldout_fraction=0.5, dupe_factor=10),
      r"^num_shards=300 and heldout_fraction=0.5 make 150 shards of held-out"
      r" data, which is more than the \d+ heldout examples",
    ),
  ],
)
def test_arguments_out_of_range_are_errors(
  corpus, tmp_path, arguments, message
):
  with pytest.raises(errors.InputError, match=message):
    _build(corpus, tmp_path / "data", **arguments)
  assert _left(tmp_path / "data") == []


def _shards(directory) -> dict[str, str]:
  found = _digests(directory)
  return {name: found[name] for name in found if name != "manifest.json"}


def _without_input(result: build.Result) -> dict:
  arguments = {**result.manifest["arguments"], "input_sha256": None}
  return {**result.manifest, "arguments": arguments}


@pytest.fixture
def small_tasks(monkeypatch):
  """Has even a small corpus make many tasks."""
  monkeypatch.setattr("mslt_tf.data.building.partition._GROUP_BYTES", 1)
  monkeypatch.setattr("mslt_tf.data.building.partition._GROUP_DOCUMENTS", 5)
  monkeypatch.setattr("mslt_tf.data.building.corpus._LEAST_CHUNK_BYTES", 900)
  monkeypatch.setattr("mslt_tf.data.building.corpus.CHUNK_BYTES", 900)


def _compressed_parts(texts: list[str], folder) -> None:
  (folder / "0.gz").write_bytes(gzip.compress(texts[0].encode()))
  # Of two streams, one of which ends in the middle of a document.
  raw = texts[1].encode()
  (folder / "1.bz2").write_bytes(
    bz2.compress(raw[:1234]) + bz2.compress(raw[1234:])
  )
  (folder / "2").write_bytes(texts[2].encode())


def _swapped_parts(texts: list[str], folder) -> None:
  for name, text in zip("cab", texts, strict=True):
    (folder / name).write_text(text.replace("\n", "\r\n"))


def _one_file(texts: list[str], folder) -> None:
  (folder / "all").write_text("\n\n".join(texts))


def _a_file_each(texts: list[str], folder) -> None:
  for part, text in enumerate(texts):
    for index, document in enumerate(text.split("\n\n")):
      (folder / f"{index:02}-{part}").write_text(document)


@pytest.mark.parametrize(
  "write, chunk_bytes, num_processes",
  [
    (_one_file, 300, 1),
    (_one_file, 1 << 20, 1),
    (_swapped_parts, 900, 1),
    (_compressed_parts, 900, 1),
    (_compressed_parts, 2000, 2),
    (_a_file_each, 2000, 1),
  ],
)
def test_files_chunks_and_processes_change_nothing(
  corpus,
  small_tasks,
  tmp_path,
  monkeypatch,
  write,
  chunk_bytes,
  num_processes,
):
  arguments = dict(vocab_size=80, input_format="sentences", dupe_factor=2)
  expected = _build(corpus, tmp_path / "expected", **arguments)
  assert expected.manifest["splits"]["train"]["num_groups"] >= 3
  started = []
  start = processes.start

  def recorded(number):
    started.append(number)
    return start(number)

  monkeypatch.setattr(processes, "start", recorded)
  for name in ("_LEAST_CHUNK_BYTES", "CHUNK_BYTES"):
    monkeypatch.setattr(f"mslt_tf.data.building.corpus.{name}", chunk_bytes)
  monkeypatch.setattr(build, "_BYTES_PER_PROCESS", 1)
  texts = _text(corpus).strip().split("\n\n")
  parts = [
    "\n\n".join(texts[start:end]) for start, end in [(0, 3), (3, 22), (22, 31)]
  ]
  folder = tmp_path / "input"
  folder.mkdir()
  write(parts, folder)
  built = _build(
    str(folder), tmp_path / "data", **arguments, num_processes=num_processes
  )
  assert started == [num_processes]
  assert _shards(tmp_path / "data") == _shards(tmp_path / "expected")
  assert _without_input(built) == _without_input(expected)


def test_documents_with_few_words_are_as_if_they_were_not_there(
  corpus, vocab, tmp_path
):
  # 81 words a document; one of 5 and one of 4 in two sentences each.
  path = tmp_path / "more.txt"
  path.write_text(f"alpha beta .\ngamma .\n\n{_text(corpus)}\nbeta .\nbeta .\n")
  with_five = tmp_path / "five.txt"
  with_five.write_text(f"alpha beta .\ngamma .\n\n{_text(corpus)}")
  fewer = _build(str(path), tmp_path / "5", vocab_path=vocab, min_words=5)
  _build(str(with_five), tmp_path / "0", vocab_path=vocab)
  assert _shards(tmp_path / "5") == _shards(tmp_path / "0")
  assert fewer.manifest["dropped"]["short_documents"] == 1
  none = _build(str(path), tmp_path / "6", vocab_path=vocab, min_words=6)
  _build(corpus, tmp_path / "corpus", vocab_path=vocab)
  assert _shards(tmp_path / "6") == _shards(tmp_path / "corpus")
  assert none.manifest["dropped"]["short_documents"] == 2
  assert "dropped or replaced: 2 short documents" in manifest.summary(
    none.manifest
  )
  with pytest.raises(errors.InputError, match=r"holds no text"):
    _build(str(path), tmp_path / "82", vocab_path=vocab, min_words=82)


def test_duplicates_are_as_if_they_were_not_there(
  corpus, vocab, small_tasks, tmp_path
):
  documents = _text(corpus).split("\n\n")
  folder = tmp_path / "input"
  folder.mkdir()
  # Within a file, over files, and in another chunk.
  for name, several in {
    "a": documents[:12] + documents[3:5],
    "b": documents[12:] + documents[:1] * 7,
    "c": documents,
  }.items():
    (folder / name).write_text("\n\n".join(several))
  arguments = dict(vocab_path=vocab, input_format="sentences")
  once = _build(corpus, tmp_path / "once", **arguments)
  kept = _build(str(folder), tmp_path / "kept", **arguments)
  removed = _build(
    str(folder), tmp_path / "removed", **arguments, remove_duplicates=True
  )
  assert _shards(tmp_path / "removed") == _shards(tmp_path / "once")
  assert removed.manifest["splits"] == once.manifest["splits"]
  assert removed.manifest["dropped"]["duplicate_documents"] == 40
  assert "40 duplicate documents" in manifest.summary(removed.manifest)
  for result, number in ((kept, 71), (removed, 31)):
    splits = result.manifest["splits"].values()
    assert sum(each["num_documents"] for each in splits) == number
  assert kept.manifest["dropped"]["duplicate_documents"] == 0


def test_a_group_has_two_different_documents_whatever_the_copies(
  vocab, tmp_path, monkeypatch
):
  monkeypatch.setattr("mslt_tf.data.building.partition._GROUP_BYTES", 1)
  monkeypatch.setattr("mslt_tf.data.building.partition._GROUP_DOCUMENTS", 2)
  path = tmp_path / "corpus.txt"
  indices = [0, 1, 2, 3, 4, 5, 6, *[0] * 9, *[1] * 9, *[2] * 9, *[3] * 9]
  path.write_text("\n".join(map(_document, indices)))
  splits = _build(
    str(path), tmp_path / "data", vocab_path=vocab, remove_duplicates=True
  ).manifest["splits"]
  assert splits["heldout"]["num_documents"] == 2
  assert splits["train"]["num_documents"] == 5
  assert splits["train"]["num_groups"] == 2


def test_a_group_of_which_one_document_has_tokens_is_an_error(vocab, tmp_path):
  path = tmp_path / "corpus.txt"
  # Control characters are no tokens.
  others = "\n".join(f"{control} .\n" for control in "\x01\x02\x03")
  path.write_text(f"{_document(0)}\n{others}".replace(" .\n\n", "\n\n"))
  with pytest.raises(
    errors.InputError,
    match=r"of a group of 2 documents [01] have different text and tok",
  ):
    _build(
      str(path),
      tmp_path / "data",
      vocab_path=vocab,
      input_format="sentences",
    )
  assert _left(tmp_path / "data") == []


@pytest.mark.parametrize("whole_word_masking", [False, True])
def test_whole_words_are_masked_if_asked_for(
  corpus, tmp_path, whole_word_masking
):
  # A vocabulary so small that words are of several pieces.
  _build(
    corpus,
    tmp_path,
    vocab_size=75,
    whole_word_masking=whole_word_masking,
  )
  tokens = _text(tmp_path / "vocab.txt").split("\n")
  num_whole = num_partial = 0
  for example in _examples(tmp_path, "train"):
    masked = {
      position
      for position, weight in zip(
        example["masked_lm_positions"],
        example["masked_lm_weights"],
        strict=True,
      )
      if weight
    }
    words: list[set[int]] = [set()]
    for position, token in enumerate(_restored(example)):
      # The head of a word may have been cut off.
      if tokens[token].startswith("##") and position - 1 in words[-1]:
        words[-1].add(position)
      elif not tokens[token].startswith("["):
        words.append({position})
    words.pop(0)
    # Where all words are too long, it is a part of one.
    if min(map(len, words)) <= len(masked):
      num_whole += sum(len(word) > 1 and word <= masked for word in words)
      num_partial += sum(0 < len(word & masked) < len(word) for word in words)
  assert num_whole > 9
  assert bool(num_partial) != whole_word_masking


def _json_lines() -> bytes:
  lines = [json.dumps({"text": _document(index)}) for index in range(9)]
  lines[6] = lines[6][:-2]
  return "\n".join(lines).encode()


_GOOD = "\n".join(map(_document, range(31))).encode()
_DAMAGED_BZIP2 = bytearray(bz2.compress(_GOOD))
_DAMAGED_BZIP2[500:520] = bytes(20)
_DAMAGED_GZIP = bytearray(gzip.compress(_GOOD, mtime=0))
_DAMAGED_GZIP[500:520] = bytes(20)


@pytest.mark.parametrize(
  "content, arguments, message",
  [
    (_GOOD, dict(input_format="mediawiki"), "is not a MediaWiki dump"),
    (_GOOD, dict(input_format="wikiextractor"), "is not from WikiExtractor"),
    (bz2.compress(_GOOD)[:-99], dict(), "damaged or incomplete"),
    (gzip.compress(_GOOD)[:-99], dict(), "damaged or incomplete"),
    (bytes(_DAMAGED_BZIP2), dict(), "damaged or incomplete"),
    (bytes(_DAMAGED_GZIP), dict(), "damaged or incomplete"),
    (gzip.compress(_GOOD) + b"more", dict(), "damaged or incomplete"),
    (np.random.default_rng(0).bytes(9999), dict(), "is no text"),
    (_GOOD.decode().encode("utf-16"), dict(), "is UTF-16"),
    (b"", dict(), "is empty"),
    (b" \n\n\t\n", dict(), "holds no text"),
    (_document(0).encode(), dict(), "1 different documents"),
    (_json_lines(), dict(), "line 7: this is no JSON"),
    (_json_lines(), dict(text_field="body"), "line 1: no field 'body'"),
  ],
)
def test_bad_input_is_one_line_that_leaves_nothing(
  tmp_path, content, arguments, message
):
  path = tmp_path / "bad"
  path.write_bytes(content)
  with pytest.raises(errors.InputError, match=message) as caught:
    _build(str(path), tmp_path / "data", vocab_size=80, **arguments)
  assert str(path) in str(caught.value) or "different documents" in message
  assert "\n" not in str(caught.value)
  assert _left(tmp_path / "data") == []


@pytest.mark.parametrize(
  "content, arguments, message",
  [
    (b"\0", dict(), "is no text"),
    (_GOOD, dict(input_format="mediawiki"), "is not a MediaWiki dump"),
    (b"\n" + _json_lines(), dict(text_field="body"), "line 2: no field 'body'"),
    (b"[]", dict(input_format="jsonl"), "line 1: this is a JSON list"),
  ],
)
def test_a_file_that_cannot_be_of_use_is_told_before_any_work(
  tmp_path, content, arguments, message
):
  path = tmp_path / "bad"
  path.write_bytes(content)
  with _not_hashing(), pytest.raises(errors.InputError, match=message):
    _build(str(path), tmp_path / "data", vocab_size=80, **arguments)
  assert _left(tmp_path / "data") == []


def test_a_vocabulary_without_a_special_token_is_an_error(corpus, tmp_path):
  path = tmp_path / "vocab.txt"
  tokens = [each for each in vocabulary.SPECIAL_TOKENS if each != "[MASK]"]
  path.write_text("\n".join([*tokens, *WORDS]))
  with pytest.raises(errors.InputError, match=r"vocab.txt' has no \[MASK\]"):
    _build(corpus, tmp_path / "data", vocab_path=str(path))
  assert not os.path.exists(tmp_path / "data")


def test_bytes_that_are_no_text_are_counted(corpus, vocab, tmp_path):
  path = tmp_path / "spoilt.txt"
  raw = _text(corpus).encode().replace(b"alpha", b"al\xffpha", 3)
  path.write_bytes(raw.replace(b"beta", b"\xc3(", 2))
  result = _build(str(path), tmp_path / "data", vocab_path=vocab)
  assert result.manifest["dropped"]["undecodable_places"] == 5
  assert "5 undecodable places" in manifest.summary(result.manifest)
  # BERT leaves U+FFFD out; what is left are known words, and brackets.
  assert result.manifest["num_unknown_tokens"] == 2


def _run_binary(*cases: list[str]) -> list[tuple[int, str, list[str]]]:
  """Runs bin/create_pretraining_data.py with each list of arguments.

  Returns:
    Of each: exit status, stdout, lines of stderr without those of the log.
  """
  finished = subprocess.run(
    [sys.executable, __file__, json.dumps(cases)],
    env={
      **os.environ,
      "PYTHONPATH": f"{ROOT}:{ROOT}/bin",
      "OPENBLAS_NUM_THREADS": "1",  # A fork has one thread.
    },
    cwd=os.path.sep,
    capture_output=True,
    text=True,
    check=False,
  )
  assert finished.returncode == 0, finished.stderr
  return [
    (
      status,
      stdout,
      [
        line
        for line in stderr.splitlines()
        if not re.match(r"\d\d:\d\d:\d\d ", line)
      ],
    )
    for status, stdout, stderr in json.loads(finished.stdout)
  ]


def run_cases(cases: list[list[str]]) -> list[tuple[int, str, str]]:
  """Runs the binary in a fork for each case: TensorFlow is loaded once."""
  import command_line
  import create_pretraining_data

  results = []
  for arguments in cases:
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
      process = os.fork()
      if not process:
        os.dup2(stdout.fileno(), 1)
        os.dup2(stderr.fileno(), 2)
        sys.argv = ["create_pretraining_data.py", *arguments]
        try:
          command_line.run(create_pretraining_data.main)
        except SystemExit as error:
          sys.stdout.flush()
          sys.stderr.flush()
          os._exit(error.code or 0)  # Without taking TensorFlow down: 1 s.
        finally:
          os._exit(99)
      status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
      texts = []
      for file in (stdout, stderr):
        file.seek(0)
        texts.append(file.read().decode())
      results.append((status, *texts))
  return results


def test_the_binary_reports_what_is_wrong_in_one_line(corpus, tmp_path):
  spoilt = tmp_path / "spoilt.txt"
  spoilt.write_bytes(_GOOD.replace(b"alpha", b"\xff", 4))
  cut_off = tmp_path / "cut_off.bz2"
  cut_off.write_bytes(bz2.compress(_GOOD)[:-99])
  (tmp_path / "nothing").mkdir()
  data = f"--output_dir={tmp_path}/data"
  spoilt_data = f"--output_dir={tmp_path}/spoilt_data"
  some = f"--input={corpus}"
  size = "--vocab_size=80"
  expected = {
    # Status, and what the line says.
    (f"--input={tmp_path}/none.txt", data, size): (1, "none.txt' matches no"),
    (f"--input={cut_off}", data, size): (1, "cut_off.bz2' cannot be decomp"),
    (some, data, size, "--input_format=mediawiki"): (1, "not a MediaWiki dump"),
    ("--input=tfds:nothing", data, size): (1, "tfds:nothing"),
    (data, size): (1, "input=[] names no file"),
    (some, data): (1, "exactly one of them must be given"),
    (some, data, size, "--num_processes=0"): (1, "num_processes=0 must be"),
    (some, data, size, "--beam_args=--a=b"): (1, "no effect without --runner"),
    (some, data, size, "--num_processes=2", "--runner=DirectRunner"): (
      1,
      "num_processes=2 is of no effect with --runner",
    ),
    (some, size, f"--output_dir={corpus}"): (1, "cannot be written"),
    ("--verify", f"--output_dir={tmp_path}/nothing"): (1, "no manifest.json"),
    ("--verify", f"--output_dir={tmp_path}/none"): (1, "none' does not exist"),
    (some, size): (2, "--output_dir"),
    (some, data, size, "--input_format=pdf"): (2, "input_format"),
    (some, data, size, "--seed=one"): (2, "seed"),
    (some, data, size, corpus): (2, "unexpected argument"),
  }
  good = [f"--input={spoilt}", spoilt_data, size, "--min_words=3"]
  *failed, built, again = _run_binary(*map(list, expected), good, good)
  for (arguments, (status, message)), (found_status, stdout, lines) in zip(
    expected.items(), failed, strict=True
  ):
    print(arguments, lines)
    assert found_status == status, arguments
    assert len(lines) == 1, lines
    assert lines[0].startswith("create_pretraining_data.py: error: ")
    assert message in lines[0]
    assert stdout == ""
  assert _left(tmp_path / "data") == []
  assert built[0] == again[0] == 0
  assert built[2] == again[2] == []
  assert "dropped or replaced: 4 undecodable places" in built[1]
  first, rest = again[1].split("\n", 1)
  assert (
    first == f"{tmp_path}/spoilt_data is complete already; nothing was done."
  )
  assert rest == built[1]


if __name__ == "__main__":
  print(json.dumps(run_cases(json.loads(sys.argv[1]))))
