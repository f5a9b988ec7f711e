"""Compares runs, finished or still going, in report.html and figures.

Example:

  python bin/compare_runs.py --runs=/tmp/baseline,/tmp/mslt \\
    --output_dir=/tmp/comparison

The first run is the baseline that the others are measured against. The report
is one file that needs no network; report.md, comparison.json, comparison.png
and schedules.png lie beside it. --finetuning adds results of bin/finetune.py.
docs/compare.md tells more.
"""

import os
import sys

import command_line
from absl import flags

_RUNS = flags.DEFINE_list(
  "runs",
  None,
  "Workdirs of runs, comma separated, each WORKDIR or NAME=WORKDIR.",
  required=True,
)
_FINETUNING = flags.DEFINE_list(
  "finetuning", [], "Workdirs of bin/finetune.py, comma separated."
)
_OUTPUT_DIR = flags.DEFINE_string(
  "output_dir", None, "Where report.html and the rest go.", required=True
)


def main():
  # TensorFlow takes seconds to import; wrong flags are told before.
  from mslt_tf.analysis import report_files
  from mslt_tf.analysis import workdirs

  text, problems = report_files.write(
    workdirs.read_all(_RUNS.value), _FINETUNING.value, _OUTPUT_DIR.value
  )
  for problem in problems:
    print(f"compare_runs.py: {problem}", file=sys.stderr)
  print(text)
  print(f"\nReport: {os.path.join(_OUTPUT_DIR.value, 'report.html')}")


if __name__ == "__main__":
  command_line.run(main)
