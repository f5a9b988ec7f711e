"""Imports a BERT from elsewhere as a workdir with one finished stage.

Example:

  python bin/import_checkpoint.py --source=downloads/bert-base-uncased \\
    --format=huggingface --output_dir=runs/imported

Fine-tuning and export take the workdir as `--checkpoint`; pre-training starts
from it by `--set=model.initial_checkpoint`. Heads that the source does not have
are freshly initialised, and a line says which. docs/checkpoints.md tells more.
"""

import command_line
from absl import flags

from mslt_tf import errors

_SOURCE = flags.DEFINE_string(
  "source",
  None,
  "Directory of the model, or a TF1 checkpoint's path without .index.",
  required=True,
)
_FORMAT = flags.DEFINE_enum(
  "format", None, ("huggingface", "tf1"), "What is read.", required=True
)
_OUTPUT_DIR = flags.DEFINE_string(
  "output_dir", None, "Workdir that is made.", required=True
)
_ACTIVATION = flags.DEFINE_enum(
  "activation",
  None,
  ("gelu_tanh", "gelu_exact"),
  "Whatever the source's config says. A config that says gelu means the exact"
  " one in Hugging Face and that of the tanh in TF1.",
)
_LOWER_CASE = flags.DEFINE_bool(
  "lower_case",
  None,
  "Whether text is lower-cased; by default what the source says, or what its"
  " vocabulary looks like.",
)
_ALLOW_PICKLE = flags.DEFINE_bool(
  "allow_pickle",
  False,
  "Read pytorch_model.bin where there is no model.safetensors; needs torch,"
  " whose weights-only loader reads it.",
)


def main():
  for flag in (_SOURCE, _OUTPUT_DIR):
    if not flag.value:
      raise errors.InputError(f"--{flag.name} is empty.")
  # TensorFlow takes seconds to import; wrong flags are told before.
  from mslt_tf import finished_model
  from mslt_tf.interop import imports

  model = imports.load(
    _SOURCE.value,
    format_name=_FORMAT.value,
    activation=_ACTIVATION.value,
    lower_case=_LOWER_CASE.value,
    allow_pickle=_ALLOW_PICKLE.value,
  )
  is_written = finished_model.save_imported(model, _OUTPUT_DIR.value)
  print(f"{'imported to' if is_written else 'already in'} {_OUTPUT_DIR.value}")


if __name__ == "__main__":
  command_line.run(main)
