"""The records of the passes beside latency: memory, energy, memory limits, minutes of load, engine settings, operators. Part of
`records`, from which they are imported."""

from dataclasses import dataclass
from typing import Any

Interval = tuple[float, ...] | None  # (low, high), 95 %


@dataclass(frozen=True)
class Memory:
    """Memory, found in a process of its own. peak: since the imports, over load, runs and release; it includes the baseline.

    running_anonymous_bytes, running_file_bytes: after the runs, the process's own memory and the memory mapped from files, which the kernel
    can drop and read again. peak_reset false: the kernel refused to reset the peak, so it may come from the imports and overstate what
    the model needs.
    """

    baseline_rss_bytes: int
    after_load_rss_bytes: int
    after_first_inference_rss_bytes: int
    peak_rss_bytes: int
    peak_rss_above_baseline_bytes: int
    after_release_rss_bytes: int
    running_anonymous_bytes: int
    running_file_bytes: int
    peak_reset: bool = True
    major_faults: int = 0

    @property
    def steps(self) -> dict[str, int]:
        """Resident bytes at each step of the pass, in order."""
        return {
            "baseline": self.baseline_rss_bytes,
            "load": self.after_load_rss_bytes,
            "first_inference": self.after_first_inference_rss_bytes,
            "peak": self.peak_rss_bytes,
            "release": self.after_release_rss_bytes,
        }


@dataclass(frozen=True)
class EnergyFigures:
    """The energy of one inference, from one sensor. scope: the part of the device that it sees. net: above the device's idle baseline."""

    source: str
    scope: str
    rate_hz: float
    idle_w: float
    mean_w: float
    gross_mj: float
    net_mj: float
    net_ci95_mj: Interval = None


@dataclass(frozen=True)
class Energy:
    """status: measured, or why there are no figures. problems: of the sensors that could not be read."""

    status: str
    figures: EnergyFigures | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class LimitedRun:
    """The variant under a memory limit. verdict: ok, oom, failed, not tested. For ok the median and all major page faults at the limit."""

    verdict: str
    evidence: str = ""
    p50_ms: float | None = None
    major_faults: int | None = None


@dataclass(frozen=True)
class Sustained:
    """Minutes of load. drift: last minute / first minute - 1. ratio_start, ratio_end: variant / reference in their first and last
    minutes. throttled_from_minute: the first one is 0; None where no throttling was seen."""

    minutes: int
    start_p50_ms: float
    end_p50_ms: float
    drift: float
    ratio_start: float
    ratio_end: float
    throttled_from_minute: int | None = None
    temperature_max_degc: float | None = None


@dataclass(frozen=True)
class EnginePoint:
    """One point of the grid. settings: those that differ from the plain ones. ratio: to the plain settings, measured in turns."""

    settings: dict[str, Any]
    verdict: str
    ratio: float | None = None
    ratio_ci95: Interval = None
    refusal: str | None = None
    sqnr_db: float | None = None


@dataclass(frozen=True)
class EngineAuto:
    """What `engine: auto` found. kept: the settings that differ from the variant's own; settings: all of them."""

    goal: str
    kept: dict[str, Any]
    settings: dict[str, Any]
    reason: str
    points: tuple[EnginePoint, ...] = ()


@dataclass(frozen=True)
class Operators:
    """The slowest operators. status: measured, or why there are no times; top: as in profile.json, the slowest first."""

    status: str
    top: tuple[dict[str, Any], ...] = ()
