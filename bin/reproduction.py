"""Repeats the paper's comparison at a size that two cores can train.

Examples; bin/reproduce makes the environment, then runs this:

  bin/reproduce                          all of it, in order
  bin/reproduce --only=mslt              a row of the tables: all its seeds
  bin/reproduce --only=mslt_0,baseline_0 runs
  bin/reproduce --check                  a shortened part, against the records

Run again after an interruption, it goes on. The text comes from pip packages;
GLUE's official files, given by --glue_dir, are fine-tuned on too.
"""

import math
import os
import sys

import command_line
from absl import flags

from mslt_tf import errors
from mslt_tf import processor

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_WORKDIR = flags.DEFINE_string(
  "workdir",
  os.path.join(_ROOT, "reproduction"),
  "Where data, runs and logs go.",
)
_RECORDS = flags.DEFINE_string(
  "records",
  "",
  "Where the small files of finished runs are kept, by default records/ in the"
  " workdir; for --check what to compare with, by default docs/results.",
)
_PAGE = flags.DEFINE_string(
  "page", "", "A page such as docs/results.md whose tables are replaced."
)
_GLUE_DIR = flags.DEFINE_string(
  "glue_dir", "", "GLUE as its download unpacks it: CoLA, MRPC, STS-B and RTE."
)
_ONLY = flags.DEFINE_list(
  "only",
  [],
  "Only these and what they need: rows of the tables such as mslt, or jobs such"
  " as mslt_0, fine_tuning_mslt_0, attention_mslt_0, benchmark_mslt.",
)
_LIST = flags.DEFINE_bool("list", False, "Print the commands; run none.")
_CHECK = flags.DEFINE_bool(
  "check", False, "Repeat the beginnings of two runs and compare their losses."
)
_PARALLEL = flags.DEFINE_integer(
  "parallel",
  1,
  "How many jobs run at once, each on its share of the cores: 2 on two cores"
  " get more done than one after the other.",
  lower_bound=1,
)
_MAX_HOURS = flags.DEFINE_float(
  "max_hours", None, "Stop after so long; run again, it goes on.", lower_bound=0
)


def main():
  if _ONLY.present and not _ONLY.value:
    raise errors.InputError("--only= names no job.")
  if _MAX_HOURS.value is not None and math.isnan(_MAX_HOURS.value):
    raise errors.InputError("--max_hours=nan must be a number of hours.")
  if _PARALLEL.value > processor.num_cores():
    raise errors.InputError(
      f"--parallel={_PARALLEL.value} must be at most {processor.num_cores()},"
      " the number of cores."
    )
  if _CHECK.value:
    for flag in (_ONLY, _LIST, _MAX_HOURS, _PARALLEL, _PAGE):
      command_line.refuse(flag, "with --check")
  if _LIST.value:
    for flag in (_MAX_HOURS, _PARALLEL, _PAGE):
      command_line.refuse(flag, "with --list")
  workdir = _in_project(_WORKDIR.value)
  if _CHECK.value:
    records = _RECORDS.value or os.path.join(_ROOT, "docs/results")
  else:
    records = _RECORDS.value or os.path.join(_WORKDIR.value, "records")
  records, page, glue_dir = map(
    _in_project, (records, _PAGE.value, _GLUE_DIR.value)
  )
  # Commands and what they record name files as they are called here.
  os.chdir(_ROOT)
  # TensorFlow takes seconds to import; wrong flags are told before.
  from mslt_tf.reproduction import jobs
  from mslt_tf.reproduction import reproduce

  reproduction = reproduce.Reproduction(
    jobs.Places(workdir, records), glue_dir=glue_dir, only=_ONLY.value
  )
  if _LIST.value:
    print(reproduction.describe())
  elif _CHECK.value:
    text, is_repeated = reproduction.check()
    print(text)
    if not is_repeated:
      sys.exit(1)
  else:
    print(
      reproduction.run(
        page=page,
        max_hours=_MAX_HOURS.value,
        num_parallel=_PARALLEL.value,
      )
    )


def _in_project(path: str) -> str:
  """Returns a path as it is called in the project's folder."""
  path = path and os.path.abspath(path)
  if path.startswith(os.path.join(_ROOT, "")):
    return os.path.relpath(path, _ROOT)
  return path


if __name__ == "__main__":
  command_line.run(main)
