"""Run the agent for a variant that was placed on the device, and hold the events of each run."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.agent.class_maps import find_reading
from edgewise.agent.protocol import DETERMINISTIC, Fault, ProtocolFault
from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Bench, Plugin, Variant, to_plain
from edgewise.errors import ConfigError, VariantFailed
from edgewise.plugins import Connection
from edgewise.stats.timing import Side

Event = Mapping[str, Any]
INPUT_SAMPLES = 8  # real ones, used in turn, so that no result rests on a single picture
MEMORY_RUNS = 5  # after the first: some runtimes allocate their working memory in the second one only
PROFILE_WARMUP_RUNS, PROFILE_RUNS = 5, 20  # a profile is for shares; the time of an inference comes from the latency runs
LIMITED_WARMUP = {"min_runs": 3, "min_s": 0.0, "max_s": 0.5, "spread": 0.05}
LIMITED_S = 60.0  # a run that barely does not fit reads the same pages for ever
MIN_LIMIT_MB, MAX_LIMIT_MB = 8, 1 << 20  # Python alone takes about 8
START_S = 60.0  # to start Python and import a runtime on the slowest board


@dataclass(frozen=True)
class Run:
    """The events of one process, in order."""

    events: tuple[Event, ...]

    @classmethod
    def of(cls, events: Iterable[Event], **expected: int) -> "Run":
        """Collect the events of a run. ProtocolFault if there are not as many of a kind as `expected` says."""
        run = cls(tuple(events))
        for name, count in expected.items():
            if len(run.all(name)) != count:
                raise ProtocolFault("out_of_order", f"{len(run.all(name))} events {name} where {count} were expected")
        return run

    def all(self, name: str) -> list[Event]:
        return [event for event in self.events if event["event"] == name]

    def one(self, name: str) -> Event:
        return self.all(name)[0]

    @property
    def load_ms(self) -> float:
        return float(self.one("loaded")["wall_ns"] / 1e6)

    @property
    def first_inference_ms(self) -> float:
        return float(self.one("first_inference")["wall_ns"] / 1e6)

    @property
    def steady(self) -> bool:
        return bool(self.one("warmup")["steady"])

    @property
    def blocks_ms(self) -> list[np.ndarray]:
        return [np.array(block["wall_ns"]) / 1e6 for block in self.all("block")]


def blocks_by_process(runs: Iterable[Run]) -> Side:
    """The wall times of each block of each process, ms, as stats.timing takes them."""
    return [run.blocks_ms for run in runs]


@dataclass(frozen=True)
class PlacedVariant:
    """A variant whose files are on the device, with the inputs that it is measured on. fields: those of each job on a model."""

    name: str
    fields: Mapping[str, Any]
    connection: Connection
    deadline_s: float
    cooling: Mapping[str, float]  # fields of a cool_down job; empty: run at any temperature

    def run(self, kind: str, expected: Mapping[str, int], **fields: Any) -> Run:
        """Run the agent in a fresh process. VariantFailed if the file itself is at fault; Fault for anything else."""
        job = {"kind": kind, **self.fields, **fields}
        try:
            return Run.of(self.connection.run(job, self.deadline_s), **expected)
        except Fault as fault:
            if fault.word in DETERMINISTIC:
                raise VariantFailed(f"{self.name} on the device: {fault}") from fault
            raise

    def latency(self, bench: Bench) -> Run:
        """Measure latency without a partner, after cooling down."""
        self.cool_down()
        return self.run("latency", self.expected(bench), **self.timed(bench))

    def cool_down(self) -> None:
        if self.cooling:
            Run.of(self.connection.run({"kind": "cool_down", **self.cooling}, START_S + self.cooling["max_s"]), cooled=1)

    def timed(self, bench: Bench) -> dict[str, Any]:
        """The fields of a latency job with the timing of a profile."""
        min_runs = math.ceil(bench.min_samples / (bench.processes * bench.blocks))
        timing = {"warmup": to_plain(bench.warmup), "blocks": bench.blocks, "block_s": bench.block_s, "min_runs": min_runs}
        return {**self.fields, **timing}

    def expected(self, bench: Bench) -> dict[str, int]:
        """How many events of each kind a latency job sends."""
        return {"loaded": 1, "first_inference": 1, "warmup": 1, "block": bench.blocks}

    def memory(self) -> Run:
        return self.run("memory", {"memory": 5}, runs=MEMORY_RUNS)

    def fits(self, limit_mb: int) -> Run:
        """Run under a memory limit of so many MB (2^20 bytes)."""
        timing = {"warmup": LIMITED_WARMUP, "blocks": 1, "block_s": 0.5, "min_runs": 5}
        job = {"kind": "fits", **self.fields, **timing, "limit_bytes": limit_mb << 20, "inner_deadline_s": LIMITED_S}
        return Run.of(self.connection.run(job, LIMITED_S + START_S), limited=1)

    def profile(self) -> Run:
        """Time each operator."""
        runner = f"{self.fields['runner'].rpartition('.')[0]}.profile"
        counts = {"warmup_runs": PROFILE_WARMUP_RUNS, "runs": PROFILE_RUNS}
        return self.run("profile", {"operators": PROFILE_RUNS, "trace": 1}, **{**counts, "runner": runner})

    def outputs(self, inputs: str, count: int) -> Run:
        """Compute the outputs for the `count` samples in `inputs`, a path on the device; the samples are preprocessed already."""
        return self.run("outputs", {"loaded": 1, "outputs": count}, inputs=inputs, scope="model", preprocessing=None, answer=None)

    def energy(self, seconds: float) -> Run:
        return self.run("energy", {"sources": 1}, seconds=seconds)


def place_variant(
    variant: Variant, models: Path, inputs: str, samples: Samples, bench: Bench, device: Plugin, connection: Connection
) -> PlacedVariant:
    """Place the variant's folder on the device. inputs: the path of inputs.npz there."""
    whole = bench.scope == "end_to_end"
    limit = device.settings["cool_down_degc"]
    cooling = {"below_degc": limit, "max_s": device.settings["cool_down_max_s"]} if limit else {}
    fields = {
        "runner": f"{variant.module}.run",
        "model": connection.place(models / "variants" / variant.name),
        "settings": {"threads": device.settings["threads"], **variant.engine},
        "inputs": inputs,
        "scope": bench.scope,
        "preprocessing": dict(samples.preprocessing) if whole else None,
        "answer": complete_answer(bench.answer, samples, models / "variants" / variant.name) if whole else None,
    }
    return PlacedVariant(variant.name, fields, connection, START_S + bench.max_s + 2 * (bench.energy_s or 0.0), cooling)


def complete_answer(answer: Mapping[str, Any] | None, samples: Samples, folder: Path) -> dict[str, Any] | None:
    """bench.answer with the names of the classes, and what the model's manifest says where the user does not: how boxes are decoded, which
    output is a map of classes. ConfigError where that is not clear."""
    if answer is None:
        return None
    known, made = {"labels": list(samples.labels)}, artifact.read(folder)
    if answer["answer"] == "map":
        ports = {port.name: {"shape": list(port.shape), "meaning": port.meaning} for port in made.answered}
        try:
            return {"answer": "map", **known, **find_reading(answer, ports, len(samples.labels))}
        except ValueError as error:
            raise ConfigError(str(error)) from error
    return {**answer, **known, **({"decoding": answer["decoding"] or made.details.get("decoding", {})} if "decoding" in answer else {})}


def store_inputs(samples: Samples, scope: str, folder: Path) -> None:
    """Write the inputs.npz that the agent reads: the first samples of the test split, not preprocessed if the scope is end_to_end, and
    where they have various sizes all of data.image_size."""
    indices = samples.indices("test")[:INPUT_SAMPLES]
    if scope == "end_to_end" and samples.preprocessing.get("kind") != "image":
        raise ConfigError("bench.scope: 'end_to_end' needs pictures, and this data set has none; allowed here: model")
    raw = samples.raw_of_one_size(indices)
    arrays = raw if scope == "end_to_end" else samples.to_feeds(raw)
    np.savez(folder / "inputs.npz", **arrays)  # type: ignore[arg-type]


def check_limits(fits_mb: Sequence[int]) -> None:
    """ConfigError for a memory limit that is out of range."""
    for limit_mb in fits_mb:
        if not MIN_LIMIT_MB <= limit_mb <= MAX_LIMIT_MB:
            raise ConfigError(f"bench.fits_mb: {limit_mb} must be at least {MIN_LIMIT_MB} and at most {MAX_LIMIT_MB} (MB)")
