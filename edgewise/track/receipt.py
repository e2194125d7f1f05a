"""The receipt of the last writing: with it and a look into the store, an unchanged `track` ends without importing mlflow."""

import json
import re
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote

from edgewise.artifacts.artifact import write_json

PATH = Path(".edgewise/track-receipt.json")
SCHEMA = 2  # 2: the models of the front are in the registry


@dataclass(frozen=True)
class Receipt:
    """tracking_uri: without its password; state: of track.book.Book; runs: the ids that MLflow gave, by variant."""

    tracking_uri: str
    state: str
    runs: dict[str, str]
    schema: int = SCHEMA


def read(path: Path = PATH) -> Receipt | None:
    """None where there is no receipt or none that this version wrote: then everything is looked up in the store."""
    try:
        receipt = Receipt(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return receipt if receipt.schema == SCHEMA else None


def write(receipt: Receipt, path: Path = PATH) -> None:
    write_json(path, asdict(receipt))


def holds(receipt: Receipt | None, uri: str, state: str) -> bool:
    """Whether all of `state` is in the store behind `uri` already."""
    if receipt is None or (receipt.tracking_uri, receipt.state) != (without_password(uri), state):
        return False
    if uri.startswith("sqlite:///"):
        return in_sqlite(Path(uri.removeprefix("sqlite:///")), list(receipt.runs.values()))
    return not uri.startswith("http") or not lost_by_server(uri, next(iter(receipt.runs.values())))


def without_password(text: str) -> str:
    return re.sub("//[^/@ ]*@", "//", text)


def in_sqlite(database: Path, runs: list[str]) -> bool:
    """Whether the database has all runs, none deleted, and their artifacts lie where it says."""
    query = f"SELECT artifact_uri FROM runs WHERE lifecycle_stage = 'active' AND run_uuid IN ({','.join('?' * len(runs))})"
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            places = [place for (place,) in connection.execute(query, runs)]
    except sqlite3.Error:  # gone, or no database of MLflow: the store itself will say what is wrong
        return False
    return len(places) == len(runs) and all(Path(unquote(place.removeprefix("file://"))).exists() for place in places if is_local(place))


def is_local(place: str) -> bool:
    return place.startswith(("/", "file://"))


def lost_by_server(uri: str, run: str) -> bool:
    """Whether the server answers and does not give the run. One that is down loses nothing: there is nothing to write."""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/api/2.0/mlflow/runs/get?run_id={run}", timeout=3):
            return False
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
