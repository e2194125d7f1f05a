"""Write the runs of a pipeline or of a sweep to MLflow, one writer at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgewise.artifacts import records
from edgewise.config import schema
from edgewise.track import book as record
from edgewise.track import receipt


def location() -> tuple[str, Path | None]:
    """The tracking URI and the folder for artifacts; a server has its own place for them."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    return (given, None) if given else (f"sqlite:///{Path('mlflow.db').resolve()}", Path("mlartifacts").resolve())


@contextmanager
def alone() -> Iterator[None]:
    """One writer at a time: processes that meet in a new database break each other's making of it."""
    path = receipt.PATH.with_name("track.lock")
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def track_sweep(name: str) -> None:
    from edgewise.track import sweeps

    book = sweeps.book(name)
    with alone():
        children = sweeps.write(book, *location())
    print(f"track: the sweep {name} is in MLflow, {children} runs below it in experiment '{book.experiment}'")


def track_pipeline(force: bool) -> None:
    uri, artifacts = location()
    book = record.book(schema.read(), records.read_summary())
    with alone():
        state = book.state
        if not force and receipt.holds(receipt.read(), uri, state):
            print(f"track: nothing new, {len(book.records)} runs are in MLflow")
            return
        from edgewise.track import writer

        runs = writer.write(book, uri, artifacts)
        receipt.write(receipt.Receipt(receipt.without_password(uri), state, runs))
        print(f"track: {len(runs)} runs of experiment '{book.experiment}' are in MLflow")
