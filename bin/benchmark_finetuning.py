"""Fine-tunes a model in transformers by the protocol, to hold ours against.

Example, of the same weights as `import_checkpoint.py` made a workdir of:

  python bin/benchmark_finetuning.py --source=downloads/bert-base-uncased \\
    --task=mrpc,rte --data_dir=GLUE --workdir=runs/glue_peer \\
    --set=learning_rates=[3e-5] --set=seeds=[1,2,3] --set=num_epochs=3

Needs torch and transformers, the extra `interop`. Run again, it goes on.
"""

import command_line
from absl import flags

from mslt_tf import config as config_lib
from mslt_tf.glue import protocol
from mslt_tf.glue import tasks

_SOURCE = flags.DEFINE_string(
  "source",
  None,
  "Directory of a model in Hugging Face's format.",
  required=True,
)
_TASK = flags.DEFINE_list("task", None, "Tasks.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", "", "As of bin/finetune.py.")
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Where results are written.", required=True
)
_CONFIG = flags.DEFINE_string("config", None, "YAML file of the protocol.")
_SET = flags.DEFINE_multi_string(
  "set", [], "field=value: replaces a field of the protocol."
)


def main():
  text = "{}"
  if _CONFIG.value:
    text = command_line.read_text("--config", _CONFIG.value)
  chosen = config_lib.load_flat(
    protocol.Protocol,
    text,
    source=_CONFIG.value or "protocol",
    overrides=_SET.value,
  )
  from mslt_tf.benchmark import fine_tuning_peer

  print(
    fine_tuning_peer.run(
      [tasks.get(name) for name in _TASK.value],
      data_dir=_DATA_DIR.value,
      source=_SOURCE.value,
      protocol=chosen,
      workdir=_WORKDIR.value,
    )
  )


if __name__ == "__main__":
  command_line.run(main)
