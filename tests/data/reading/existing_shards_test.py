"""Shards without a manifest are opened, or refused in a line naming them."""

import gzip
import shutil

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.examples import features
from mslt_tf.data.reading import existing_shards
from mslt_tf.data.reading import input_pipeline
from mslt_tf.data.reading import manifest

V2 = {"input_ids": "input_word_ids", "segment_ids": "input_type_ids"}


def make_example(*, names=(), leave_out=(), **replaced) -> bytes:
  """An example of S = 5 and P = 2, ids below 11, with some values replaced."""
  values = {
    "input_ids": [2, 4, 3, 7, 0],
    "input_mask": [1, 1, 1, 1, 0],
    "segment_ids": [0, 0, 0, 1, 0],
    "masked_lm_positions": [1, 0],
    "masked_lm_ids": [10, 0],
    "masked_lm_weights": [1.0, 0.0],
    "next_sentence_labels": [1],
    **replaced,
  }
  feature = {}
  for name, value in values.items():
    if isinstance(value[0], float):
      each = tf.train.Feature(float_list=tf.train.FloatList(value=value))
    else:
      each = tf.train.Feature(int64_list=tf.train.Int64List(value=value))
    if name not in leave_out:
      feature[dict(names).get(name, name)] = each
  example = tf.train.Example(features=tf.train.Features(feature=feature))
  return example.SerializeToString(deterministic=True)


def write(path, *records: bytes) -> str:
  with tf.io.TFRecordWriter(str(path)) as writer:
    for record in records:
      writer.write(record)
  return str(path)


@pytest.fixture
def directory(tmp_path):
  """Shards of 3, 2 and 1 examples; the last one is to be held out."""
  write(tmp_path / "a.tfrecord", *[make_example()] * 3)
  write(tmp_path / "b.tfrecord", *[make_example()] * 2)
  write(tmp_path / "c.tfrecord", make_example(input_ids=[2, 4, 3, 9, 0]))
  return tmp_path


def open_files(directory, **replaced) -> manifest.Data:
  return existing_shards.open_files(
    **{
      "train_files": f"{directory}/[ab].tfrecord",
      "heldout_files": f"{directory}/c.tfrecord",
      "sequence_length": 5,
      "max_predictions": 2,
      "vocab_size": 11,
      **replaced,
    }
  )


def error_of(directory, **replaced) -> str:
  with pytest.raises(errors.InputError) as caught:
    open_files(directory, **replaced)
  assert "\n" not in str(caught.value)
  return str(caught.value).replace(str(directory), "DIR")


def test_shards_are_opened_in_the_order_of_their_names(directory):
  data = open_files(directory)
  assert [shard.num_examples for shard in data.train.shards] == [3, 2]
  assert data.train.num_examples == 5
  assert data.heldout.num_examples == 1
  assert data.naming is features.Naming.BERT


def test_what_only_a_manifest_tells_is_not_known(directory):
  data = open_files(directory)
  assert data.unigram_mlm_loss is None
  assert data.vocab_sha256 is None
  assert data.lower_case is None


def test_globs_are_separated_by_commas(directory):
  both = f"{directory}/b.tfrecord, {directory}/a.*"
  assert open_files(directory, train_files=both).train == (
    open_files(directory).train
  )


def test_indexes_beside_the_shards_are_no_shards(directory):
  everything = dict(train_files=f"{directory}/*")
  first = open_files(directory, **everything)
  assert (directory / "a.tfrecord.index").exists()
  # As another worker writes it.
  (directory / f"a.tfrecord.index.{'0a' * 16}").write_bytes(b"unfinished")
  assert open_files(directory, **everything) == first


def test_a_shard_that_both_globs_match_is_held_out(directory):
  data = open_files(directory, train_files=f"{directory}/*.tfrecord")
  assert [shard.num_examples for shard in data.train.shards] == [3, 2]


def test_a_shard_is_held_out_by_whatever_path(directory, monkeypatch):
  (directory / "linked").symlink_to(directory)
  monkeypatch.chdir(directory)
  for heldout_files in ("c.tfrecord", "linked/c.tfrecord"):
    data = open_files(
      directory,
      train_files=f"{directory}/*.tfrecord",
      heldout_files=heldout_files,
    )
    assert [shard.num_examples for shard in data.train.shards] == [3, 2]


def test_a_copy_of_what_is_held_out_is_not_trained_on(directory):
  shutil.copy(directory / "c.tfrecord", directory / "b.tfrecord")
  assert error_of(directory) == (
    "train_files: 'DIR/b.tfrecord' is a copy of 'DIR/c.tfrecord' of"
    " heldout_files; what is trained on must not be held out."
  )


@pytest.mark.parametrize("names", [{}, V2], ids=["bert", "v2"])
def test_both_namings_give_the_same_batches(names, tmp_path):
  for name, count in (("a", 2), ("b", 2), ("c", 1)):
    write(tmp_path / f"{name}.tfrecord", *[make_example(names=names)] * count)
  data = open_files(tmp_path)
  (batch,) = input_pipeline.heldout_batches(data, batch_size=2)
  # The second one fills the batch up.
  assert batch["input_ids"].numpy().tolist() == [[2, 4, 3, 7, 0], [0] * 5]
  assert batch["segment_ids"].numpy().tolist() == [[0, 0, 0, 1, 0], [0] * 5]
  assert batch["input_mask"].numpy().tolist() == [[1, 1, 1, 1, 0], [0] * 5]
  assert batch["masked_lm_weights"].numpy().tolist() == [[1, 0], [0, 0]]
  assert batch["next_sentence_labels"].numpy().tolist() == [1, 0]


def test_the_fingerprint_is_of_the_content_wherever_it_lies(
  directory, tmp_path_factory
):
  before = open_files(directory).fingerprint
  moved = tmp_path_factory.mktemp("moved") / "shards"
  shutil.copytree(directory, moved)
  assert open_files(moved).fingerprint == before
  # As large, but another example.
  write(moved / "a.tfrecord", *[make_example(masked_lm_ids=[9, 0])] * 3)
  assert open_files(moved).fingerprint != before
  write(moved / "a.tfrecord", *[make_example()] * 3)
  assert open_files(moved).fingerprint == before
  # What was trained on is held out and the other way round.
  swapped = dict(
    train_files=f"{moved}/c.tfrecord", heldout_files=f"{moved}/[ab].tfrecord"
  )
  assert open_files(moved, **swapped).fingerprint != before


@pytest.mark.parametrize(
  ("replaced", "message"),
  [
    (
      dict(train_files="/nowhere/*"),
      "train_files='/nowhere/*' matches no file.",
    ),
    (
      dict(heldout_files="/nowhere/a"),
      "heldout_files='/nowhere/a' matches no file.",
    ),
    (dict(train_files=","), "train_files=',' names no file."),
    (
      dict(sequence_length=7),
      "'DIR/a.tfrecord', record 1: input_ids has 5 values; with"
      " sequence_length=7 and max_predictions=2 it would have 7.",
    ),
    (
      dict(max_predictions=3),
      "'DIR/a.tfrecord', record 1: masked_lm_positions has 2 values; with"
      " sequence_length=5 and max_predictions=3 it would have 3.",
    ),
    (
      dict(vocab_size=10),
      "'DIR/a.tfrecord', record 1: masked_lm_ids has 10, which is not from 0 to"
      " 9, for vocab_size=10.",
    ),
  ],
)
def test_what_does_not_fit_is_told(replaced, message, directory):
  assert error_of(directory, **replaced) == message


def test_nothing_left_to_train_on_is_told(directory):
  message = error_of(
    directory,
    train_files=f"{directory}/c.tfrecord",
    heldout_files=f"{directory}/*",
  )
  assert message == (
    "train_files='DIR/c.tfrecord' matches no file that heldout_files='DIR/*'"
    " does not match too: nothing is left to train on."
  )


@pytest.mark.parametrize(
  ("record", "message"),
  [
    (b"\xff\xff", "it is no tf.train.Example."),
    (
      b"",
      "it has neither 'input_ids' nor 'input_word_ids'; its features are none.",
    ),
    (
      make_example(names={"input_ids": "inputs"}, leave_out=["input_mask"]),
      "it has neither 'input_ids' nor 'input_word_ids'; its features are"
      " inputs, masked_lm_ids, masked_lm_positions, masked_lm_weights,"
      " next_sentence_labels, segment_ids.",
    ),
    (
      make_example(leave_out=["next_sentence_labels"]),
      "it has no feature 'next_sentence_labels'.",
    ),
    (
      make_example(names={"segment_ids": "input_type_ids"}),
      "it has no feature 'segment_ids'.",
    ),
    (
      make_example(masked_lm_weights=[1, 0]),
      "masked_lm_weights is no float_list.",
    ),
    (
      make_example(masked_lm_positions=[5, 0]),
      "masked_lm_positions has 5, which is not from 0 to 4, for"
      " sequence_length=5.",
    ),
    (
      make_example(segment_ids=[-1, 0, 0, 0, 0]),
      "segment_ids has -1, which is not from 0 to 1.",
    ),
  ],
)
def test_a_malformed_first_example_is_told(record, message, directory):
  write(directory / "b.tfrecord", record)
  expected = f"'DIR/b.tfrecord', record 1: {message}"
  assert error_of(directory) == expected


def test_shards_of_both_namings_are_not_mixed(directory):
  write(directory / "b.tfrecord", make_example(names=V2))
  assert error_of(directory) == (
    "'DIR/b.tfrecord' has the feature names of tf-models-official's"
    " --use_v2_feature_names, but 'DIR/a.tfrecord' those of"
    " google-research/bert."
  )


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "'DIR/b.tfrecord' has no records."),
    (b"some text\n" * 9, "'DIR/b.tfrecord' is not a TFRecord file."),
    (
      gzip.compress(bytes(99), mtime=0),
      "'DIR/b.tfrecord' is compressed; unpack it, since it is read from the"
      " middle too.",
    ),
  ],
)
def test_a_file_that_is_no_shard_is_told(content, message, directory):
  (directory / "b.tfrecord").write_bytes(content)
  assert error_of(directory) == message


def test_a_folder_among_the_shards_is_told(directory):
  (directory / "b.tfrecord").unlink()
  (directory / "b.tfrecord").mkdir()
  assert error_of(directory).startswith("'DIR/b.tfrecord' cannot be read: ")


def test_a_damaged_first_record_is_told(directory):
  content = np.fromfile(directory / "b.tfrecord", np.uint8)
  content[20] ^= 255
  content.tofile(directory / "b.tfrecord")
  assert error_of(directory).startswith("'DIR/b.tfrecord' cannot be read: ")


@pytest.mark.parametrize(
  ("record", "message"),
  [
    (
      make_example(input_ids=[2, 4, 11, 3, 0]),
      "input_ids has 11, which is not from 0 to 10, for vocab_size=11.",
    ),
    (
      make_example(input_ids=[2, 4, 3]),
      "input_ids has 3 values; with sequence_length=5 and max_predictions=2 it"
      " would have 5.",
    ),
    (make_example(names=V2), "it has no feature 'input_ids'."),
    (b"\xff\xff", "it is no tf.train.Example."),
  ],
)
def test_a_malformed_example_further_on_is_noticed_and_found(
  record, message, directory
):
  path = directory / "b.tfrecord"
  write(path, *[make_example()] * 70, record)
  data = open_files(directory)
  with pytest.raises(input_pipeline.MALFORMED):
    list(input_pipeline.train_batches(data, batch_size=73, seed=0).take(1))
  found = input_pipeline.find_malformed(data)
  assert found == f"{str(path)!r}, record 71: {message}"


def test_nothing_is_found_in_sound_shards(directory):
  assert input_pipeline.find_malformed(open_files(directory)) is None
