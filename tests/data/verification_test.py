"""Right data passes and reads well; each kind of damage gives its line."""

import json
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data import build
from mslt_tf.data import record_index
from mslt_tf.data import shards as shards_lib
from mslt_tf.data import verification
from mslt_tf.data import vocabulary

Values = dict[str, list]  # A record's, by the names of its features.

TRAIN = "train-00000-of-00002.tfrecord"
CLS, SEP, MASK = 2, 3, 4  # In every vocabulary here.
WORD, OTHER_WORD = 7, 8
BLOCK = 64  # records


@pytest.fixture
def copy(shards, tmp_path) -> pathlib.Path:
  """The data set of `conftest`: 46 tokens, sequences of 16, 3 predictions."""
  return pathlib.Path(shutil.copytree(shards, tmp_path / "data"))


@pytest.fixture(scope="module")
def whole_words(tmp_path_factory) -> str:
  """A data set of words of one to three letters, a letter a piece."""
  directory = tmp_path_factory.mktemp("whole_words")
  rng = np.random.default_rng(1)
  words = ["a", "b", "ab", "ba", "abc", "cab"]
  documents = [
    "\n".join(" ".join(rng.choice(words, size=6)) + " ." for _ in range(9))
    for _ in range(31)
  ]
  (directory / "text").write_text("\n\n".join(documents) + "\n")
  vocab = [*vocabulary.SPECIAL_TOKENS, ".", *"abc", "##a", "##b", "##c"]
  (directory / "vocab").write_text("\n".join(vocab) + "\n")
  build.build(
    [str(directory / "text")],
    str(directory / "data"),
    build.Settings(
      vocab_path=str(directory / "vocab"),
      input_format="sentences",
      sequence_length=24,
      max_predictions=5,
      masked_lm_prob=0.2,
      whole_word_masking=True,
      heldout_fraction=0.2,
      num_shards=2,
    ),
  )
  return str(directory / "data")


@pytest.fixture(scope="module")
def many(tmp_path_factory, text_file, vocab_file) -> str:
  """A data set like that of `conftest`, of enough examples to judge chance."""
  directory = str(tmp_path_factory.mktemp("many") / "data")
  settings = build.Settings(
    vocab_path=vocab_file,
    input_format="sentences",
    sequence_length=16,
    max_predictions=3,
    heldout_fraction=0.2,
    num_shards=2,
    dupe_factor=8,
  )
  build.build([text_file], directory, settings)
  return directory


@pytest.fixture
def copy_of_many(many, tmp_path) -> pathlib.Path:
  return pathlib.Path(shutil.copytree(many, tmp_path / "data"))


@pytest.fixture
def copy_of_whole_words(whole_words, tmp_path) -> pathlib.Path:
  return pathlib.Path(shutil.copytree(whole_words, tmp_path / "data"))


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


def _write(directory: pathlib.Path, records: list[bytes], name: str) -> None:
  """Writes a shard with its index, and its size into the manifest."""
  path = directory / name
  shards_lib.write_shard(str(path), records, records_per_block=BLOCK)
  manifest = json.loads((directory / "manifest.json").read_text())
  for split in manifest["splits"].values():
    for shard in split["shards"]:
      if shard["file"] == name:
        shard["bytes"] = path.stat().st_size
  (directory / "manifest.json").write_text(json.dumps(manifest))


def _edit_one(
  directory: pathlib.Path,
  edit: Callable[[Values], None],
  *,
  where: Callable[[Values], bool] = lambda values: True,
) -> int:
  """Edits the first record of which `where` holds, after two; its number."""
  records = _records(directory / TRAIN)
  for place in range(2, len(records)):
    values = _values(records[place])
    if where(values):
      edit(values)
      records[place] = _serialized(values)
      _write(directory, records, TRAIN)
      return place + 1
  raise AssertionError("There is no such record.")


def _edit_all(directory: pathlib.Path, edit: Callable[[Values], None]) -> None:
  """Edits all training records."""
  for path in sorted(directory.glob("train-*.tfrecord")):
    all_values = [_values(record) for record in _records(path)]
    for values in all_values:
      edit(values)
    _write(directory, list(map(_serialized, all_values)), path.name)


def _num_tokens(values: Values) -> int:
  return sum(values["input_mask"])


def _predictions(values: Values) -> Iterator[tuple[int, int]]:
  """Yields the positions and ids."""
  for position, token, weight in zip(
    values["masked_lm_positions"],
    values["masked_lm_ids"],
    values["masked_lm_weights"],
    strict=True,
  ):
    if weight:
      yield position, token


def _original(values: Values) -> list[int]:
  ids = list(values["input_ids"])
  for position, token in _predictions(values):
    ids[position] = token
  return ids


def _predict(values: Values, positions: list[int]) -> None:
  """Makes the record predict what stands at these positions."""
  ids = _original(values)
  padding = [0] * (len(values["masked_lm_ids"]) - len(positions))
  values["masked_lm_positions"] = positions + padding
  values["masked_lm_ids"] = [ids[each] for each in positions] + padding
  values["masked_lm_weights"] = [1.0] * len(positions) + [0.0] * len(padding)
  for position in positions:
    ids[position] = MASK
  values["input_ids"] = ids


def _swap_predictions(values: Values) -> None:
  for name in ("masked_lm_positions", "masked_lm_ids"):
    first, second, *rest = values[name]
    values[name] = [second, first, *rest]


def _is_short(values: Values) -> bool:
  return _num_tokens(values) < 16


def _has_two_predictions(values: Values) -> bool:
  return values["masked_lm_weights"] == [1, 1, 0]


def _is_plain_at_1(values: Values) -> bool:
  """Says whether the second token is none that is predicted."""
  return 1 not in values["masked_lm_positions"] and not _is_short(values)


def _set(name: str, place: int, value: float) -> Callable[[Values], None]:
  def edit(values: Values) -> None:
    values[name][place] = value

  return edit


def _fails(directory: pathlib.Path, message: str) -> None:
  with pytest.raises(errors.InputError) as error:
    verification.verify(str(directory))
  assert message in str(error.value)
  assert "\n" not in str(error.value)


def test_right_data_passes_and_its_examples_can_be_read(shards):
  report = verification.verify(shards)
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
  assert max(map(len, report.split("\n"))) <= 100
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
  second = text[end + 1 : _num_tokens(values) - 1]
  assert f"first segment {' '.join(text[1:end])} second segment" in restored
  assert f"second segment {' '.join(second)} label" in restored
  (label,) = values["next_sentence_labels"]
  assert ("is a random one" in joined) == bool(label)


def test_pieces_of_words_are_shown_joined(whole_words):
  report = verification.verify(whole_words)
  assert re.search(r" \[\w->\S+\]\[##\w->\S+\] ", report)
  assert "whole_word_masking=True" in report
  examples = report[report.index("record 1:") :]
  assert " ##" not in re.sub("segment +##", "", examples)


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
  assert "in order" in verification.verify(str(tmp_path / "data"))


@pytest.mark.parametrize(
  "edit, where, message",
  [
    (_set("input_ids", 5, 46), None, "input_ids has 46, which is not from 0"),
    (_set("next_sentence_labels", 0, 2), None, "next_sentence_labels has 2"),
    (
      lambda values: values.pop("segment_ids"),
      None,
      "no feature 'segment_ids'",
    ),
    (_set("input_mask", 4, 0), None, "input_mask is not 1 at the tokens"),
    (_set("input_ids", -1, WORD), _is_short, "input_ids are not 0 at the pad"),
    (
      _set("masked_lm_weights", 0, 0.5),
      None,
      "masked_lm_weights are not 1 at the predictions",
    ),
    (
      _set("masked_lm_weights", 0, 0.0),
      _has_two_predictions,
      "masked_lm_weights are not 1 at the predictions",
    ),
    (lambda values: _predict(values, []), None, "nothing is predicted"),
    (
      _set("masked_lm_positions", 2, 9),
      _has_two_predictions,
      "masked_lm_positions are not 0 after the predictions",
    ),
    (
      _set("masked_lm_ids", 2, WORD),
      _has_two_predictions,
      "masked_lm_ids are not 0 after the predictions",
    ),
    (
      _swap_predictions,
      _has_two_predictions,
      "masked_lm_positions do not ascend",
    ),
    (
      _set("masked_lm_positions", 1, 15),
      lambda values: _has_two_predictions(values) and _is_short(values),
      "masked_lm_positions are not all inside the tokens",
    ),
    (
      lambda values: _predict(values, [0, 1]),
      _has_two_predictions,
      "a special token is predicted",
    ),
    (_set("input_ids", 0, WORD), None, "the first token is not [CLS]"),
    (
      _set("input_ids", 15, WORD),
      lambda values: not _is_short(values),
      "the last token is not [SEP]",
    ),
    (_set("input_ids", 1, SEP), _is_plain_at_1, "does not have two [SEP]"),
    (
      _set("input_ids", 1, MASK),
      _is_plain_at_1,
      "[MASK] stands where nothing is predicted",
    ),
    (
      _set("input_ids", 1, CLS),
      _is_plain_at_1,
      "a special token stands inside a segment",
    ),
    (
      _set("input_ids", 1, 0),
      _is_plain_at_1,
      "a special token stands inside a segment",
    ),
    (
      lambda values: values["segment_ids"].reverse(),
      None,
      "segment_ids are not 0 to the first [SEP]",
    ),
    (
      lambda values: _predict(values, [1]),
      _has_two_predictions,
      "it has fewer predictions than min(3, max(1, round(tokens * 0.15)))",
    ),
    (
      lambda values: _predict(values, [1, 13, 14]),
      lambda values: (
        _has_two_predictions(values)
        and _original(values).index(SEP) < 13
        and not _is_short(values)
      ),
      "it has more predictions than min(3, max(1, round(tokens * 0.15)))",
    ),
  ],
)
def test_a_wrong_record_is_named_with_the_rule(copy, edit, where, message):
  number = _edit_one(copy, edit, where=where or (lambda values: True))
  _fails(copy, f"{TRAIN}', record {number}: ")
  _fails(copy, message)


def test_an_empty_segment_is_found(copy):
  def edit(values: Values) -> None:
    ids = _original(values)
    ids[ids.index(SEP)] = WORD
    ids[1] = SEP
    values["input_ids"] = ids
    values["segment_ids"] = [0, 0] + [1] * 14
    _predict(values, [4, 5])

  number = _edit_one(copy, edit, where=lambda values: not _is_short(values))
  _fails(copy, f"{TRAIN}', record {number}: a segment is empty.")


def _pieces_of_a_word(values: Values, length: int) -> list[int]:
  """Returns the positions of a predicted word of so many pieces, or none."""
  ids = _original(values)
  predicted = [position for position, _ in _predictions(values)]
  for first in predicted:
    pieces = list(range(first, first + length))
    is_whole = (
      ids[first] < 9
      and all(ids[each] >= 9 for each in pieces[1:])
      and ids[first + length] < 9
    )
    if is_whole:
      return pieces
  return []


@pytest.mark.parametrize(
  "num_dropped, message",
  [
    (1, "a word is predicted in part, despite whole_word_masking"),
    (2, "it has fewer predictions than min(5, max(1, round(tokens * 0.2)))"),
  ],
)
def test_whole_words_are_predicted(copy_of_whole_words, num_dropped, message):
  def edit(values: Values) -> None:
    dropped = _pieces_of_a_word(values, 2)[:num_dropped]
    positions = [position for position, _ in _predictions(values)]
    _predict(values, [each for each in positions if each not in dropped])

  number = _edit_one(
    copy_of_whole_words,
    edit,
    where=lambda values: bool(_pieces_of_a_word(values, 2)),
  )
  _fails(copy_of_whole_words, f"{TRAIN}', record {number}: {message}")


def test_a_word_longer_than_the_predictions_is_predicted_from_its_beginning(
  tmp_path,
):
  rng = np.random.default_rng(2)
  words = ["abcba", "bcabc", "cabca"]
  documents = ["\n".join([" ".join(rng.choice(words, 3))] * 9) for _ in "12345"]
  (tmp_path / "text").write_text("\n\n".join(documents) + "\n")
  vocab = [*vocabulary.SPECIAL_TOKENS, *"abc", "##a", "##b", "##c"]
  (tmp_path / "vocab").write_text("\n".join(vocab) + "\n")
  data = tmp_path / "data"
  settings = build.Settings(
    vocab_path=str(tmp_path / "vocab"),
    input_format="sentences",
    sequence_length=33,  # 15 pieces a segment: whole words in most of them.
    max_predictions=3,
    short_sequence_prob=0.0,
    whole_word_masking=True,
    num_shards=2,
  )
  build.build([str(tmp_path / "text")], str(data), settings)
  assert "in order" in verification.verify(str(data))

  def edit(values: Values) -> None:
    _predict(values, [position + 1 for position, _ in _predictions(values)])

  number = _edit_one(
    data,
    edit,
    where=lambda values: (
      _original(values)[16] == SEP
      and min(_original(values)[1], _original(values)[17]) < 8
      and len(list(_predictions(values))) == 3
    ),
  )
  _fails(data, f"{TRAIN}', record {number}: a word is predicted in part")


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


def _hide_all(values: Values) -> None:
  for position, _ in _predictions(values):
    values["input_ids"][position] = MASK


def _keep_all(values: Values) -> None:
  values["input_ids"] = _original(values)


def _replace_all(values: Values) -> None:
  for position, token in _predictions(values):
    values["input_ids"][position] = WORD if token != WORD else OTHER_WORD


def _replace_by_one_word(values: Values) -> None:
  for position, token in _predictions(values):
    if values["input_ids"][position] not in (MASK, token):
      values["input_ids"][position] = WORD if token != WORD else OTHER_WORD


@pytest.mark.parametrize(
  "edit, message",
  [
    (
      _hide_all,
      "[MASK] stands at 100.00% of the predictions of train ({n} of {n}), where"
      " 80.22% is expected",
    ),
    (_keep_all, "[MASK] stands at 0.00% of the predictions of train"),
    (_replace_all, "[MASK] stands at 0.00% of the predictions of train"),
    (
      _replace_by_one_word,
      "0.00% of the random tokens of train are of the second half",
    ),
    (
      _set("next_sentence_labels", 0, 0),
      "0.00% of the examples of train have a random next",
    ),
  ],
)
def test_a_wrong_share_is_found(copy_of_many, edit, message):
  _edit_all(copy_of_many, edit)
  number = sum(
    sum(_values(record)["masked_lm_weights"])
    for path in copy_of_many.glob("train-*.tfrecord")
    for record in _records(path)
  )
  _fails(copy_of_many, message.replace("{n}", f"{number:,.0f}"))


def test_predictions_that_prefer_a_place_are_found(copy_of_many):
  def edit(values: Values) -> None:
    """Keeps what is read, so that only the places are wrong."""
    ids = _original(values)
    words = [place for place, token in enumerate(ids) if token > MASK]
    kinds = [
      (values["input_ids"][place] == MASK, values["input_ids"][place] == token)
      for place, token in _predictions(values)
    ]
    values["input_ids"] = ids
    positions = words[: len(kinds)]
    random_ids = iter(rng.integers(46, size=3).tolist())
    _predict(values, positions)
    for place, (is_hidden, is_kept) in zip(positions, kinds, strict=True):
      if not is_hidden:
        values["input_ids"][place] = ids[place] if is_kept else next(random_ids)

  rng = np.random.default_rng(0)
  _edit_all(copy_of_many, edit)
  _fails(
    copy_of_many, "of the predictions of train are in part 1 of 8 of the tokens"
  )


def test_files_that_do_not_belong_are_told(copy):
  (copy / "train-00007-of-00008.tfrecord").write_bytes(b"")
  assert (
    "\nWarning: not in manifest.json, though in the directory:"
    " train-00007-of-00008.tfrecord.\n"
  ) in verification.verify(str(copy))


def test_a_directory_without_data_is_an_error(tmp_path):
  _fails(tmp_path, "has no manifest.json")
