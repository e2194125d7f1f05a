"""Visits: every measurement of a variant on a device, kept in .edgewise/visits, where no run of DVC deletes them.

    .edgewise/visits/DEVICE/KEY.jsonl     one line for each visit; DEVICE: the start of the device's fingerprint
    metrics/visits.json, trust.json       what of it concerns the current variants and device; the stage `visits` writes them

The key is a hash of all that decides a latency: the files, settings, runtimes, inputs, code and the device. Visits with one key measured
the same and are pooled; whatever changes gives another key, and what was measured before is not used.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewise.artifacts.artifact import METRICS_SCHEMA
from edgewise.config.schema import to_plain
from edgewise.config.settings import build
from edgewise.errors import ConfigError, EdgewiseError

STORE, ENVIRONMENT = Path(".edgewise/visits"), "EDGEWISE_VISITS"
BENCH, STUDY = "bench", "trust"  # what made a visit: the stage bench-on-device, or `edgewise trust`
SHORT = 16  # hexadecimal digits of a fingerprint in a folder's name


@dataclass(frozen=True)
class Visit:
    """One visit. at: UTC, ISO 8601. ratio: variant / reference, the median over turns; log_standard_error: of its logarithm, within the
    visit, with `degrees` of freedom. seconds: of measuring. source: bench or trust."""

    key: str
    at: str
    variant: str
    reference: str
    interleave: str
    ratio: float
    log_standard_error: float
    degrees: int
    seconds: float
    source: str = BENCH


@dataclass(frozen=True)
class Movement:
    """How much the log ratio of one variant moves between its own visits; fields as in Trust."""

    log_variance: float
    degrees: float
    visits: int
    resolved: bool = True


@dataclass(frozen=True)
class Trust:
    """How much log ratios move between visits on a device. log_variance: beyond that within visits, with `degrees` of freedom, from so many
    visits of these variants. since, until: of the first and last visit, UTC. resolved: False where the visits' own errors hide the
    movement, and log_variance is what may hide in them. own: by the name of a current variant that was visited often enough to be known by
    itself, since not every variant moves alike."""

    fingerprint: str
    log_variance: float
    degrees: float
    visits: int
    variants: tuple[str, ...]
    since: str
    until: str
    resolved: bool = True
    own: dict[str, Movement] = field(default_factory=dict)


def make_key(decides: Mapping[str, Any]) -> str:
    """decides: all that decides a latency, as plain data."""
    return hashlib.sha256(json.dumps(to_plain(dict(decides)), sort_keys=True).encode()).hexdigest()[:32]


def device_folder(fingerprint: str) -> Path:
    """Where the visits of a device lie: below .edgewise/visits of the project, or the folder that EDGEWISE_VISITS names."""
    return Path(os.environ.get(ENVIRONMENT) or STORE) / fingerprint[:SHORT]


def append(visit: Visit, fingerprint: str) -> None:
    """Add a visit to the store. One line is one write, so that processes do not mix theirs."""
    folder = device_folder(fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{visit.key}.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"schema": METRICS_SCHEMA, **to_plain(visit)}, sort_keys=True) + "\n")


def read_store(fingerprint: str) -> dict[str, list[Visit]]:
    """{key: visits, the oldest first} of a device. EdgewiseError for a line that is no visit."""
    found = {path.stem: read_visits(path) for path in sorted(device_folder(fingerprint).glob("*.jsonl"))}
    return {key: sorted(visits, key=lambda visit: visit.at) for key, visits in found.items()}


def read_visits(path: Path) -> list[Visit]:
    return [
        _parse(line, f"{path}, line {number}")
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
    ]


def _parse(line: str, where: str) -> Visit:
    try:
        raw = json.loads(line)
        if not isinstance(raw, dict) or raw.pop("schema", None) != METRICS_SCHEMA:
            raise ValueError(f"this release reads mappings with schema {METRICS_SCHEMA}")
        return build(Visit, raw, where)
    except (ValueError, ConfigError) as error:
        raise EdgewiseError(f"{where} is no visit ({error}): delete that line, or the file to forget its visits") from None
