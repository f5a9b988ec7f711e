"""Splits of TensorFlow datasets, prepared on disk, are read as documents."""

import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mslt_tf import errors
from mslt_tf.data.text import documents
from mslt_tf.data.text import tfds_text

WIKI40B = (
  "\n_START_ARTICLE_\nA Title\n_START_PARAGRAPH_\nOne is here. Two is.\n"
  "_START_SECTION_\nA Heading\n_START_PARAGRAPH_\nThree._NEWLINE_Four.\n"
)


class LittleTexts(tfds.core.GeneratorBasedBuilder):
  """Seven texts to train on, three to test with."""

  # TFDS looks for resources of a package, and the tests are none.
  __module__ = "__main__"

  VERSION = tfds.core.Version("1.2.0")
  BUILDER_CONFIGS = (
    tfds.core.BuilderConfig(name="plain"),
    tfds.core.BuilderConfig(name="other"),
  )

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          "text": tfds.features.Text(),
          "title": tfds.features.Text(),
          "year": tfds.features.Scalar(dtype=np.int32),
        }
      ),
    )

  def _split_generators(self, dl_manager):
    word = "Text" if self.builder_config.name == "plain" else "Word"
    texts = [f"{word} {number} is here. It ends." for number in range(7)]
    return {
      "train": self._examples(texts),
      "test": self._examples([WIKI40B, " ", b"caf\xe9."]),
    }

  def _generate_examples(self, texts):
    return self._examples(texts)

  @staticmethod
  def _examples(texts):
    for number, text in enumerate(texts):
      yield number, {"text": text, "title": f"Title {number}.", "year": number}


@pytest.fixture(scope="module")
def data_directory(tmp_path_factory) -> str:
  directory = str(tmp_path_factory.mktemp("tfds"))
  for config in ("plain", "other"):
    LittleTexts(config=config, data_dir=directory).download_and_prepare(
      download_config=tfds.download.DownloadConfig(num_shards=3)
    )
  return directory


def _find(pattern, data_directory):
  (source,) = documents.find([pattern], tfds_data_dir=data_directory)
  return source


def _parsed(source, *, chunk_bytes=1 << 20, **kwargs):
  return [
    documents.parse(chunk)
    for chunk in documents.chunks(source, chunk_bytes=chunk_bytes, **kwargs)
  ]


def test_a_split_is_found_by_its_name(data_directory):
  source = _find("tfds:little_texts/plain:1.2.0@test", data_directory)
  assert source.name == "tfds:little_texts/plain:1.2.0@test"
  assert source.split == tfds_text.Split(
    f"{data_directory}/little_texts/plain/1.2.0", "test"
  )


def test_config_version_and_split_have_defaults(data_directory):
  source = _find("tfds:little_texts", data_directory)
  assert source.name == "tfds:little_texts/plain:1.2.0@train"


@pytest.mark.parametrize("chunk_bytes", [1, 200, 1 << 20])
def test_every_example_is_read_once(data_directory, chunk_bytes):
  source = _find("tfds:little_texts", data_directory)
  parsed = _parsed(source, chunk_bytes=chunk_bytes)
  assert sorted(each for part in parsed for each in part.documents) == [
    (f"Text {number} is here.", "It ends.") for number in range(7)
  ]
  assert len(parsed) > 1 or chunk_bytes == 1 << 20
  assert parsed == _parsed(source, chunk_bytes=chunk_bytes)


def test_marks_of_wiki40b_leave_paragraphs_without_titles(data_directory):
  (parsed,) = _parsed(_find("tfds:little_texts@test", data_directory))
  assert sorted(parsed.documents) == [
    ("One is here.", "Two is.", "Three.", "Four."),
    ("caf\ufffd.",),
  ]
  assert parsed.dropped == {"empty_documents": 1, "undecodable_places": 1}


def test_another_feature_can_be_the_text(data_directory):
  source = _find("tfds:little_texts@train", data_directory)
  (parsed,) = _parsed(source, text_field="title")
  assert ("Title 3.",) in parsed.documents


def test_the_fingerprint_is_of_content_and_not_of_places(
  data_directory, tmp_path
):
  plain = _find("tfds:little_texts/plain", data_directory)
  other = _find("tfds:little_texts/other", data_directory)
  assert documents.fingerprint([plain]) != documents.fingerprint([other])
  copy = tmp_path / "copy"
  _copy(pathlib.Path(data_directory), copy)
  moved = _find("tfds:little_texts/plain", str(copy))
  assert documents.fingerprint([plain]) == documents.fingerprint([moved])


def test_the_size_is_that_of_the_examples(data_directory):
  source = _find("tfds:little_texts", data_directory)
  assert 7 * 26 < documents.num_bytes(source) < 2000


@pytest.mark.parametrize(
  "pattern, message",
  [
    (
      "tfds:wiki40b/en",
      "input='tfds:wiki40b/en' does not lie prepared in DIR; this prepares it:"
      " python -c 'import tensorflow_datasets as tfds;"
      ' tfds.builder("wiki40b/en", data_dir="DIR").download_and_prepare()\'',
    ),
    (
      "tfds:little_texts/plain@dev",
      "input='tfds:little_texts/plain@dev' has no split 'dev'; it has test,"
      " train.",
    ),
    (
      "tfds:what is this",
      "input='tfds:what is this' names no TensorFlow dataset: ",
    ),
  ],
)
def test_what_cannot_be_found_is_one_line(data_directory, pattern, message):
  with pytest.raises(errors.InputError) as caught:
    _find(pattern, data_directory)
  line = str(caught.value).replace(data_directory, "DIR")
  assert line.startswith(message)
  assert "\n" not in line


@pytest.mark.parametrize("field", ["year", "body"])
def test_a_feature_that_is_no_text_is_an_error(data_directory, field):
  source = _find("tfds:little_texts", data_directory)
  with pytest.raises(errors.InputError) as caught:
    _parsed(source, text_field=field)
  assert str(caught.value) == (
    "input='tfds:little_texts/plain:1.2.0@train' has no text feature"
    f" {field!r} (text_field); its text features are: text, title."
  )


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
  for path in source.rglob("*"):
    if path.is_file():
      copy = target / path.relative_to(source)
      copy.parent.mkdir(parents=True, exist_ok=True)
      copy.write_bytes(path.read_bytes())
