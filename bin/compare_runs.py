"""Compares finished runs: a table, comparison.json and loss curves as PNG.

Example:

  python bin/compare_runs.py --runs=/tmp/baseline,/tmp/mslt \\
    --output_dir=/tmp/comparison

Speedups are against the first run.
"""

import os

import command_line
from absl import flags

from mslt_tf import errors

_RUNS = flags.DEFINE_list(
  "runs", None, "Workdirs of finished runs, comma separated.", required=True
)
_OUTPUT_DIR = flags.DEFINE_string(
  "output_dir", None, "Where comparison.json and .png go.", required=True
)


def main():
  # TensorFlow takes seconds to import; wrong flags are told before.
  from mslt_tf.analysis import comparison
  from mslt_tf.training import run_directory

  runs = [comparison.read_run(workdir) for workdir in _RUNS.value]
  names = [run.name for run in runs]
  for name in names:
    if names.count(name) > 1:
      raise errors.InputError(
        f"--runs: two workdirs are called {name}; their last parts must differ."
      )
  compared = comparison.compare(runs)
  run_directory.RunDirectory(_OUTPUT_DIR.value).write_json(
    "comparison.json", compared
  )
  comparison.plot(runs, os.path.join(_OUTPUT_DIR.value, "comparison.png"))
  print(comparison.table(compared))


if __name__ == "__main__":
  command_line.run(main)
