"""Every error that Edgewise raises on purpose, and the exit code of the command that it ends.

    EdgewiseError              exit 1   a result file is missing, damaged, or of another schema
    |-- UserError              exit 2   the user can fix it: a setting, a file, a picture
    |   |-- ConfigError                 params.yaml, conf/ or an override
    |   |-- DataError                   the user's data set
    |   `-- ModelError                  the user's model, weights or callable
    |-- InfrastructureError    exit 3   the machine or the network: never recorded as a result
    |   |-- MissingExtra                a package that an extra of Edgewise installs
    |   |-- StorageError                disk full, no permission
    |   `-- DeviceError                 the device or the link to it; `fault` tells which
    `-- VariantFailed          exit 0   deterministic: recorded in the variant's manifest, the other variants go on
        `-- OutputsDiffer               a part of an output is dead, or too far from the source's

A command that succeeds exits with 0, one that the user interrupts (Ctrl-C) with 130. Any other exception is a bug: Python prints its
traceback and exits with 1. Every message names the bad value, what is allowed and the next step. Only `run_main` exits.
"""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class EdgewiseError(Exception):
    """The base class. A subclass sets `exit_code`, with which `run_main` exits."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the attributes too: subclasses whose constructor takes other arguments than the message must cross process boundaries."""
        return _restore, (type(self), self.args, vars(self))


def _restore(kind: type[EdgewiseError], arguments: tuple[Any, ...], state: dict[str, Any]) -> EdgewiseError:
    error = kind.__new__(kind, *arguments)
    vars(error).update(state)
    return error


class UserError(EdgewiseError):
    """The user can fix it."""

    exit_code = 2


class ConfigError(UserError):
    """A setting in params.yaml, in conf/ or on the command line has a value that is not allowed."""


class DataError(UserError):
    """The user's data set cannot be read, or does not hold what the task needs."""


class ModelError(UserError):
    """The user's model, weights or callable cannot be used."""


class InfrastructureError(EdgewiseError):
    """The machine or the network failed. The same command may succeed later, so this is never recorded as a result."""

    exit_code = 3


class MissingExtra(InfrastructureError):
    """An import failed because the extra of Edgewise that installs the package is not installed."""

    def __init__(self, package: str, extra: str):
        pinned = "-c constraints.txt " if Path("constraints.txt").is_file() else ""  # in a checkout; other projects have no such file
        super().__init__(f"'{package}' is not installed; install it with: pip install {pinned}'edgewise[{extra}]'")


class StorageError(InfrastructureError):
    """The disk is full, or a file or folder cannot be written."""


class DeviceError(InfrastructureError):
    """The device did not deliver. `fault` is a key of agent.protocol.FAULTS."""

    def __init__(self, fault: str, message: str):
        super().__init__(f"{fault}: {message}")
        self.fault = fault


class VariantFailed(EdgewiseError):
    """A variant cannot be made, judged or measured, and never will be from the same inputs. Recorded as its result."""

    exit_code = 0


class OutputsDiffer(VariantFailed):
    """A part of an output of the variant is dead, or too far from the source's. output: its name; span: elements of the axis on which the
    part lies, where it starts and stops; zeros for the whole output."""

    def __init__(self, message: str, output: str, span: tuple[int, int, int]):
        super().__init__(message)
        self.output, self.span = output, span


PIPE_CLOSED = 141  # as of a program that SIGPIPE ends
STORAGE_ERRNOS = {
    errno.ENOSPC: "free some space, then run the same command again",
    errno.EDQUOT: "the quota is used up: free some space, then run the same command again",
    errno.EACCES: "make the folder writable for this user, then run the same command again",
    errno.EROFS: "the file system is read-only: move the project to a writable one",
}


def run_main(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with its return value, or with the exit code of the error that it raises; the message goes to stderr."""
    try:
        code = main()
        sys.stdout.flush()  # here, and not when Python ends: the reader may be gone
    except EdgewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:  # `edgewise report | head`: nobody reads the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python flushes to when it ends
        code = PIPE_CLOSED
    except OSError as error:
        if error.errno not in STORAGE_ERRNOS:
            raise
        print(f"error: {error.strerror}: {error.filename or 'while writing'}; {STORAGE_ERRNOS[error.errno]}", file=sys.stderr)
        code = StorageError.exit_code
    except KeyboardInterrupt:
        print("interrupted; no partial results were left behind; run the same command again to continue", file=sys.stderr)
        code = 130
    sys.exit(code or 0)
