"""Exports a finished stage, or an imported model, to another format.

Example:

  python bin/export.py --checkpoint=runs/base_mslt --format=huggingface \\
    --output_dir=/tmp/base_mslt_hf

`--checkpoint` is a run's workdir, or one that import_checkpoint.py made. With
`--stage` the shallow model of an earlier stage is exported. Of the workdir of
finetune.py, saved_model is a task's best model: text in, labels out.
docs/checkpoints.md tells what each format holds.
"""

import command_line
from absl import flags

from mslt_tf import errors

FORMATS = (
  "huggingface",
  "huggingface_masked_lm",
  "huggingface_encoder",
  "tf1",
  "saved_model",
  "model_garden",
)

_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", None, "Workdir of the model.", required=True
)
_FORMAT = flags.DEFINE_enum(
  "format", None, FORMATS, "What is written.", required=True
)
_OUTPUT_DIR = flags.DEFINE_string(
  "output_dir", None, "A new or empty directory.", required=True
)
_STAGE = flags.DEFINE_integer(
  "stage", None, "Which finished stage, from 1; by default the last."
)
_VOCAB = flags.DEFINE_string(
  "vocab", None, "Vocabulary file, where the workdir has no vocab.txt."
)
_TASK = flags.DEFINE_string(
  "task", "", "Whose fine-tuned model, where several tasks are in the workdir."
)


def main():
  for flag in (_CHECKPOINT, _OUTPUT_DIR):
    if not flag.value:
      raise errors.InputError(f"--{flag.name} is empty.")
  # TensorFlow takes seconds to import; wrong flags are told before.
  from mslt_tf import finished_model
  from mslt_tf.finetune import fine_tuned_model
  from mslt_tf.interop import exports
  from mslt_tf.interop import saved_model

  if fine_tuned_model.is_one(_CHECKPOINT.value):
    for flag in (_STAGE, _VOCAB):
      command_line.refuse(flag, "on a fine-tuned model")
    if _FORMAT.value != "saved_model":
      raise errors.InputError(
        f"--format={_FORMAT.value} is none of a fine-tuned model;"
        " --format=saved_model is."
      )
    tuned = fine_tuned_model.load(_CHECKPOINT.value, task=_TASK.value)
    is_written = exports.export_classifier(
      tuned.bert,
      saved_model.Classifier(
        labels=tuned.labels,
        output_weights=tuned.output_weights,
        output_bias=tuned.output_bias,
        max_sequence_length=tuned.max_sequence_length,
      ),
      _OUTPUT_DIR.value,
    )
    _report(is_written)
    return
  command_line.refuse(_TASK, "on a model that is not fine-tuned")
  model = finished_model.load(
    _CHECKPOINT.value, stage=_STAGE.value, vocab_file=_VOCAB.value
  )
  is_written = exports.export(
    model, _OUTPUT_DIR.value, format_name=_FORMAT.value
  )
  _report(is_written)


def _report(is_written: bool) -> None:
  print(f"{'exported to' if is_written else 'already in'} {_OUTPUT_DIR.value}")


if __name__ == "__main__":
  command_line.run(main)
