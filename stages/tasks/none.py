"""Nothing is judged: variants are made, measured and compared with the reference by how far their outputs agree."""

from collections.abc import Mapping
from dataclasses import dataclass

from stages.core.judging import Answers, Comparison, Decisions, Headline, Judgement

TARGETS = None
NEEDS: tuple[str, ...] = ()
SPLITS = ("test",)
HEADLINE: Headline | None = None
SCORES: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    pass


def judge(settings: Settings, answers: Mapping[str, Answers]) -> Judgement:
    return Judgement({}, {"answer": "values"})


def compare(settings: Settings, reference: Answers, variant: Answers) -> Comparison | None:
    return None


def decide(answers: Answers) -> Decisions | None:
    return None
