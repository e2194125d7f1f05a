"""What the report says of the additional passes (energy, memory limits, minutes of load, operators, engine settings), and of what disturbed
the measurements.

What was measured is shown with its figures, what was not asked for in one line, each cause of disturbance in another.
The charts are small lines over the minutes of a sustained run, as points of an SVG polyline.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.artifacts.records import Energy, EngineAuto, EnginePoint, LimitedRun, Memory, Operators, Summary, Sustained, VariantSummary
from edgewise.measure import threads
from edgewise.report import bounds, explain
from edgewise.report.explain import MOST_NAMED, name_some, top_operators
from edgewise.report.verdicts import Rows, worst_ratio

ASK = {  # field of a row -> what it is, and the setting that measures it
    "energy": "energy (bench.energy_s)",
    "fits_mb": "memory limits (bench.fits_mb)",
    "sustained": "minutes of load (bench.name=sustained)",
    "operators": "time by operator (bench.profile)",
}


def finding_lines(summary: Summary) -> list[str]:
    """The lines for report.md and the terminal; none where no latency was measured."""
    rows = measured_rows(summary)
    if not rows:
        return []
    texts = {
        "Energy": {name: describe_energy(row.energy) for name, row in rows.items() if row.energy},
        "Memory limits": {name: describe_limits(row.fits_mb) for name, row in rows.items() if row.fits_mb},
        "Under load": {name: describe_load(row.sustained) for name, row in rows.items() if row.sustained},
        "Time by operator": {name: describe_operators(row.operators) for name, row in rows.items() if row.operators},
    }
    passes = [f"{title}: {', '.join(names)}: {text}" for title, by_name in texts.items() for text, names in group_by_text(by_name).items()]
    return [
        line
        for line in (
            describe_claim(summary),
            describe_real_time(rows),
            describe_memory(rows),
            *passes,
            describe_ranking(rows),
            list_not_requested(rows),
        )
        if line
    ]


def page_sections(summary: Summary) -> dict[str, Any]:
    """The same as values for the page, which shows them as tables."""
    rows = measured_rows(summary)
    return {
        "claim": describe_claim(summary) if rows else None,
        "real_time": describe_real_time(rows),
        "not_asked": list_not_requested(rows) if rows else None,
        "energies": {name: row for name, row in rows.items() if row.energy_figures},
        "no_energy": group_by_text({name: row.energy.status for name, row in rows.items() if row.energy and not row.energy.figures}),
        "limited": {name: row for name, row in rows.items() if row.fits_mb},
        "limits": sorted({limit for row in rows.values() for limit in row.fits_mb or ()}, key=int),
        "loaded": {name: row for name, row in rows.items() if row.sustained},
        "charts": {name: make_charts(explain.read_minutes(name), row.sustained) for name, row in rows.items() if row.sustained},
        "ranking": describe_ranking(rows),
        "profiled": {name: row for name, row in rows.items() if row.operators and row.operators.top},
        "unprofiled": group_by_text({name: row.operators.status for name, row in rows.items() if row.operators and not row.operators.top}),
    }


def measured_rows(summary: Summary) -> Rows:
    """The variants with a latency, fastest first by the upper end of the ratio's interval."""
    rows = {name: row for name, row in summary.variants.items() if row.latency.p50_ms is not None}
    return dict(sorted(rows.items(), key=lambda item: worst_ratio(item[1])))


def group_by_text(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """{text: names}: a sentence that holds for several variants is shown once."""
    found: dict[str, list[str]] = {}
    for name, text in texts.items():
        found.setdefault(text, []).append(name)
    return found


def describe_claim(summary: Summary) -> str:
    """The smallest difference that is claimed on this device, from the reference measured against itself."""
    reference = summary.variants[summary.reference]
    if reference.latency.smallest_claim_share is None or reference.latency.ratio_ci95 is None:
        return f"{summary.reference} was not measured against itself with an interval: no claim about latency is made"
    low, high = reference.latency.ratio_ci95
    share = 100 * reference.latency.smallest_claim_share
    least = bounds.round_down(share, bounds.count_places(share))
    return f"{summary.reference} against itself on this device gives [{low:.3f}, {high:.3f}]: no difference below {least} % is claimed"


def describe_real_time(rows: Rows) -> str | None:
    """How much of the time that a step of a model with state covers is spent on it."""
    factors = {name: row.latency.real_time_factor for name, row in rows.items() if row.latency.real_time_factor is not None}
    texts = [f"{name} {factor:.2g}" for name, factor in factors.items()]
    return f"Real-time factor (time of a step / model.step_ms; below 1 keeps up): {', '.join(texts)}" if texts else None


def describe_memory(rows: Rows) -> str | None:
    """Resident memory while each variant runs, runtime included: anonymous pages, and pages of files, which the kernel can reclaim."""
    texts = [f"{name} {format_memory(row.memory)}" for name, row in rows.items() if row.memory]
    return f"Memory while running, MB anonymous + mapped from files (which the kernel can reclaim): {', '.join(texts)}" if texts else None


def format_memory(found: Memory) -> str:
    return f"{found.running_anonymous_bytes / 1e6:.0f} + {found.running_file_bytes / 1e6:.0f}"


def describe_energy(found: Energy) -> str:
    e = found.figures
    if e is None:
        return found.status
    sensor = f"{e.source}, which covers the {e.scope}, at {e.rate_hz:.3g} Hz"
    watts = f"{e.mean_w:.3g} W on average, {e.idle_w:.3g} W idle"
    return f"{e.net_mj:.3g} mJ net, {e.gross_mj:.3g} mJ gross an inference, {watts} ({sensor})"


def describe_limits(runs: Mapping[str, LimitedRun]) -> str:
    return "; ".join(f"{limit} MB {format_limited_run(found)}" for limit, found in runs.items())


def format_limited_run(found: LimitedRun, evidence: bool = True) -> str:
    """ok with latency and major faults, or the verdict with its evidence."""
    if found.verdict == "ok":
        faults = "" if found.major_faults is None else f", {found.major_faults} major faults"
        return f"ok, {found.p50_ms:.3g} ms{faults}"
    return f"{found.verdict} ({found.evidence})" if evidence else found.verdict


def describe_load(s: Sustained) -> str:
    hot = (
        "no temperature sensor"
        if s.temperature_max_degc is None
        else f"at most {bounds.round_up(s.temperature_max_degc, 0)} \N{DEGREE SIGN}C"
    )
    medians = f"{s.start_p50_ms:.3g} ms in the first of {s.minutes} minutes, {s.end_p50_ms:.3g} ms in the last"
    return f"{medians} ({100 * s.drift:+.1f} %), {hot}, {describe_throttling(s)}"


def describe_throttling(found: Sustained) -> str:
    minute = found.throttled_from_minute
    return "no throttling seen" if minute is None else f"throttled from minute {minute + 1} on"


def describe_ranking(rows: Rows) -> str | None:
    """The order by ratio in the first and the last minute; None where fewer than two variants have a sustained run."""
    loaded = {name: row.sustained for name, row in rows.items() if row.sustained}
    if len(loaded) < 2:
        return None
    start = sorted(loaded, key=lambda name: loaded[name].ratio_start)
    end = sorted(loaded, key=lambda name: loaded[name].ratio_end)
    return f"Fastest first, in the first minute of load: {', '.join(start)}; in the last: {'the same' if start == end else ', '.join(end)}"


def describe_operators(found: Operators) -> str:
    return top_operators(found.top) if found.top else found.status


def list_not_requested(rows: Rows) -> str | None:
    """The passes that no variant has, with the setting of each."""
    left_out = [what for field, what in ASK.items() if not any(getattr(row, field) for row in rows.values())]
    return f"Not measured: {', '.join(left_out)}" if left_out else None


CLEAN = "clean"
CAUSES = {  # evidence that decided the grade -> (what happened, with the range of its values, and what to do besides measuring again)
    "disturbed_share": ("other processes took the processor in {} of the runs", "stop them"),
    "steal_share": ("other guests of its host took {} of the time", "wait for a quieter hour"),
    "frequency_drop": ("the clock fell by {}", "fix the governor, or set device.cool_down_degc"),
    "process_spread": ("processes of one model differ by {}, as where caches are shared", "take more of them with bench.name=standard"),
    "unsteady_share": ("{} of the processes did not settle in their warm-up", "raise bench.warmup.max_s"),
    "quarter_drift": ("runs became {} slower while they lasted", "set device.cool_down_degc"),
    "throttled_share": ("the firmware throttled {} of the blocks", "look at cooling and power supply"),
}
CROWDED = "disturbed_share", "its own threads, more than cores, or other processes took the processor in {} of the runs"
DISTURBED = "something disturbed the measurement"  # in a record that does not say what


def describe_disturbances(summary: Summary) -> list[str]:
    """One line for each cause: how many of the measured variants are concerned, the grades, the evidence, and what to do."""
    rows = {name: row for name, row in summary.variants.items() if row.noise}
    cores = threads.count_cores(summary.device["facts"]) or math.inf
    by_cause: dict[tuple[str, bool], list[str]] = {}
    for name, row in rows.items():
        if row.noise and row.noise.grade != CLEAN:
            crowded = row.conditions is not None and row.conditions.threads > cores
            by_cause.setdefault((row.noise.decided_by or "", crowded), []).append(name)
    return [
        describe_cause(cause, names, rows, int(cores) if crowded else None)
        for (cause, crowded), names in sorted(by_cause.items(), key=lambda item: -len(item[1]))
    ]


def describe_cause(cause: str, names: list[str], rows: Mapping[str, VariantSummary], crowded_cores: int | None = None) -> str:
    """crowded_cores: of the device, where it has fewer than the variants have threads."""
    noises = [noise for name in names if (noise := rows[name].noise)]
    seen, advice = CAUSES.get(cause, (noises[0].reason or DISTURBED, "see the page"))
    if crowded_cores and cause == CROWDED[0]:
        seen, advice = CROWDED[1], f"set device.threads to {threads.name_choices(crowded_cores)},"
    shares = [share for noise in noises if (share := getattr(noise.evidence, cause, None)) is not None] if cause else []
    grades = " or ".join(dict.fromkeys(noise.grade for noise in noises))
    which = f" ({name_some(names)})" if 1 < len(names) < len(rows) else ""
    head = f"{names[0]} {grades}" if len(names) == 1 else f"{len(names)} of {len(rows)} {grades}{which}"
    return f"{head}: {seen.replace('{}', format_range(shares))}; {advice} or measure again with `{remeasure_command(names)}`"


def format_range(shares: list[float]) -> str:
    """Shares in per cent: 35 to 73 %."""
    low, high = (f"{100 * share:{'.0f' if share >= 0.1 else '.2g'}}" for share in (min(shares, default=0.0), max(shares, default=0.0)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def remeasure_command(names: list[str], makefile: Path = Path("Makefile")) -> str:
    """How variants are measured again in this project: with make where its Makefile has the target, else with DVC alone."""
    if makefile.exists() and "\nremeasure:" in makefile.read_text(encoding="utf-8"):
        return f"make remeasure V={names[0] if len(names) == 1 else '...'}"
    stages = [f"bench-on-device@{name}" for name in names]
    return f"dvc repro --single-item --force {' '.join(stages) if len(stages) <= MOST_NAMED else stages[0] + ' ...'} && dvc repro"


TITLES = ("setting", "ratio to the plain settings", "outputs, dB", "verdict")
WHAT = {"latency": "latency", "memory": "peak memory above the baseline"}


def engine_grids(summary: Summary) -> dict[str, EngineAuto]:
    """{variant: the grid that `engine: auto` tried}."""
    return {name: row.engine_auto for name, row in summary.variants.items() if row.engine_auto}


def engine_lines(summary: Summary) -> list[str]:
    """A line for each variant with `engine: auto`: what was kept, and why."""
    return [f"Engine of {name} (auto, by {WHAT[found.goal]}): {found.reason}" for name, found in engine_grids(summary).items()]


def engine_tables(summary: Summary) -> list[str]:
    """The tables of tried engine settings for report.md, in Markdown; empty where no grid was tried."""
    text: list[str] = []
    for name, found in engine_grids(summary).items():
        if len(found.points) > 1:
            text += ["", f"Engine settings of {name}, tried on the device by {WHAT[found.goal]}:", ""]
            text += ["| " + " | ".join(TITLES) + " |", "|---" * len(TITLES) + "|"]
            text += ["| " + " | ".join(cells) + " |" for cells in engine_rows(found)]
    return text


def engine_rows(found: EngineAuto) -> Iterator[tuple[str, ...]]:
    """The cells of each point of the grid, for Markdown and for the page."""
    for point in found.points:
        yield format_settings(point.settings), format_point_ratio(point), format_point_sqnr(point), format_point_verdict(point)


def format_settings(chosen: Mapping[str, Any]) -> str:
    shown = (f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in chosen.items())
    return ", ".join(shown) or "plain settings"


def format_point_ratio(point: EnginePoint) -> str:
    if point.ratio is None or point.ratio_ci95 is None:
        return "" if point.refusal else "1"
    return f"{point.ratio:.3f} [{point.ratio_ci95[0]:.3f}, {point.ratio_ci95[1]:.3f}]"


def format_point_sqnr(point: EnginePoint) -> str:
    return f"{point.sqnr_db:.0f}" if point.sqnr_db is not None else ""


def format_point_verdict(point: EnginePoint) -> str:
    """The verdict, or the refusal with its reason, on one line without | ."""
    return f"refused: {' '.join(point.refusal.split())}".replace("|", "/") if point.refusal else point.verdict


WIDTH, HEIGHT, EDGE = 220, 46, 3
SERIES = {"median_ms": "median, ms", "temperature_degc": "temperature, \N{DEGREE SIGN}C", "frequency_mhz": "frequency, MHz"}


@dataclass(frozen=True)
class Chart:
    """One quantity by minute. points: of an SVG polyline. mark: x of the minute in which throttling began; None: no throttling."""

    title: str
    points: str
    first: float
    last: float
    low: float
    high: float
    mark: float | None


def make_charts(minutes: Sequence[Mapping[str, Any]], sustained: Sustained | None) -> list[Chart]:
    """A chart for each quantity that was read in every minute."""
    known = [key for key in SERIES if minutes and all(entry[key] is not None for entry in minutes)]
    throttled = sustained.throttled_from_minute if sustained else None
    return [make_chart(SERIES[key], [(entry["minute"], entry[key]) for entry in minutes], throttled) for key in known]


def make_chart(title: str, values: Sequence[tuple[int, float]], throttled: int | None) -> Chart:
    """values: (minute, value). The scale spans at least a tenth of the value, so that a steady line looks steady."""
    low, high = min(value for _, value in values), max(value for _, value in values)
    middle, span = (low + high) / 2, max(high - low, 0.1 * abs(high)) or 1.0
    start, length = values[0][0], max(values[-1][0] - values[0][0], 1)

    def across(minute: int) -> float:
        return EDGE + (WIDTH - 2 * EDGE) * (minute - start) / length

    points = [(across(minute), HEIGHT / 2 - (HEIGHT - 2 * EDGE) * (value - middle) / span) for minute, value in values]
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Chart(title, text, values[0][1], values[-1][1], low, high, None if throttled is None else across(throttled))
