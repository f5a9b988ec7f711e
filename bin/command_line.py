"""What every binary does before and after its own work.

Import this module first: it makes `mslt_tf` importable from a plain checkout
and must set what TensorFlow reads from the environment before it is loaded.
"""

import logging as stdlib_logging
import os
import platform
import select
import sys
import warnings
from collections.abc import Callable, Sequence

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if platform.machine() == "x86_64":
  # By itself TensorFlow takes oneDNN's kernels only where the processor has
  # instructions for neural networks; they are faster without them too.
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# TensorFlow Addons announces its end of life at every import.
warnings.filterwarnings("ignore", module="tensorflow_addons")

from absl import app  # noqa: E402
from absl import flags  # noqa: E402
from absl import logging  # noqa: E402

from mslt_tf import errors  # noqa: E402

# As shells report a program that SIGPIPE ended.
_STATUS_OF_BROKEN_PIPE = 141


def run(main: Callable[[], None]) -> None:
  """Parses flags, runs `main` and exits; wrong input is one line on stderr."""
  try:
    app.run(lambda _: _report_errors(main), flags_parser=_parse_flags)
  except BrokenPipeError:
    if not _is_reader_gone():
      raise
    # Whoever read the output, such as `head`, has seen enough. Python would
    # complain when it flushes what is left.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(_STATUS_OF_BROKEN_PIPE)


def read_text(flag: str, path: str) -> str:
  """Returns a text file's content; knows bucket paths such as gs://."""
  if "://" in path:
    return _read_remote_text(flag, path)
  try:
    # A lone CR is no end of a line, as it is none in a bucket.
    with open(path, encoding="utf-8", newline="") as file:
      return file.read()
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, "strerror", None) or str(error)
    raise errors.InputError(
      f"{flag}={path} cannot be read: {reason}."
    ) from None


def refuse(flag: flags.FlagHolder, where: str) -> None:
  """Raises `InputError` where a flag was given that changes nothing."""
  value = flag.value
  if not flag.present or value in (None, "", []):
    return
  text = ",".join(map(str, value)) if isinstance(value, list) else value
  raise errors.InputError(f"--{flag.name}={text} is of no effect {where}.")


def write_text(path: str, text: str) -> None:
  """Writes a file, or prints where there is no path."""
  if not path:
    sys.stdout.write(text)
    return
  with open(path, "w", encoding="utf-8") as file:
    file.write(text)


def check_writable(flag: str, path: str) -> None:
  """Minutes of work are not to be lost where a file cannot be written."""
  try:
    with open(path, "a", encoding="utf-8"):
      pass
  except OSError as error:
    raise errors.InputError(
      f"{flag}={path} cannot be written: {error.strerror}."
    ) from None


def _read_remote_text(flag: str, path: str) -> str:
  import tensorflow as tf

  try:
    with tf.io.gfile.GFile(path) as file:
      return file.read()
  except (tf.errors.OpError, UnicodeDecodeError) as error:
    reason = errors.first_line(error)
    raise errors.InputError(f"{flag}={path} cannot be read: {reason}") from None


def _is_reader_gone() -> bool:
  poll = select.poll()
  poll.register(sys.stdout.fileno(), 0)
  return any(event & select.POLLERR for _, event in poll.poll(0))


def _report_errors(main: Callable[[], None]) -> None:
  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().setFormatter(
    stdlib_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
  )
  # TensorFlow tells of every collective, and of deprecated names in packages
  # that are not ours.
  stdlib_logging.getLogger("tensorflow").setLevel(stdlib_logging.ERROR)
  try:
    main()
    sys.stdout.flush()
  except errors.TerminatedError as error:
    print(f"{_program()}: {error}", file=sys.stderr)
    sys.exit(error.exit_status)
  except (errors.InputError, errors.LostWorkerError) as error:
    _fail(str(error), status=error.exit_status)
  except KeyboardInterrupt:
    _fail("interrupted; run the same command again.", status=130)


def _parse_flags(argv: Sequence[str]) -> list[str]:
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    _fail(" ".join(str(error).split()), status=2)
  if flags.FLAGS["help"].value or flags.FLAGS["helpfull"].value:
    return rest
  if len(rest) > 1:
    _fail(f"unexpected argument {rest[1]!r}; flags are --name=value.", status=2)
  return rest


def _fail(message: str, *, status: int = 1) -> None:
  print(f"{_program()}: error: {message}", file=sys.stderr)
  sys.exit(status)


def _program() -> str:
  return os.path.basename(sys.argv[0])
