"""One run of the agent, as the statistics see it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.core.timing_stats import Side
from stages.payload.reader import ProtocolFault

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """The events of one process, as they came."""

    events: tuple[Event, ...]

    @classmethod
    def of(cls, events: Iterable[Event], **expected: int) -> "Run":
        """Take the events of a run and check how many there are of each kind in `expected`. ProtocolFault otherwise."""
        run = cls(tuple(events))
        for name, count in expected.items():
            if len(run.all(name)) != count:
                raise ProtocolFault("out_of_order", f"{len(run.all(name))} events {name} where {count} were due")
        return run

    def all(self, name: str) -> list[Event]:
        return [event for event in self.events if event["event"] == name]

    def one(self, name: str) -> Event:
        return self.all(name)[0]

    @property
    def load_ms(self) -> float:
        return self.one("loaded")["wall_ns"] / 1e6

    @property
    def first_inference_ms(self) -> float:
        return self.one("first_inference")["wall_ns"] / 1e6

    @property
    def steady(self) -> bool:
        return self.one("warmup")["steady"]

    @property
    def blocks_ms(self) -> list[np.ndarray]:
        return [np.array(block["wall_ns"]) / 1e6 for block in self.all("block")]


def side(runs: Iterable[Run]) -> Side:
    return [run.blocks_ms for run in runs]
