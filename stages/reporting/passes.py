"""What bench measures beside latency and memory: energy, memory limits, minutes of load, time by operator. From its records alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core import results
from stages.core.results import BenchResult

MODELS = Path("models")
MOST_OPERATORS = 6
ENERGY = ("source", "scope", "rate_hz", "idle_w", "mean_w", "gross_mj", "net_mj", "net_ci95_mj")
LIMIT = {"verdict": "fits_mb", "evidence": "fits_evidence", "p50_ms": "fits_p50_ms", "major_faults": "fits_major_faults"}
RUNNING = {"anonymous": "after_runs_anonymous_bytes", "file": "after_runs_file_bytes"}
SUSTAINED = "sustained_"


def fields(measured: BenchResult) -> dict[str, Any]:
    """The fields of a VariantSummary; None and empty for what was not asked for."""
    more, found = measured.more, profile(measured.variant)
    told = more.get("energy_status")
    return {
        "memory_running_bytes": {kind: more[key] for kind, key in RUNNING.items()} if RUNNING["file"] in more else None,
        "engine_auto": more.get("engine_auto"),
        "interleave": more.get("interleave"),
        "governor": more.get("governor"),
        "cpus": tuple(more.get("cpus", ())),
        "smallest_claim_share": more.get("smallest_claim_share"),
        "energy_status": told,
        "energy": {name: more.get(f"energy_{name}") for name in ENERGY} if told == "measured" else None,
        "fits": {limit: {name: more[key].get(limit) for name, key in LIMIT.items()} for limit in more["fits_mb"]}
        if "fits_mb" in more
        else None,
        "sustained": {key.removeprefix(SUSTAINED): value for key, value in more.items() if key.startswith(SUSTAINED)} or None,
        "operators_status": None if found is None else found["reason"] or found["status"],
        "top_operators": tuple(found["types"][:MOST_OPERATORS]) if found and found["status"] == "measured" else (),
    }


def profile(variant: str) -> dict[str, Any] | None:
    """models/bench/V/profile.json; None where no profile was asked for."""
    path = MODELS / "bench" / variant / "profile.json"
    return results.read_plain(path) if path.exists() else None


def minutes(variant: str) -> list[Mapping[str, Any]]:
    """The first process of models/bench/V/minutes.json, minute by minute; none where nothing ran for minutes."""
    path = MODELS / "bench" / variant / "minutes.json"
    return results.read_plain(path)["variant"][0] if path.exists() else []
