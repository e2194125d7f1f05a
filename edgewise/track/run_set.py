"""What MLflow is to hold, read from files alone: a run for each variant, and the versions and aliases of the registered model.

A run is identified by the hash of its content, not by when it was made, so writing it twice adds nothing.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from edgewise.artifacts import artifact
from edgewise.artifacts.flat_metrics import flatten_summary, may_claim, score_metric_name
from edgewise.artifacts.records import METRICS, SUMMARY, Summary, VariantSummary, read_plain
from edgewise.config import schema
from edgewise.config.schema import Config
from edgewise.data.splitting import DECLARED
from edgewise.errors import EdgewiseError
from edgewise.plugins import PrimaryMetric
from edgewise.report.verdicts import say_latency
from edgewise.track.view import NAME, list_main_metrics, make_view

MODELS = Path("models")
SHARED = (
    *(METRICS / name for name in ("summary.json", "report.md", "device.json", "data.json", "train.json")),
    schema.PATH,
    MODELS / "report",
)
KEY = "edgewise.key"
FASTEST, SMALLEST, BEST_SCORE = "fastest", "smallest", "most-accurate"  # ends of aliases
Cost = Callable[[Mapping[str, Any]], float]  # of the figures of a variant: less is better, infinite where not measured


@dataclass(frozen=True)
class Candidate:
    """A variant that may be registered. key: of its run record. result: its figures. revision: the experiment with its files; None:
    the workspace."""

    key: str
    variant: str
    result: Mapping[str, Any]
    revision: str | None = None


@dataclass(frozen=True)
class Registration:
    """A registered model. aliases: {alias: key of a candidate}; None removes the alias."""

    name: str
    candidates: tuple[Candidate, ...] = ()
    aliases: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """One run. marks: tags that can change without the content: whether the variant is chosen, or on the front. measured_ms: when its
    visit to the device began and ended, Unix time; None where nothing says so."""

    variant: str
    key: str
    ok: bool
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    marks: Mapping[str, str]
    files: tuple[Path, ...]
    measured_ms: tuple[int, int] | None = None


@dataclass(frozen=True)
class RunSet:
    """All runs and registrations of an experiment. shared: files that every current run gets. data: fields of the MLflow dataset."""

    experiment: str
    records: tuple[RunRecord, ...]
    shared: tuple[Path, ...]
    data: Mapping[str, str]
    registrations: tuple[Registration, ...]
    view: Mapping[str, Any] | None = None  # of the runs' table; None leaves it as it is
    view_name: str = NAME

    @property
    def state(self) -> str:
        """A hash of all that may need to be written."""
        files = {str(path): schema.settings_sha256() if path == schema.PATH else artifact.sha256(path) for path in self.shared}
        runs = {r.key: dict(r.marks) for r in self.records}
        aliases = [dict(registration.aliases) for registration in self.registrations]
        return content_digest({"experiment": self.experiment, "runs": runs, "files": files, "aliases": aliases, "view": self.view})


def make_pipeline_runs(settings: Config, summary: Summary) -> RunSet:
    """The runs of the last `dvc repro`. Raises EdgewiseError where the summary lacks a configured variant."""
    missing = settings.variants.keys() - summary.variants.keys()
    if missing:
        raise EdgewiseError(f"{SUMMARY} lacks {', '.join(sorted(missing))}: run `dvc repro report` first")
    lock = read_lock(Path("dvc.lock"))
    records = tuple(make_record(name, settings, summary, lock) for name in settings.variants)
    return RunSet(
        experiment=settings.experiment,
        records=records,
        shared=tuple(path for top in SHARED for path in list_files(top)),
        data=make_dataset(settings),
        registrations=(make_pipeline_registration(records, settings, summary),),
        view=make_view(summary.primary_metric),
    )


def make_record(name: str, settings: Config, summary: Summary, lock: Mapping[str, Any]) -> RunRecord:
    row, configuration = summary.variants[name], variant_configuration(name, settings)
    entries = {stage: entry for stage, entry in lock.items() if stage.endswith(f"@{name}")}
    found = flatten_summary(row, summary.primary_metric)
    content = {"variant": name, "configuration": configuration, "lock": entries, "results": found}
    key = content_digest(content)
    return RunRecord(
        variant=name,
        key=key,
        ok=row.ok,
        params=dict(flatten(configuration | ({"engine_chosen": row.engine_auto.settings} if row.engine_auto else {}))),
        metrics=order_metrics(dict(metric_values(found)), summary.primary_metric),
        tags={
            KEY: key,
            **make_tags(name, row, summary),
            **{f"lock.{stage.partition('@')[0]}": content_digest(entry)[:16] for stage, entry in entries.items()},
        },
        marks={"chosen": bool_tag(name == summary.chosen), "pareto": bool_tag(name in summary.pareto)},
        files=tuple(path for top in variant_files(name) for path in list_files(top)),
        measured_ms=find_time(METRICS / "bench" / f"{name}.json"),
    )


def variant_configuration(name: str, settings: Config) -> dict[str, Any]:
    """The part of the configuration that this variant's results depend on; the budget is not part of it."""
    plain = schema.to_plain(settings)
    sections = ("seed", "data", "task", "model", "train", "device", "bench", "reference")
    variant = plain["variants"][name]
    return {**{key: plain[key] for key in sections}, "format": plain["formats"][variant["format"]], "variant": variant}


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, value as a string) of every leaf; lists, empty mappings and null as JSON."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree if isinstance(tree, str) else json.dumps(tree)


def metric_values(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a row as (name, value); intervals as NAME_low and NAME_high, mappings as NAME_KEY."""
    for key, value in row.items():
        name = prefix + key
        if isinstance(value, Mapping):
            yield from metric_values(value, f"{name.removesuffix('_by_dtype')}_")
        elif isinstance(value, list) and len(value) == 2 and all(isinstance(v, float) for v in value):
            yield from ((f"{name}_low", value[0]), (f"{name}_high", value[1]))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, float(value)


def order_metrics(found: Mapping[str, float], metric: PrimaryMetric | None) -> dict[str, float]:
    """The main ones first: MLflow's page of a run shows them in the order in which they were written."""
    return {name: found[name] for name in (*list_main_metrics(metric), *found) if name in found}


def make_tags(name: str, row: VariantSummary, summary: Summary) -> dict[str, str]:
    """Tags to filter runs by, in the order in which MLflow shows them; the hashes of its files last. None values are left out."""
    made = artifact.read(MODELS / "variants" / name)
    declared = read_plain(METRICS / "data.json").get("declared")
    notes = [DECLARED[declared]] if declared else []
    known = {
        "status": row.status,
        "reason": row.reason,
        "latency_verdict": say_latency(row.latency),
        **({score_metric_name(summary.primary_metric, "verdict"): row.quality.verdict} if summary.primary_metric else {}),
        "latency_reason": row.latency.missing_reason,
        "noise_grade": row.noise.grade if row.noise else None,
        "variant": name,
        "format": row.format,
        "scheme": row.scheme,
        "reference": summary.reference,
        "engine_auto": row.engine_auto.reason if row.engine_auto else None,
        "device.name": summary.device.get("name"),
        "device.emulated": bool_tag(row.conditions.emulated) if row.conditions else None,
        "data.declared": declared,
        "device.fingerprint": row.conditions.device_fingerprint if row.conditions else summary.device.get("fingerprint"),
        "mlflow.note.content": "\n\n".join((*notes, describe_variant(name, row, summary), *row.warnings, *row.explanation)),
        **{f"sha256.{file}": entry["sha256"] for file, entry in made.files.items()},
    }
    return {tag: str(value) for tag, value in known.items() if value is not None}


def find_time(path: Path) -> tuple[int, int] | None:
    """When the visit of a bench record began and ended, ms. None where there is no record, or no visit in it."""
    visit = read_plain(path).get("visit") if path.exists() else None
    if not visit:
        return None
    end_ms = round(1000 * datetime.fromisoformat(visit["at"]).timestamp())
    return end_ms - round(1000 * visit["seconds"]), end_ms


def describe_variant(name: str, row: VariantSummary, summary: Summary) -> str:
    """A sentence for the head of the run: `3.2 times as fast as onnx-fp32 (faster), 11.4 MB, accuracy top-1 95.2 % (not resolved).`"""
    if not row.ok:
        return f"Failed: {row.reason}."
    parts = [describe_ratio(row, summary.reference), describe_size(row), describe_score(row, summary.primary_metric)]
    text = ", ".join(filter(None, parts)) or "Nothing was measured"
    return f"{'The reference: ' if name == summary.reference else ''}{text}."


def describe_ratio(row: VariantSummary, reference: str) -> str | None:
    ratio = row.latency.ratio_to_reference
    if ratio is None or row.latency.verdict == "reference":
        return None if row.latency.p50_ms is None else f"{row.latency.p50_ms:.3g} ms"
    return f"{1 / ratio:.3g} times as fast as {reference} ({say_latency(row.latency)})"


def describe_size(row: VariantSummary) -> str | None:
    return None if row.file.size_bytes is None else f"{row.file.size_bytes / 1e6:.3g} MB"


def describe_score(row: VariantSummary, metric: PrimaryMetric | None) -> str | None:
    score, agreement = row.quality.score, row.quality.sqnr_db
    if metric is None or score is None:
        return None if agreement is None else f"outputs {agreement:.0f} dB from the reference's"
    value = f"{100 * score:.1f} %" if metric.share else f"{score:.4g}"
    return f"{metric.label} {value}" + (f" ({row.quality.verdict})" if row.quality.verdict != "reference" else "")


def variant_files(name: str) -> tuple[Path, ...]:
    """Manifests, measurements and raw samples. The model itself stays in DVC's cache; its hash is a tag."""
    return (
        MODELS / "variants" / name / artifact.MANIFEST,
        MODELS / "evaluate" / name / "details.json",
        *(MODELS / "bench" / name / f"{kind}.json" for kind in ("samples", "minutes", "profile", "trace")),
        METRICS / "evaluate" / f"{name}.json",
        METRICS / "bench" / f"{name}.json",
    )


def list_files(path: Path) -> list[Path]:
    """The file itself, or the files directly in the folder; empty where it does not exist."""
    return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path] if path.exists() else []


def read_lock(path: Path) -> Mapping[str, Any]:
    """The stages of dvc.lock; empty without the file."""
    if not path.exists():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is 10 times as fast on a lock of 50 stages
    stages: Mapping[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=loader).get("stages", {})
    return stages


def make_dataset(settings: Config) -> dict[str, str]:
    """Fields of mlflow.entities.Dataset. The UI shows the digest beside the name; MLflow allows 36 characters."""
    found = read_plain(METRICS / "data.json")
    return {
        "name": settings.data.name,
        "digest": str(found["digest"])[:12],
        "source_type": "edgewise",
        "source": json.dumps(schema.to_plain(settings.data), sort_keys=True),
        "profile": json.dumps(found, sort_keys=True),
    }


def make_pipeline_registration(records: Iterable[RunRecord], settings: Config, summary: Summary) -> Registration:
    """The front and the chosen variant. A budget without limits chooses nothing and gets no alias."""
    known = {r.variant: Candidate(r.key, r.variant, flatten_summary(summary.variants[r.variant], summary.primary_metric)) for r in records}
    chosen = known.get(summary.chosen or "")
    front = [known[name] for name in summary.pareto]
    score = (summary.primary_metric.name, summary.primary_metric.higher_is_better) if summary.primary_metric else None
    return make_registration(settings.experiment, settings.device.name, front, {settings.budget.name: chosen}, score)


def make_registration(
    name: str, place: str, front: Sequence[Candidate], chosen: Mapping[str, Candidate | None], score: tuple[str, bool] | None
) -> Registration:
    """place: the device, with the sweep's name if any. chosen: {budget: candidate}. score: its name, and whether more is better.

    A measurement that is too short for a claim leaves all aliases where they are.
    """
    costs: dict[str, Cost] = {FASTEST: latency_cost, SMALLEST: figure_cost("size_bytes", 1)}
    if score:
        costs[BEST_SCORE] = figure_cost(score[0], -1 if score[1] else 1)
    every = {candidate.key: candidate for candidate in (*front, *filter(None, chosen.values()))}
    if not may_claim(candidate.result for candidate in every.values()):
        return Registration(name, tuple(every.values()))
    aliases: dict[str, str | None] = {}
    for word in costs:
        best = min(front, key=lambda candidate, word=word: rank_key(candidate, word, costs), default=None)  # type: ignore[misc]
        aliases[f"{place}-{word}"] = best.key if best and costs[word](best.result) < math.inf else None
    aliases |= {f"{place}-{budget}": candidate.key if candidate else None for budget, candidate in chosen.items()}
    return Registration(name, tuple(every.values()), aliases)


def rank_key(candidate: Candidate, first: str, costs: Mapping[str, Cost]) -> list[float]:
    """Sort key: the cost in `first`, then the other costs."""
    return [costs[word](candidate.result) for word in sorted(costs, key=lambda word: word != first)]


def latency_cost(result: Mapping[str, Any]) -> float:
    """The upper end of the ratio's interval, by which the report ranks too; infinite without an interval."""
    interval = result.get("latency_ratio_ci95")
    return float(interval[1]) if interval else math.inf


def figure_cost(name: str, sign: int) -> Cost:
    """sign: 1 where less is better, -1 where more is."""
    return lambda result: math.inf if result.get(name) is None else sign * float(result[name])


def content_digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def bool_tag(yes: bool) -> str:
    return "true" if yes else "false"
