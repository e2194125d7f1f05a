"""Keep the output of converters and quantizers off the terminal."""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def capture_output() -> Iterator[None]:
    """Capture stdout and stderr of the process, C++ code included; write it to stderr only if the block raises."""
    with tempfile.TemporaryFile() as collected, contextlib.ExitStack() as stack:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor in (1, 2):
            stack.callback(_restore, os.dup(descriptor), descriptor)
            os.dup2(collected.fileno(), descriptor)
        try:
            yield
        except BaseException:
            stack.close()
            collected.seek(0)
            os.write(2, collected.read())
            raise


def _restore(saved: int, descriptor: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(saved, descriptor)
    os.close(saved)


@contextlib.contextmanager
def suppress_warnings() -> Iterator[None]:
    """Run a block without Python warnings and log messages up to WARNING, on which a user of converters could not act."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)
