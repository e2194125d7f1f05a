"""One variant of the configuration, and what the stages before quantize have to prepare for it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from stages.core.errors import ConfigError
from stages.core.settings import option

MODES = ("whole", "mapped", "split", "lazy")
IN_PARTS = ("split", "lazy")
LATENCY, MEMORY = "latency", "memory"  # what engine settings can be chosen by


@dataclasses.dataclass(frozen=True)
class Calibration:
    samples: int = option(128, "samples of the calibration split, in its stored order", low=1, high=1_000_000)
    method: str = option("minmax")
    resamples: int = option(
        0, "further calibration sets, drawn with replacement, that give the band of accuracy; 0: none", low=0, high=1000
    )


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Which layers stay float: the fewest bytes with which validation samples meet both limits."""

    sqnr_db: float = option(20.0, "least SQNR of the outputs against the float model; 0: no such limit", low=0.0, high=150.0)
    accuracy_drop_points: float | None = option(None, "most accuracy that may be lost, percentage points", low=0.0, high=100.0)


@dataclasses.dataclass(frozen=True)
class Qat:
    """Training that goes on with 8-bit weights and activations simulated."""

    epochs: int = option(3, "passes over the training split", low=1, high=10_000)
    learning_rate: float = option(1e-4, "peak of the cosine schedule; a tenth of what the source was trained with", low=1e-8, high=10.0)


@dataclasses.dataclass(frozen=True)
class AccuracyControl:
    drop_points: float | None = option(None, "most accuracy on validation that may be lost, percentage points; null: no control", low=0.0)


@dataclasses.dataclass(frozen=True)
class Scan:
    """One run of scan-layers; variants with the same settings share it."""

    samples: int
    per_channel: bool

    @property
    def key(self) -> str:
        return f"{'per-channel' if self.per_channel else 'per-tensor'}-{self.samples}"


@dataclasses.dataclass(frozen=True)
class Tuning:
    """One run of train-qat; variants with the same settings share it."""

    epochs: int
    learning_rate: float
    per_channel: bool

    @property
    def key(self) -> str:
        return f"{'per-channel' if self.per_channel else 'per-tensor'}-{self.epochs}-{self.learning_rate:g}"


@dataclasses.dataclass(frozen=True)
class Load:
    """How the model's weights come into memory when it runs."""

    mode: str = option(
        "whole",
        "mapped: from the disk as they are needed; split: in parts, one after the other; lazy: the second part only for samples unlike "
        "normal ones",
        choices=MODES,
    )
    parts: int = option(3, "parts of about equal bytes", low=2, high=64)
    at: str | None = option(None, "layer of the source that begins the second of two parts, for example classifier; overrides parts")
    shut_share: float = option(0.9, "lazy: share of the normal samples that are answered without the second part", low=0.0, high=1.0)
    keep: bool = option(False, "true: parts stay loaded (no slower than whole); false: each is released before the next (least memory)")

    @property
    def in_parts(self) -> bool:
        return self.mode in IN_PARTS

    def __post_init__(self) -> None:
        if self.mode == "lazy" and self.at is None:
            raise ConfigError(
                "load.at: missing; mode lazy needs the layer of the source that begins the second part, for example classifier"
            )


@dataclasses.dataclass(frozen=True)
class Auto:
    """Engine settings that are found on the device."""

    goal: str = option(LATENCY, choices=(LATENCY, MEMORY))
    fixed: tuple[str, ...] = option((), "settings that the user named himself")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One format with one scheme and its settings. None: the format's scheme has no such setting."""

    name: str
    format: str
    scheme: str
    module: str
    min_sqnr_db: float = option(0.0, "least signal-to-noise ratio of the outputs against the source")
    min_device_sqnr_db: float = option(0.0, "least signal-to-noise ratio of the device's outputs against this machine's")
    calibration: Calibration | None = None
    per_channel: bool | None = None
    symmetric: bool | None = None
    reduce_range: bool | None = option(None, "weights of 7 bits, where products of 8 bits saturate")
    block_size: int | None = option(None, low=8, high=1024)
    io: str | None = option(None, "what a full-integer file itself takes and gives: integer, or float with the quantizing inside")
    keep_float: tuple[str, ...] = ()
    keep_int8: tuple[str, ...] = option((), "layers with weights of 8 bits among such of 4; named as those of keep_float")
    mixed: Mixed | None = None
    qat: Qat | None = None
    accuracy_control: AccuracyControl | None = None
    load: Load = option(Load())
    file: dict[str, Any] = option({}, "how the model's file is written, whatever the scheme")
    engine: dict[str, Any] = option({})
    auto: Auto | None = option(None, "whether bench-on-device looks for better ones than `engine`")

    @property
    def scan(self) -> Scan | None:
        """What it needs of scan-layers."""
        if self.mixed is None:
            return None
        return Scan(self.calibration.samples if self.calibration else Calibration().samples, self.per_channel is not False)

    @property
    def tuning(self) -> Tuning | None:
        """What it needs of train-qat."""
        return Tuning(self.qat.epochs, self.qat.learning_rate, self.per_channel is not False) if self.qat else None

    def tuned(self, kept: Mapping[str, Any]) -> "Variant":
        """With the engine settings that `engine: auto` kept on the device; none where it looked for none."""
        return dataclasses.replace(self, engine={**self.engine, **kept}) if kept else self
