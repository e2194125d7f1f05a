"""Other programs, as a sweep runs them: git for an answer, DVC on a leash with its output in a log."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from stages.core.errors import SurroundingsError
from stages.sweeping import leash

DVC = (sys.executable, "-m", "dvc")
TAIL_BYTES = 2000


def git(folder: Path, *arguments: str, **environment: str) -> str:
    """What git prints. SurroundingsError with its own words where it fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise SurroundingsError(f"git {arguments[0]} failed in {folder}: {last_words(done.stderr)}")
    return done.stdout.rstrip("\n")


def run(command: tuple[str, ...], folder: Path, log: Path, code: Path | None = None) -> None:
    """Run a command in `folder`, in a process group of its own that does not outlive this process.

    code: where `stages` is imported from, if not there. The output is added to `log`. SurroundingsError with what the
    command said last where its exit code is not 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, leash.__file__, *command],
            cwd=folder,
            env=environment(code or folder),
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if status:
        said = log.read_bytes()[start:][-TAIL_BYTES:].decode(errors="replace")
        raise SurroundingsError(f"`{' '.join(command[2:4])}` {ended(status)}: {last_words(said)} (see {log})")


def ended(status: int) -> str:
    """leash.py gives the signal that ended its command as 128 + its number; Popen that of leash.py itself as a negative number."""
    number = -status if status < 0 else status - 128
    if number not in set(signal.Signals):
        return f"ended with exit code {status}"
    return f"was ended by {signal.Signals(number).name}, as schedulers do by scancel or at the time limit"


def environment(code: Path) -> Mapping[str, str]:
    """So that `python` is this one, and `stages` those of `code`."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    modules = os.pathsep.join(filter(None, (str(code), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PATH": path, "PYTHONPATH": modules}


def last_words(text: str) -> str:
    """The line that tells what went wrong: the last one that says error, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "fatal"))]
    return " | ".join(errors[-3:]) or (lines[-1] if lines else "it printed nothing")
