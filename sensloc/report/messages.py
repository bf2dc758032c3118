"""An error that a user can mend, as one message on the terminal."""

import errno
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from sensloc.errors import SenslocError, one_line

REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT)
"""Errors of a place that cannot be read or written, whatever the program does."""


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Log what this package does to stderr, and end at a known error with a message and code 1."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("sensloc").setLevel(logging.INFO)  # other libraries' news is none of a run
    try:
        yield
    except SenslocError as error:
        # Ray raises a worker's error again as a subclass whose text is the worker's traceback,
        # and adds advice on retries
        advice = re.compile(r"(\n|\\n)Failed to apply UDF.*", re.DOTALL)
        sys.exit(f"error: {advice.sub('', str(getattr(error, 'cause', error)))}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        sys.exit(f"error: {where}: {first['msg']} (got {first['input']!r})")
    except OSError as error:
        cause = getattr(error, "cause", error)
        if not isinstance(cause, PermissionError) and cause.errno not in REFUSED:
            raise
        sys.exit(
            f"error: {one_line(str(cause))}: choose a folder that you may read and write: --output "
            "for what a command writes, --data for the data set"
        )
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on from here")
