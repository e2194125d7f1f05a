"""Run foreign files in a process of their own: a file that makes its runtime abort must not end the stage."""

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from edgewise.agent import sessions
from edgewise.agent.sessions import Arrays, run_batched
from edgewise.config.runtimes import own_packages
from edgewise.config.schema import part
from edgewise.errors import EdgewiseError, InfrastructureError, MissingExtra, VariantFailed

T = TypeVar("T")
ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)  # the model's doing, not the system's
RERAISED = (EdgewiseError, ModuleNotFoundError, OSError)  # raised again in the caller; any other error ends the process with its traceback


def compute_outputs(module: str, folder: Path, settings: Mapping[str, Any], feeds: Arrays, batch: int = 64) -> Arrays:
    """Outputs of the model in `folder`, [n, ...], computed by run.py of the format `module` in a fresh process, `batch` samples at a time.
    VariantFailed if the runtime aborts on the file or refuses it."""
    return call_isolated(_compute, module, str(folder), dict(settings), feeds, batch, aborted=_explain_abort)


def _compute(module: str, folder: str, settings: Mapping[str, Any], feeds: Arrays, batch: int) -> Arrays:
    with _translate_refusal():
        return run_batched(sessions.load(part(module, "run"), folder, settings), feeds, batch)


@contextlib.contextmanager
def _translate_refusal() -> Iterator[None]:
    try:
        yield
    except ABSENT as error:
        raise VariantFailed(f"a file of the model is missing: {error.filename or error}; make the model again") from None
    except (*RERAISED, MemoryError):
        raise
    except Exception as error:  # runtimes raise classes of their own
        raise VariantFailed(f"the runtime refuses this file: {type(error).__name__}: {' '.join(str(error).split())}") from None


def compute_file_feeds(module: str, folder: Path, settings: Mapping[str, Any], feeds: Sequence[Arrays]) -> list[Arrays]:
    """What the file in `folder` is fed for these samples of batch 1, call by call (see agent.ports). Errors as of `compute_outputs`."""
    return call_isolated(_compute_file_feeds, module, str(folder), dict(settings), feeds, aborted=_explain_abort)


def _compute_file_feeds(module: str, folder: str, settings: Mapping[str, Any], feeds: Sequence[Arrays]) -> list[Arrays]:
    with _translate_refusal():
        session = sessions.load(part(module, "run"), folder, settings)
        return [found for sample in feeds for found in session.iterate_file_feeds(sample)]


def _explain_abort(how: str) -> VariantFailed:
    return VariantFailed(f"the runtime aborts on this file ({how})")


@contextlib.contextmanager
def translate_missing_runtime(module: str) -> Iterator[None]:
    """For a block that runs or makes models of a format. VariantFailed if its runtime, or another package of its extra, is not installed;
    once it is, `runtimes` in models/config.yaml changes and the stage runs again."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        own = own_packages(module)
        if package not in own:
            raise
        raise VariantFailed(str(MissingExtra(package, own[package]))) from None


@contextlib.contextmanager
def fail_alone(doing: str) -> Iterator[None]:
    """For the making, judging or measuring of one variant: whatever exception a tool raises is that variant's failure, VariantFailed with
    the tool's own words, and its traceback goes to stderr. Passed on, since the same command may succeed later: Edgewise's own errors, a
    missing package, lack of memory, and what the system refuses (disk, processes, network), but not a file that a model names in vain.
    """
    try:
        yield
    except (EdgewiseError, ImportError):
        raise
    except MemoryError as error:
        raise InfrastructureError(f"{doing}: out of memory; free some, then run the same command again") from error
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, ABSENT):
            raise
        traceback.print_exc()
        words = " ".join(str(error).split()) or "no message"
        raise VariantFailed(f"{doing} ended with an error that Edgewise did not expect: {type(error).__name__}: {words}") from error


def call_isolated(function: Callable[..., T], *arguments: Any, aborted: Callable[[str], EdgewiseError]) -> T:
    """Compute function(*arguments) in a fresh process. Function, arguments and result must be picklable.

    Raises what the function raises (RERAISED), aborted(SIGNAL) if the process aborts, and InfrastructureError if it was killed or ended
    otherwise.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_and_send, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        ok, result = receiver.recv()
    except EOFError:
        process.join()
        raise _explain_exit(process.exitcode, aborted) from None
    process.join()
    if not ok:
        raise result
    answer: T = result
    return answer


def _run_and_send(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        sender.send((True, function(*arguments)))
    except RERAISED as error:
        sender.send((False, error))


def _explain_exit(code: int | None, aborted: Callable[[str], EdgewiseError]) -> EdgewiseError:
    if code is not None and -code == signal.SIGKILL:
        return InfrastructureError("the process that ran the model was killed (SIGKILL); free some memory, then run the same command again")
    if code is not None and code < 0:
        return aborted(signal.Signals(-code).name)
    return InfrastructureError(f"the process that ran the model ended with exit code {code}; see its message above")
