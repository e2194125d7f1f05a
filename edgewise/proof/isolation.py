"""Run what a foreign file decides in a process of its own: a file that makes its runtime abort must not take the stage with it."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from edgewise.agent import sessions
from edgewise.agent.sessions import Arrays, run_batched
from edgewise.config.runtimes import own_packages
from edgewise.config.schema import part
from edgewise.errors import EdgewiseError, InfrastructureError, MissingExtra, VariantFailed

T = TypeVar("T")
PASSED_ON = (EdgewiseError, ModuleNotFoundError, OSError)  # raised here as they were there; others end the process with their traceback


def call(function: Callable[..., T], *arguments: Any, aborted: Callable[[str], EdgewiseError]) -> T:
    """function(*arguments), computed in a fresh process; all of it must be picklable.

    aborted(SIGNAL) is raised where the process aborts, InfrastructureError where it was killed or ended otherwise.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        ok, result = receiver.recv()
    except EOFError:
        process.join()
        raise _ended(process.exitcode, aborted) from None
    process.join()
    if not ok:
        raise result
    answer: T = result
    return answer


def _work(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        sender.send((True, function(*arguments)))
    except PASSED_ON as error:
        sender.send((False, error))


def _ended(code: int | None, aborted: Callable[[str], EdgewiseError]) -> EdgewiseError:
    if code is not None and -code == signal.SIGKILL:
        return InfrastructureError("the process that ran the model was killed (SIGKILL); free some memory, then run the same command again")
    if code is not None and code < 0:
        return aborted(signal.Signals(-code).name)
    return InfrastructureError(f"the process that ran the model ended with exit code {code}; its own message stands above")


def outputs(module: str, folder: Path, settings: Mapping[str, Any], feeds: Arrays, batch: int = 64) -> Arrays:
    """Outputs of the model in `folder`, computed by formats/F/run.py in a fresh process, `batch` samples at a time. VariantFailed where
    the runtime aborts on the file or refuses it."""
    return call(_run, module, str(folder), dict(settings), feeds, batch, aborted=_abort)


def _abort(how: str) -> VariantFailed:
    return VariantFailed(f"the runtime aborts on this file ({how})")


def _run(module: str, folder: str, settings: Mapping[str, Any], feeds: Arrays, batch: int) -> Arrays:
    try:
        return run_batched(sessions.load(part(module, "run"), folder, settings), feeds, batch)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise VariantFailed(f"the runtime refuses this file: {type(error).__name__}: {' '.join(str(error).split())[:400]}") from None


@contextlib.contextmanager
def running(module: str) -> Iterator[None]:
    """Around calls that run or make models of a format. VariantFailed where its runtime, or what else the format's own extra installs, is
    not installed: `runtimes` in models/config.yaml outdates such a result as soon as it is."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        own = own_packages(module)
        if package not in own:
            raise
        raise VariantFailed(str(MissingExtra(package, own[package]))) from None
