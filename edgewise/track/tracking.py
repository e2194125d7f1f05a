"""Write the runs of a pipeline or of a sweep to MLflow, one writer at a time."""

import fcntl
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgewise.artifacts import records
from edgewise.config import schema
from edgewise.config.choices import check_tracking_uri, choose_tracking_uri
from edgewise.config.compose import read_choices
from edgewise.track import receipt
from edgewise.track.run_set import make_pipeline_runs

COPIES = (".dvc", "tmp", "exps")  # where DVC puts them below a project


def track_pipeline(force: bool) -> None:
    """Write what is missing of the last `dvc repro`. force: look in the store even if the receipt says that nothing is missing.

    Raises InfrastructureError where the store cannot be used.
    """
    settings = schema.read()
    uri, artifacts = store_location(settings.tracking_uri)
    run_set = make_pipeline_runs(settings, records.read_summary())
    with writer_lock():
        state = run_set.state
        if not force and receipt.is_up_to_date(receipt.read_receipt(), uri, state):
            print(f"track: nothing new, {len(run_set.records)} runs are in MLflow")
            return
        from edgewise.track import view, writer

        experiment, runs = writer.write_run_set(run_set, uri, artifacts)
        receipt.write_receipt(receipt.Receipt(receipt.hide_password(uri), state, runs))
        print(f"track: {len(runs)} runs of experiment '{run_set.experiment}' are in MLflow")
        print(f"track: compare them {describe_ui(uri)}at {view.link_to_view(uri, experiment)}")


def describe_ui(uri: str) -> str:
    return "" if uri.startswith("http") else f"with `mlflow ui --backend-store-uri {shlex.quote(uri)}`, "


def track_sweep(name: str) -> None:
    """Write metrics/sweeps/NAME.json. Raises ConfigError for an unknown sweep, InfrastructureError where the store cannot be used."""
    from edgewise.track import sweep_runs, view

    run_set = sweep_runs.make_sweep_runs(name)
    uri, artifacts = store_location(check_tracking_uri(read_choices(Path("params.yaml")).get("tracking_uri")))
    with writer_lock():
        experiment, children = sweep_runs.write_sweep(run_set, uri, artifacts)
    print(f"track: the sweep {name} is in MLflow, {children} runs below it in experiment '{run_set.experiment}'")
    print(f"track: compare them {describe_ui(uri)}at {view.link_to_view(uri, experiment, run_set.view_name)}")


def store_location(setting: str | None) -> tuple[str, Path | None]:
    """The tracking URI and the folder for artifacts; None for a server, which has its own. setting: `tracking_uri` of params.yaml."""
    given, root = choose_tracking_uri(setting), project_root()
    return (given, None) if given else (f"sqlite:///{root / 'mlflow.db'}", root / "mlartifacts")


def project_root() -> Path:
    """This folder, or the project that `dvc exp run --temp` and DVC's queue have copied to here: their copies are deleted afterwards."""
    here = Path.cwd().resolve()
    copies = (place for place in here.parents if place.parts[-len(COPIES) :] == COPIES)
    return next((place.parents[len(COPIES) - 1] for place in copies), here)


@contextmanager
def writer_lock() -> Iterator[None]:
    """Let one process write at a time: two that create the database at once break each other's migration."""
    path = project_root() / receipt.PATH.with_name("track.lock")
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
