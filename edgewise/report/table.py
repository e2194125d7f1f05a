"""The table: in the terminal with rich, in metrics/report.md as Markdown; the same cells in both."""

import re
from collections.abc import Callable

from edgewise.artifacts.records import Agreement, Interval, Summary, VariantSummary
from edgewise.plugins import PrimaryMetric
from edgewise.report import findings
from edgewise.report.verdicts import slowest

MINUS = "\N{MINUS SIGN}"
WIDE = 150  # characters that the whole table needs at most
LEFT_OUT_BELOW = {"grade": WIDE, "peak +MB": 112, "p50 ms": 100}  # terminal width at which a column must go
LEAST_WIDTH = 90  # below it the score goes and its difference stays
BREAK = re.compile(r" (?=[\[(])")
Columns = dict[str, Callable[[VariantSummary], str]]
UNRESOLVED = re.compile(r"unresolved[,:] ")


def signed(value: float, digits: int) -> str:
    """A difference with its sign; one that rounds to nothing has none."""
    text = f"{value:+.{digits}f}".replace("-", MINUS)
    return text[1:] if float(f"{value:.{digits}f}") == 0 else text


def bracket(interval: Interval, show: Callable[[float], str]) -> str:
    return "" if interval is None else f" [{', '.join(show(bound) for bound in interval)}]"


def score(row: VariantSummary, metric: PrimaryMetric) -> str:
    if row.quality.score is None:
        return ""
    return f"{row.quality.score:.2%}" if metric.share else f"{row.quality.score:.4g}"


def delta(row: VariantSummary, metric: PrimaryMetric) -> str:
    """The score against the reference's with the paired interval: points of a share, else in its own unit."""
    if row.quality.delta is None:
        return ""
    return change(row.quality.delta, metric) + bracket(row.quality.delta_ci95, lambda bound: change(bound, metric))


def change(value: float, metric: PrimaryMetric) -> str:
    return signed(100 * value, 2) if metric.share else (f"{value:+.3g}".replace("-", MINUS) if value else "0")


def sqnr(row: VariantSummary) -> str:
    return "" if row.quality.sqnr_db is None else f"{row.quality.sqnr_db:.1f}"


def size(row: VariantSummary) -> str:
    return "" if row.file.size_bytes is None else f"{row.file.size_bytes / 1e6:.1f}"


def p50(row: VariantSummary) -> str:
    return "" if row.latency.p50_ms is None else f"{row.latency.p50_ms:.3g}"


def ratio(row: VariantSummary) -> str:
    if row.latency.ratio_to_reference is None:
        return ""
    return f"{row.latency.ratio_to_reference:.3f}" + bracket(row.latency.ratio_ci95, lambda bound: f"{bound:.3f}")


def peak(row: VariantSummary) -> str:
    return f"{row.memory.peak_rss_above_baseline_bytes / 1e6:.0f}" if row.memory else ""


def verdict(row: VariantSummary, metric: PrimaryMetric | None) -> str:
    """The claim about latency, and what may be said of the score where it differs."""
    if not row.ok:
        return "failed"
    claim = row.quality.verdict if metric and row.quality.verdict in ("lower", "higher") else None
    parts = [row.latency.verdict, f"{metric.title} {claim}" if metric and claim else None]
    return ", ".join(part for part in parts if part)


def score_columns(metric: PrimaryMetric | None) -> Columns:
    """The score and its difference; where nothing is judged, how far the outputs agree with the reference's."""
    if metric is None:
        return {"SQNR dB": sqnr}
    unit = "points" if metric.share else metric.title
    return {
        metric.title: lambda row: score(row, metric),
        f"\N{GREEK CAPITAL LETTER DELTA} {unit}": lambda row: delta(row, metric),
    }


def columns(summary: Summary) -> Columns:
    metric = summary.primary_metric
    return {
        **score_columns(metric),
        "MB": size,
        "p50 ms": p50,
        "ratio": ratio,
        "peak +MB": peak,
        "grade": lambda row: row.noise.grade if row.noise else "",
        "verdict": lambda row: verdict(row, metric),
    }


def marks(name: str, summary: Summary) -> str:
    """Behind a name: the reference, the chosen one, a member of the Pareto set."""
    marked = [word for word, yes in (("reference", name == summary.reference), ("chosen", name == summary.chosen)) if yes]
    return (" *" if name in summary.pareto else "") + (f" ({', '.join(marked)})" if marked else "")


def explain(summary: Summary) -> list[str]:
    """The lines under the table: how to read it, the choice, what to know before believing it, what failed."""
    profile = next((row.conditions.profile for row in summary.variants.values() if row.conditions), None)
    measured = f"profile {profile}" if profile else "latency not measured"
    if any(row.conditions and row.conditions.emulated for row in summary.variants.values()):
        measured = "emulated: outputs compared, nothing timed"
    lines = [
        f"Against {summary.reference} on {summary.device['name']} ({measured}). Brackets: 95 % intervals. Ratio: latency / "
        f"the reference's, interleaved. Peak: above the runtime's own baseline. *: Pareto set of {objectives(summary)}.",
        f"Chosen: {summary.chosen or 'none'}; {summary.chosen_reason}.",
    ]
    lines += [f"{name}: failed: {row.reason}" for name, row in summary.failed.items()]
    lines += [f"{name}: {warning}" for name, row in ordered(summary) for warning in row.warnings]
    lines += [f"{name}: {'; '.join(row.explanation)}" for name, row in ordered(summary) if row.explanation]
    return (
        lines + on_device(summary) + unresolved(summary) + findings.engine_lines(summary) + findings.lines(summary) + list(summary.warnings)
    )


def on_device(summary: Summary) -> list[str]:
    """How the outputs there compare with this machine's, in one line; variants of one verdict together."""
    same: dict[str, list[str]] = {}
    for name, row in ordered(summary):
        if row.agreement:
            same.setdefault(agreement(row.agreement), []).append(name)
    found = "; ".join(f"{verdict} for {', '.join(names)}" for verdict, names in same.items())
    return [f"Outputs on {summary.device['name']} against this machine's: {found}."] if found else []


def agreement(found: Agreement) -> str:
    """The verdict, with what it rests on where the two differ."""
    if found.verdict == "identical":
        return found.verdict
    share = found.same_predictions_share
    same = "" if share in (1, None) else f", {share:.0%} of {found.samples} answers the same"
    return f"{found.verdict} (SQNR {found.sqnr_db:.0f} dB{same})"


def objectives(summary: Summary) -> str:
    return f"{summary.primary_metric.title}, latency and size" if summary.primary_metric else "latency and size (the task judges nothing)"


def unresolved(summary: Summary) -> list[str]:
    """Which differences in the score these samples cannot show, in one line; variants of one verdict together."""
    same: dict[str, list[str]] = {}
    for name, row in ordered(summary):
        if row.quality.verdict and UNRESOLVED.match(row.quality.verdict):
            same.setdefault(UNRESOLVED.sub("", row.quality.verdict), []).append(name)
    found = "; ".join(f"{', '.join(names)} ({why})" for why, names in same.items())
    title = summary.primary_metric.title if summary.primary_metric else ""
    return [f"{title[:1].upper()}{title[1:]}: no difference could be shown for {found}"] if found else []


def ordered(summary: Summary) -> list[tuple[str, VariantSummary]]:
    """The variants, fastest first by the least favourable end of their ratio, then those without a latency, then the failed ones."""
    return sorted(summary.variants.items(), key=lambda item: (not item[1].ok, slowest(item[1])))


def markdown(summary: Summary) -> str:
    """The content of metrics/report.md."""
    cells = columns(summary)
    head = ["variant", *cells]
    body = [[name + marks(name, summary), *(cell(row) for cell in cells.values())] for name, row in ordered(summary)]
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    rule = ["-" * width for width in widths]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in (head, rule, *body)]
    return "\n".join([*lines, "", *(f"- {line}" for line in explain(summary)), *findings.markdown(summary), ""])


def show(summary: Summary) -> None:
    """Print the table: as wide as it needs where the output is no terminal, in two lines a variant in a narrow one."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    narrow = console.width < WIDE
    left_out = {**LEFT_OUT_BELOW, next(iter(score_columns(summary.primary_metric))): LEAST_WIDTH}
    shown = {title: cell for title, cell in columns(summary).items() if console.width >= left_out.get(title, 0)}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("variant", no_wrap=True)
    for title in shown:
        table.add_column(title, justify="left" if title in ("grade", "verdict") else "right", no_wrap=title != "verdict")
    for name, row in ordered(summary):
        style = "red" if not row.ok else "bold green" if name == summary.chosen else "bold" if name in summary.pareto else None
        cells = [name + marks(name, summary), *(cell(row) for cell in shown.values())]
        table.add_row(*(BREAK.sub("\n", text) if narrow else text for text in cells), style=style)
    console.print(table)
    for line in explain(summary):
        console.print(line, markup=False, soft_wrap=True)
