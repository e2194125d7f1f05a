"""The receipt of the last write. With it and a look into the store, an unchanged `track` ends without importing mlflow."""

import json
import re
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote

from edgewise.artifacts.artifact import write_json

PATH = Path(".edgewise/track-receipt.json")
ANSWER_S = 3.0  # a server that takes longer is taken to be down
SCHEMA = 3  # 3: each run has a model, and the experiment a view


@dataclass(frozen=True)
class Receipt:
    """tracking_uri: without a password. state: `RunSet.state`. runs: {variant: run id}."""

    tracking_uri: str
    state: str
    runs: dict[str, str]
    schema: int = SCHEMA


def read_receipt(path: Path = PATH) -> Receipt | None:
    """None where there is no receipt, or one of another version: everything is then looked up in the store."""
    try:
        receipt = Receipt(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return receipt if receipt.schema == SCHEMA else None


def write_receipt(receipt: Receipt, path: Path = PATH) -> None:
    write_json(path, asdict(receipt))


def is_up_to_date(receipt: Receipt | None, uri: str, state: str) -> bool:
    """Whether the store behind `uri` has all of `state` already."""
    if receipt is None or (receipt.tracking_uri, receipt.state) != (hide_password(uri), state):
        return False
    if uri.startswith("sqlite:///"):
        return sqlite_has_runs(Path(uri.removeprefix("sqlite:///")), list(receipt.runs.values()))
    return not uri.startswith("http") or not server_lost_run(uri, next(iter(receipt.runs.values())))


def hide_password(text: str) -> str:
    return re.sub("//[^/@ ]*@", "//", text)


def sqlite_has_runs(database: Path, runs: list[str]) -> bool:
    """Whether the database has all runs, none of them deleted, with artifact folders that exist."""
    query = f"SELECT artifact_uri FROM runs WHERE lifecycle_stage = 'active' AND run_uuid IN ({','.join('?' * len(runs))})"
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            places = [place for (place,) in connection.execute(query, runs)]
    except sqlite3.Error:  # missing, or not MLflow's: writing will raise the error
        return False
    return len(places) == len(runs) and all(
        Path(unquote(place.removeprefix("file://"))).exists() for place in places if is_local_path(place)
    )


def is_local_path(place: str) -> bool:
    return place.startswith(("/", "file://"))


def server_lost_run(uri: str, run: str) -> bool:
    """Whether the server answers that the run is missing. A server that is down, or a proxy that says so, has lost nothing."""
    import urllib.error  # 30 ms, which a database does not need
    import urllib.request

    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/api/2.0/mlflow/runs/get?run_id={run}", timeout=ANSWER_S):
            return False
    except urllib.error.HTTPError as error:
        with error:  # closes the connection
            return error.code < 500
    except OSError:
        return False
