"""Keep the converters' chatter, most of it printed by C++, off the terminal, and show it when they fail."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Collect what is written to the process's stdout and stderr; pass it on to stderr only when the block raises."""
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
