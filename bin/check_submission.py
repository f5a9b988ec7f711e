"""Checks a submission before it is sent to the GLUE server.

Example:

  python bin/check_submission.py --submission=runs/glue/base_mslt/submission.zip
"""

import command_line
from absl import flags

_SUBMISSION = flags.DEFINE_string(
  "submission", None, "Zip file, or a directory of the files.", required=True
)
_DATA_DIR = flags.DEFINE_string(
  "data_dir", "", "GLUE; by default the official counts of rows are asked for."
)


def main():
  # TensorFlow takes seconds to import.
  from mslt_tf.glue import submission

  submission.check(_SUBMISSION.value, _DATA_DIR.value)
  print(f"{_SUBMISSION.value} has what the GLUE server takes")


if __name__ == "__main__":
  command_line.run(main)
