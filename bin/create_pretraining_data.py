"""Builds pre-training data for BERT from text, on every core.

For example, from a dump of Wikipedia and a directory of books:

  python bin/create_pretraining_data.py \\
    --input='enwiki-*-pages-articles*.xml*.bz2,books' --output_dir=data \\
    --vocab=vocab.txt --dupe_factor=5 --num_shards=512

Leaves shards of training and held-out examples, each with an index beside it
(`*.tfrecord.index`), vocab.txt and, last, manifest.json in --output_dir. The
same command again does nothing, or continues if it was killed. Then

  python bin/create_pretraining_data.py --verify --output_dir=data

reads every record, and prints statistics and some examples.
"""

import command_line  # isort: skip

from absl import flags

from mslt_tf import errors
from mslt_tf import processor
from mslt_tf.data.building import build
from mslt_tf.data.reading import manifest
from mslt_tf.data.text import documents
from mslt_tf.data.verification import verify

_DEFAULTS = build.Settings()

_INPUT = flags.DEFINE_list(
  "input",
  None,
  "What to read, with commas between: globs of files (plain, .gz or .bz2),"
  " directories, and tfds:NAME[/CONFIG][:VERSION][@SPLIT] for a data set of"
  " TensorFlow Datasets that is prepared.",
)
_TFDS_DATA_DIR = flags.DEFINE_string(
  "tfds_data_dir", None, "Where TensorFlow Datasets has its data sets."
)
_OUTPUT_DIR = flags.DEFINE_string(
  "output_dir", None, "Where the data set goes.", required=True
)
_VOCAB = flags.DEFINE_string(
  "vocab",
  None,
  "A vocabulary file of BERT. Either this or --vocab_size must be given.",
)
_VOCAB_SIZE = flags.DEFINE_integer(
  "vocab_size",
  None,
  "Size of a vocabulary to learn. Either this or --vocab must be given.",
)
_VOCAB_SAMPLE_BYTES = flags.DEFINE_integer(
  "vocab_sample_bytes",
  _DEFAULTS.vocab_sample_bytes,
  "Bytes of training text, a random sample, to learn a vocabulary from.",
)
_INPUT_FORMAT = flags.DEFINE_enum(
  "input_format",
  _DEFAULTS.input_format,
  documents.FORMATS,
  "sentences: one a line, blank lines between documents. prose: a file is a"
  " document, blank lines divide paragraphs. jsonl: a JSON object a line."
  " mediawiki: an XML dump. wikiextractor: what that program makes of one."
  " auto: decides for each file.",
)
_TEXT_FIELD = flags.DEFINE_string(
  "text_field",
  _DEFAULTS.text_field,
  "Where JSON lines or examples of TensorFlow Datasets have their text.",
)
_MIN_WORDS = flags.DEFINE_integer(
  "min_words", _DEFAULTS.min_words, "Documents with fewer words are dropped."
)
_REMOVE_DUPLICATES = flags.DEFINE_boolean(
  "remove_duplicates",
  _DEFAULTS.remove_duplicates,
  "Keep one of documents that have the same text.",
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
  "How often the training text is cut and masked, each time anew;"
  " google-research/bert's default is 10.",
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
  "num_shards",
  _DEFAULTS.num_shards,
  "Files of training examples; held-out ones are in proportion.",
)
_SEED = flags.DEFINE_integer(
  "seed", _DEFAULTS.seed, "Seed of every random choice."
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes",
  None,
  "The most that work at once; all cores unless given. Any number makes the"
  " same data set.",
)
_RUNNER = flags.DEFINE_string(
  "runner",
  None,
  "Build as a pipeline of Apache Beam, with this runner: DirectRunner,"
  " DataflowRunner, FlinkRunner, SparkRunner ... (extra `beam`).",
)
_BEAM_ARGS = flags.DEFINE_list(
  "beam_args", [], "Options of the runner, each --name=value, with commas."
)
_VERIFY = flags.DEFINE_boolean(
  "verify", False, "Check the data set in --output_dir instead of building it."
)


def main() -> None:
  if _VERIFY.value:
    print(verify.verify(_OUTPUT_DIR.value))
    return
  if _RUNNER.value:
    command_line.refuse(
      _NUM_PROCESSES, "with --runner, whose options say it (--beam_args)"
    )
  else:
    command_line.refuse(_BEAM_ARGS, "without --runner")
  inputs = _INPUT.value or []
  num_processes = _NUM_PROCESSES.value
  if num_processes is None:
    num_processes = processor.num_cores()
  settings = build.Settings(
    vocab_path=_VOCAB.value,
    vocab_size=_VOCAB_SIZE.value,
    vocab_sample_bytes=_VOCAB_SAMPLE_BYTES.value,
    input_format=_INPUT_FORMAT.value,
    text_field=_TEXT_FIELD.value,
    min_words=_MIN_WORDS.value,
    remove_duplicates=_REMOVE_DUPLICATES.value,
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
  )
  if _RUNNER.value:
    result = _build_with_beam(inputs, settings)
  else:
    result = build.build(
      inputs,
      _OUTPUT_DIR.value,
      settings,
      tfds_data_dir=_TFDS_DATA_DIR.value,
      num_processes=num_processes,
    )
  if not result.is_new:
    print(f"{_OUTPUT_DIR.value} is complete already; nothing was done.")
  print(manifest.summary(result.manifest))


def _build_with_beam(
  inputs: list[str], settings: build.Settings
) -> build.Result:
  try:
    from mslt_tf.data.building import beam_build
  except ImportError as error:
    raise errors.InputError(
      f"runner={_RUNNER.value} needs Apache Beam: pip install --constraint"
      f" requirements.txt '.[beam]' ({error})."
    ) from None
  return beam_build.build(
    inputs,
    _OUTPUT_DIR.value,
    settings,
    runner=_RUNNER.value,
    runner_arguments=_BEAM_ARGS.value,
    tfds_data_dir=_TFDS_DATA_DIR.value,
  )


if __name__ == "__main__":
  command_line.run(main)
