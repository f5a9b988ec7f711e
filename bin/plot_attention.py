"""Draws what a model's heads attend to, and measures it on held-out text.

Example:

  python bin/plot_attention.py --checkpoint=runs/base_stacking_6_12 \\
    --sentence="The cat sat on the mat." --compare --output_dir=/tmp/attention

It draws all heads of all layers for the sentence, and writes each head's shares
of attention on neighbours, [CLS] and [SEP]. With --compare it holds the stage
against those before it: the same heads before, after, and in the layer that
began as a copy. docs/attention.md tells what is in the files.
"""

import command_line
from absl import flags

from mslt_tf import errors

_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", None, "Workdir of a run or of an imported model.", required=True
)
_OUTPUT_DIR = flags.DEFINE_string(
  "output_dir", None, "Where pictures and attention.json go.", required=True
)
_SENTENCE = flags.DEFINE_string("sentence", "", "Whose attention is drawn.")
_SECOND_SENTENCE = flags.DEFINE_string(
  "second_sentence", "", "Makes a pair of it."
)
_HEADS = flags.DEFINE_list(
  "heads", [], "LAYER:HEAD, counted from 0, such as 0:3,11:5: drawn large too."
)
_COMPARE = flags.DEFINE_bool(
  "compare", False, "Hold the stage against those before it."
)
_STAGE = flags.DEFINE_integer(
  "stage", None, "Which finished stage, from 1; by default the last."
)
_NUM_EXAMPLES = flags.DEFINE_integer(
  "num_examples",
  64,
  "Of a run's held-out data, to measure on; 0 for none.",
  lower_bound=0,
)
_INPUT = flags.DEFINE_string(
  "input", "", "Text to measure on instead, an example a line."
)
_VOCAB = flags.DEFINE_string(
  "vocab", None, "Vocabulary file, where the workdir has no vocab.txt."
)
_FORMAT = flags.DEFINE_enum(
  "format", "png", ("png", "svg", "pdf"), "Of the pictures."
)


def main():
  for flag in (_CHECKPOINT, _OUTPUT_DIR):
    if not flag.value:
      raise errors.InputError(f"--{flag.name} is empty.")
  text = None
  if _INPUT.value:
    text = command_line.read_text("--input", _INPUT.value)
  # TensorFlow takes seconds to import; wrong flags are told before.
  from mslt_tf.analysis import attention_report

  request = attention_report.Request(
    checkpoint=_CHECKPOINT.value,
    stage=_STAGE.value,
    vocab_file=_VOCAB.value,
    sentence=_SENTENCE.value,
    second_sentence=_SECOND_SENTENCE.value,
    heads=attention_report.parse_heads(_HEADS.value),
    is_compared=_COMPARE.value,
    num_examples=_NUM_EXAMPLES.value,
    text=text,
    text_source=_INPUT.value,
    image_format=_FORMAT.value,
  )
  for line in attention_report.write(request, _OUTPUT_DIR.value):
    print(line)


if __name__ == "__main__":
  command_line.run(main)
