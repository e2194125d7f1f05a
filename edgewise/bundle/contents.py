"""The files of a bundle: the model, the code that runs it, what it needs, its card, and the checksums of all of it.

infer.py bundle.json requirements.txt card.md card.json checksums.json
model/    the variant as it was measured         code/    the modules that preprocessed the data and ran the variant in evaluation

The card, as Markdown and JSON: the figures of the variant with intervals, the device, and hashes of what it was made from.
"""

import ast
import importlib.metadata
import importlib.util
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.agent import infer
from edgewise.agent.packages import find_oldest
from edgewise.artifacts import artifact, records
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.flat_metrics import flatten_summary
from edgewise.artifacts.records import METRICS, Summary, VariantSummary
from edgewise.config import schema
from edgewise.config.choices import subject
from edgewise.config.schema import Config, Plugin, Variant, settings_sha256, to_plain
from edgewise.report import table

INPUT_PACKAGES = {  # kind of preprocessing -> {package: (oldest version, first version that is too new)}
    "image": {"pillow": ("10", "13")},  # 13 resizes tall pictures to other grey levels
    "text": {"tokenizers": ("0.20", "1")},
}
NUMPY = ("1.26", "3")
USAGE = """    python -m pip install -r requirements.txt
    python infer.py {sample}
    python infer.py --check        # all files as bundled, all packages in their range"""
SAMPLES = {"image": "picture.jpg folder/", "text": '"a sentence"', "none": "samples.npy"}


@dataclass(frozen=True)
class Chosen:
    """The variant of the bundle. made, evaluated, data: manifests of the variant, of its evaluation, of the data."""

    settings: Config
    summary: Summary
    variant: Variant
    models: Path
    made: Manifest
    evaluated: Manifest
    data: Manifest

    @classmethod
    def read(cls, settings: Config, summary: Summary, name: str, models: Path) -> "Chosen":
        folders = (models / "variants" / name, models / "evaluate" / name, models / "data")
        variant = settings.variant(name).with_engine(found.kept if (found := summary.variants[name].engine_auto) else {})
        return cls(settings, summary, variant, models, *(artifact.read(folder) for folder in folders))

    @property
    def folder(self) -> Path:
        return self.models / "variants" / self.variant.name


def write_contents(chosen: Chosen, folder: Path) -> None:
    """Write all files but the card and the checksums."""
    preprocessing = chosen.data.preprocessing or {"kind": "none"}
    shutil.copytree(chosen.folder, folder / infer.MODEL)
    for name, path in runtime_modules(f"{chosen.variant.module}.run"):
        copy_file(path, folder / infer.CODE / name)
    copy_file(Path(infer.__file__), folder / "infer.py")
    if "tokenizer" in preprocessing:
        copy_file(chosen.models / "data" / preprocessing["tokenizer"], folder / preprocessing["tokenizer"])
    required = required_packages(chosen, preprocessing["kind"])
    lines = [f"{package}>={entry['from']},<{entry['below']}" for package, entry in required.items()]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    artifact.write_json(folder / infer.SETTINGS, bundle_settings(chosen, preprocessing, required))


def bundle_settings(chosen: Chosen, preprocessing: Mapping[str, Any], required: Mapping[str, Any]) -> dict[str, Any]:
    """bundle.json: what infer.py reads."""
    return {
        "variant": chosen.variant.name,
        "runner": f"{chosen.variant.module}.run",
        "engine": {"threads": chosen.settings.device.settings["threads"], **chosen.variant.engine},
        "inputs": schema.to_plain(chosen.made.fed),
        "preprocessing": dict(preprocessing),
        "labels": list(chosen.evaluated.labels),
        "answer": dict(chosen.evaluated.details),
        "requires": required,
    }


def required_packages(chosen: Chosen, kind: str) -> dict[str, dict[str, str]]:
    """{package: {from: oldest version, below: first that is too new, measured: version on the device, else the one that scored it}}."""
    runner = schema.part(chosen.variant.module, "run")
    judged = {**installed_versions("numpy", *INPUT_PACKAGES.get(kind, {})), **runner.versions()}
    measured = {**judged, **(chosen.summary.device.get("packages") or {})}
    ranges = {
        **runtime_ranges(chosen.made, find_oldest(runner), judged),
        "numpy": NUMPY,
        **INPUT_PACKAGES.get(kind, {}),
    }
    return {name: {"from": low, "below": high, "measured": measured[name] or judged[name]} for name, (low, high) in ranges.items()}


def runtime_ranges(made: Manifest, oldest: Mapping[str, str], judged: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """(oldest, first too new) version of each package of the runtime. Where there are several, one is linked to the libraries of another:
    a later minor release of one alone would not load."""
    found = {package: runtime_range(made, low, judged[package]) for package, low in oldest.items()}
    if len(oldest) == 1:
        return found
    return {package: (low, next_minor(judged[package])) for package, (low, _) in found.items()}


def runtime_range(made: Manifest, oldest: str, judged: str) -> tuple[str, str]:
    """(oldest, first too new) version of the runtime. A file that is tied to one release accepts its patch releases."""
    tied = made.details.get("file", {}).get("release")
    if tied:
        return tied, next_minor(tied)
    return oldest, str(numbers_of(judged)[0] + 1)


def next_minor(version: str) -> str:
    """1.6 of 1.5.1+cpu, and of 1.5rc1."""
    major, minor = numbers_of(version)
    return f"{major}.{minor + 1}"


def numbers_of(version: str) -> tuple[int, int]:
    """Major and minor number of a release; 0 for what is not there."""
    release = infer.parse_release(version)
    return (*release, 0, 0)[0], (*release, 0, 0)[1]


def installed_versions(*packages: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in packages}


def runtime_modules(runner: str) -> Iterator[tuple[str, Path]]:
    """(path below code/, file) of every module that infer.py imports directly or indirectly, with their packages."""
    modules = import_closure([infer.__name__, runner]) - {infer.__name__}
    packages = {".".join(module.split(".")[:count]) for module in modules for count in range(1, module.count(".") + 2)}
    for name in sorted(packages):
        path = module_file(name)
        if path:
            yield name.replace(".", "/") + ("/__init__.py" if path.name == "__init__.py" else ".py"), path


def import_closure(names: Iterable[str]) -> set[str]:
    """These modules and all modules of the same top-level package that they import, also inside functions."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        path = module_file(name)
        if path and name not in found:
            found.add(name)
            waiting += [other for other in find_imports(name, path) if other.startswith(name.partition(".")[0] + ".")]
    return found


def find_imports(module: str, path: Path) -> Iterator[str]:
    """The dotted names in a module's imports, relative ones resolved."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def module_file(name: str) -> Path | None:
    """The file of a module; None for a name inside a module, and for a package without a file."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


def copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def write_checksums(folder: Path) -> None:
    """checksums.json: the sha256 of every file of the bundle but itself; nothing may be written afterwards."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / infer.CHECKSUMS)
    artifact.write_json(folder / infer.CHECKSUMS, {path.relative_to(folder).as_posix(): artifact.sha256(path) for path in paths})


def write_card(chosen: Chosen, folder: Path) -> None:
    content = make_card(chosen)
    artifact.write_json(folder / "card.json", content)
    (folder / "card.md").write_text(card_markdown(chosen, content), encoding="utf-8")


def make_card(chosen: Chosen) -> dict[str, Any]:
    """card.json: figures of the variant and of the reference, device, budget, hashes."""
    summary, name = chosen.summary, chosen.variant.name
    return {
        "variant": name,
        "reason": summary.chosen_reason
        if name == summary.chosen
        else f"asked for by name; chosen by the budget: {summary.chosen or 'none'}",
        "reference": summary.reference,
        "budget": to_plain(summary.budget),
        "device": summary.device,
        "figures": flatten_summary(summary.variants[name], summary.primary_metric),
        "figures_of_the_reference": flatten_summary(summary.variants[summary.reference], summary.primary_metric),
        "provenance": provenance(chosen),
    }


def provenance(chosen: Chosen) -> dict[str, Any]:
    """Hashes of what the bundle was made from."""
    known = {name: records.read_plain(path) for name in ("data", "train") if (path := METRICS / f"{name}.json").exists()}
    return {
        "configuration_sha256": settings_sha256(),
        "data_digest": known.get("data", {}).get("digest"),
        "source_weights_sha256": known.get("train", {}).get("weights_sha256"),
        "files_sha256": {name: entry["sha256"] for name, entry in chosen.made.files.items()},
        "tools": dict(chosen.made.tools),
    }


def make_title(model: Plugin, data: Plugin) -> str:
    return f"{subject(model)} on {subject(data)}"


def card_markdown(chosen: Chosen, content: dict[str, Any]) -> str:
    row, device = chosen.summary.variants[chosen.variant.name], content["device"]
    kind = (chosen.data.preprocessing or {"kind": "none"})["kind"]
    hashes, labels = content["provenance"], ", ".join(chosen.evaluated.labels)
    lines = [
        f"# {make_title(chosen.settings.model, chosen.settings.data)}: {chosen.variant.name}",
        "",
        USAGE.format(sample=SAMPLES[kind]),
        "",
        f"Chosen for {chosen.summary.budget.title}: {chosen.summary.chosen_reason}.",
        f"Measured on {device['name']} ({device['facts'].get('cpu') or 'unknown CPU'}, fingerprint {device['fingerprint']}).",
        "Brackets: 95 % intervals. Another device gives other latencies.",
        "",
        "| figure | value |",
        "| ------ | ----- |",
        *(f"| {name} | {value} |" for name, value in card_figures(chosen, row)),
        "",
        f"{f'Labels: {labels}. ' if labels else ''}`answer` in `bundle.json` says how outputs become an answer.",
        "",
        *(f"- {name.replace('_', ' ')}: {hashes[name]}" for name in ("configuration_sha256", "data_digest", "source_weights_sha256")),
        *(f"- model/{name}: sha256 {digest}" for name, digest in hashes["files_sha256"].items()),
    ]
    return "\n".join(lines) + "\n"


def card_figures(chosen: Chosen, row: VariantSummary) -> Iterator[tuple[str, str]]:
    """(name, value) of every known figure, with its interval where it has one."""
    metric, reference = chosen.summary.primary_metric, chosen.summary.reference
    on_samples = f" on {row.quality.samples:,} test samples" if row.quality.samples else ""
    if metric:
        yield metric.label, table.format_score(row, metric) + on_samples
        yield f"against {reference}{', points' if metric.share else ''}", table.format_delta(row, metric)
    else:
        yield f"SQNR to {reference}, dB", table.format_sqnr(row) + on_samples
    for name, value in row.quality.scores.items():
        if f"{name}_ci95" in row.quality.scores and isinstance(value, float):
            yield (
                name.replace("_", " "),
                f"{value:.4f}" + table.format_interval(row.quality.scores[f"{name}_ci95"], lambda bound: f"{bound:.4f}"),
            )
    yield "size, MB", table.format_size(row)
    if row.latency.p50_ms is not None:
        yield "latency p50, ms", f"{row.latency.p50_ms:.3g}" + table.format_interval(row.latency.p50_ci95_ms, lambda bound: f"{bound:.3g}")
        yield f"latency / {reference}", table.format_ratio(row)
    if row.memory:
        yield "peak memory, MB", f"{row.memory.peak_rss_bytes / 1e6:.0f} ({table.format_peak(row)} above the runtime's own)"
    yield "threads", str(row.conditions.threads if row.conditions else chosen.settings.device.settings["threads"])
