"""What is to be in the Model Registry, and under which aliases."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgewise.artifacts import artifact
from edgewise.artifacts import records as results
from edgewise.artifacts.figures import figures, metric_name
from edgewise.artifacts.records import METRICS, Summary, VariantSummary
from edgewise.config import schema
from edgewise.config.schema import Config
from edgewise.errors import EdgewiseError

FASTEST, SMALLEST, BEST_SCORE = "fastest", "smallest", "most-accurate"  # words of aliases
Cost = Callable[[Mapping[str, Any]], float]  # of a result: less is better, infinite where it was not measured


@dataclass(frozen=True)
class Candidate:
    """One measured variant. key: of its record. revision: of the experiment whose files it has; None: those of the workspace."""

    key: str
    variant: str
    result: Mapping[str, Any]
    revision: str | None = None


@dataclass(frozen=True)
class Registration:
    """One registered model. aliases: the key of the candidate that each belongs to; None where nothing deserves it any more."""

    name: str
    candidates: tuple[Candidate, ...] = ()
    aliases: Mapping[str, str | None] = field(default_factory=dict)


def registration(
    name: str, place: str, front: Sequence[Candidate], chosen: Mapping[str, Candidate | None], score: tuple[str, bool] | None
) -> Registration:
    """place: the device, and the sweep if it is one. chosen: by the name of the budget. score: the task's, and whether more is better."""
    costs: dict[str, Cost] = {FASTEST: latency, SMALLEST: of("size_bytes", 1)}
    if score:
        costs[BEST_SCORE] = of(score[0], -1 if score[1] else 1)
    aliases: dict[str, str | None] = {}
    for word in costs:
        best = min(front, key=lambda candidate, word=word: rank(candidate, word, costs), default=None)  # type: ignore[misc]
        aliases[f"{place}-{word}"] = best.key if best and costs[word](best.result) < math.inf else None
    aliases |= {f"{place}-{budget}": candidate.key if candidate else None for budget, candidate in chosen.items()}
    every = {candidate.key: candidate for candidate in (*front, *filter(None, chosen.values()))}
    return Registration(name, tuple(every.values()), aliases)


def rank(candidate: Candidate, first: str, costs: Mapping[str, Cost]) -> list[float]:
    """What is equal in `first` is told apart by the other results."""
    return [costs[word](candidate.result) for word in sorted(costs, key=lambda word: word != first)]


def latency(result: Mapping[str, Any]) -> float:
    """The least favourable end of the ratio's interval, by which the report ranks too; the ratio itself where there is none."""
    interval = result.get("latency_ratio_ci95")
    return float(interval[1]) if interval else of("latency_ratio_to_reference", 1)(result)


def of(name: str, sign: int) -> Cost:
    return lambda result: math.inf if result.get(name) is None else sign * float(result[name])


# What a run in MLflow is to hold, read from the files alone. A run is known by the hash of its content, not by when it was made.

MODELS = Path("models")
SHARED = (
    *(METRICS / name for name in ("summary.json", "report.md", "device.json", "data.json", "train.json")),
    schema.PATH,
    MODELS / "report",
)
KEY = "edgewise.key"


@dataclass(frozen=True)
class Record:
    """One run. `marks` are the tags that change although the content does not: whether the variant is chosen, or on the front."""

    variant: str
    key: str
    ok: bool
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    marks: Mapping[str, str]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Book:
    """Everything that is to be in MLflow. shared: files that every current run carries; data: of the MLflow input."""

    experiment: str
    records: tuple[Record, ...]
    shared: tuple[Path, ...]
    data: Mapping[str, str]
    registrations: tuple[Registration, ...]

    @property
    def state(self) -> str:
        """A hash of all that could need writing."""
        files = {str(path): artifact.sha256(path) for path in self.shared}
        runs = {r.key: dict(r.marks) for r in self.records}
        aliases = [dict(registration.aliases) for registration in self.registrations]
        return digest({"experiment": self.experiment, "runs": runs, "files": files, "aliases": aliases})


def digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def book(settings: Config, summary: Summary) -> Book:
    missing = settings.variants.keys() - summary.variants.keys()
    if missing:
        raise EdgewiseError(f"{results.SUMMARY} knows nothing of {', '.join(sorted(missing))}: run `dvc repro report` first")
    lock = lock_entries(Path("dvc.lock"))
    records = tuple(record(name, settings, summary, lock) for name in settings.variants)
    return Book(
        experiment=f"{settings.model.name}-{settings.data.name}",
        records=records,
        shared=tuple(path for top in SHARED for path in files_of(top)),
        data=data_set(settings),
        registrations=(registered(records, settings, summary),),
    )


def registered(records: Iterable[Record], settings: Config, summary: Summary) -> Registration:
    """The front and what the budget chose; a budget without limits chooses nothing and has no alias."""
    known = {r.variant: Candidate(r.key, r.variant, figures(summary.variants[r.variant], summary.primary_metric)) for r in records}
    chosen = known.get(summary.chosen or "")
    front = [known[name] for name in summary.pareto]
    name = f"{settings.model.name}-{settings.data.name}"
    score = (summary.primary_metric.name, summary.primary_metric.higher_is_better) if summary.primary_metric else None
    return registration(name, settings.device.name, front, {settings.budget.name: chosen}, score)


def record(name: str, settings: Config, summary: Summary, lock: Mapping[str, Any]) -> Record:
    row, configuration = summary.variants[name], configuration_of(name, settings)
    entries = {stage: entry for stage, entry in lock.items() if stage.endswith(f"@{name}")}
    found = figures(row, summary.primary_metric)
    content = {"variant": name, "configuration": configuration, "lock": entries, "results": found}
    key = digest(content)
    return Record(
        variant=name,
        key=key,
        ok=row.ok,
        params=dict(flatten(configuration | ({"engine_chosen": row.engine_auto.settings} if row.engine_auto else {}))),
        metrics=dict(numbers(found)),
        tags={
            KEY: key,
            **tags(name, row, summary),
            **{f"lock.{stage.partition('@')[0]}": digest(entry)[:16] for stage, entry in entries.items()},
        },
        marks={"chosen": word(name == summary.chosen), "pareto": word(name in summary.pareto)},
        files=tuple(path for top in own_files(name) for path in files_of(top)),
    )


def configuration_of(name: str, settings: Config) -> dict[str, Any]:
    """What of the configuration has a part in this variant's results; the budget only judges them."""
    plain = schema.to_plain(settings)
    sections = ("seed", "data", "task", "model", "train", "device", "bench", "reference")
    variant = plain["variants"][name]
    return {**{key: plain[key] for key in sections}, "format": plain["formats"][variant["format"]], "variant": variant}


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and the leaves as text; lists, empty mappings and null as JSON."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree if isinstance(tree, str) else json.dumps(tree)


def numbers(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The metrics of a row: its numbers; intervals as NAME_low and NAME_high; mappings as NAME_KEY, bytes by dtype as NAME_DTYPE."""
    for key, value in row.items():
        name = prefix + key
        if isinstance(value, Mapping):
            yield from numbers(value, f"{name.removesuffix('_by_dtype')}_")
        elif isinstance(value, list) and len(value) == 2 and all(isinstance(v, float) for v in value):
            yield from ((f"{name}_low", value[0]), (f"{name}_high", value[1]))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, float(value)


def tags(name: str, row: VariantSummary, summary: Summary) -> dict[str, str]:
    """What a user filters runs by, and what proves what the run is of. None is left out."""
    made = artifact.read(MODELS / "variants" / name)
    known = {
        "variant": name,
        "format": row.format,
        "scheme": row.scheme,
        "status": row.status,
        "reason": row.reason,
        "reference": summary.reference,
        **({metric_name(summary.primary_metric, "verdict"): row.quality.verdict} if summary.primary_metric else {}),
        "latency_verdict": row.latency.verdict,
        "latency_reason": row.latency.missing_reason,
        "noise_grade": row.noise.grade if row.noise else None,
        "engine_auto": row.engine_auto.reason if row.engine_auto else None,
        "device.emulated": word(row.conditions.emulated) if row.conditions else None,
        "device.name": summary.device.get("name"),
        "device.fingerprint": row.conditions.device_fingerprint if row.conditions else summary.device.get("fingerprint"),
        "mlflow.note.content": "\n\n".join((*row.warnings, *row.explanation)) or None,
        **{f"sha256.{file}": entry["sha256"] for file, entry in made.files.items()},
    }
    return {tag: str(value) for tag, value in known.items() if value is not None}


def own_files(name: str) -> tuple[Path, ...]:
    """Manifests, measurements and raw samples; the model itself stays in the DVC cache, its hash is a tag."""
    return (
        MODELS / "variants" / name / artifact.MANIFEST,
        MODELS / "evaluate" / name / "details.json",
        *(MODELS / "bench" / name / f"{kind}.json" for kind in ("samples", "minutes", "profile", "trace")),
        METRICS / "evaluate" / f"{name}.json",
        METRICS / "bench" / f"{name}.json",
    )


def files_of(path: Path) -> list[Path]:
    """The file, or the files right in the folder; nothing where there is nothing."""
    return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path] if path.exists() else []


def lock_entries(path: Path) -> Mapping[str, Any]:
    """The stages of dvc.lock; none where the stages were run by hand."""
    if not path.exists():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml reads a lock of 50 stages 10 times as fast
    stages: Mapping[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=loader).get("stages", {})
    return stages


def data_set(settings: Config) -> dict[str, str]:
    """Fields of mlflow.entities.Dataset. The UI shows the digest behind the name; MLflow takes at most 36 characters."""
    found = results.read_plain(METRICS / "data.json")
    return {
        "name": settings.data.name,
        "digest": str(found["digest"])[:12],
        "source_type": "edgewise",
        "source": json.dumps(schema.to_plain(settings.data), sort_keys=True),
        "profile": json.dumps(found, sort_keys=True),
    }


def word(yes: bool) -> str:
    return "true" if yes else "false"
