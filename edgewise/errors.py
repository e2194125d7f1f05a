"""Every error that Edgewise raises on purpose, and what becomes of it.

    EdgewiseError            exit 1
    |-- UserError            exit 2   the user can mend it: a setting, a file, a picture
    |   |-- ConfigError               params.yaml, conf/ or an override
    |   |-- DataError                 the user's data set
    |   `-- ModelError                the user's model, weights or callable
    |-- SurroundingsError    exit 3   the machine or the network: never recorded as a result
    |   |-- MissingExtra              a package that an extra of Edgewise installs
    |   |-- StorageError              disk full, no permission
    |   `-- DeviceError               the device or the way to it; `fault` tells which
    `-- VariantFailed        exit 0   deterministic: recorded in the variant's manifest, the others go on

A message names the bad value, what is allowed and the next step. Only `run_main` turns one into an exit code.
"""

import errno
import sys
from collections.abc import Callable
from typing import Any


class EdgewiseError(Exception):
    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Between processes, also for those below that are built from other things than their message."""
        return _restore, (type(self), self.args, vars(self))


def _restore(kind: type[EdgewiseError], arguments: tuple[Any, ...], state: dict[str, Any]) -> EdgewiseError:
    error = kind.__new__(kind, *arguments)
    vars(error).update(state)
    return error


class UserError(EdgewiseError):
    exit_code = 2


class ConfigError(UserError):
    pass


class DataError(UserError):
    pass


class ModelError(UserError):
    pass


class SurroundingsError(EdgewiseError):
    exit_code = 3


class MissingExtra(SurroundingsError):
    """An import that failed because an extra is not installed."""

    def __init__(self, package: str, extra: str):
        super().__init__(f"'{package}' is not installed; install it with: pip install -c constraints.txt -e '.[{extra}]'")


class StorageError(SurroundingsError):
    pass


class DeviceError(SurroundingsError):
    """The device did not deliver. `fault` is one word out of agent.protocol.FAULTS."""

    def __init__(self, fault: str, message: str):
        super().__init__(f"{fault}: {message}")
        self.fault = fault


class VariantFailed(EdgewiseError):
    exit_code = 0


STORAGE_ERRNOS = {
    errno.ENOSPC: "free some space, then run the same command again",
    errno.EDQUOT: "the quota is used up: free some space, then run the same command again",
    errno.EACCES: "make the folder writable for this user, then run the same command again",
    errno.EROFS: "the file system is read-only: move the project to a writable one",
}


def run_main(main: Callable[[], int | None]) -> None:
    """Call `main` and leave the process: one clean message instead of a traceback for what a user can understand."""
    try:
        code = main()
    except EdgewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except OSError as error:
        if error.errno not in STORAGE_ERRNOS:
            raise
        print(f"error: {error.strerror}: {error.filename or 'while writing'}; {STORAGE_ERRNOS[error.errno]}", file=sys.stderr)
        code = StorageError.exit_code
    except KeyboardInterrupt:
        print("interrupted; nothing half made is left, run the same command again to go on", file=sys.stderr)
        code = 130
    sys.exit(code or 0)
