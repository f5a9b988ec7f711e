"""The one error that means "the user can mend this"."""


class InputError(ValueError):
  """A file, flag or config field that cannot be used as it is.

  The message is one line that names the thing, its value and the rule. The
  binaries print it without a traceback and exit with status 1; every other
  exception is a defect of this package and keeps its traceback.
  """
