"""track: everything into MLflow, from the files alone; running it twice adds nothing.

    python -m stages.track            write what is missing
    python -m stages.track --force    look everything up in the store, whatever the receipt says
    python -m stages.track --sweep NAME    write the sweep of metrics/sweeps/NAME.json: a parent run and its children

Reads   models/config.yaml, metrics/, the manifests and reports in models/, dvc.lock
Writes  mlflow.db and mlartifacts/ in this folder, or the server that MLFLOW_TRACKING_URI names; .edgewise/track-receipt.json
"""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.core import config, results
from stages.core.errors import ConfigError, run_main
from stages.tracking import receipt, record


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
    from stages.tracking import sweeps

    book = sweeps.book(name)
    with alone():
        children = sweeps.write(book, *location())
    print(f"track: the sweep {name} is in MLflow, {children} runs below it in experiment '{book.experiment}'")


def track_pipeline(force: bool) -> None:
    uri, artifacts = location()
    book = record.book(config.read(), results.read_summary())
    with alone():
        state = book.state
        if not force and receipt.holds(receipt.read(), uri, state):
            print(f"track: nothing new, {len(book.records)} runs are in MLflow")
            return
        from stages.tracking import store

        runs = store.write(book, uri, artifacts)
        receipt.write(receipt.Receipt(receipt.without_password(uri), state, runs))
        print(f"track: {len(runs)} runs of experiment '{book.experiment}' are in MLflow")


def main() -> None:
    match sys.argv[1:]:
        case ["--sweep", name]:
            track_sweep(name)
        case [] | ["--force"] as given:
            track_pipeline(force=bool(given))
        case given:
            raise ConfigError(f"{' '.join(given)!r} is no option of track; allowed: --force, --sweep NAME, or nothing")


if __name__ == "__main__":
    run_main(main)
