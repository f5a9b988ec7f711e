"""Answers texts by a fine-tuned model, a line of JSON each.

Example:

  python bin/predict.py --checkpoint=runs/reviews --input=texts.txt

The input has a text a line; where the task has pairs, two with a tab between.
`--checkpoint` is the workdir of bin/finetune.py, or of one checkpoint in it.
"""

import command_line
from absl import flags

_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", None, "Workdir of bin/finetune.py.", required=True
)
_INPUT = flags.DEFINE_string("input", None, "File of texts.", required=True)
_TASK = flags.DEFINE_string(
  "task", "", "Whose model, where several tasks are in the workdir."
)
_OUTPUT = flags.DEFINE_string(
  "output", "", "File to write; by default the answers are printed."
)
_FORMAT = flags.DEFINE_enum(
  "format", "jsonl", ("jsonl", "tsv"), "Of the answers."
)


def main():
  text = command_line.read_text("--input", _INPUT.value)
  if _OUTPUT.value:
    command_line.check_writable("--output", _OUTPUT.value)
  # TensorFlow takes seconds to import; wrong flags are told before.
  from mslt_tf.finetune import answers

  answered = answers.answer(
    text,
    source=_INPUT.value,
    checkpoint=_CHECKPOINT.value,
    task=_TASK.value,
    form=_FORMAT.value,
  )
  command_line.write_text(_OUTPUT.value, answered)


if __name__ == "__main__":
  command_line.run(main)
