"""The table: its columns and cells, the same in the terminal, in metrics/report.md and in the page; the lines under it; and the table of
agreement by output, and by groups of an output whose values differ in kind."""

import math
import re
from collections.abc import Callable, Mapping, Sequence

from edgewise.artifacts.records import Agreement, Interval, OutputAgreement, Summary, VariantSummary
from edgewise.plugins import PrimaryMetric
from edgewise.report import choice, findings, slimness, verdicts
from edgewise.report.verdicts import worst_ratio
from edgewise.stats.agreement import HIGHEST_DB
from edgewise.stats.claims import BETTER, EQUIVALENT, IDENTICAL, NO_CLAIM, NOT_RESOLVED, WORSE

TRUST_FIRST = "`edgewise trust` measures how far visits at different times lie apart"
MINUS = "\N{MINUS SIGN}"
BREAK = re.compile(r" (?=[\[(])")
Columns = dict[str, Callable[[VariantSummary], str]]
OutputCells = dict[str, dict[str, float]]  # variant -> output with its group -> SQNR in dB
OUTPUTS_TITLE = "Outputs against the source's, SQNR in dB"
SAID_OF_SCORES = (BETTER, WORSE, EQUIVALENT, IDENTICAL)  # what is not resolved stands under the table
SAID_OF_LATENCY = {NOT_RESOLVED: "latency not resolved", NO_CLAIM: "no claim on latency"}


def markdown_report(summary: Summary) -> str:
    """The text of metrics/report.md."""
    cells = table_columns(summary)
    head = ["variant", *cells]
    body = [[name + format_marks(name, summary), *(cell(row) for cell in cells.values())] for name, row in sort_variants(summary)]
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    rule = ["-" * width for width in widths]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in (head, rule, *body)]
    return "\n".join(
        [
            *(text for line in describe_hold(summary) for text in (line, "")),
            *lines,
            "",
            *(f"- {line}" for line in explain_table(summary)),
            *output_table(summary),
            *slimness.markdown_tables(summary),
            *findings.engine_tables(summary),
            "",
        ]
    )


def describe_hold(summary: Summary) -> list[str]:
    """The first line of the report: for which visits the intervals of latencies hold. None where there is no interval."""
    has_intervals = any(row.latency.ratio_ci95 for row in summary.variants.values())
    return [f"Latency against {summary.reference}: intervals and verdicts hold {say_hold(summary)}."] if has_intervals else []


def say_hold(summary: Summary) -> str:
    trust, counts = summary.trust, [row.latency.visits or 0 for row in summary.variants.values()]
    pooled = f", each of up to {max(counts)} visits" if max(counts, default=0) > 1 else ""
    if trust is None:
        within = "within these visits" if pooled else "within this visit"
        return f"{within} only{pooled or ', one measurement at one time'} ({TRUST_FIRST})"
    most = "" if trust.resolved else "up to about "
    moved = (
        f"ratios move by {most}{100 * trust.log_variance**0.5:.2g} % (standard deviation of {trust.visits} visits since {trust.since[:10]})"
    )
    return f"at other times too{pooled}: on this device {moved}"


def sort_variants(summary: Summary) -> list[tuple[str, VariantSummary]]:
    """The variants, fastest first by the upper end of the ratio's interval; then those without a latency, then those that failed."""
    return sorted(summary.variants.items(), key=lambda item: (not item[1].ok, worst_ratio(item[1])))


def table_columns(summary: Summary) -> Columns:
    metric = summary.primary_metric
    return {
        **score_columns(metric),
        **slimness.columns(summary),
        "MB": format_size,
        "p50 ms": format_p50,
        "ratio": format_ratio,
        "peak +MB": format_peak,
        "grade": lambda row: row.noise.grade if row.noise else "",
        "verdict": lambda row: format_verdict(row, metric),
    }


def brief_columns(summary: Summary) -> Columns:
    """Columns of a table under `describe_hold`, whose rows need not say again for which visits their verdicts hold."""
    return table_columns(summary) | {"verdict": lambda row: format_verdict(row, summary.primary_metric, brief=True)}


def score_columns(metric: PrimaryMetric | None) -> Columns:
    """The score and its difference; where the task judges nothing, the SQNR of the outputs against the reference's."""
    if metric is None:
        return {"SQNR dB": format_sqnr}
    unit = "points" if metric.share else metric.title
    return {
        metric.title: lambda row: format_score(row, metric),
        f"\N{GREEK CAPITAL LETTER DELTA} {unit}": lambda row: format_delta(row, metric),
    }


def format_marks(name: str, summary: Summary) -> str:
    """What follows a name: * for the Pareto set, (reference, chosen)."""
    marked = [word for word, yes in (("reference", name == summary.reference), ("chosen", name == summary.chosen)) if yes]
    return (" *" if name in summary.pareto else "") + (f" ({', '.join(marked)})" if marked else "")


def explain_table(summary: Summary) -> list[str]:
    """The lines under the table: how to read it, the choice, failures, warnings, explanations, findings."""
    profile = next((row.conditions.profile for row in summary.variants.values() if row.conditions), None)
    measured = f"profile {profile}" if profile else "latency not measured"
    if any(row.conditions and row.conditions.emulated for row in summary.variants.values()):
        measured = "emulated: outputs compared, nothing timed"
    lines = [
        f"Against {summary.reference} on {summary.device['name']} ({measured}). Brackets: 95 % intervals. Ratio: latency / "
        f"the reference's, interleaved; its own: against itself. Peak: above the runtime's own baseline. "
        f"*: Pareto set of {name_objectives(summary)}.",
        f"Chosen: {summary.chosen or 'none'}; {summary.chosen_reason}.",
        *describe_margins(summary),
    ]
    lines += [f"{name}: failed: {row.reason}" for name, row in summary.failed.items()]
    lines += [
        f"{name}: {warning}" for name, row in sort_variants(summary) for warning in row.warnings if not verdicts.is_about_noise(warning)
    ]
    lines += findings.describe_disturbances(summary)
    lines += describe_worst_outputs(summary)
    lines += [f"{name}: {'; '.join(row.explanation)}" for name, row in sort_variants(summary) if row.explanation]
    return (
        lines
        + describe_agreement(summary)
        + describe_lost(summary)
        + describe_unresolved(summary)
        + findings.engine_lines(summary)
        + findings.finding_lines(summary)
        + list(summary.warnings)
    )


def describe_agreement(summary: Summary) -> list[str]:
    """How the outputs on the device compare with this machine's, in one line; variants with the same verdict together."""
    same: dict[str, list[str]] = {}
    for name, row in sort_variants(summary):
        if row.agreement:
            same.setdefault(format_agreement(row.agreement), []).append(name)
    found = "; ".join(f"{verdict} for {', '.join(names)}" for verdict, names in same.items())
    return [f"Outputs on {summary.device['name']} against this machine's: {found}."] if found else []


def format_agreement(found: Agreement) -> str:
    """The verdict, with the figures where the two differ."""
    if found.verdict == "identical":
        return found.verdict
    share = found.same_predictions_share
    same = "" if share in (1, None) else f", {share:.0%} of {found.samples} answers the same"
    return f"{found.verdict} (SQNR {found.sqnr_db:.0f} dB{same})"


def describe_lost(summary: Summary) -> list[str]:
    """What happens to the reference's detections at its threshold, which the mean average precision does not see; one line, where the task
    detects: the largest share first, and those that lose nothing together at the end."""
    known = [(name, row) for name, row in sort_variants(summary) if name != summary.reference and knows_lost(row)]
    losing = sorted((pair for pair in known if lost_share(pair[1])), key=lambda pair: -lost_share(pair[1]))
    told = [f"{name} {format_lost(row)}" for name, row in losing]
    told += [f"none by {', '.join(names)}"] if (names := sorted(name for name, row in known if not lost_share(row))) else []
    count = max((row.quality.scores["detections"] for row in summary.variants.values() if knows_lost(row)), default=0)
    threshold = format_threshold(summary.variants[summary.reference])
    which = f" of {threshold}" if threshold else ""
    return [f"Of the {count:,} detections of {summary.reference} above its threshold{which} are lost: {'; '.join(told)}"] if told else []


def knows_lost(row: VariantSummary) -> bool:
    """Whether it is known what the variant loses."""
    return row.quality.scores.get("lost_detections_share") is not None


def lost_share(row: VariantSummary) -> float:
    return float(row.quality.scores["lost_detections_share"])


def format_threshold(row: VariantSummary) -> str:
    """Of a detector: the score above which its boxes are used; else empty."""
    threshold = row.quality.scores.get("threshold")
    return "" if threshold is None else f"{threshold:.2f}"


def format_lost(row: VariantSummary) -> str:
    """The share with its interval, the share at the variant's own threshold, and how the scores of the others moved."""
    scores, own = row.quality.scores, format_threshold(row)
    interval = format_interval(scores["lost_detections_share_ci95"], lambda bound: f"{100 * bound:.1f}")
    share = f"{100 * scores['lost_detections_share']:.1f} %{interval}"
    if own:
        share += f" ({100 * scores['lost_at_own_threshold_share']:.1f} % at its own of {own})"
    if scores["score_shift_median"] is None:
        return share
    low, middle, high = (format_signed(scores[f"score_shift_{name}"], 2) for name in ("p5", "median", "p95"))
    return f"{share}, scores moved by {middle} ({low} to {high})"


def describe_unresolved(summary: Summary, join: Callable[[Sequence[str]], str] = ", ".join) -> list[str]:
    """The variants whose difference is not resolved, with what would resolve it: a line for the score, another for the latency. A score
    that is shown to keep the budget's limit is left out: nothing more was asked.

    join: how names with the same reason are listed.
    """
    metric, base = summary.primary_metric, summary.variants[summary.reference].quality.score
    rows = [(name, row) for name, row in sort_variants(summary) if row.ok]
    found = []
    if metric:
        margin = verdicts.score_margin(metric, summary.margins)
        limit, score = summary.budget.accuracy_drop_points, choice.Score(metric, base)
        open_rows = [(n, r) for n, r in rows if r.quality.verdict == NOT_RESOLVED]
        asked = [(n, r) for n, r in open_rows if limit is None or not choice.check_drop(r, limit, score).met]
        texts = {n: verdicts.what_resolves_score(r, metric, base, margin) for n, r in asked}
        begin = metric.title if metric.title[1:2].isupper() else f"{metric.title[:1].upper()}{metric.title[1:]}"  # mAP stays as it is
        found += say_unresolved(f"{begin} shown neither better nor worse than {summary.reference}'s", texts, join)
    texts = {
        n: verdicts.what_resolves_latency(r, summary.aa_ratio_ci95, summary.margins.latency)
        for n, r in rows
        if r.latency.verdict == NOT_RESOLVED
    }
    return found + say_unresolved("Latency not resolved", texts, join)


def say_unresolved(begin: str, texts: Mapping[str, str], join: Callable[[Sequence[str]], str]) -> list[str]:
    """One line, in which those with the same reason stand together. texts: {variant: what would resolve it}."""
    found = "; ".join(f"{join(names)} ({why})" for why, names in findings.group_by_text(texts).items())
    return [f"{begin}: {found}"] if found else []


def describe_margins(summary: Summary) -> list[str]:
    """What `equivalent` means here; nothing without a margin."""
    metric, margins = summary.primary_metric, summary.margins
    told = []
    if metric and margins.score is not None:
        told.append(f"{metric.title} within {margins.score:g}{('' if not metric.share else ' point' if margins.score == 1 else ' points')}")
    if margins.latency is not None:
        told.append(f"latency within {100 * margins.latency:g} %")
    return [f"Equivalent: the whole interval lies within the margin ({', '.join(told)})."] if told else []


def name_output_group(one: OutputAgreement) -> str:
    """scores, or boxes[0:4] where the output has parts of different kinds."""
    return one.output + one.group


def output_columns(summary: Summary) -> list[str]:
    """All groups of all outputs by name; empty where there is only one, which the table shows as it is."""
    found = dict.fromkeys(name_output_group(one) for row in summary.variants.values() for one in row.proof.outputs)
    return sorted(found) if len(found) > 1 else []


def output_cells(summary: Summary) -> OutputCells:
    """The figures of each variant that was made."""
    return {
        name: {name_output_group(one): one.sqnr_db for one in row.proof.outputs}
        for name, row in summary.variants.items()
        if row.proof.outputs
    }


def describe_worst_outputs(summary: Summary) -> list[str]:
    """A line that names, for each variant, the output or group that lost most; none where there is only one."""
    if not output_columns(summary):
        return []
    worst = {name: row.proof.outputs[0] for name, row in summary.variants.items() if row.proof.outputs}
    texts = [f"{name} {name_output_group(one)} {one.sqnr_db:.1f}" for name, one in worst.items()]
    return [f"Output that lost most against the source, SQNR in dB: {', '.join(texts)}"] if texts else []


def output_table(summary: Summary) -> list[str]:
    """The table for report.md, in Markdown; empty where there is only one group."""
    columns = output_columns(summary)
    if not columns:
        return []
    lines = ["", f"{OUTPUTS_TITLE}:", "", "| " + " | ".join(["variant", *columns]) + " |", "|---" * (len(columns) + 1) + "|"]
    return [
        *lines,
        *("| " + " | ".join([name, *format_output_cells(cells, columns)]) + " |" for name, cells in output_cells(summary).items()),
    ]


def format_output_cells(cells: Mapping[str, float], columns: list[str]) -> list[str]:
    return [f"{cells[column]:.1f}" if column in cells else "" for column in columns]


def output_tables(summary: Summary) -> dict[str, list[str]]:
    """{variant: cells} for the page, with the heading under an empty name; empty where there is only one group."""
    columns = output_columns(summary)
    rows = {name: format_output_cells(cells, columns) for name, cells in output_cells(summary).items()}
    return {"": columns, **rows} if columns else {}


def name_objectives(summary: Summary) -> str:
    score = summary.primary_metric.title if summary.primary_metric else "SQNR"
    return f"{score}, latency and size" if verdicts.makes_claims(summary.variants) else f"{score} and size"


def format_score(row: VariantSummary, metric: PrimaryMetric) -> str:
    if row.quality.score is None:
        return ""
    return f"{row.quality.score:.2%}" if metric.share else f"{row.quality.score:.4g}"


def format_delta(row: VariantSummary, metric: PrimaryMetric) -> str:
    """The difference to the reference with the paired interval: percentage points of a share, else the score's own unit."""
    if row.quality.delta is None:
        return ""
    return format_change(row.quality.delta, metric) + format_interval(row.quality.delta_ci95, lambda bound: format_change(bound, metric))


def format_change(value: float, metric: PrimaryMetric) -> str:
    return format_signed(100 * value, 2) if metric.share else (f"{value:+.3g}".replace("-", MINUS) if value else "0")


def format_sqnr(row: VariantSummary) -> str:
    if row.quality.sqnr_db is None:
        return ""
    return IDENTICAL if row.quality.sqnr_db == HIGHEST_DB else f"{row.quality.sqnr_db:.1f}"


def format_size(row: VariantSummary) -> str:
    return "" if row.file.size_bytes is None else format_mb(row.file.size_bytes)


def format_p50(row: VariantSummary) -> str:
    return "" if row.latency.p50_ms is None else format_digits(row.latency.p50_ms)


def format_ratio(row: VariantSummary) -> str:
    if row.latency.ratio_to_reference is None:
        return ""
    return f"{row.latency.ratio_to_reference:.3f}" + format_interval(row.latency.ratio_ci95, lambda bound: f"{bound:.3f}")


def format_peak(row: VariantSummary) -> str:
    return f"{row.memory.peak_rss_above_baseline_bytes / 1e6:.0f}" if row.memory else ""


def format_mb(size_bytes: float) -> str:
    """Megabytes: a decimal place, and below 1 MB two digits that are not 0."""
    mb = size_bytes / 1e6
    return f"{mb:.1f}" if mb >= 1 else format_digits(mb, 2)


def format_digits(value: float, digits: int = 3) -> str:
    """That many significant digits, zeros at the end included: 0.472, 1.00, 11.8, 1130."""
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    return f"{value:.{max(places, 0)}f}"


def format_verdict(row: VariantSummary, metric: PrimaryMetric | None, brief: bool = False) -> str:
    """The claim about latency, and the one about the score. brief: without the visits for which it holds."""
    if not row.ok:
        return "failed"
    said = row.latency.verdict if brief else verdicts.say_latency(row.latency)
    latency = f"latency {said}" if row.latency.verdict == EQUIVALENT else SAID_OF_LATENCY.get(said or "", said)
    score = f"{metric.title} {row.quality.verdict}" if metric and row.quality.verdict in SAID_OF_SCORES else None
    return ", ".join(part for part in (latency, score) if part)


def format_signed(value: float, digits: int) -> str:
    """A difference with its sign; without one where it rounds to 0."""
    text = f"{value:+.{digits}f}".replace("-", MINUS)
    return text[1:] if float(f"{value:.{digits}f}") == 0 else text


def format_interval(interval: Interval, show: Callable[[float], str]) -> str:
    """ " [low, high]"; empty without an interval."""
    return "" if interval is None else f" [{', '.join(show(bound) for bound in interval)}]"
