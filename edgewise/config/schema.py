"""One variant of the configuration, and what the stages before quantize have to prepare for it."""

import dataclasses
import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from edgewise.config.settings import build, option
from edgewise.errors import ConfigError

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


# The composed configuration: models/config.yaml as typed, frozen dataclasses.
#
# `stages.compose` writes the file from params.yaml (choices) and conf/ (options); every other stage reads it with `read`.

PATH = Path("models/config.yaml")
VARIANT_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")


@dataclasses.dataclass(frozen=True)
class Plugin:
    """A section whose yaml names a module; `settings` were checked against that module's Settings."""

    name: str
    module: str
    settings: dict[str, Any] = option({})

    def load(self) -> ModuleType:
        return importlib.import_module(self.module)


@dataclasses.dataclass(frozen=True)
class Train:
    """How a fresh model is trained: one recipe of conf/train/."""

    name: str
    epochs: int = option(8, "passes over the training split; 0 keeps the initial weights", low=0, high=10_000)
    batch_size: int = option(32, "least number of samples in a step; BatchNorm needs two", low=2, high=65_536)
    optimizer: str = option("adamw", choices=("adamw", "sgd"))
    learning_rate: float = option(1e-3, "peak of the cosine schedule", low=1e-8, high=10.0)
    weight_decay: float = option(0.05, "not for biases and norm layers", low=0.0, high=1.0)
    momentum: float = option(0.9, "for sgd", low=0.0, high=0.9999)
    warmup_share: float = option(0.1, "share of all steps with a rising learning rate", low=0.0, high=0.9)
    label_smoothing: float = option(0.0, low=0.0, high=0.9)
    class_weights: str = option("none", "balanced: weight classes by the inverse of their frequency", choices=("none", "balanced"))
    monitor: str = option(
        "accuracy",
        "score on validation that picks the epoch to keep; last: the last one, steadier where a class has a handful of samples there",
        choices=("accuracy", "accuracy_balanced", "loss", "last"),
    )
    patience: int | None = option(None, "stop after so many epochs without a better score on validation", low=1)
    flip_horizontal: bool = option(False, "mirror half of the pictures, left and right")
    flip_vertical: bool = option(False, "mirror half of the pictures, top and bottom")
    shift_pixels: int = option(0, "random shift in both directions", low=0, high=512)
    brightness: float = option(0.0, "random factor 1 +- brightness", low=0.0, high=0.9)
    contrast: float = option(0.0, "random factor 1 +- contrast", low=0.0, high=0.9)
    threads: int | None = option(None, "null: all cores; another number gives other weights in the last bits", low=1, high=1024)


@dataclasses.dataclass(frozen=True)
class Warmup:
    """Before anything is timed: at least both, until the spread settles or the cap is reached."""

    min_runs: int = option(10, low=1)
    min_s: float = option(0.5, low=0.0)
    max_s: float = option(10.0, low=0.0)
    spread: float = option(0.05, "settled when (max - min) / median of the last 10 runs is below", low=0.0)


@dataclasses.dataclass(frozen=True)
class Bench:
    """How latency and memory are measured: one profile of conf/bench/."""

    name: str
    scope: str = option("model", "end_to_end adds pre- and post-processing", choices=("model", "end_to_end"))
    interleave: str = option("blocks", "what takes turns with the reference", choices=("blocks", "processes"))
    processes: int = option(5, "fresh processes a side, at least", low=1, high=1000)
    max_processes: int = option(9, "fresh processes a side, at most", low=1, high=1000)
    blocks: int = option(1, "blocks in a process", low=1, high=1000)
    block_s: float = option(1.0, "length of a block, seconds", low=0.01, high=600.0)
    min_samples: int = option(128, "timed runs a side, at least", low=1)
    target_half_width: float = option(0.02, "stop when the ratio's interval is this narrow (share of the ratio)", low=0.0, high=1.0)
    max_s: float = option(120.0, "time budget of one variant, seconds", low=1.0)
    claims: bool = option(True, "false: too short for an interval; the ratio is given, nothing is claimed")
    memory: bool = option(True, "the memory pass, in a process of its own")
    fits_mb: tuple[int, ...] = option((), "memory limits to run the variant under, MB (2^20 bytes)")
    profile: bool = option(False, "time and kernel of each operator, in a process of its own: models/bench/V/profile.json")
    agreement_samples: int = option(
        16, "test samples whose outputs on the device are compared with this machine's; 0: not compared", low=0, high=10_000
    )
    energy_s: float | None = option(None, "seconds of the energy pass and again of its idle baseline; null: no such pass", low=10.0)
    warmup: Warmup = option(Warmup())


@dataclasses.dataclass(frozen=True)
class Budget:
    """The user's limits; null is no limit. In params.yaml null keeps the limit of the budget's yaml, and the word `none` lifts it."""

    name: str
    size_bytes: int | None = option(None, low=1)
    latency_p50_ms: float | None = option(None, low=0.0)
    latency_p90_ms: float | None = option(None, low=0.0)
    peak_rss_bytes: int | None = option(None, low=1)
    fits_mb: int | None = option(None, "runs under this memory limit, MB (2^20 bytes), by experiment: one of bench.fits_mb", low=8)
    energy_net_mj: float | None = option(None, "energy of one inference above idle, millijoules", low=0.0)
    accuracy_drop_points: float | None = option(
        None, "largest loss against the reference in the task's score: percentage points, or % of an error", low=0.0, high=100.0
    )
    prefer: str = option("latency", "what to minimize among the variants that fit", choices=("latency", "size", "memory"))


@dataclasses.dataclass(frozen=True)
class Format:
    """How the float model of a format is made; `used` is false where no variant asks for it."""

    module: str
    used: bool
    convert: dict[str, Any] = option({})


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int
    data: Plugin
    model: Plugin
    train: Train
    device: Plugin
    bench: Bench
    budget: Budget
    reference: str
    variants: dict[str, Variant]
    formats: dict[str, Format]
    task: Plugin = option(Plugin("classification", "edgewise.tasks.classification"), "what is judged; params.yaml may leave it out")
    scans: dict[str, dict[str, Scan]] = option({}, "what scan-layers has to do, by scheme and key")
    tunings: dict[str, dict[str, Tuning]] = option({}, "what train-qat has to do, by scheme and key")

    def variant(self, name: str) -> Variant:
        if name not in self.variants:
            raise ConfigError(f"variants.{name}: no such variant; there are: {', '.join(self.variants)}")
        return self.variants[name]


def part(module: str, name: str) -> ModuleType:
    """One module of a format: `part(variant.module, "run")`; name is run, make or facts."""
    return importlib.import_module(f"{module}.{name}")


KEYS = ("code", "runtimes")  # of the file, beside the configuration: what DVC compares, and no stage reads
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml reads 10 times as fast


def read(path: Path = PATH) -> Config:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; run `dvc repro` (its first stage, compose, writes it)") from None
    own = {key: value for key, value in raw.items() if key not in KEYS} if isinstance(raw, dict) else raw
    return build(Config, own, str(path))


def to_plain(config: Any) -> Any:
    """Dataclasses to dicts and lists, as they are written to YAML and JSON."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {k: to_plain(v) for k, v in config.items()}
    return [to_plain(v) for v in config] if isinstance(config, (list, tuple)) else config
