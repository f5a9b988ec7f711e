"""The errors that are not defects of this package.

The binaries print their message as one line, without a traceback, and exit with
the error's `exit_status`. Every other exception keeps its traceback.
"""


class InputError(ValueError):
  """A file, flag or config field that cannot be used as it is.

  The message names the thing, its value and the rule.
  """

  exit_status = 1


class UnavailableError(InputError):
  """What cannot be read or written now, and can be when that is mended.

  Nothing that was finished is lost.
  """


# Kubeflow's training operator takes it as "worth another try".
_TRY_AGAIN = 138


class BusyError(UnavailableError):
  """Another process is at work there; when it has ended this one can begin."""

  exit_status = _TRY_AGAIN


class LostWorkerError(RuntimeError):
  """Another worker died or cannot be reached; starting all again continues."""

  exit_status = _TRY_AGAIN


class TerminatedError(RuntimeError):
  """SIGTERM came and everything is saved; starting again continues."""

  exit_status = 143  # What a shell reports for a process that SIGTERM ended.


def first_line(error: BaseException) -> str:
  """Returns what an error says, without what TensorFlow adds below it.

  Its type's name, where it says nothing.
  """
  lines = str(error).splitlines()
  return lines[0] if lines else type(error).__name__
