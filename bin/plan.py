"""Predicts time, memory, traffic and cost of a run on a described cluster.

For example the paper's run, beside baseline and progressive stacking:

  python bin/plan.py --config=configs/base_mslt.yaml \\
    --cluster=configs/clusters/v100_32.yaml --output=/tmp/plan.json

`--devices=1,32,1024` compares numbers of devices, `--search` looks for
schedules, `--check_paper` predicts the paper's hours and needs no config.
docs/planner.md tells more. Nothing is trained.
"""

import json

import command_line
from absl import flags

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf.planning import cluster as cluster_lib
from mslt_tf.planning import planner
from mslt_tf.planning import search

_CONFIG = flags.DEFINE_string("config", None, "YAML file of the run.")
_SET = flags.DEFINE_multi_string(
  "set", [], "section.field=value: replaces a field of the config."
)
_CLUSTER = flags.DEFINE_string(
  "cluster", None, "YAML file of the devices.", required=True
)
_SET_CLUSTER = flags.DEFINE_multi_string(
  "set_cluster", [], "field=value: replaces a field of the cluster."
)
_CALIBRATION = flags.DEFINE_string(
  "calibration",
  None,
  "What bin/benchmark.py wrote for the config's model on one such device; its"
  " rates replace the cluster's peak, achieved share and memory bandwidth.",
)
_NUM_GROWING_STAGES = flags.DEFINE_integer(
  "num_growing_stages", 4, "k of the MSLT that the config is compared with."
)
_DEVICES = flags.DEFINE_list(
  "devices", [], "Numbers of devices to compare, separated by commas."
)
_SEARCH = flags.DEFINE_bool(
  "search", False, "Look for the fastest schedules that train enough."
)
_MAX_HOURS = flags.DEFINE_float(
  "max_hours", None, "With --search: the most steps in this time."
)
_MAX_COST = flags.DEFINE_float(
  "max_cost", None, "With --search: the most steps for this money."
)
_MIN_RETRAINING_SHARE = flags.DEFINE_float(
  "min_retraining_share",
  search.Rules.retraining,
  "With --search: least share of the steps that retrain everything.",
)
_MIN_LAYER_SHARE = flags.DEFINE_float(
  "min_layer_share",
  search.Rules.layer,
  "With --search: least share of the steps that train a layer.",
)
_MIN_STAGE_SHARE = flags.DEFINE_float(
  "min_stage_share",
  search.Rules.stage,
  "With --search: least share of the steps of a stage.",
)
_CHECK_PAPER = flags.DEFINE_bool(
  "check_paper", False, "Predict the paper's hours from those of its baselines."
)
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file to write.")


def main() -> None:
  _check_flags()
  if _OUTPUT.value:
    command_line.check_writable("--output", _OUTPUT.value)
  answer = _answer()
  print(answer.text)
  if _OUTPUT.value:
    command_line.write_text(
      _OUTPUT.value, json.dumps(answer.tree, indent=1) + "\n"
    )


def _check_flags() -> None:
  if not _CONFIG.value and not _CHECK_PAPER.value:
    raise errors.InputError(
      "--config is missing; only --check_paper needs none."
    )
  if _SEARCH.value and _DEVICES.value:
    raise errors.InputError("--search and --devices are both given; give one.")
  if not _SEARCH.value:
    for flag in (
      _MAX_HOURS,
      _MAX_COST,
      _MIN_RETRAINING_SHARE,
      _MIN_LAYER_SHARE,
      _MIN_STAGE_SHARE,
    ):
      command_line.refuse(flag, "without --search")
  if _CHECK_PAPER.value:
    for other in (_CONFIG, _SET, _CALIBRATION, _DEVICES, _SEARCH):
      command_line.refuse(other, "with --check_paper")


def _answer() -> planner.Answer:
  cluster = cluster_lib.load(
    command_line.read_text("--cluster", _CLUSTER.value),
    source=_CLUSTER.value,
    overrides=_SET_CLUSTER.value,
  )
  if _CHECK_PAPER.value:
    return planner.check_paper(cluster)
  config = config_lib.load(
    command_line.read_text("--config", _CONFIG.value),
    source=_CONFIG.value,
    overrides=_SET.value,
  )
  calibration = None
  if _CALIBRATION.value:
    calibration = planner.calibrate(
      config,
      command_line.read_text("--calibration", _CALIBRATION.value),
      source=_CALIBRATION.value,
    )
  if _SEARCH.value:
    return planner.search(
      config,
      cluster,
      rules=search.Rules(
        retraining=_MIN_RETRAINING_SHARE.value,
        layer=_MIN_LAYER_SHARE.value,
        stage=_MIN_STAGE_SHARE.value,
      ),
      max_hours=_MAX_HOURS.value,
      max_cost=_MAX_COST.value,
      calibration=calibration,
    )
  if _DEVICES.value:
    return planner.sweep(
      config,
      cluster,
      devices=cluster_lib.numbers_of_devices(_DEVICES.value),
      num_growing_stages=_NUM_GROWING_STAGES.value,
      calibration=calibration,
    )
  return planner.compare(
    config,
    cluster,
    num_growing_stages=_NUM_GROWING_STAGES.value,
    calibration=calibration,
  )


if __name__ == "__main__":
  command_line.run(main)
