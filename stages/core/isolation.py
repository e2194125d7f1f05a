"""Run a model in a process of its own: a file that makes its runtime abort must not take the stage with it."""

import multiprocessing
import signal
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stages.core.config import part
from stages.core.errors import EdgewiseError, SurroundingsError, VariantFailed
from stages.payload import parts
from stages.payload.batches import Arrays, run_batched


def outputs(module: str, folder: Path, settings: Mapping[str, Any], feeds: Arrays) -> Arrays:
    """Outputs of the model in `folder`, computed by formats/F/run.py in a fresh process.

    VariantFailed where the runtime aborts on the file or refuses it; SurroundingsError where the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, module, str(folder), dict(settings), feeds))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        process.join()
        raise _ended(process.exitcode) from None
    process.join()
    if isinstance(result, str):
        raise VariantFailed(f"the runtime refuses this file: {result}")
    return result


def _work(sender: Connection, module: str, folder: str, settings: Mapping[str, Any], feeds: Arrays) -> None:
    result: Arrays | str
    try:
        result = run_batched(parts.load(part(module, "run"), folder, settings), feeds)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        result = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
    sender.send(result)


def _ended(code: int | None) -> EdgewiseError:
    if code is not None and -code == signal.SIGKILL:
        return SurroundingsError("the process that ran the model was killed (SIGKILL); free some memory, then run the same command again")
    how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    if how.startswith("SIG"):
        return VariantFailed(f"the runtime aborts on this file ({how})")
    return SurroundingsError(f"the process that ran the model ended with {how}; its own message stands above")
