"""Write runs to MLflow, each content once, even with several writers. Only this module, registry and mlflow_model import mlflow."""

import getpass
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
from edgewise.track import registry, view
from edgewise.track.receipt import hide_password
from edgewise.track.run_set import KEY, RunRecord, RunSet, bool_tag

T = TypeVar("T")
EXPERIMENT = {  # tags: how the UI shows it
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "One run for each variant and content. What the last `dvc repro` made: `tags.current = 'true'`. "
    "`latency_ratio_to_reference` and the `_delta` of a score are paired with the reference; absolute values drift with the machine. "
    "The column Duration says for how long a variant was timed; it is no latency.",
}
ENDED = ("FINISHED", "FAILED")
MAX_ATTEMPTS = 5  # of a write that another writer disturbs
# MLflow's codes for a conflict: the run was deleted by another writer, or both inserted the same row
CONFLICT_CODES = ("INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")
LIMIT = 100  # params or tags in one request to MLflow
READ_FIRST = ("status", "verdict")  # ends of the names of tags
ENVIRONMENT = {  # variables that the user has set are kept
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default waits for minutes when a server is down
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def write_run_set(run_set: RunSet, uri: str, artifacts: Path | None) -> tuple[str, dict[str, str]]:
    """Write what is missing. Returns the experiment's id and {variant: run id}.

    artifacts: the folder for files, None to let the server decide.

    Raises InfrastructureError where the store cannot be reached or written; the next call goes on from there.
    """
    with open_client(uri) as client:
        experiment = ensure_experiment(client, run_set.experiment, artifacts)
        return experiment, retry_on_conflict(lambda: write_all(client, experiment, run_set))


def write_all(client: Any, experiment: str, run_set: RunSet) -> dict[str, str]:
    for record in run_set.records:
        ensure_run(client, experiment, record, run_set)
    runs = {record.variant: keep_oldest(client, experiment, record) for record in run_set.records}
    retire_old_runs(client, experiment, run_set)
    for record in run_set.records:
        update_run(client, runs[record.variant], record, run_set)
    share_view(client, experiment, run_set)
    registry.register(client, run_set.registrations, {record.key: runs[record.variant] for record in run_set.records})
    return runs


def retry_on_conflict(work: Callable[[], T]) -> T:
    """Do `work`, again where another writer was in conflict. What is written already is found and kept."""
    from mlflow.exceptions import MlflowException

    for attempt in range(1, MAX_ATTEMPTS):
        try:
            return work()
        except MlflowException as error:
            if error.error_code not in CONFLICT_CODES:
                raise
            time.sleep(attempt * random.random())  # seconds, different ones for the two writers
    return work()


@contextmanager
def open_client(uri: str) -> Iterator[Any]:
    """A client of the store, in a block where the store's errors are raised as InfrastructureError."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with translate_errors(uri):
        from mlflow import MlflowClient

        silence_mlflow()
        yield MlflowClient(tracking_uri=uri)


@contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        reason = " ".join(hide_password(str(error)).split())[:300]
        raise InfrastructureError(
            f"the tracking store {hide_password(uri)} cannot be used: {reason}; no measurement is lost: start the server or change "
            "MLFLOW_TRACKING_URI (or tracking_uri in params.yaml), then run `dvc repro` again"
        ) from None


def silence_mlflow() -> None:
    """Hide the forty lines that creating a database prints."""
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)


def ensure_experiment(client: Any, name: str, artifacts: Path | None) -> str:
    """The id of the experiment, created if missing. A deleted one is restored, since its name stays taken."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts.as_uri() if artifacts else None, tags=EXPERIMENT))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process created it meanwhile
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def ensure_run(client: Any, experiment: str, record: RunRecord, run_set: RunSet) -> str:
    """The id of a finished run with this content, created if missing. An unfinished one is completed."""
    found = find_runs(client, experiment, record)
    for run in found:
        if run.info.status in ENDED:
            return str(run.info.run_id)
    if found:
        return finish_run(client, found[0].info.run_id, record, run_set)
    start_ms = record.measured_ms[0] if record.measured_ms else None  # else the Duration that MLflow shows reads like a latency
    run = client.create_run(experiment, start_time=start_ms, tags=make_first_tags(record), run_name=record.variant).info.run_id
    with delete_on_conflict(client, run):
        return finish_run(client, run, record, run_set)


def make_first_tags(record: RunRecord) -> dict[str, str]:
    """Those that a reader looks for, and the key: the UI shows tags in the order in which they were written."""
    return {**{name: text for name, text in record.tags.items() if name.endswith(READ_FIRST)}, **record.marks, KEY: record.key}


@contextmanager
def delete_on_conflict(client: Any, run: str) -> Iterator[None]:
    """Delete this unfinished run where another writer was in conflict, which may have finished its own.

    A run that the other writer has finished stays.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in CONFLICT_CODES and client.get_run(run).info.status not in ENDED:
            client.delete_run(run)
        raise


def finish_run(client: Any, run: str, record: RunRecord, run_set: RunSet) -> str:
    log_run(client, run, record, run_set)
    end_ms = record.measured_ms[1] if record.measured_ms else None
    client.set_terminated(run, "FINISHED" if record.ok else "FAILED", end_time=end_ms)
    return run


def log_run(client: Any, run: str, record: RunRecord, run_set: RunSet) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    now_ms, model = int(time.time() * 1000), ensure_logged_model(client, run, record)
    where = {"model_id": model, "dataset_name": run_set.data["name"], "dataset_digest": run_set.data["digest"], "run_id": run}
    client.log_batch(run, metrics=[Metric(name, value, now_ms, 0, **where) for name, value in record.metrics.items()])
    for params in batched(Param(name, value) for name, value in record.params.items()):
        client.log_batch(run, params=params)
    for tags in batched(RunTag(name, value) for name, value in {**record.tags, **git_tags(), **user_tag()}.items()):
        client.log_batch(run, tags=tags)
    client.log_inputs(run, [DatasetInput(Dataset(**run_set.data), [InputTag("mlflow.data.context", "test")])])
    for file in record.files:
        client.log_artifact(run, str(file), str(file.parent))


def ensure_logged_model(client: Any, run: str, record: RunRecord) -> str:
    """The id of the run's model, which ranks beside the others' on MLflow's own pages. Its files are logged where it is registered."""
    from mlflow.entities import LoggedModelOutput

    if model := registry.find_logged_model(client, run):
        return model
    params = {name: record.tags[name] for name in ("format", "scheme") if name in record.tags}
    made = client.create_logged_model(client.get_run(run).info.experiment_id, record.variant, source_run_id=run, params=params)
    client.log_outputs(run, [LoggedModelOutput(made.model_id, 0)])
    client.finalize_logged_model(made.model_id, "READY" if record.ok else "FAILED")
    return str(made.model_id)


def batched(items: Iterator[Any]) -> Iterator[list[Any]]:
    return iter(lambda: list(islice(items, LIMIT)), [])


def git_tags() -> dict[str, str]:
    """Tags for the git revision; none outside of a repository."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], capture_output=True, text=True, timeout=30
    )
    if done.returncode:
        return {}
    revision, _, dirty = done.stdout.strip().partition("-")
    return {
        "mlflow.source.git.commit": revision,
        "git.dirty": bool_tag(bool(dirty)),
        "mlflow.source.name": "dvc.yaml",
        "mlflow.source.type": "PROJECT",
    }


def user_tag() -> dict[str, str]:
    """Who wrote the run, as MLflow's own runs have it; none where the system has no name for the user, as in some containers."""
    try:
        return {"mlflow.user": getpass.getuser()}
    except (KeyError, OSError):
        return {}


def find_runs(client: Any, experiment: str, record: RunRecord) -> list[Any]:
    """The runs with this content, oldest first."""
    found = client.search_runs([experiment], f"tags.`{KEY}` = '{record.key}'")
    return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def keep_oldest(client: Any, experiment: str, record: RunRecord) -> str:
    """The id of the oldest finished run with this content; younger ones are deleted.

    MLflow has no lock that two writers could share, so the last to finish removes the duplicates.
    """
    first, *others = (run.info.run_id for run in find_runs(client, experiment, record) if run.info.status in ENDED)
    for other in others:
        if model := registry.find_logged_model(client, other):
            client.delete_logged_model(model)
        client.delete_run(other)
    return str(first)


def update_run(client: Any, run: str, record: RunRecord, run_set: RunSet) -> None:
    """Set what can change without the run's content: the tags of the choice, and the report."""
    for tag, value in {**record.marks, "current": bool_tag(True)}.items():
        client.set_tag(run, tag, value)
    for file in run_set.shared:
        client.log_artifact(run, str(file), "report")


def share_view(client: Any, experiment: str, run_set: RunSet) -> None:
    """Write the view of the runs' table, where it is another than the one that is there."""
    if run_set.view is None:
        return
    tag, name = view.name_tag(run_set.view_name), run_set.view_name
    there = client.get_experiment(experiment).tags.get(tag)
    if there is None or view.decode_view(there) != run_set.view:
        client.set_experiment_tag(experiment, tag, view.encode_view(dict(run_set.view), int(time.time() * 1000), name))


def retire_old_runs(client: Any, experiment: str, run_set: RunSet) -> None:
    """Unset the tag `current` of runs with former content and of variants that are no longer configured."""
    current = {record.key for record in run_set.records}
    for run in client.search_runs([experiment], "tags.current = 'true'"):
        if run.data.tags[KEY] not in current:
            client.set_tag(run.info.run_id, "current", bool_tag(False))
