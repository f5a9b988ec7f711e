"""Measures how long the steps of a config's stages take, against the baseline.

For example, BERT-Base on a machine without a GPU:

  python bin/benchmark.py --config=configs/base_mslt.yaml \\
    --set=data.batch_size=16 --set=training.precision=mixed_bfloat16 \\
    --peers=model_garden --output=benchmark.json

No data is read: the examples are random. Every stage and every peer has a
process of its own, all of them in memory at once (BERT-Base at batch 16: 12
GB), and they take turns.
"""

import command_line  # isort: skip

import json

from absl import flags

from mslt_tf import config as config_lib
from mslt_tf.benchmark import contestants

_CONFIG = flags.DEFINE_string(
  "config", None, "YAML file of the run.", required=True
)
_SET = flags.DEFINE_multi_string(
  "set", [], "section.field=value: replaces a field of the config."
)
_PEERS = flags.DEFINE_multi_enum(
  "peers",
  [],
  contestants.PEERS,
  "What else to measure, as often as it is given: tf-models-official, or"
  " PyTorch with transformers, run eagerly or compiled (extra `interop`).",
)
_ROUNDS = flags.DEFINE_integer(
  "rounds", 7, "Turns of each; medians are over them.", lower_bound=2
)
_STEPS = flags.DEFINE_integer(
  "steps", 1, "Training steps of a turn.", lower_bound=1
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "The JSON file to write.", required=True
)


def main() -> None:
  config = config_lib.load(
    command_line.read_text("--config", _CONFIG.value),
    source=_CONFIG.value,
    overrides=_SET.value,
  )
  command_line.check_writable("--output", _OUTPUT.value)
  # TensorFlow takes seconds to import; wrong flags are told before. Nor do the
  # processes of others want it, which import this file.
  from mslt_tf.benchmark import benchmark

  result = benchmark.run(
    config,
    peers=_PEERS.value,
    num_rounds=_ROUNDS.value,
    steps_per_turn=_STEPS.value,
  )
  with open(_OUTPUT.value, "w", encoding="utf-8") as file:
    json.dump(result, file, indent=1)
  print(benchmark.summary(result))


if __name__ == "__main__":
  command_line.run(main)
