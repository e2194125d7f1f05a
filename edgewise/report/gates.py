"""Gates for CI: what the last run must show, each with one line and one of three verdicts.

    pass            shown by the whole 95 % interval
    fail            the contrary is shown
    not resolved    neither; it names what is missing

Exit codes: 0 every gate passes; 1 one fails; 4 none fails and one is not resolved, which a CI may treat in its own way. 2 stays the code of
mistakes in the command itself.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from edgewise.artifacts.artifact import write_json
from edgewise.artifacts.records import Interval, Summary, VariantSummary
from edgewise.config.schema import Margins
from edgewise.config.settings import nearest
from edgewise.errors import UserError
from edgewise.plugins import PrimaryMetric
from edgewise.report import choice, last_run, table, verdicts
from edgewise.report.last_run import Run
from edgewise.stats import claims

PASS, FAIL, OPEN = "pass", "fail", "not resolved"
CODES = {PASS: 0, FAIL: 1, OPEN: 4}
SCHEMA = 1  # of --json
USUAL_MARGIN = 0.05  # of --no-slower-than-last where bench.margin is not set
USUAL_LOSS = 1.0  # of --no-worse-than-last where task.margin is not set: a point of a share, else a percent of the score
SLOWER_REFERENCE = 1.25  # the reference of seven default runs of this repository, on days of one machine, lay within a factor of 1.16
SAME_MEASURE = ("scope", "interleave", "threads")  # conditions without which ratios of two runs are of different things
NOT_IN_XML = re.compile(r"\x1b\[[0-9;]*m|[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # colours of a terminal, and all else


@dataclass(frozen=True)
class Gate:
    """name: as the user gave it, or what is always looked at; text: why."""

    name: str
    verdict: str
    text: str


@dataclass(frozen=True)
class Demand:
    """NAME:NUMBER of an option."""

    variant: str
    number: float


@dataclass(frozen=True)
class Demands:
    """What the user asks for beside the budget. no_slower, no_worse: than this earlier run."""

    faster: Sequence[Demand] = ()
    equivalent: Sequence[Demand] = ()
    no_slower: Run | None = None
    no_worse: Run | None = None


def parse_demand(option: str, text: str, summary: Summary) -> Demand:
    """NAME:NUMBER with a variant of the run and a number above 0. UserError otherwise."""
    name, colon, number = text.rpartition(":")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not colon or not 0 < value < math.inf:
        raise UserError(
            f"edgewise report: {option} {text!r}; give VARIANT:NUMBER with a number above 0, for example {option} onnx-int8:1.5"
        )
    if name not in summary.variants:
        raise UserError(f"edgewise report: {option} {text!r}: {name!r} is not a variant of the last run; {nearest(name, summary.variants)}")
    return Demand(name, value)


def run_gates(summary: Summary, demands: Demands) -> list[Gate]:
    """Every gate, in the order in which they are shown."""
    return [
        *check_variants(summary),
        *check_budget(summary),
        *(check_faster(summary, each) for each in demands.faster),
        *(check_equivalent(summary, each) for each in demands.equivalent),
        *(check_last(summary, demands.no_slower.summary, demands.no_slower.name) if demands.no_slower else ()),
        *(check_scores(last_run.read_this(summary), demands.no_worse) if demands.no_worse else ()),
    ]


def exit_code(gates: Sequence[Gate]) -> int:
    found = {gate.verdict for gate in gates}
    return CODES[FAIL if FAIL in found else OPEN if OPEN in found else PASS]


def check_variants(summary: Summary) -> Iterator[Gate]:
    for name, row in summary.failed.items():
        yield Gate("variants", FAIL, f"{name} failed: {row.reason}")
    if not summary.failed:
        yield Gate("variants", PASS, f"all {len(summary.variants)} variants are ok")


def check_budget(summary: Summary) -> Iterator[Gate]:
    """One gate where the budget has limits: missed only if every variant is shown to miss one."""
    if not choice.active_limits(summary.budget):
        return
    name = summary.budget.title.removeprefix("the ").replace("'", "")
    if summary.chosen:
        yield Gate(name, PASS, f"chosen: {summary.chosen}, {summary.chosen_reason}")
        return
    metric, base = summary.primary_metric, summary.variants[summary.reference].quality.score
    rows = {n: choice.check_limits(row, summary.budget, metric, base) for n, row in summary.variants.items() if row.ok}
    may_fit = [n for n, found in rows.items() if all(finding.met or finding.unsure for finding in found)]
    losers = "; ".join(f"{n}: {', '.join(texts)}" for n, texts in summary.losers.items() if not may_fit or n in may_fit)
    yield Gate(name, OPEN if may_fit else FAIL, losers or summary.chosen_reason)


def check_faster(summary: Summary, demand: Demand) -> Gate:
    """--faster-than NAME:FACTOR: the variant is more than FACTOR times as fast as the reference."""
    name, row = f"--faster-than {demand.variant}:{demand.number:g}", summary.variants[demand.variant]
    interval = row.latency.ratio_ci95
    if not row.ok or interval is None:
        return without_interval(name, row)
    said = claims.ratio_claim(tuple(demand.number * bound for bound in interval))
    verdict = {claims.FASTER: PASS, claims.SLOWER: FAIL}.get(said, OPEN)
    times = f"{1 / (row.latency.ratio_to_reference or math.nan):.2f} [{1 / interval[1]:.2f}, {1 / interval[0]:.2f}] times"
    missing = f"; {choice.visits_missing(interval, 1 / demand.number)}" if verdict == OPEN else ""
    return Gate(name, verdict, f"{times} as fast as {summary.reference}{verdicts.say_within(row.latency)}{missing}")


def without_interval(name: str, row: VariantSummary) -> Gate:
    """A failed variant fails; one that was measured without an interval, or not at all, shows nothing."""
    if not row.ok:
        return Gate(name, FAIL, f"failed: {row.reason}")
    profile = (
        f"the profile '{row.conditions.profile}' gives no interval: use bench.name=quick or standard" if row.conditions else "not measured"
    )
    return Gate(name, OPEN, row.latency.missing_reason or profile)


def check_equivalent(summary: Summary, demand: Demand) -> Gate:
    """--equivalent NAME:MARGIN: the score differs from the reference's by less than MARGIN, in the unit of task.margin. UserError where the
    task judges nothing."""
    metric, row = summary.primary_metric, summary.variants[demand.variant]
    name = f"--equivalent {demand.variant}:{demand.number:g}"
    if metric is None:
        raise UserError(f"edgewise report: {name}: this task has no score; limit the outputs with budget.sqnr_db")
    margin, interval = verdicts.score_margin(metric, Margins(score=demand.number)), row.quality.delta_ci95
    if not row.ok or interval is None or margin is None or row.quality.delta is None:
        return Gate(name, OPEN if row.ok else FAIL, "the reference failed" if row.ok else f"failed: {row.reason}")
    said = claims.score_claim(interval, margin)
    beyond = interval[0] >= margin or interval[1] <= -margin
    verdict = PASS if said in (claims.EQUIVALENT, claims.IDENTICAL) else FAIL if beyond else OPEN
    found = f"{metric.title} differs by {say_change(row.quality.delta, interval, metric)}"
    base = summary.variants[summary.reference].quality.score
    missing = f"; {verdicts.what_resolves_score(row, metric, base, margin)}" if verdict == OPEN else ""
    return Gate(name, verdict, found + missing)


def check_last(summary: Summary, last: Summary, name: str) -> Iterator[Gate]:
    """--no-slower-than-last: one gate for each variant that both runs have."""
    margin = summary.margins.latency or USUAL_MARGIN
    both = [
        variant for variant in summary.variants if variant in last.variants and variant != summary.reference and last.variants[variant].ok
    ]
    if not both or summary.reference != last.reference:
        what = f"the reference was {last.reference}" if both else "no variant is in both runs"
        yield Gate("--no-slower-than-last", OPEN, f"{what} in {name}")
    else:
        for variant in both:
            yield compare_with_last(variant, summary.variants[variant], last.variants[variant], margin, name)
        yield from warn_of_slower_reference(summary.variants[summary.reference], last.variants[last.reference], summary.reference, name)


def warn_of_slower_reference(row: VariantSummary, before: VariantSummary, reference: str, last: str) -> Iterator[Gate]:
    """Not resolved where the reference takes so much longer than then that a slower model is likelier than another hour."""
    now, then = row.latency.p50_ms, before.latency.p50_ms
    if verdicts.differing_conditions(row, before, (*verdicts.ANOTHER_DEVICE, *SAME_MEASURE)) or not now or not then:
        return
    if now > then * SLOWER_REFERENCE:
        yield Gate(
            f"--no-slower-than-last {reference}",
            OPEN,
            f"the reference itself takes {now:.3g} ms, in {last} {then:.3g}: ratios to it do not see that; budget.latency_p50_ms limits it",
        )


def compare_with_last(variant: str, row: VariantSummary, before: VariantSummary, margin: float, last: str) -> Gate:
    """Slower is shown where the whole interval of (ratio now / ratio then) lies above 1; not slower where it lies below 1 + margin."""
    name = f"--no-slower-than-last {variant}"
    if not row.ok:
        return Gate(name, FAIL, f"failed: {row.reason}; it was ok in {last}")
    device = verdicts.differing_conditions(row, before, verdicts.ANOTHER_DEVICE)
    other = verdicts.differing_conditions(row, before, SAME_MEASURE)
    if device or other:
        return Gate(
            name, OPEN, f"{last} was measured {'on another device' if device else f'with another {other[0]}'}: nothing to compare with"
        )
    if is_same_measurement(row, before):
        return Gate(name, PASS, f"the measurement is that of {last}: nothing that decides its latency has changed")
    change = quotient(row.latency.ratio_ci95, before.latency.ratio_ci95)
    if change is None:
        return (
            without_interval(name, row)
            if row.latency.ratio_ci95 is None
            else Gate(name, OPEN, f"{last} has no interval of it; commit a run with bench.name=quick or standard")
        )
    verdict = FAIL if change[0] > 1 else PASS if change[1] < 1 + margin else OPEN
    now, then = (each.latency.ratio_to_reference or math.nan for each in (row, before))
    figures = f"ratio {now:.3f}, in {last} {then:.3f}: {now / then:.3f} [{change[0]:.3f}, {change[1]:.3f}] of it"
    known = row.latency.between_visits and before.latency.between_visits
    limit = f", up to {1 + margin:g} passes" if verdict == OPEN else ""
    return Gate(name, verdict, f"{figures}{limit}{'' if known else ', each within its visit (see `edgewise trust`)'}")


def is_same_measurement(row: VariantSummary, before: VariantSummary) -> bool:
    """Whether no visit has come between: all figures of the last visit are the same to the last digit."""
    now, then = row.latency, before.latency
    return now.p50_ms is not None and (now.p50_ms, now.samples, now.visits) == (then.p50_ms, then.samples, then.visits)


def check_scores(now: Run, last: Run) -> Iterator[Gate]:
    """--no-worse-than-last: one gate for each variant that both runs have, the reference too: its score changes where the model does."""
    name, metric, before = "--no-worse-than-last", now.summary.primary_metric, last.summary.variants
    obstacle = last_run.find_obstacle(now.summary, last)
    both = [each for each in now.summary.variants if each in before and before[each].ok]
    if metric is None or obstacle or not both:
        yield Gate(name, OPEN, obstacle or f"no variant is in both runs in {last.name}")
    else:
        for variant in both:
            yield Gate(f"{name} {variant}", *compare_score(variant, metric, now, last))


def compare_score(variant: str, metric: PrimaryMetric, now: Run, last: Run) -> tuple[str, str]:
    """Verdict and text. Worse is shown where the whole interval of the loss lies above 0; not worse where it lies below the margin:
    task.margin, else USUAL_LOSS."""
    row, before = now.summary.variants[variant], last.summary.variants[variant]
    if not row.ok:
        return FAIL, f"failed: {row.reason}; it was ok in {last.name}"
    score = f"{metric.label} {table.format_score(row, metric)}"
    if last_run.is_same_score(variant, now, last):
        return PASS, f"{score}, the same as in {last.name}"
    change = last_run.score_change(variant, metric, now, last)
    if change is None or before.quality.score is None:
        return OPEN, f"{score}, without an interval here or in {last.name}: run `dvc repro` there with this release and commit metrics/"
    low, high = change.interval
    loss = (-high, -low) if metric.higher_is_better else (low, high)
    margin = verdicts.score_margin(metric, now.summary.margins) or USUAL_LOSS / metric.percent(before.quality.score)
    verdict = FAIL if loss[0] > 0 else PASS if loss[1] < margin else OPEN
    found = f"{score}, in {last.name} {table.format_score(before, metric)}: {say_change(change.value, change.interval, metric)}"
    missing = f"; {what_resolves_loss(loss, margin, row.quality.samples, metric)}" if verdict == OPEN else ""
    return verdict, found + missing + last_run.describe_samples(variant, now, last)


def what_resolves_loss(loss: tuple[float, float], margin: float, samples: int | None, metric: PrimaryMetric) -> str:
    """How many test samples would show that the loss is below the margin, or where the middle of its interval is one, that there is one."""
    times = [claims.times_needed((loss[0] - margin, loss[1] - margin)), claims.times_needed(loss) if sum(loss) > 0 else None]
    known = [each for each in times if each is not None]
    passes = f"a loss below {100 * margin:.2f} points passes" if metric.share else f"a loss below {margin:.3g} passes"
    if not known or samples is None:
        return f"{passes}, and so many samples cannot show it"
    return f"{passes}; needs about {max(min(known), 2) * samples:,} samples in both runs"


def say_change(value: float, interval: tuple[float, ...], metric: PrimaryMetric) -> str:
    """-0.19 [-0.74, +0.37] points; of another score than a share in its own unit."""
    form, factor, unit = ("+.2f", 100, "points") if metric.share else ("+.3g", 1, metric.title)
    figure, low, high = (format(factor * each, form) for each in (value, *interval))
    return f"{figure} [{low}, {high}] {unit}"


def quotient(one: Interval, other: Interval) -> tuple[float, float] | None:
    """The interval of the quotient of two independent ratios, on the scale of logarithms; None where one has none."""
    if one is None or other is None:
        return None
    logs = [claims.logs(interval) for interval in (one, other)]
    (middle, half), (its, its_half) = [((low + high) / 2, (high - low) / 2) for low, high in logs]
    both = math.hypot(half, its_half)
    return math.exp(middle - its - both), math.exp(middle - its + both)


def print_gates(gates: Sequence[Gate], say: Callable[[str], object] = print) -> None:
    for gate in gates:
        say(f"{gate.verdict:12}  {gate.name}: {gate.text}")


def write_gates(gates: Sequence[Gate], summary: Summary, path: Path) -> None:
    """--json: {schema, exit_code, device_fingerprint, gates: [{name, verdict, text}]}."""
    content = {"schema": SCHEMA, "exit_code": exit_code(gates), "device_fingerprint": summary.device.get("fingerprint")}
    write_json(path, {**content, "gates": [vars(gate) for gate in gates]})


def write_junit(gates: Sequence[Gate], path: Path) -> None:
    """--junit: a test case for each gate. A gate that is not resolved is skipped there: the format has no word between pass and fail."""
    failed, skipped = (str(sum(gate.verdict == verdict for gate in gates)) for verdict in (FAIL, OPEN))
    suite = ElementTree.Element("testsuite", name="edgewise", tests=str(len(gates)), errors="0", failures=failed, skipped=skipped)
    for gate in gates:
        case = ElementTree.SubElement(suite, "testcase", classname="edgewise.gates", name=printable(gate.name))
        if gate.verdict == PASS:
            ElementTree.SubElement(case, "system-out").text = printable(gate.text)
        else:
            ElementTree.SubElement(case, "failure" if gate.verdict == FAIL else "skipped", message=printable(gate.text))
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def printable(text: str) -> str:
    """Without the control characters that XML 1.0 does not have, such as those of colours in what a framework said."""
    return NOT_IN_XML.sub("", text)
