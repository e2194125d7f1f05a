"""What became of one point: a file, written when the point is whole."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewise.artifacts.artifact import write_json
from edgewise.config.schema import to_plain
from edgewise.config.settings import build
from edgewise.errors import ConfigError

SCHEMA = 2  # 2: the summary is of nested records


@dataclass(frozen=True)
class Outcome:
    """name: of the point and of its experiment. status: ok, or failed when the pipeline itself could not be run.

    experiment: in MLflow. reference: a digest of what the reference is at this point.
    ref, revision: the experiment in the parent repository. subjects: the variants that the point is about.
    summary: metrics/summary.json of the point. seconds: by phase. data: metrics/data.json.
    """

    name: str
    overrides: tuple[str, ...]
    status: str
    head: str
    tree: str
    experiment: str
    reference: str = ""
    carried: tuple[str, ...] = ()
    reason: str | None = None
    log: str | None = None
    restored: bool = False
    ref: str | None = None
    revision: str | None = None
    subjects: tuple[str, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    world: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def failed_subjects(self) -> dict[str, str]:
        """Variants that the point is about and that failed, where the pipeline itself did not: the reason by name."""
        rows = {name: self.summary["variants"][name] for name in self.subjects} if self.ok else {}
        return {name: str(row["reason"]) for name, row in rows.items() if row["status"] != "ok"}


def write(folder: Path, outcome: Outcome) -> None:
    write_json(folder / f"{outcome.name}.json", to_plain(outcome))


def read(path: Path) -> Outcome | None:
    """None where there is none, or one that this version cannot read: then the point is run again."""
    try:
        found = build(Outcome, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (FileNotFoundError, json.JSONDecodeError, ConfigError):
        return None
    return found if found.schema == SCHEMA else None


def read_all(folder: Path) -> list[Outcome]:
    found = (read(path) for path in sorted(folder.glob("*.json")))
    return [outcome for outcome in found if outcome is not None]
