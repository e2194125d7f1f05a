"""One visit: what decides its latency, its record, and its place in the store."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgewise.artifacts import artifact, visits
from edgewise.artifacts.visits import Visit
from edgewise.config import schema
from edgewise.config.schema import Bench
from edgewise.measure.pairs import MIN_PAIRS, PairedRuns
from edgewise.measure.runs import PlacedVariant, blocks_by_process
from edgewise.stats.timing import log_ratio_error, median_ratio

MODELS = Path("models")
STAGE = "bench-on-device"
TIMED = ("scope", "interleave", "block_s", "warmup", "answer")  # of bench: what is timed; the rest says how often


def make_visit(pairs: PairedRuns, bench: Bench, seconds: float, source: str = visits.BENCH, **identity: str) -> Visit | None:
    """The record of a visit that has just ended. identity: key, variant, reference. None where the profile claims nothing or there are
    fewer than MIN_PAIRS pairs, so that no error of the visit is known."""
    sides = blocks_by_process(pairs.variant), blocks_by_process(pairs.reference)
    if not bench.claims or len(pairs.variant) < MIN_PAIRS:
        return None
    return Visit(
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        interleave=bench.interleave,
        ratio=median_ratio(*sides),
        log_standard_error=log_ratio_error(*sides),
        degrees=len(pairs.variant) - 1,
        seconds=round(seconds, 3),
        source=source,
        **identity,
    )


def make_key(variant: PlacedVariant, reference: PlacedVariant, bench: Bench, device_fingerprint: str, runtimes: Mapping[str, Any]) -> str:
    """The key of a visit: a hash of all that decides its ratio. runtimes: metrics/runtimes.json."""
    sides = (variant, reference)
    return visits.make_key(
        {
            "files": [artifact.read(MODELS / "variants" / side.name).files for side in sides],
            "engine": [dict(side.fields["settings"]) for side in sides],
            "runtimes": [runtimes["variants"].get(side.name) for side in sides],
            "data": artifact.read(MODELS / "data").files,
            "bench": {name: schema.to_plain(getattr(bench, name)) for name in TIMED},
            "code": (schema.read_compared(STAGE)["code"] or {}).get(variant.name),
            "device": device_fingerprint,
        }
    )
