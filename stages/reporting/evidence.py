"""What the profiles of a variant and of its float parent say about the time of the variant, in plain words."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Entry = Mapping[str, Any]  # of "types" in profile.json
MOST_NAMED = 3
AS_SLOW = 0.95  # of the parent's time: what saves less than this saves nothing that a profile could show
LEAST_SHARE = 0.005  # of the time: less is not worth a word


@dataclass(frozen=True)
class Profiles:
    """profile.json of both; None where there is none. conversions: operators of the file that only change the numeric type.

    ratios: the least that the variant's latency may be and the most that its parent's may be, in units of the reference's. Milliseconds
    of two profile passes do not compare on a machine that drifts; these, times a share, do.
    """

    own: Mapping[str, Any] | None = None
    parents: Mapping[str, Any] | None = None
    parent: str = ""
    conversions: Mapping[str, int] = field(default_factory=dict)
    ratios: tuple[float, float] = (1.0, 1.0)

    def types(self) -> list[Entry]:
        return list(self.own["types"]) if self.own else []

    @property
    def timed(self) -> bool:
        return self.own is not None and self.own["status"] == "measured"


def told(profiles: Profiles) -> list[str]:
    """All that applies."""
    return [text for rule in RULES if (text := rule(profiles))]


def conversions(profiles: Profiles) -> str | None:
    """Quantize and dequantize operators: those that ran, with their time; without a profile those of the file."""
    found = [entry for entry in profiles.types() if entry["converts"]]
    if found and sum(entry["share"] or 0.0 for entry in found) >= (LEAST_SHARE if profiles.timed else 0.0):
        return f"{counted(found)} only convert between numeric types{cost(found)}"
    if profiles.own or not profiles.conversions:
        return None
    listed = ", ".join(f"{count} {name}" for name, count in sorted(profiles.conversions.items()))
    return f"its file holds {listed}, which only convert between numeric types; how many the runtime keeps, bench.profile=true tells"


def fallback(profiles: Profiles) -> str | None:
    """Operators outside of the fast kernels, beyond those that its parent has there too."""
    before = calls(entry for entry in (profiles.parents or {}).get("types", ()) if entry["fallback"])
    found = [entry for entry in profiles.types() if entry["fallback"] and entry["calls"] > before[entry["type"]]]
    if not found:
        return None
    names = {entry["type"] for entry in found}
    kernels = {op["kernel"] for op in (profiles.own or {}).get("operators", ()) if op["fallback"] and op["type"] in names and op["kernel"]}
    where = f", but by {', '.join(sorted(kernels))}" if kernels else ""
    return f"{counted(found)} are not computed by the fast kernels of this runtime{where}{cost(found)}"


def no_gain(profiles: Profiles) -> str | None:
    """The operator that takes most time, against the one that takes most in the parent."""
    if not profiles.timed or not profiles.parents or profiles.parents["status"] != "measured":
        return None
    mine, its = profiles.types()[0], profiles.parents["types"][0]
    took, before = (ratio * entry["share"] for ratio, entry in zip(profiles.ratios, (mine, its), strict=True))
    if mine["type"] == its["type"] and mine["dtype"] == its["dtype"] or took < AS_SLOW * before:
        return None
    return (
        f"{counted([mine])} take at least {took:.2f} of the reference's latency, the {counted([its])} of {profiles.parent} "
        f"at most {before:.2f}: this runtime has no faster kernel for them on this CPU"
    )


def where_it_goes(profiles: Profiles) -> str | None:
    if not profiles.timed:
        return None
    return f"its time goes to {foremost(profiles.types())}"


RULES: tuple[Callable[[Profiles], str | None], ...] = (no_gain, conversions, fallback, where_it_goes)


def foremost(entries: Iterable[Entry]) -> str:
    """ConvInteger 88 %, Cast 10 %: the first few, as far as they matter."""
    listed = [entry for entry in entries if entry["share"] >= LEAST_SHARE][:MOST_NAMED]
    return ", ".join(f"{entry['type']} {percent(entry['share'])}" for entry in listed)


def calls(entries: Iterable[Entry]) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in entries:
        found[entry["type"]] += entry["calls"]
    return found


def counted(entries: Iterable[Entry]) -> str:
    """17 DynamicQuantizeLinear, 20 Cast."""
    return ", ".join(f"{count:.3g} {name}" for name, count in sorted(calls(entries).items()))


def cost(entries: Iterable[Entry]) -> str:
    """Their part of the time; nothing where the runtime gives no times."""
    known = [entry for entry in entries if entry["share"] is not None]
    share, ms = sum(entry["share"] for entry in known), sum(entry["ms"] for entry in known)
    return f": {percent(share)} of the time ({ms:.2g} ms an inference)" if known else ""


def percent(share: float) -> str:
    """Two digits below a tenth, whole ones above."""
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.2g} %"
