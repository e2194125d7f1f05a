"""What disturbed the measurements: one line for each cause, with what to do about it. Evidence of each variant stands in the page."""

from collections.abc import Mapping
from pathlib import Path

from edgewise.artifacts.records import Summary, VariantSummary

CLEAN = "clean"
MOST_NAMED = 3
AGAIN = "measure again"
CAUSES = {  # evidence that decided the grade -> (what happened, with the range of its values, and what to do besides measuring again)
    "disturbed_share": ("other processes took the processor in {} of the runs", "stop them"),
    "steal_share": ("other guests of its host took {} of the time", "wait for a quieter hour"),
    "frequency_drop": ("the clock fell by {}", "fix the governor, or set device.cool_down_degc"),
    "process_spread": ("processes of one model differ by {}, as where caches are shared", "take more of them with bench.name=standard"),
    "unsteady_share": ("{} of the processes did not settle in their warm-up", "raise bench.warmup.max_s"),
    "quarter_drift": ("runs became {} slower while they lasted", "set device.cool_down_degc"),
    "throttled_share": ("the firmware throttled {} of the blocks", "look at cooling and power supply"),
}
UNKNOWN = ("{}", "see the page for each")


def describe_disturbances(summary: Summary) -> list[str]:
    """One line for each cause: how many of the measured variants are concerned, the grades, the evidence, and what to do."""
    rows = {name: row for name, row in summary.variants.items() if row.noise}
    by_cause: dict[str, list[str]] = {}
    for name, row in rows.items():
        if row.noise and row.noise.grade != CLEAN:
            by_cause.setdefault(row.noise.decided_by or "", []).append(name)
    return [describe_cause(cause, names, rows) for cause, names in sorted(by_cause.items(), key=lambda item: -len(item[1]))]


def describe_cause(cause: str, names: list[str], rows: Mapping[str, VariantSummary]) -> str:
    what, advice = CAUSES.get(cause, UNKNOWN)
    found = format_range([share for name in names if (share := evidence_of(rows[name], cause)) is not None])
    grades = dict.fromkeys(rows[name].noise.grade for name in names if rows[name].noise)  # type: ignore[union-attr]
    seen = what.format(found) if cause in CAUSES else next(rows[n].noise.reason for n in names if rows[n].noise) or "no evidence"  # type: ignore[union-attr]
    which = "" if len(names) == len(rows) or len(names) == 1 else f" ({name_few(names)})"
    head = f"{names[0]} {' or '.join(grades)}" if len(names) == 1 else f"{len(names)} of {len(rows)} {' or '.join(grades)}{which}"
    return f"{head}: {seen}; {advice} or {AGAIN} with `{remeasure_command(names)}`"


def evidence_of(row: VariantSummary, cause: str) -> float | None:
    return getattr(row.noise.evidence, cause, None) if row.noise and cause else None


def format_range(shares: list[float]) -> str:
    """Shares in per cent: 35 to 73 %."""
    low, high = (f"{100 * share:.2g}" for share in (min(shares, default=0.0), max(shares, default=0.0)))
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
