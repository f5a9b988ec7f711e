"""Pre-trains BERT by the schedule of a config; run again, it continues.

Example:

  python bin/pretrain.py --config=configs/small_mslt.yaml \\
    --workdir=/tmp/small_mslt --set=data.directory=/tmp/shards

`--dry_run` prints the resolved config, the stages and what they cost, and
trains nothing. Several workers run the same command, each with its TF_CONFIG.
SIGTERM finishes the step and saves (status 143); a lost worker ends the others
(status 138): start all again. docs/jobs.md tells more.
"""

import math
import time

import command_line

STARTED = time.monotonic()

from absl import flags  # noqa: E402

from mslt_tf import config as config_lib  # noqa: E402
from mslt_tf import errors  # noqa: E402
from mslt_tf import outline  # noqa: E402

_CONFIG = flags.DEFINE_string(
  "config", None, "YAML file of the run.", required=True
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Where the run writes; a run found there is continued."
)
_SET = flags.DEFINE_multi_string(
  "set", [], "section.field=value: replaces a field of the config."
)
_DRY_RUN = flags.DEFINE_bool(
  "dry_run", False, "Print config, stages and predicted cost; train nothing."
)
_MAX_HOURS = flags.DEFINE_float(
  "max_hours",
  math.inf,
  "Stop with a checkpoint before this much wall time has passed; the same"
  " command continues.",
)


def main():
  if not _MAX_HOURS.value > 0:
    raise errors.InputError(f"--max_hours={_MAX_HOURS.value} must be above 0.")
  if not _DRY_RUN.value and not _WORKDIR.value:
    raise errors.InputError("--workdir is missing; only --dry_run needs none.")
  config = config_lib.load(
    command_line.read_text("--config", _CONFIG.value),
    source=_CONFIG.value,
    overrides=_SET.value,
  )
  if _DRY_RUN.value:
    print(outline.describe_run(config))
    return
  # TensorFlow takes seconds to import; wrong flags are told before.
  from mslt_tf import pretrain

  is_finished = pretrain.run(
    config,
    _WORKDIR.value,
    max_seconds=_MAX_HOURS.value * 3600,
    started=STARTED,
  )
  if is_finished:
    print(f"finished; see {_WORKDIR.value}/summary.json")
  else:
    print(
      f"stopped after --max_hours={_MAX_HOURS.value}; run again to continue"
    )


if __name__ == "__main__":
  command_line.run(main)
