"""The result of an experiment and its verdict, computed from measured numbers and the claimed one."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.article.project import Ratio, Span

RIGHT, WRONG, PARTLY, OPEN, UNTESTED = "holds here", "does not hold here", "holds in part", "cannot be told from this run", "not tested"
NOISY = "noisy"


@dataclass(frozen=True)
class Finding:
    """claim: as published. experiment: what was done. verdict: one of the words above; because: the numbers behind it."""

    claim: str
    experiment: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdict: str
    because: str
    more: str = ""  # another command, where this one is not all


def at_least(low: float, high: float, claimed: float) -> str:
    """The verdict on "at least `claimed`" of a measured interval."""
    if low >= claimed:
        return RIGHT
    return WRONG if high < claimed else OPEN


def all_of(verdicts: Sequence[str]) -> str:
    """The verdict on a claim about several things."""
    kinds = set(verdicts)
    if len(kinds) == 1:
        return verdicts[0]
    return PARTLY if RIGHT in kinds or PARTLY in kinds else OPEN


def speedup(ratio: Ratio) -> tuple[float, float, float]:
    """Times faster, and its interval."""
    return 1 / ratio.value, 1 / ratio.high, 1 / ratio.low


def format_speedup(ratio: Ratio) -> str:
    times, low, high = speedup(ratio)
    return f"{times:.2f} [{low:.2f}, {high:.2f}]"


def spanned(span: Span) -> str:
    return f"{span.middle:.1f} [{span.low:.1f}, {span.high:.1f}]"


def less(before: float, after: float) -> str:
    """A change in per cent."""
    change = f"{100 * (after / before - 1):+.1f}"
    return f"{'0.0' if float(change) == 0 else change} %".replace("-", "−")


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"
