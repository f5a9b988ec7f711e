"""Builds pre-training data for BERT from text.

For example, a file a document:

  python bin/create_pretraining_data.py \\
    --input='texts/*.txt' --output_dir=data \\
    --vocab_size=4096 --sequence_length=64 --max_predictions=10

Leaves shards of training and held-out examples, each with an index beside it
(`*.tfrecord.index`), vocab.txt and, last,
manifest.json in --output_dir. The same command again does nothing.
"""

import command_line  # isort: skip

from absl import flags

from mslt_tf.data import build
from mslt_tf.data import documents
from mslt_tf.data import manifest

_DEFAULTS = build.Settings()

_INPUT = flags.DEFINE_list(
  "input",
  None,
  "Globs of text files, with commas between them.",
  required=True,
)
_OUTPUT_DIR = flags.DEFINE_string(
  "output_dir", None, "Where the data set goes.", required=True
)
_VOCAB = flags.DEFINE_string(
  "vocab", None, "A vocabulary file of BERT; or give --vocab_size."
)
_VOCAB_SIZE = flags.DEFINE_integer(
  "vocab_size", None, "Size of a vocabulary to learn; or give --vocab."
)
_INPUT_FORMAT = flags.DEFINE_enum(
  "input_format",
  _DEFAULTS.input_format,
  documents.FORMATS,
  "sentences: one a line, blank lines between documents. prose: a file is a"
  " document, blank lines divide paragraphs. auto: decides for each file.",
)
_SEQUENCE_LENGTH = flags.DEFINE_integer(
  "sequence_length", _DEFAULTS.sequence_length, "Tokens of an example."
)
_MAX_PREDICTIONS = flags.DEFINE_integer(
  "max_predictions",
  _DEFAULTS.max_predictions,
  "The most masked tokens of an example.",
)
_MASKED_LM_PROB = flags.DEFINE_float(
  "masked_lm_prob", _DEFAULTS.masked_lm_prob, "Share of the tokens to mask."
)
_SHORT_SEQUENCE_PROB = flags.DEFINE_float(
  "short_sequence_prob",
  _DEFAULTS.short_sequence_prob,
  "Share of documents cut into examples shorter than --sequence_length.",
)
_DUPE_FACTOR = flags.DEFINE_integer(
  "dupe_factor",
  _DEFAULTS.dupe_factor,
  "How often the training text is masked, each time anew.",
)
_WHOLE_WORD_MASKING = flags.DEFINE_boolean(
  "whole_word_masking",
  _DEFAULTS.whole_word_masking,
  "Mask all pieces of a word together.",
)
_LOWER_CASE = flags.DEFINE_boolean(
  "lower_case", _DEFAULTS.lower_case, "Lower-case the text and strip accents."
)
_HELDOUT_FRACTION = flags.DEFINE_float(
  "heldout_fraction",
  _DEFAULTS.heldout_fraction,
  "Share of documents that are held out for evaluation.",
)
_NUM_SHARDS = flags.DEFINE_integer(
  "num_shards", _DEFAULTS.num_shards, "Files of training examples."
)
_SEED = flags.DEFINE_integer("seed", _DEFAULTS.seed, "Of every random choice.")


def main() -> None:
  result = build.build(
    _INPUT.value,
    _OUTPUT_DIR.value,
    build.Settings(
      vocab_path=_VOCAB.value,
      vocab_size=_VOCAB_SIZE.value,
      input_format=_INPUT_FORMAT.value,
      lower_case=_LOWER_CASE.value,
      sequence_length=_SEQUENCE_LENGTH.value,
      max_predictions=_MAX_PREDICTIONS.value,
      masked_lm_prob=_MASKED_LM_PROB.value,
      short_sequence_prob=_SHORT_SEQUENCE_PROB.value,
      dupe_factor=_DUPE_FACTOR.value,
      whole_word_masking=_WHOLE_WORD_MASKING.value,
      heldout_fraction=_HELDOUT_FRACTION.value,
      num_shards=_NUM_SHARDS.value,
      seed=_SEED.value,
    ),
  )
  if not result.is_new:
    print(f"{_OUTPUT_DIR.value} is complete already; nothing was done.")
  print(manifest.summary(result.manifest))


if __name__ == "__main__":
  command_line.run(main)
