"""A manifest is read as it is written, and held against the files."""

import dataclasses
import hashlib
import json
import os

import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.building import shards
from mslt_tf.data.reading import manifest

# Of "[PAD]" and a line's end, by the program sha256sum.
VOCAB_SHA256 = (
  "cd66c3d348c719ac791d8a6bd5c74cce2e1966c7b4a1fe00c1ef4c30b8d30ce7"
)


def _write_shard(directory, name, num_examples) -> dict:
  records = [b"example"] * num_examples
  shard = shards.write_shard(
    str(directory / name), records, records_per_block=3
  )
  return {"file": name, **shard}


@pytest.fixture
def directory(tmp_path):
  counts = {"num_documents": 2, "num_sentences": 3, "num_tokens": 4}
  (tmp_path / "vocab.txt").write_text("[PAD]\n")
  manifest.save(
    {
      "format_version": 2,
      "sequence_length": 5,
      "max_predictions": 2,
      "lower_case": True,
      "vocab": {"file": "vocab.txt", "size": 1234, "sha256": VOCAB_SHA256},
      "records_per_block": 3,
      "unigram_mlm_loss": 5.5,
      "splits": {
        "train": {
          "num_examples": 17,
          "shards": [
            _write_shard(tmp_path, "train-0.tfrecord", 10),
            _write_shard(tmp_path, "train-1.tfrecord", 7),
          ],
          **counts,
        },
        "heldout": {
          "num_examples": 11,
          "shards": [_write_shard(tmp_path, "heldout.tfrecord", 11)],
          **counts,
        },
      },
    },
    str(tmp_path),
  )
  return tmp_path


@pytest.fixture
def data(directory) -> manifest.Data:
  return manifest.open_data(str(directory))


def test_the_manifest_is_read(data, directory):
  assert data.vocab_size == 1234
  assert data.lower_case is True
  assert data.unigram_mlm_loss == 5.5
  assert data.train.num_examples == 17
  assert data.heldout.num_documents == 2
  # A record of 7 bytes takes 23.
  assert data.train.shards[1].index.offsets.tolist() == [0, 69, 138]
  content = (directory / "manifest.json").read_bytes()
  assert data.fingerprint == hashlib.sha256(content).hexdigest()


def test_the_manifest_comes_back_as_it_was_saved(data, directory):
  written = json.loads((directory / "manifest.json").read_text())
  assert manifest.load(str(directory)) == written
  manifest.save(written, str(directory))
  assert manifest.open_data(str(directory)) == data


def test_a_missing_directory_or_manifest_is_an_error(tmp_path):
  with pytest.raises(errors.InputError, match=r"nowhere' does not exist"):
    manifest.open_data(str(tmp_path / "nowhere"))
  with pytest.raises(errors.InputError, match=r"has no manifest.json"):
    manifest.open_data(str(tmp_path))


@pytest.mark.parametrize(
  "place, value, message",
  [
    (
      ["format_version"],
      1,
      "format_version=1, .* reads 2: build the data again",
    ),
    (["sequence_length"], "128", "sequence_length=128 is not a whole number"),
    (["max_predictions"], None, "max_predictions=None"),
    (["lower_case"], 1, "lower_case=1 is not true or false"),
    (["vocab"], [], "vocab=.* is not an object"),
    (["vocab", "size"], True, "vocab.size=True"),
    (["vocab", "file"], "../vocab.txt", "vocab.file"),
    (["unigram_mlm_loss"], "low", "unigram_mlm_loss=low"),
    (["splits", "train", "shards"], {}, "splits.train.shards"),
    (["splits", "train", "shards"], [7], "splits.train.shards=.7. is not"),
    (["splits", "train", "num_examples"], 9, "num_examples=9 is not the sum"),
    (["splits", "train", "shards", 1, "num_examples"], 8, "not the 7 records"),
  ],
)
def test_a_malformed_manifest_is_an_error_that_names_the_field(
  directory, place, value, message
):
  path = directory / "manifest.json"
  written = json.loads(path.read_text())
  parent = written
  for key in place[:-1]:
    parent = parent[key]
  parent[place[-1]] = value
  path.write_text(json.dumps(written))
  with pytest.raises(errors.InputError, match=message) as raised:
    manifest.open_data(str(directory))
  assert str(path) in str(raised.value)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_manifest_that_is_no_json_object_is_an_error(directory, content):
  (directory / "manifest.json").write_bytes(content)
  with pytest.raises(errors.InputError, match=r"manifest.json"):
    manifest.open_data(str(directory))


def test_a_file_too_large_for_a_manifest_is_not_read(directory):
  with open(directory / "manifest.json", "r+b") as file:
    file.truncate(1 << 32)  # A sparse file takes no room.
  with pytest.raises(errors.InputError, match=r"4294967296 bytes; a manifest"):
    manifest.open_data(str(directory))


def test_a_cut_off_shard_is_an_error_that_names_it(directory):
  path = directory / "train-1.tfrecord"
  path.write_bytes(path.read_bytes()[:-5])
  with pytest.raises(errors.InputError, match=r"train-1.tfrecord.*cut off"):
    manifest.open_data(str(directory))


def test_foreign_shards_are_indexed(data, directory):
  paths = sorted(directory.glob("*.index"))
  contents = [path.read_bytes() for path in paths]
  for path in paths:
    path.unlink()
  assert manifest.open_data(str(directory)) == data
  assert [path.read_bytes() for path in paths] == contents


@pytest.mark.parametrize("name", ["train-1.tfrecord", "vocab.txt"])
def test_a_missing_file_is_an_error_that_names_it(directory, name):
  os.remove(directory / name)
  with pytest.raises(errors.InputError, match=rf"{name}' is missing"):
    manifest.open_data(str(directory))


EXPECTED = dict(
  vocab_size=1234, sequence_length=5, max_predictions=2, lower_case=True
)


@pytest.mark.parametrize(
  "expected, message",
  [
    (dict(vocab_size=30522), "vocab_size=30522, but .* vocab_size=1234"),
    (dict(sequence_length=128), "sequence_length=128, but .*length=5"),
    (dict(max_predictions=20), "max_predictions=20, but .*predictions=2"),
    (dict(lower_case=False), "lower_case=False, but .*lower_case=True"),
  ],
)
def test_data_for_another_model_is_an_error(data, expected, message):
  with pytest.raises(errors.InputError, match=message):
    manifest.check(data, **(EXPECTED | expected))


def test_data_for_this_model_is_right(data):
  manifest.check(data, **EXPECTED)
  with pytest.raises(dataclasses.FrozenInstanceError):
    data.vocab_size = 1


@pytest.mark.parametrize("name", ["train-1.tfrecord", "heldout.tfrecord.index"])
def test_a_file_that_cannot_be_read_is_one_line(directory, monkeypatch, name):
  path = str(directory / name)
  stat = tf.io.gfile.stat

  def denied(each):
    if each == path:
      raise tf.errors.PermissionDeniedError(None, None, f"{path}; Denied")
    return stat(each)

  # Tests may run as root, who can read everything.
  monkeypatch.setattr(tf.io.gfile, "stat", denied)
  with pytest.raises(
    errors.UnavailableError,
    match=rf"^data directory '{directory}' cannot be read: {path}; Denied$",
  ):
    manifest.open_data(str(directory))
