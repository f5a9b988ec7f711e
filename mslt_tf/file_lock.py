"""Keeps a second process out of a directory where one is at work."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from absl import logging

from mslt_tf import errors

# What network file systems without locks say.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def held(path: str, *, busy: str) -> Iterator[int]:
  """Holds a lock on a file until the end of the context, or of the process.

  Where the file system has no locks, a line says so and nobody is kept out.

  Args:
    path: A local file, made if it is not there and never removed: who holds a
      file that was removed keeps nobody out.
    busy: What the error says where another process holds it.

  Yields:
    The file descriptor. A process that inherits it holds the lock, too.

  Raises:
    errors.BusyError: Another process holds it.
    OSError: The file cannot be made.
  """
  lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
  try:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise errors.BusyError(busy) from None
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise
      logging.warning(
        "%s: there are no locks here (%s); see that no second process works in"
        " this directory",
        path,
        error.strerror,
      )
    yield lock
  finally:
    os.close(lock)
