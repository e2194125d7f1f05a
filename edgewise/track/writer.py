"""Writing to MLflow: each run once, under its content key. With registry and served the only place for mlflow."""

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from edgewise.errors import InfrastructureError
from edgewise.track import registry
from edgewise.track.book import KEY, Book, Record, word
from edgewise.track.receipt import without_password

T = TypeVar("T")
EXPERIMENT = {  # tags: how the UI shows it
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "One run for each variant and content. What the last `dvc repro` made: `tags.current = 'true'`. "
    "`latency_ratio_to_reference` and the `_delta` of a score are paired with the reference; absolute values drift with the machine.",
}
ENDED = ("FINISHED", "FAILED")
MEETINGS = 5  # times that a writer starts again because of another one
# what MLflow says where another writer came between: of a run that he has withdrawn, and of a row that both were about to insert
MET = ("INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")
LIMIT = 100  # params and tags that MLflow takes in one request
ENVIRONMENT = {  # what the user sets himself stays
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # by default its waits add up to minutes when a server is down
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def write(book: Book, uri: str, artifacts: Path | None) -> dict[str, str]:
    """Write what is missing; returns the run id of each variant. artifacts: where files go, None to let the server decide.

    InfrastructureError where the store cannot be reached or written; what was written stays and the next call goes on from there.
    """
    with connected(uri) as client:
        experiment = experiment_id(client, book.experiment, artifacts)
        return persist(lambda: write_runs(client, experiment, book))


def write_runs(client: Any, experiment: str, book: Book) -> dict[str, str]:
    for record in book.records:
        ensure_run(client, experiment, record, book)
    runs = {record.variant: the_one(client, experiment, record) for record in book.records}
    retire(client, experiment, book)
    for record in book.records:
        mark(client, runs[record.variant], record, book)
    registry.register(client, book.registrations, {record.key: runs[record.variant] for record in book.records})
    return runs


def persist(work: Callable[[], T]) -> T:
    """Do `work`, and again where another writer came between: what is written already is found and kept."""
    from mlflow.exceptions import MlflowException

    for meeting in range(1, MEETINGS):
        try:
            return work()
        except MlflowException as error:
            if error.error_code not in MET:
                raise
            time.sleep(meeting * random.random())  # seconds; so that the two do not meet again
    return work()


@contextmanager
def connected(uri: str) -> Iterator[Any]:
    """A client of the store, for a block in which the store's own errors become an InfrastructureError."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with clear_errors(uri):
        from mlflow import MlflowClient

        quiet()
        yield MlflowClient(tracking_uri=uri)


@contextmanager
def clear_errors(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        reason = " ".join(without_password(str(error)).split())[:300]
        raise InfrastructureError(
            f"the tracking store {without_password(uri)} cannot be used: {reason}; nothing measured is lost: start the server or change "
            "MLFLOW_TRACKING_URI, then run `dvc repro` again"
        ) from None


def quiet() -> None:
    """Without the forty lines that the making of a new database prints."""
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)


def experiment_id(client: Any, name: str, artifacts: Path | None) -> str:
    """Of the experiment, made if need be; one that was deleted in the UI is restored, since its name stays taken."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts.as_uri() if artifacts else None, tags=EXPERIMENT))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process was faster
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def ensure_run(client: Any, experiment: str, record: Record, book: Book) -> str:
    """The id of a finished run with this content. One that was left half written is written again."""
    found = same_content(client, experiment, record)
    for run in found:
        if run.info.status in ENDED:
            return str(run.info.run_id)
    if found:
        return finish(client, found[0].info.run_id, record, book)
    run = client.create_run(experiment, tags={KEY: record.key}, run_name=record.variant).info.run_id
    with withdrawn_if_met(client, run):
        return finish(client, run, record, book)


@contextmanager
def withdrawn_if_met(client: Any, run: str) -> Iterator[None]:
    """Take the run away again where another writer came between: his may be whole already, and this one would stay half written.

    Where the other one has ended this very run, it is whole and his, too: it stays.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in MET and client.get_run(run).info.status not in ENDED:
            client.delete_run(run)
        raise


def finish(client: Any, run: str, record: Record, book: Book) -> str:
    fill(client, run, record, book)
    client.set_terminated(run, "FINISHED" if record.ok else "FAILED")
    return run


def same_content(client: Any, experiment: str, record: Record) -> list[Any]:
    """The runs with this content, the oldest first."""
    found = client.search_runs([experiment], f"tags.`{KEY}` = '{record.key}'")
    return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def the_one(client: Any, experiment: str, record: Record) -> str:
    """The oldest finished run with this content. MLflow has nothing that two writers could agree by beforehand: whoever ends last
    sees the runs of all, and takes away the younger ones, which hold the same."""
    first, *others = (run.info.run_id for run in same_content(client, experiment, record) if run.info.status in ENDED)
    for other in others:
        client.delete_run(other)
    return str(first)


def fill(client: Any, run: str, record: Record, book: Book) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    now_ms = int(time.time() * 1000)
    client.log_batch(run, metrics=[Metric(name, value, now_ms, 0) for name, value in record.metrics.items()])
    for params in portions(Param(name, value) for name, value in record.params.items()):
        client.log_batch(run, params=params)
    for tags in portions(RunTag(name, value) for name, value in {**record.tags, **git_tags()}.items()):
        client.log_batch(run, tags=tags)
    client.log_inputs(run, [DatasetInput(Dataset(**book.data), [InputTag("mlflow.data.context", "test")])])
    for file in record.files:
        client.log_artifact(run, str(file), str(file.parent))


def portions(items: Iterator[Any]) -> Iterator[list[Any]]:
    return iter(lambda: list(islice(items, LIMIT)), [])


def git_tags() -> dict[str, str]:
    """The revision that the files were made at; none outside of a repository."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], capture_output=True, text=True, timeout=30
    )
    if done.returncode:
        return {}
    revision, _, dirty = done.stdout.strip().partition("-")
    return {
        "mlflow.source.git.commit": revision,
        "git.dirty": word(bool(dirty)),
        "mlflow.source.name": "dvc.yaml",
        "mlflow.source.type": "PROJECT",
    }


def retire(client: Any, experiment: str, book: Book) -> None:
    """Runs of former contents, and of variants that are no longer configured, are not the current ones."""
    current = {record.key for record in book.records}
    for run in client.search_runs([experiment], "tags.current = 'true'"):
        if run.data.tags[KEY] not in current:
            client.set_tag(run.info.run_id, "current", word(False))


def mark(client: Any, run: str, record: Record, book: Book) -> None:
    """What changes without the run's own content: the tags of the choice, and the report as it is now."""
    for tag, value in {**record.marks, "current": word(True)}.items():
        client.set_tag(run, tag, value)
    for file in book.shared:
        client.log_artifact(run, str(file), "report")
