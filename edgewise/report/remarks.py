"""At most five remarks under the table of a terminal: what matters most first. The rest stands in metrics/report.md and in the page."""

import textwrap
from collections.abc import Iterator
from itertools import filterfalse

from edgewise.artifacts.records import Summary
from edgewise.report import disturbance, table, verdicts
from edgewise.report.answer import name_some

MOST = 5
LONGEST = 230  # characters of a remark: three lines of 80


def pick_remarks(summary: Summary) -> list[str]:
    """The first MOST remarks; the last one of them says how many lines there are besides."""
    found = [textwrap.shorten(text, LONGEST, placeholder=" ...") for text in find_remarks(summary)]
    rest = len(table.explain_table(summary)) - 1  # without how to read the table
    more = f"{rest} lines on all variants: edgewise report --verbose"
    return [*found[: MOST - 1], more]


def find_remarks(summary: Summary) -> Iterator[str]:
    """What failed, what is wrong with the source or the data, then what limits the claims."""
    yield from describe_failures(summary)
    yield from summary.warnings
    yield from describe_profile(summary)
    yield from describe_warnings(summary)
    yield from disturbance.describe_disturbances(summary)
    yield from table.describe_unresolved(summary)


def describe_failures(summary: Summary) -> Iterator[str]:
    failed = summary.failed
    if failed:
        first, *others = failed
        more = f"; also {name_some(others)}" if others else ""
        yield f"{len(failed)} of {len(summary.variants)} variants failed: {first}: {failed[first].reason}{more}"


def describe_profile(summary: Summary) -> Iterator[str]:
    """That a short profile claims nothing, and that `-S` has written it into params.yaml, where it stays."""
    if not verdicts.makes_claims(summary.variants):
        profile = next((row.conditions.profile for row in summary.variants.values() if row.conditions), "")
        yield (
            f"profile {profile} gives no intervals, so nothing is claimed about latency; `dvc exp run -S bench.name=quick` measures longer"
            f" (if you have set {profile} with -S, it is in params.yaml and stays there until you change it)"
        )


def describe_warnings(summary: Summary) -> Iterator[str]:
    """The warnings of variants; those with the same text together."""
    same: dict[str, list[str]] = {}
    for name, row in table.sort_variants(summary):
        for warning in filterfalse(verdicts.is_about_noise, row.warnings):
            same.setdefault(warning, []).append(name)
    for warning, names in same.items():
        yield f"{name_some(names)}: {warning}"
