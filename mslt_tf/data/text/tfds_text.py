"""Text of a split of a TensorFlow dataset that lies prepared on disk.

Nothing is downloaded. tensorflow_datasets takes seconds to import, so that is
done where it is needed.
"""

import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from mslt_tf import errors
from mslt_tf.data.text import compressed

PREFIX = "tfds:"

_DEFAULT_SPLIT = "train"

# Wiki-40B's marks: what follows them, up to the next, is on a line of its own.
_MARK = re.compile(r"\n?_START_(ARTICLE|SECTION|PARAGRAPH)_\n")
_WIKI40B_NEWLINE = "_NEWLINE_"


@dataclasses.dataclass(frozen=True)
class Split:
  """A split of a data set of one version."""

  directory: str  # of the version
  name: str


def find(pattern: str, data_directory: str | None) -> tuple[str, Split]:
  """Returns the full name and the split that `pattern` means.

  Args:
    pattern: `tfds:NAME[/CONFIG][:VERSION][@SPLIT]`.
    data_directory: where data sets are prepared; None is TFDS's own place.

  Raises:
    errors.InputError: it does not lie there, or has no such split.
  """
  import tensorflow_datasets as tfds

  name, _, split = pattern.removeprefix(PREFIX).partition("@")
  split = split or _DEFAULT_SPLIT
  arguments = {} if data_directory is None else {"data_dir": data_directory}
  try:
    builder = tfds.core.read_only_builder.builder_from_files(name, **arguments)
  except tfds.core.DatasetNotFoundError as error:
    quoted = ", ".join(
      [
        json.dumps(name),
        *(f"{k}={json.dumps(v)}" for k, v in arguments.items()),
      ]
    )
    raise errors.InputError(
      f"input={pattern!r} does not lie prepared in"
      f" {data_directory or tfds.core.constants.DATA_DIR}; this prepares it:"
      " python -c 'import tensorflow_datasets as tfds;"
      f" tfds.builder({quoted}).download_and_prepare()'"
    ) from error
  except ValueError as error:
    reason = str(error).strip().split("\n")[0]
    raise errors.InputError(
      f"input={pattern!r} names no TensorFlow dataset: {reason}"
    ) from error
  if split not in list(builder.info.splits):
    raise errors.InputError(
      f"input={pattern!r} has no split {split!r}; it has"
      f" {', '.join(sorted(builder.info.splits)) or 'none'}."
    )
  full_name = "/".join(filter(None, [builder.name, builder.info.config_name]))
  return (
    f"{PREFIX}{full_name}:{builder.version}@{split}",
    Split(os.fspath(builder.data_path), split),
  )


def num_examples(split: Split) -> int:
  """Returns how many examples a split has."""
  return _info(split).num_examples


def num_bytes(split: Split) -> int:
  """Returns the size of a split in bytes."""
  return _info(split).num_bytes


def check_feature(split: Split, feature: str, name: str) -> None:
  """Checks that `feature` is text.

  Raises:
    errors.InputError: it is not, or not there.
  """
  features = _builder(split.directory).info.features
  is_text = {
    key: value.shape == () and value.np_dtype == np.object_
    for key, value in features.items()
  }
  if not is_text.get(feature):
    texts = [key for key in is_text if is_text[key]]
    raise errors.InputError(
      f"input={name!r} has no text feature {feature!r} (text_field); its text"
      f" features are: {', '.join(texts) or 'none'}."
    )


def fingerprint(split: Split) -> str:
  """Returns the sha256 of what a split is and holds, wherever it lies."""
  info = _info(split)
  digest = hashlib.sha256(
    f"{_builder(split.directory).info.full_name}@{split.name}"
    f" {info.num_examples}\n".encode()
  )
  for path in map(os.fspath, info.filepaths):
    digest.update(compressed.fingerprint(path).encode())
  return digest.hexdigest()


def texts(split: Split, feature: str, begin: int, end: int) -> Iterator[bytes]:
  """Yields `feature` of the examples from `begin` to `end`, in their order."""
  import tensorflow_datasets as tfds

  dataset = _builder(split.directory).as_dataset(
    split=tfds.core.ReadInstruction(
      split.name, from_=begin, to=end, unit="abs"
    ),
    decoders=tfds.decode.PartialDecoding({feature: True}),
    read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
  )
  for example in dataset.as_numpy_iterator():
    yield example[feature]


def paragraphs(text: str) -> list[str]:
  """Returns the paragraphs of a text, without the titles that Wiki-40B marks.

  Its texts look like `_START_ARTICLE_`, a title, `_START_PARAGRAPH_` and
  paragraphs divided by `_NEWLINE_`, each on a line.
  """
  before, *marked = _MARK.split(text)
  if marked:
    pieces = zip(marked[::2], marked[1::2], strict=True)
    text = "\n".join(
      [before, *(piece for mark, piece in pieces if mark == "PARAGRAPH")]
    ).replace(_WIKI40B_NEWLINE, "\n")
  return text.split("\n")


@functools.lru_cache(maxsize=16)
def _builder(directory: str) -> Any:
  import tensorflow_datasets as tfds

  return tfds.builder_from_directory(directory)


def _info(split: Split) -> Any:
  return _builder(split.directory).info.splits[split.name]
