"""The files of a bundle: the model, the code that runs it, what it needs, and the checksums of all of it.

infer.py bundle.json requirements.txt card.md card.json checksums.json
model/    the variant as it was measured         code/    the modules that preprocessed the data and ran the variant in evaluation
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
from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.records import Summary
from edgewise.config import schema
from edgewise.config.schema import Config, Variant

INPUT_PACKAGES = {  # kind of preprocessing -> {package: (oldest version, first version that is too new)}
    "image": {"pillow": ("10", "13")},  # Pillow 13 resizes to other grey levels
    "text": {"tokenizers": ("0.20", "1")},
}
NUMPY = ("1.26", "3")


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
