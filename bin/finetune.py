"""Fine-tunes pre-trained models on GLUE and prints the paper's tables.

Examples:

  python bin/finetune.py --task=cola,mrpc --data_dir=GLUE \\
    --checkpoint=runs/base_mslt,runs/base_baseline --workdir=runs/glue
  python bin/finetune.py --task=reviews --checkpoint=runs/small_mslt \\
    --workdir=runs/reviews --set=learning_rates=[3e-4] --set=seeds=[1,2,3]
  python bin/finetune.py --train=train.tsv --dev=dev.tsv --text=body \\
    --checkpoint=runs/small_mslt --workdir=runs/own

Run again, it goes on after the last finished run. `--dry_run` prints the runs.
Without --config the protocol is the paper's, as in configs/glue.yaml.
docs/glue.md tells more.
"""

import command_line
from absl import flags

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf.glue import protocol
from mslt_tf.glue import tasks

_TASK = flags.DEFINE_list(
  "task",
  [],
  f"Tasks, of {', '.join([*tasks.GLUE, tasks.REVIEWS.name])}. With --train,"
  " the name of your own.",
)
_DATA_DIR = flags.DEFINE_string(
  "data_dir",
  "",
  "GLUE as its download unpacks it, or tfds:[DIR]; task reviews needs none.",
)
_CHECKPOINT = flags.DEFINE_list(
  "checkpoint",
  None,
  "Workdirs of pre-trained models, each WORKDIR or NAME=WORKDIR; tables show"
  " the name, by default the folder's.",
  required=True,
)
_STAGE = flags.DEFINE_integer(
  "stage", None, "Which finished stage of them, from 1; by default the last."
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Where the runs write; finished ones found there are kept."
)
_CONFIG = flags.DEFINE_string("config", None, "YAML file of the protocol.")
_SET = flags.DEFINE_multi_string(
  "set", [], "field=value: replaces a field of the protocol."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the runs; make none.")
_SUBMISSION = flags.DEFINE_bool(
  "submission", False, "Answer the test sets for the GLUE server."
)

_TRAIN = flags.DEFINE_string("train", "", "Training file of your own task.")
_DEV = flags.DEFINE_string("dev", "", "File that it is evaluated on.")
_TEXT = flags.DEFINE_string(
  "text", "text", "Its column of texts: a name, or a place from 0."
)
_SECOND_TEXT = flags.DEFINE_string(
  "second_text", "", "Its column of second texts, if it has pairs."
)
_LABEL = flags.DEFINE_string("label", "label", "Its column of labels.")
_LABEL_TYPE = flags.DEFINE_enum(
  "label_type", "classes", ("classes", "regression"), "What its labels are."
)
_LABELS = flags.DEFINE_list(
  "labels", [], "Its classes; by default those of the training file."
)
_FILE_FORMAT = flags.DEFINE_enum(
  "file_format",
  None,
  ("tsv", "csv", "jsonl"),
  "Of its files; by default what their names end in.",
)
_HEADER = flags.DEFINE_bool(
  "header", True, "Whether its TSV and CSV files begin with column names."
)
_METRIC = flags.DEFINE_enum(
  "metric",
  None,
  ("accuracy", "f1", "matthews", "pearson", "spearman"),
  "What its table shows; by default accuracy, or Spearman's correlation.",
)

_OF_OWN_TASK = (
  _TEXT,
  _SECOND_TEXT,
  _LABEL,
  _LABEL_TYPE,
  _LABELS,
  _FILE_FORMAT,
  _HEADER,
  _METRIC,
)


def main():
  if not _DRY_RUN.value and not _WORKDIR.value:
    raise errors.InputError("--workdir is missing; only --dry_run needs none.")
  if bool(_TRAIN.value) != bool(_DEV.value):
    raise errors.InputError("--train and --dev go together.")
  if _TRAIN.value and _DATA_DIR.value:
    raise errors.InputError(
      f"--data_dir={_DATA_DIR.value} is where GLUE's tasks are; --train and"
      " --dev are whole paths."
    )
  if not _TRAIN.value:
    for flag in _OF_OWN_TASK:
      command_line.refuse(flag, "without --train")
  text = "{}"
  if _CONFIG.value:
    text = command_line.read_text("--config", _CONFIG.value)
  chosen = config_lib.load_flat(
    protocol.Protocol,
    text,
    source=_CONFIG.value or "protocol",
    overrides=_SET.value,
  )
  glue = [] if _TRAIN.value else [tasks.get(name) for name in _TASK.value]
  if not glue and not _TRAIN.value:
    raise errors.InputError("--task is missing; --task=reviews needs no data.")
  # TensorFlow takes seconds to import; wrong flags are told before.
  from mslt_tf.finetune import finetune
  from mslt_tf.finetune import submitting
  from mslt_tf.training import run_directory

  finetuning = finetune.FineTuning(
    glue or [_own_task()],
    data_dir=_DATA_DIR.value,
    checkpoints=run_directory.by_name("--checkpoint", _CHECKPOINT.value),
    stage=_STAGE.value,
    protocol=chosen,
  )
  if _DRY_RUN.value:
    print(finetuning.describe())
    return
  if _SUBMISSION.value:
    submitting.check(finetuning)
  print(finetuning.run(_WORKDIR.value))
  if _SUBMISSION.value:
    print(f"\n{submitting.write_all(finetuning, _WORKDIR.value)}")
  if finetuning.diverged:
    raise errors.InputError(
      f"{len(finetuning.diverged)} of {len(finetuning.runs)} runs diverged:"
      f" {finetuning.diverged[0]}"
    )


def _own_task() -> tasks.Task:
  from mslt_tf.glue import own_tasks

  return own_tasks.make(
    _TRAIN.value,
    _DEV.value,
    name=",".join(_TASK.value) or "own",
    text=_TEXT.value,
    second_text=_SECOND_TEXT.value,
    label=_LABEL.value,
    label_type=_LABEL_TYPE.value,
    labels=_LABELS.value,
    file_format=_FILE_FORMAT.value,
    has_header=_HEADER.value,
    headline=_METRIC.value,
  )


if __name__ == "__main__":
  command_line.run(main)
