"""Answers that no figure of the table makes suspicious: always the same one, no better than it, and classes that are never found.

71 % accuracy looks like a result until one sees that 71 % of the samples are of one class.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from edgewise.artifacts.records import VariantSummary
from edgewise.plugins import Decisions, PrimaryMetric
from edgewise.report.verdicts import Rows
from edgewise.stats.paired import mcnemar_p

SURE = 0.05  # p-value below which the source is better than a constant answer
LEAST_SCORE = 0.01  # of a detector and the like, below which the source finds next to nothing
LEAST_SAMPLES = 5  # of a class in the test split: with fewer, a recall of 0 is no surprise
MOST_NAMED = 3


def add_warnings(rows: Rows, answers: Mapping[str, Decisions], reference: str) -> dict[str, VariantSummary]:
    """The rows, with a warning where a variant never recognizes a class that the reference does."""
    more = {name: tuple(warn_of_variant(found, answers.get(reference))) for name, found in answers.items()}
    return {name: replace(row, warnings=(*row.warnings, *more.get(name, ()))) for name, row in rows.items()}


def warn_of_source(reference: str, found: Decisions | None) -> Iterator[str]:
    """What is wrong with the answers of the reference, which has the source's own."""
    if found is None or not names_classes(found):
        return
    if len(set(found.decided)) == 1 < len(set(found.truth)):
        share = Counter(found.truth)[found.decided[0]] / len(found.truth)
        yield (
            f"{reference} answers {found.decided[0]!r} for every test sample ({share:.1%} are): the source has learned nothing, or its"
            " preprocessing is wrong: train longer (train.epochs), or check the data section"
        )
        return
    yield from warn_of_constant(reference, found)
    never = find_never(found)
    if never:
        yield f"{reference} never recognizes {name_classes(never)}: more pictures of them, or longer training (train.epochs)"


def warn_of_low_score(reference: str, score: float | None, metric: PrimaryMetric | None) -> Iterator[str]:
    """Where the score of the reference, a share such as mAP or mean IoU, is next to nothing."""
    if score is None or metric is None or not (metric.share and metric.higher_is_better) or score >= LEAST_SCORE:
        return
    yield (
        f"the {metric.title} of {reference} is {score:.2%}: the source finds next to nothing, so no variant can lose anything: train"
        " longer (train.epochs), or check the preprocessing and the labels in the section data"
    )


def warn_of_constant(reference: str, found: Decisions) -> Iterator[str]:
    """Where the reference is not shown to be better than always answering the commonest class, by the exact test of paired answers."""
    word, count = Counter(found.truth).most_common(1)[0]
    constant = [truth == word for truth in found.truth]
    gained = sum(bool(right) and not same for right, same in zip(found.correct, constant, strict=True))
    lost = sum(same and not right for right, same in zip(found.correct, constant, strict=True))
    if len(set(found.truth)) > 1 and (gained <= lost or mcnemar_p(gained, lost) > SURE):
        share, right = count / len(found.truth), float(found.correct.mean())
        yield (
            f"{reference} is right for {right:.1%} of the test samples, which is not shown to be better than always answering {word!r}"
            f" ({share:.1%}): compare task.name=defect_detection, more data, or longer training (train.epochs)"
        )


def warn_of_variant(found: Decisions, reference: Decisions | None) -> Iterator[str]:
    """The classes that a variant never recognizes and the reference does."""
    if reference is None or not names_classes(found) or not names_classes(reference):
        return
    lost = {word: count for word, count in find_never(found).items() if word not in find_never(reference)}
    if lost:
        yield f"never recognizes {name_classes(lost)}, which the reference does"


def names_classes(found: Decisions) -> bool:
    """Whether each answer is one class of those that the samples have."""
    return bool(len(found.truth)) and all(
        right == (said == truth) for right, said, truth in zip(found.correct, found.decided, found.truth, strict=True)
    )


def find_never(found: Decisions) -> dict[str, int]:
    """{class: samples} of the classes with enough samples of which none was recognized, those with most samples first."""
    hits = Counter(truth for truth, right in zip(found.truth, found.correct, strict=True) if right)
    return {word: count for word, count in Counter(found.truth).most_common() if count >= LEAST_SAMPLES and not hits[word]}


def name_classes(found: Mapping[str, int]) -> str:
    shown = [f"{word!r} ({count} samples)" for word, count in list(found.items())[:MOST_NAMED]]
    more = len(found) - len(shown)
    return ", ".join(shown) + (f" and {more} more classes" if more else "")
