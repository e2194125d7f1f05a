"""No evaluation: variants are made, measured, and compared with the reference by the agreement of their outputs."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgewise.plugins import Comparison, Decisions, Predictions, PrimaryMetric, Scores
from edgewise.tasks.predictions import keep_all

TARGETS = None
NEEDS: tuple[str, ...] = ()
SCORED = False
DRAWN = False
OPEN_SIZES = True
timed_answer = None
SPLITS = ("test",)
PRIMARY_METRIC: PrimaryMetric | None = None
condense = keep_all
SCORES: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    pass


def judge(settings: Settings, answers: Mapping[str, Predictions]) -> Scores:
    return Scores({}, {"answer": "values"})


def compare(settings: Settings, reference: Predictions, variant: Predictions) -> Comparison | None:
    return None


def decide(answers: Predictions) -> Decisions | None:
    return None
