"""Small lines over the minutes of a sustained run, as points of an SVG."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgewise.artifacts.records import Energy, EngineAuto, EnginePoint, LimitedRun, Memory, Operators, Summary, Sustained, VariantSummary
from edgewise.report import explain
from edgewise.report.explain import foremost
from edgewise.report.verdicts import slowest

WIDTH, HEIGHT, EDGE = 220, 46, 3
SERIES = {"median_ms": "median, ms", "temperature_degc": "temperature, \N{DEGREE SIGN}C", "frequency_mhz": "frequency, MHz"}


@dataclass(frozen=True)
class Chart:
    """One quantity. points: of an SVG polyline; mark: x of the minute in which throttling set in."""

    title: str
    points: str
    first: float
    last: float
    low: float
    high: float
    mark: float | None


def of(minutes: Sequence[Mapping[str, Any]], sustained: Sustained | None) -> list[Chart]:
    """A chart for each quantity that was read in every minute."""
    known = [key for key in SERIES if minutes and all(entry[key] is not None for entry in minutes)]
    throttled = sustained.throttled_from_minute if sustained else None
    return [chart(SERIES[key], [(entry["minute"], entry[key]) for entry in minutes], throttled) for key in known]


def chart(title: str, values: Sequence[tuple[int, float]], throttled: int | None) -> Chart:
    """values: (minute, value). A line that hardly moves is drawn as such: the scale spans at least a tenth of the value."""
    low, high = min(value for _, value in values), max(value for _, value in values)
    middle, span = (low + high) / 2, max(high - low, 0.1 * abs(high)) or 1.0
    start, length = values[0][0], max(values[-1][0] - values[0][0], 1)

    def across(minute: int) -> float:
        return EDGE + (WIDTH - 2 * EDGE) * (minute - start) / length

    points = [(across(minute), HEIGHT / 2 - (HEIGHT - 2 * EDGE) * (value - middle) / span) for minute, value in values]
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Chart(title, text, values[0][1], values[-1][1], low, high, None if throttled is None else across(throttled))


# The grids of `engine: auto`: one table for each variant that looked for its engine settings on the device.

TITLES = ("setting", "ratio to the plain settings", "outputs, dB", "verdict")
WHAT = {"latency": "latency", "memory": "peak memory above the baseline"}


def grids(summary: Summary) -> dict[str, EngineAuto]:
    """What each such variant found, as in its record."""
    return {name: row.engine_auto for name, row in summary.variants.items() if row.engine_auto}


def engine_lines(summary: Summary) -> list[str]:
    return [f"Engine of {name} (auto, by {WHAT[found.goal]}): {found.reason}" for name, found in grids(summary).items()]


def markdown(summary: Summary) -> list[str]:
    """The tables of report.md; nothing where no grid was tried."""
    text: list[str] = []
    for name, found in grids(summary).items():
        if len(found.points) > 1:
            text += ["", f"Engine settings of {name}, tried on the device by {WHAT[found.goal]}:", ""]
            text += ["| " + " | ".join(TITLES) + " |", "|---" * len(TITLES) + "|"]
            text += ["| " + " | ".join(cells) + " |" for cells in rows(found)]
    return text


def rows(found: EngineAuto) -> Iterator[tuple[str, ...]]:
    """A line for each point; in the same words in Markdown and on the page."""
    for point in found.points:
        yield settings(point.settings), ratio(point), decibels(point), verdict(point)


def settings(chosen: Mapping[str, Any]) -> str:
    shown = (f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in chosen.items())
    return ", ".join(shown) or "plain settings"


def ratio(point: EnginePoint) -> str:
    if point.ratio is None or point.ratio_ci95 is None:
        return "" if point.refusal else "1"
    return f"{point.ratio:.3f} [{point.ratio_ci95[0]:.3f}, {point.ratio_ci95[1]:.3f}]"


def decibels(point: EnginePoint) -> str:
    return f"{point.sqnr_db:.0f}" if point.sqnr_db is not None else ""


def verdict(point: EnginePoint) -> str:
    """A refusal with its reason, on one line that breaks no table."""
    return f"refused: {' '.join(point.refusal.split())}".replace("|", "/") if point.refusal else point.verdict


# What the report says of claims, energy, memory limits, minutes of load and operators: where measured the figures, else one line.

Rows = Mapping[str, VariantSummary]
ASK = {  # field of a row -> what it is and how to have it measured
    "energy": "energy (bench.energy_s)",
    "fits_mb": "memory limits (bench.fits_mb)",
    "sustained": "minutes of load (bench.name=sustained)",
    "operators": "time by operator (bench.profile)",
}


def lines(summary: Summary) -> list[str]:
    """The lines of report.md and of the terminal; none where no latency was measured."""
    rows = measured(summary)
    if not rows:
        return []
    texts = {
        "Energy": {name: energy(row.energy) for name, row in rows.items() if row.energy},
        "Memory limits": {name: limits(row.fits_mb) for name, row in rows.items() if row.fits_mb},
        "Under load": {name: load(row.sustained) for name, row in rows.items() if row.sustained},
        "Time by operator": {name: operators(row.operators) for name, row in rows.items() if row.operators},
    }
    told = [f"{title}: {', '.join(names)}: {text}" for title, by_name in texts.items() for text, names in same(by_name).items()]
    return [line for line in (claim(summary), running(rows), *told, ranking(rows), not_asked(rows)) if line]


def sections(summary: Summary) -> dict[str, Any]:
    """The same for the page, which makes tables of it."""
    rows = measured(summary)
    return {
        "claim": claim(summary) if rows else None,
        "not_asked": not_asked(rows) if rows else None,
        "energies": {name: row for name, row in rows.items() if row.energy_figures},
        "no_energy": same({name: row.energy.status for name, row in rows.items() if row.energy and not row.energy.figures}),
        "limited": {name: row for name, row in rows.items() if row.fits_mb},
        "limits": sorted({limit for row in rows.values() for limit in row.fits_mb or ()}, key=int),
        "loaded": {name: row for name, row in rows.items() if row.sustained},
        "charts": {name: of(explain.minutes(name), row.sustained) for name, row in rows.items() if row.sustained},
        "ranking": ranking(rows),
        "profiled": {name: row for name, row in rows.items() if row.operators and row.operators.top},
        "unprofiled": same({name: row.operators.status for name, row in rows.items() if row.operators and not row.operators.top}),
    }


def measured(summary: Summary) -> Rows:
    """Those with a latency, fastest first by the least favourable end of their ratio."""
    rows = {name: row for name, row in summary.variants.items() if row.latency.p50_ms is not None}
    return dict(sorted(rows.items(), key=lambda item: slowest(item[1])))


def same(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """The names by what is said of them: a sentence that holds for many is said once."""
    found: dict[str, list[str]] = {}
    for name, text in texts.items():
        found.setdefault(text, []).append(name)
    return found


def claim(summary: Summary) -> str:
    """What this device makes of no difference at all."""
    reference = summary.variants[summary.reference]
    if reference.latency.smallest_claim_share is None or reference.latency.ratio_ci95 is None:
        return f"{summary.reference} was not measured against itself with an interval: nothing is claimed of latency"
    low, high = reference.latency.ratio_ci95
    share = 100 * reference.latency.smallest_claim_share
    return f"{summary.reference} against itself on this device gives [{low:.3f}, {high:.3f}]: no difference below {share:.2g} % is claimed"


def running(rows: Rows) -> str | None:
    """Of what is resident while a variant runs, runtime included: the part that only it can give back, and the part that the kernel can."""
    told = [f"{name} {own_and_mapped(row.memory)}" for name, row in rows.items() if row.memory]
    return f"Memory while running, MB of its own + mapped from files (which the kernel can take back): {', '.join(told)}" if told else None


def own_and_mapped(found: Memory) -> str:
    return f"{found.running_anonymous_bytes / 1e6:.0f} + {found.running_file_bytes / 1e6:.0f}"


def energy(found: Energy) -> str:
    e = found.figures
    if e is None:
        return found.status
    seen = f"{e.source}, which sees the {e.scope}, at {e.rate_hz:.3g} Hz"
    watts = f"{e.mean_w:.3g} W on average, {e.idle_w:.3g} W idle"
    return f"{e.net_mj:.3g} mJ net, {e.gross_mj:.3g} mJ gross an inference, {watts} ({seen})"


def limits(runs: Mapping[str, LimitedRun]) -> str:
    return "; ".join(f"{limit} MB {limit_cell(found)}" for limit, found in runs.items())


def limit_cell(found: LimitedRun, evidence: bool = True) -> str:
    """ok with what it costs, or the verdict with its evidence."""
    if found.verdict == "ok":
        faults = "" if found.major_faults is None else f", {found.major_faults} major faults"
        return f"ok, {found.p50_ms:.3g} ms{faults}"
    return f"{found.verdict} ({found.evidence})" if evidence else found.verdict


def load(s: Sustained) -> str:
    hot = "no temperature sensor" if s.temperature_max_degc is None else f"at most {s.temperature_max_degc:.0f} \N{DEGREE SIGN}C"
    medians = f"{s.start_p50_ms:.3g} ms in the first of {s.minutes} minutes, {s.end_p50_ms:.3g} ms in the last"
    return f"{medians} ({100 * s.drift:+.1f} %), {hot}, {throttling(s)}"


def throttling(found: Sustained) -> str:
    minute = found.throttled_from_minute
    return "no throttling seen" if minute is None else f"throttled from minute {minute + 1} on"


def ranking(rows: Rows) -> str | None:
    """The order by ratio in the first and in the last minute; None where fewer than two variants ran for minutes."""
    loaded = {name: row.sustained for name, row in rows.items() if row.sustained}
    if len(loaded) < 2:
        return None
    start = sorted(loaded, key=lambda name: loaded[name].ratio_start)
    end = sorted(loaded, key=lambda name: loaded[name].ratio_end)
    return f"Fastest first, in the first minute of load: {', '.join(start)}; in the last: {'the same' if start == end else ', '.join(end)}"


def operators(found: Operators) -> str:
    return foremost(found.top) if found.top else found.status


def not_asked(rows: Rows) -> str | None:
    left_out = [what for field, what in ASK.items() if not any(getattr(row, field) for row in rows.values())]
    return f"Not asked for: {', '.join(left_out)}" if left_out else None
