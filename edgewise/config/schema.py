"""The composed configuration, models/config.yaml, as typed, frozen dataclasses.

`stages.compose` writes the file from params.yaml (choices) and conf/ (options); every other stage reads it with `read`. First come the
variants and what they need, then the other sections, then Config itself.
"""

import dataclasses
import hashlib
import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from edgewise.config.prune_settings import Distillation, Prune
from edgewise.config.settings import build, option
from edgewise.errors import ConfigError

PATH = Path("models/config.yaml")
VARIANT_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")
MODES = ("whole", "mapped", "split", "lazy")
IN_PARTS = ("split", "lazy")
LATENCY, MEMORY = "latency", "memory"  # goals by which engine settings are chosen


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How value ranges of activations are found."""

    samples: int = option(128, "number of samples, taken from the start of the calibration split", low=1, high=1_000_000)
    method: str = option("minmax", "how the range of an activation is chosen; what a format offers: conf/format/")
    resamples: int = option(
        0, "further calibration sets, drawn with replacement, to see how much accuracy depends on the choice; 0: none", low=0, high=1000
    )


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Limits for int8-mixed: the fewest layers stay float with which the validation samples meet both."""

    sqnr_db: float = option(20.0, "minimum SQNR of the outputs against the float model, dB; 0: no limit", low=0.0, high=150.0)
    accuracy_drop_points: float | None = option(None, "largest loss of accuracy, percentage points; null: no limit", low=0.0, high=100.0)


@dataclasses.dataclass(frozen=True)
class Qat:
    """Fine-tuning with fake quantization of weights and activations."""

    epochs: int = option(3, "passes over the training split", low=1, high=10_000)
    learning_rate: float = option(1e-4, "peak of the cosine schedule; use about a tenth of that of the training", low=1e-8, high=10.0)


@dataclasses.dataclass(frozen=True)
class AccuracyControl:
    """Limit for a tool that itself reverts layers to float."""

    drop_points: float | None = option(None, "largest loss of accuracy on validation, percentage points; null: no control", low=0.0)


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
class Pruning:
    """One source that the stage prune has to make; variants with the same settings share it. qat: fine-tuned with fake quantization
    in the end."""

    settings: Prune
    qat: Tuning | None = None

    @property
    def key(self) -> str:
        return f"{self.settings.key}-{self.qat.key}" if self.qat else self.settings.key

    @property
    def before_qat(self) -> "Pruning":
        """The float source that it begins with."""
        return Pruning(self.settings)


@dataclasses.dataclass(frozen=True)
class Load:
    """How weights are loaded into memory at run time."""

    mode: str = option(
        "whole",
        "whole: all at once; mapped: memory-mapped from disk; split: in parts, one after the other; lazy: the second part only for samples "
        "that are not like the normal ones",
        choices=MODES,
    )
    parts: int = option(3, "number of parts of about equal size", low=2, high=64)
    at: str | None = option(None, "layer of the source with which the second of two parts begins, for example classifier; overrides parts")
    shut_share: float = option(0.9, "lazy: share of normal samples that skip the second part", low=0.0, high=1.0)
    keep: bool = option(
        False, "true: parts stay loaded (as fast as whole); false: each is released before the next is loaded (least memory)"
    )

    @property
    def in_parts(self) -> bool:
        return self.mode in IN_PARTS

    def __post_init__(self) -> None:
        if self.mode == "lazy" and self.at is None:
            raise ConfigError(
                "load.at: missing; mode lazy needs the layer of the source with which the second part begins, for example classifier"
            )


@dataclasses.dataclass(frozen=True)
class Auto:
    """A search for the best engine settings on the device."""

    goal: str = option(LATENCY, "what to minimize", choices=(LATENCY, MEMORY))
    fixed: tuple[str, ...] = option((), "settings that the user set; they are not searched")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One format with one scheme and its settings. None: the scheme of the format has no such setting."""

    name: str
    format: str
    scheme: str
    module: str
    min_sqnr_db: float = option(0.0, "minimum SQNR of the outputs against the source, dB")
    min_device_sqnr_db: float = option(0.0, "minimum SQNR of the device's outputs against this machine's, dB")
    calibration: Calibration | None = None
    per_channel: bool | None = None
    symmetric: bool | None = None
    reduce_range: bool | None = option(None, "weights of 7 bits, for processors whose int8 dot products overflow their 16-bit accumulators")
    block_size: int | None = option(None, low=8, high=1024)
    io: str | None = option(None, "inputs and outputs of a full-integer file: integer, or float with quantization inside")
    tail: str | None = option(
        None, "what stands behind the last layers of a detector: float, or int8 like the rest", choices=("float", "int8")
    )
    tool: str | None = option(None, "what finds ranges and biases of int8-static", choices=("onnxruntime", "nncf"))
    spread: str | None = option(None, "depthwise convolutions whose channels differ too much for one scale", choices=("float", "int8"))
    keep_float: tuple[str, ...] = ()
    keep_int8: tuple[str, ...] = option((), "layers that keep 8-bit weights among 4-bit ones; names or patterns as in keep_float")
    mixed: Mixed | None = None
    qat: Qat | None = None
    prune: Prune | None = option(None, "channels are cut out of the source before the variant is made; for any format and scheme")
    accuracy_control: AccuracyControl | None = None
    load: Load = option(Load())
    file: dict[str, Any] = option({}, "how the file is written, for any scheme")
    engine: dict[str, Any] = option({}, "settings of the runtime")
    auto: Auto | None = option(None, "whether bench-on-device searches for better settings than `engine`")

    @property
    def scan(self) -> Scan | None:
        """The scan that scan-layers has to run for it."""
        if self.mixed is None:
            return None
        return Scan(self.calibration.samples if self.calibration else Calibration().samples, self.per_channel is not False)

    @property
    def tuning(self) -> Tuning | None:
        """The training that train-qat has to run for it; a pruned source is fine-tuned by the stage prune."""
        return None if self.prune else self._quantized_training

    @property
    def pruning(self) -> Pruning | None:
        """The source that the stage prune has to make for it."""
        return Pruning(self.prune, self._quantized_training) if self.prune else None

    @property
    def _quantized_training(self) -> Tuning | None:
        return Tuning(self.qat.epochs, self.qat.learning_rate, self.per_channel is not False) if self.qat else None

    def with_engine(self, found: Mapping[str, Any]) -> "Variant":
        """The variant with the engine settings that `engine: auto` found on the device, if any."""
        return dataclasses.replace(self, engine={**self.engine, **found}) if found else self


@dataclasses.dataclass(frozen=True)
class Plugin:
    """A section whose yaml names a module; `settings` have been checked against that module's Settings."""

    name: str
    module: str
    settings: dict[str, Any] = option({})

    def load(self) -> ModuleType:
        return importlib.import_module(self.module)


@dataclasses.dataclass(frozen=True)
class Train:
    """How a model is trained: one recipe of conf/train/."""

    name: str
    epochs: int = option(8, "passes over the training split; 0 keeps the initial weights", low=0, high=10_000)
    batch_size: int = option(32, "batch size; BatchNorm needs at least 2", low=2, high=65_536)
    optimizer: str = option("adamw", choices=("adamw", "sgd"))
    learning_rate: float = option(1e-3, "peak of the cosine schedule", low=1e-8, high=10.0)
    weight_decay: float = option(0.05, "of matrices and filters, not of biases and norm layers", low=0.0, high=1.0)
    momentum: float = option(0.9, "of sgd", low=0.0, high=0.9999)
    warmup_share: float = option(0.1, "share of all steps in which the learning rate rises linearly", low=0.0, high=0.9)
    ema: float = option(
        0.0,
        "decay of the exponential moving average of the weights that is validated and kept, such as 0.99; 0: the weights themselves",
        low=0.0,
        high=0.9999,
    )
    label_smoothing: float = option(0.0, low=0.0, high=0.9)
    class_weights: str = option("none", "balanced: weight classes by the inverse of their frequency", choices=("none", "balanced"))
    monitor: str = option(
        "accuracy",
        "score on validation by which the epoch is chosen; last: the last epoch, for validation splits too small to choose by",
        choices=("accuracy", "accuracy_balanced", "ap50", "mean_iou", "loss", "last"),
    )
    patience: int | None = option(None, "stop after this many epochs without a better score on validation; null: never", low=1)
    flip_horizontal: bool = option(False, "mirror pictures left to right with probability 0.5")
    flip_vertical: bool = option(False, "mirror pictures top to bottom with probability 0.5")
    shift_pixels: int = option(0, "largest random shift in both directions, pixels", low=0, high=512)
    zoom: float = option(0.0, "pictures are enlarged by a random factor from 1 - zoom to 1 + zoom, about a random point", low=0.0, high=0.9)
    brightness: float = option(0.0, "random factor from 1 - brightness to 1 + brightness", low=0.0, high=0.9)
    contrast: float = option(0.0, "random factor from 1 - contrast to 1 + contrast", low=0.0, high=0.9)
    threads: int | None = option(None, "null: all cores; the last bits of the weights depend on it", low=1, high=1024)
    teacher: str | None = option(None, "a net to learn from: models/source of another project, or a file of torch.export.save")
    distillation: Distillation = option(Distillation(), "how much the loss follows the teacher")


@dataclasses.dataclass(frozen=True)
class Warmup:
    """Warm-up before timing: at least min_runs and min_s, then until the latencies settle or max_s is reached."""

    min_runs: int = option(10, low=1)
    min_s: float = option(0.5, low=0.0)
    max_s: float = option(10.0, low=0.0)
    spread: float = option(0.05, "settled when (max - min) / median of the last 10 runs is below", low=0.0)


@dataclasses.dataclass(frozen=True)
class Bench:
    """How latency, memory and energy are measured: one profile of conf/bench/."""

    name: str
    scope: str = option("model", "end_to_end adds pre- and post-processing", choices=("model", "end_to_end"))
    interleave: str = option("blocks", "unit in which variant and reference alternate", choices=("blocks", "processes"))
    processes: int = option(5, "minimum number of fresh processes for each of variant and reference", low=1, high=1000)
    max_processes: int = option(9, "maximum number of fresh processes for each of variant and reference", low=1, high=1000)
    blocks: int = option(1, "blocks of runs per process", low=1, high=1000)
    block_s: float = option(1.0, "duration of a block, seconds", low=0.01, high=600.0)
    min_samples: int = option(128, "minimum number of timed runs for each of variant and reference", low=1)
    target_half_width: float = option(
        0.02, "stop when the half-width of the latency ratio's interval is below this share of the ratio", low=0.0, high=1.0
    )
    max_s: float = option(120.0, "time limit for one variant, seconds", low=1.0)
    claims: bool = option(True, "false: the run is too short for an interval; only the ratio is reported")
    memory: bool = option(True, "measure memory, in a process of its own")
    fits_mb: tuple[int, ...] = option((), "memory limits under which the variant is run, MB (2^20 bytes)")
    profile: bool = option(False, "record time and kernel of each operator, in a process of its own: models/bench/V/profile.json")
    agreement_samples: int = option(
        16, "number of test samples whose outputs on the device are compared with this machine's; 0: not compared", low=0, high=10_000
    )
    energy_s: float | None = option(
        None, "duration of the energy measurement, and again of its idle baseline, seconds; null: not measured", low=10.0
    )
    warmup: Warmup = option(Warmup())
    answer: dict[str, Any] | None = option(None, "filled in by compose: what end_to_end does after the model; see agent.sample_answer")


@dataclasses.dataclass(frozen=True)
class Budget:
    """The user's limits; null: no limit. In params.yaml null keeps the limit of the budget's yaml, and the word `none` removes it."""

    name: str
    size_bytes: int | None = option(None, low=1)
    latency_ratio: float | None = option(
        None, "largest latency as a share of the reference's, by the interval of the ratio; 0.5: twice as fast", low=1e-6
    )
    latency_p50_ms: float | None = option(None, low=0.0)
    latency_p90_ms: float | None = option(None, low=0.0)
    peak_rss_bytes: int | None = option(None, low=1)
    fits_mb: int | None = option(None, "memory limit under which the variant must have run, MB (2^20 bytes); one of bench.fits_mb", low=8)
    energy_net_mj: float | None = option(None, "energy of one inference above idle, millijoules", low=0.0)
    accuracy_drop_points: float | None = option(
        None, "largest loss in the task's primary metric against the reference: percentage points, or % for errors", low=0.0, high=100.0
    )
    sqnr_db: float | None = option(None, "least SQNR of the outputs against the reference's, dB", low=0.0, high=200.0)
    lost_detections_share: float | None = option(
        None, "largest share of the reference's detections above its threshold that are not found again; task detection", low=0.0, high=1.0
    )
    prefer: str = option("latency", "what to minimize among the variants within the budget", choices=("latency", "size", "memory"))

    @property
    def title(self) -> str:
        """How a reader knows it: by its option, or where params.yaml alone gives limits, by these."""
        limits = [field.name for field in dataclasses.fields(self)[1:] if field.name != "prefer" and getattr(self, field.name) is not None]
        return f"your limits ({', '.join(limits)})" if self.name == "none" and limits else f"the budget '{self.name}'"


@dataclasses.dataclass(frozen=True)
class Margins:
    """The largest differences that do not matter to the user: `bench.margin` and `task.margin` of params.yaml. They stand in a section of
    their own here, so that another margin makes the report anew and measures nothing. null: no equivalence is claimed."""

    latency: float | None = option(
        None,
        "difference in latency that does not matter, as a share: 0.02 calls ratios from 1/1.02 to 1.02 equivalent; null: none are",
        low=0.001,
        high=1.0,
    )
    score: float | None = option(
        None,
        "difference in the score that does not matter, in percentage points of a share, else in the score's own unit; null: none",
        low=1e-9,
    )


@dataclasses.dataclass(frozen=True)
class Format:
    """How the float model of a format is made; `used`: whether a variant needs it."""

    module: str
    used: bool
    convert: dict[str, Any] = option({})


@dataclasses.dataclass(frozen=True)
class Config:
    """All of models/config.yaml."""

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
    task: Plugin = option(Plugin("classification", "edgewise.tasks.classification"), "what is evaluated; optional in params.yaml")
    scans: dict[str, dict[str, Scan]] = option({}, "scans that scan-layers has to run, by scheme and key")
    tunings: dict[str, dict[str, Tuning]] = option({}, "trainings that train-qat has to run, by scheme and key")
    margins: Margins = option(Margins())
    experiment: str = option("", "name of the experiment and of the registered model in MLflow; null: MODEL-DATA")
    tracking_uri: str | None = option(None, "the MLflow server or database that runs are written to; null: mlflow.db in the project")
    prunings: dict[str, Pruning | None] = option({}, "sources that prune has to make, for every variant; null: it is made of models/source")

    def variant(self, name: str) -> Variant:
        if name not in self.variants:
            raise ConfigError(f"variants.{name}: unknown variant; allowed: {', '.join(self.variants)}")
        return self.variants[name]


def part(module: str, name: str) -> ModuleType:
    """One module of a format: `part(variant.module, "run")`; name: run, make, facts, split, store, profile or scan."""
    return importlib.import_module(f"{module}.{name}")


KEYS = ("code", "runtimes")  # of the file, beside the configuration: what DVC compares; prune and visits read theirs, for their stores
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml reads 10 times as fast


def _load(path: Path) -> Any:
    """ConfigError if the file does not exist or is not YAML."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; run `dvc repro` (its first stage, compose, writes it)") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML ({reason}): run `dvc repro` (its first stage, compose, writes it)") from None


def read(path: Path = PATH) -> Config:
    """The composed configuration. ConfigError if there is none or it is invalid."""
    raw = _load(path)
    own = {key: value for key, value in raw.items() if key not in KEYS} if isinstance(raw, dict) else raw
    return build(Config, own, str(path))


def read_compared(stage: str, path: Path = PATH) -> dict[str, Any]:
    """What DVC compares for a stage beside its settings: {"code": its digest, or {variant: digest}; "runtimes": of `runtimes`}. None for
    what the file does not say."""
    raw = _load(path)
    return {key: (raw.get(key) or {}).get(stage) for key in KEYS}


def settings_sha256(path: Path = PATH) -> str:
    """A hash of the composed settings alone: without the digests of code and the versions of runtimes, which differ between machines."""
    raw = _load(path)
    own = {key: value for key, value in raw.items() if key not in KEYS}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def to_plain(config: Any) -> Any:
    """Dataclasses as dicts and lists, for YAML and JSON."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {k: to_plain(v) for k, v in config.items()}
    return [to_plain(v) for v in config] if isinstance(config, (list, tuple)) else config
