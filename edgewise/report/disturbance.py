"""What disturbed the measurements: one line for each cause, with what to do about it. Evidence of each variant stands in the page."""

from collections.abc import Mapping
from pathlib import Path

from edgewise.artifacts.records import Summary, VariantSummary

CLEAN = "clean"
MOST_NAMED = 3
CAUSES = {  # evidence that decided the grade -> (what happened, with the range of its values, and what to do besides measuring again)
    "disturbed_share": ("other processes took the processor in {} of the runs", "stop them"),
    "steal_share": ("other guests of its host took {} of the time", "wait for a quieter hour"),
    "frequency_drop": ("the clock fell by {}", "fix the governor, or set device.cool_down_degc"),
    "process_spread": ("processes of one model differ by {}, as where caches are shared", "take more of them with bench.name=standard"),
    "unsteady_share": ("{} of the processes did not settle in their warm-up", "raise bench.warmup.max_s"),
    "quarter_drift": ("runs became {} slower while they lasted", "set device.cool_down_degc"),
    "throttled_share": ("the firmware throttled {} of the blocks", "look at cooling and power supply"),
}
DISTURBED = "something disturbed the measurement"  # in a record that does not say what


def describe_disturbances(summary: Summary) -> list[str]:
    """One line for each cause: how many of the measured variants are concerned, the grades, the evidence, and what to do."""
    rows = {name: row for name, row in summary.variants.items() if row.noise}
    by_cause: dict[str, list[str]] = {}
    for name, row in rows.items():
        if row.noise and row.noise.grade != CLEAN:
            by_cause.setdefault(row.noise.decided_by or "", []).append(name)
    return [describe_cause(cause, names, rows) for cause, names in sorted(by_cause.items(), key=lambda item: -len(item[1]))]


def describe_cause(cause: str, names: list[str], rows: Mapping[str, VariantSummary]) -> str:
    noises = [noise for name in names if (noise := rows[name].noise)]
    seen, advice = CAUSES.get(cause, (noises[0].reason or DISTURBED, "see the page"))
    shares = [share for noise in noises if (share := getattr(noise.evidence, cause, None)) is not None] if cause else []
    grades = " or ".join(dict.fromkeys(noise.grade for noise in noises))
    which = f" ({name_few(names)})" if 1 < len(names) < len(rows) else ""
    head = f"{names[0]} {grades}" if len(names) == 1 else f"{len(names)} of {len(rows)} {grades}{which}"
    return f"{head}: {seen.replace('{}', format_range(shares))}; {advice} or measure again with `{remeasure_command(names)}`"


def format_range(shares: list[float]) -> str:
    """Shares in per cent: 35 to 73 %."""
    low, high = (f"{100 * share:{'.0f' if share >= 0.1 else '.2g'}}" for share in (min(shares, default=0.0), max(shares, default=0.0)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def name_few(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def remeasure_command(names: list[str], makefile: Path = Path("Makefile")) -> str:
    """How one variant is measured again in this project: with make where its Makefile has the target, else with DVC alone."""
    name = names[0] if len(names) == 1 else "..."
    if makefile.exists() and "\nremeasure:" in makefile.read_text(encoding="utf-8"):
        return f"make remeasure V={name}"
    return f"dvc repro --single-item --force bench-on-device@{name} && dvc repro"
