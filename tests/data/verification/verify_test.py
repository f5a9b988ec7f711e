"""Right data passes and reads well; each kind of damage gives its line."""

import json
import pathlib
import re
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.building import build
from mslt_tf.data.building import shards as shards_lib
from mslt_tf.data.examples import vocabulary
from mslt_tf.data.reading import record_index
from mslt_tf.data.verification import verify

Values = dict[str, list]  # A record's, by the names of its features.

TRAIN = "train-00000-of-00002.tfrecord"
WORD = 7
BLOCK = 64  # records


@pytest.fixture
def copy(shards, tmp_path) -> pathlib.Path:
  """The data set of `conftest`: 46 tokens, sequences of 16, 3 predictions."""
  return pathlib.Path(shutil.copytree(shards, tmp_path / "data"))


def _records(path: pathlib.Path) -> list[bytes]:
  return list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())


def _values(serialized: bytes) -> Values:
  feature = tf.train.Example.FromString(serialized).features.feature
  return {
    name: list(each.int64_list.value or each.float_list.value)
    for name, each in feature.items()
  }


def _serialized(values: Values) -> bytes:
  feature = {
    name: tf.train.Feature(float_list=tf.train.FloatList(value=each))
    if name == "masked_lm_weights"
    else tf.train.Feature(int64_list=tf.train.Int64List(value=each))
    for name, each in values.items()
  }
  return tf.train.Example(
    features=tf.train.Features(feature=feature)
  ).SerializeToString()


def _edit(
  shard: pathlib.Path,
  edit: Callable[[Values], None],
  *,
  places: slice = slice(None),
) -> None:
  """Edits records of a shard, its index and its size in the manifest."""
  records = _records(shard)
  for place in range(len(records))[places]:
    values = _values(records[place])
    edit(values)
    records[place] = _serialized(values)
  shards_lib.write_shard(str(shard), records, records_per_block=BLOCK)
  path = shard.with_name("manifest.json")
  manifest = json.loads(path.read_text())
  for entry in manifest["splits"]["train"]["shards"]:
    if entry["file"] == shard.name:
      entry["bytes"] = shard.stat().st_size
  path.write_text(json.dumps(manifest))


def _original(values: Values) -> list[int]:
  ids = list(values["input_ids"])
  for position, token, weight in zip(
    values["masked_lm_positions"],
    values["masked_lm_ids"],
    values["masked_lm_weights"],
    strict=True,
  ):
    if weight:
      ids[position] = token
  return ids


def _set(name: str, place: int, value: float) -> Callable[[Values], None]:
  def edit(values: Values) -> None:
    values[name][place] = value

  return edit


def _fails(directory: pathlib.Path, message: str) -> None:
  with pytest.raises(errors.InputError) as error:
    verify.verify(str(directory))
  assert message in str(error.value)
  assert "\n" not in str(error.value)


def test_right_data_passes_and_its_examples_can_be_read(shards):
  report = verify.verify(shards)
  counts = json.loads((pathlib.Path(shards) / "manifest.json").read_text())
  splits = counts["splits"]
  assert f"{splits['train']['num_examples']} training" in report
  assert re.search(
    rf"^sentences +{splits['train']['num_sentences']} +"
    rf"{splits['heldout']['num_sentences']}$",
    report,
    re.MULTILINE,
  )
  assert "dupe_factor=2" in report
  # The first line has the path, which is not ours.
  assert max(map(len, report.split("\n")[1:])) <= 100
  shown = [part for part in report.split("\n\n") if ", record " in part]
  assert [part.split(":")[0] for part in shown] == [
    f"{TRAIN}, record 1",
    "train-00001-of-00002.tfrecord, record"
    f" {splits['train']['shards'][1]['num_examples'] // 2 + 1}",
    "heldout-00000-of-00001.tfrecord, record 1",
  ]
  # The first one is the text of the first record.
  values = _values(_records(pathlib.Path(shards) / TRAIN)[0])
  tokens = (pathlib.Path(shards) / "vocab.txt").read_text().split()
  text = [tokens[each] for each in _original(values)]
  end = text.index("[SEP]")
  joined = " ".join(shown[0].split())
  assert len(re.findall("->", joined)) == sum(values["masked_lm_weights"])
  restored = re.sub(r"\[(\S+)->\S+\]", r"\1", joined)
  second = text[end + 1 : sum(values["input_mask"]) - 1]
  assert f"first segment {' '.join(text[1:end])} second segment" in restored
  assert f"second segment {' '.join(second)} label" in restored
  (label,) = values["next_sentence_labels"]
  assert ("is a random one" in joined) == bool(label)


@pytest.mark.parametrize(
  "words, sequence_length, max_predictions",
  [
    (["a", "b", "ab", "ba", "abc", "cab"], 24, 5),
    # 15 pieces a segment: whole words in most of them, all of them too long.
    (["abcba", "bcabc", "cabca"], 33, 3),
  ],
)
def test_whole_words_pass(words, sequence_length, max_predictions, tmp_path):
  rng = np.random.default_rng(1)
  documents = [
    "\n".join(" ".join(rng.choice(words, size=6)) for _ in range(9))
    for _ in range(31)
  ]
  (tmp_path / "text").write_text("\n\n".join(documents) + "\n")
  vocab = [*vocabulary.SPECIAL_TOKENS, *"abc", "##a", "##b", "##c"]
  (tmp_path / "vocab").write_text("\n".join(vocab) + "\n")
  settings = build.Settings(
    vocab_path=str(tmp_path / "vocab"),
    input_format="sentences",
    sequence_length=sequence_length,
    max_predictions=max_predictions,
    short_sequence_prob=0.0,
    whole_word_masking=True,
    num_shards=2,
  )
  build.build([str(tmp_path / "text")], str(tmp_path / "data"), settings)
  report = verify.verify(str(tmp_path / "data"))
  assert "whole_word_masking=True" in report
  assert re.search(r"[\w\]]\[##\w->\S+\]", report)


@pytest.mark.parametrize("seed", range(3))
def test_the_smallest_data_passes(seed, tmp_path):
  documents = [
    f"w{index} is here .\nso is w{index + 1} ." for index in range(4)
  ]
  (tmp_path / "text").write_text("\n\n".join(documents) + "\n")
  settings = build.Settings(
    vocab_size=60, sequence_length=8, max_predictions=1, num_shards=1, seed=seed
  )
  build.build([str(tmp_path / "text")], str(tmp_path / "data"), settings)
  assert "in order" in verify.verify(str(tmp_path / "data"))


@pytest.mark.parametrize(
  "edit, message",
  [
    (_set("input_ids", 5, 46), "input_ids has 46, which is not from 0 to 45"),
    (_set("next_sentence_labels", 0, 2), "next_sentence_labels has 2"),
    (
      lambda values: values.pop("segment_ids"),
      "it has no feature 'segment_ids",
    ),
    (_set("input_ids", 0, WORD), "the first token is not [CLS]."),
    (_set("masked_lm_weights", 0, 0.5), "masked_lm_weights are not 1 at the"),
  ],
)
def test_a_wrong_record_is_named_with_the_rule(
  edit, message, copy, monkeypatch
):
  monkeypatch.setattr(verify, "_BATCH_SIZE", 5)
  _edit(copy / TRAIN, edit, places=slice(7, None, 11))
  _fails(copy, f"{TRAIN}', record 8: {message}")


def test_a_wrong_share_is_found(copy):
  for shard in copy.glob("train-*.tfrecord"):
    _edit(shard, _set("next_sentence_labels", 0, 0))
  _fails(copy, "0.00% of the examples of train have a random next (0 of ")


def test_a_flipped_byte_is_found(copy):
  records = _records(copy / TRAIN)
  content = bytearray((copy / TRAIN).read_bytes())
  # In the middle of the fourth record.
  content[sum(len(each) + 16 for each in records[:3]) + 100] ^= 1
  (copy / TRAIN).write_bytes(content)
  _fails(copy, f"{TRAIN}', record 4: its checksum is not that of its bytes")


def test_a_wrong_offset_and_a_wrong_number_of_records_are_found(copy):
  path = str(copy / TRAIN)
  index = record_index.scan(path, records_per_block=BLOCK)
  assert len(index.offsets) > 1
  offsets = index.offsets + np.array([0, 3] + [0] * (len(index.offsets) - 2))
  record_index.write(
    record_index.RecordIndex(
      BLOCK, index.num_records, index.num_bytes, offsets
    ),
    path,
  )
  _fails(copy, f"{TRAIN}.index' has {offsets[1]} as the offset of block 1")

  record_index.write(
    record_index.RecordIndex(
      BLOCK, index.num_records - 1, index.num_bytes, index.offsets
    ),
    path,
  )
  manifest = json.loads((copy / "manifest.json").read_text())
  manifest["splits"]["train"]["num_examples"] -= 1
  manifest["splits"]["train"]["shards"][0]["num_examples"] -= 1
  (copy / "manifest.json").write_text(json.dumps(manifest))
  _fails(copy, f"{TRAIN}' has {index.num_records} records, but the manifest")


def test_a_vocabulary_of_another_size_is_an_error(copy):
  manifest = json.loads((copy / "manifest.json").read_text())
  manifest["vocab"]["size"] = 47
  (copy / "manifest.json").write_text(json.dumps(manifest))
  _fails(copy, "vocab.txt' has 46 tokens, but the manifest has vocab.size=47")


def test_files_that_do_not_belong_are_told(copy):
  (copy / "train-00007-of-00008.tfrecord").write_bytes(b"")
  assert (copy / ".lock").exists()  # It is of no account.
  assert (
    "\nWarning: not in manifest.json, though in the directory:"
    " train-00007-of-00008.tfrecord.\n"
  ) in verify.verify(str(copy))


def test_a_directory_that_cannot_be_listed_is_one_line(copy, monkeypatch):
  def denied(path):
    raise tf.errors.PermissionDeniedError(None, None, f"{path}; Denied")

  # Tests may run as root, who can read everything.
  monkeypatch.setattr(tf.io.gfile, "listdir", denied)
  _fails(copy, f"data directory '{copy}' cannot be read: {copy}; Denied")


def test_a_directory_without_data_is_an_error(tmp_path):
  _fails(tmp_path, "has no manifest.json")
