"""The import table of the design, held by reading the imports. `top` is what runs at import, `all` includes functions."""

import ast
import sys
from pathlib import Path

import pytest

from tests import lengths
from tests.conftest import ROOT

STAGES = ROOT / "stages"
SUPPORT = (
    "bundling",
    "composition",
    "compressing",
    "core",
    "data",
    "devices",
    "formats",
    "importers",
    "measuring",
    "payload",
    "reporting",
    "sweeping",
    "tasks",
    "tracking",
)
STAGE_MODULES = sorted(path.stem for path in STAGES.glob("*.py") if path.stem not in ("__init__", "cli"))


def imports(path: Path, *, top_only: bool) -> set[str]:
    """Dotted names that a file imports; relative imports resolved."""
    tree, package = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).with_suffix("").parts[:-1]
    lazy = {id(child) for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) for child in ast.walk(node)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if top_only and id(node) in lazy:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names |= {f"{module}.{alias.name}" if module.startswith("stages") else module for alias in node.names}
    return names


def foreign(names: set[str]) -> set[str]:
    """Top-level packages that are neither the standard library nor this project."""
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"stages", "__future__"}


def inside(names: set[str], *prefixes: str) -> set[str]:
    return {name for name in names if any(name == p or name.startswith(f"{p}.") for p in prefixes)}


def files(*globs: str) -> list[Path]:
    found = [path for pattern in globs for path in sorted(STAGES.glob(pattern)) if path.name != "__init__.py" or path.read_text()]
    assert found, globs
    return found


def named(path: Path) -> str:
    return str(path.relative_to(STAGES))


@pytest.mark.parametrize("path", files("payload/**/*.py"), ids=named)
def test_payload(path):
    assert foreign(imports(path, top_only=True)) <= {"numpy"}
    assert foreign(imports(path, top_only=False)) <= {"numpy", "PIL", "tokenizers"}
    project = inside(imports(path, top_only=False), "stages")
    assert project == inside(project, "stages.payload")


@pytest.mark.parametrize("path", files("formats/*/*.py"), ids=named)
def test_formats(path):
    own, everything = f"stages.formats.{path.parent.name}", imports(path, top_only=False)
    assert inside(everything, "stages") == inside(everything, own)
    if path.name == "run.py":
        assert len(foreign(everything) - {"numpy"}) == 1, "the one runtime"
        assert not inside(everything, own), "run.py is shipped alone"
    elif path.name == "profile.py":
        assert foreign(everything) <= {"numpy"} and inside(everything, own) <= {f"{own}.run"}, (
            "it is shipped with run.py, which has the runtime"
        )
    else:
        assert foreign(imports(path, top_only=True)) <= {"numpy"}


@pytest.mark.parametrize("path", files("devices/*.py"), ids=named)
def test_devices(path):
    assert not foreign(imports(path, top_only=False))
    project = inside(imports(path, top_only=False), "stages")
    assert project == inside(project, "stages.payload", "stages.devices", "stages.core.errors", "stages.core.settings")


@pytest.mark.parametrize("path", files("core/*.py"), ids=named)
def test_core(path):
    assert foreign(imports(path, top_only=False)) <= {"numpy", "yaml"}
    project = inside(imports(path, top_only=False), "stages")
    assert project == inside(
        project,
        "stages.core",
        "stages.payload.protocol",
        "stages.payload.preprocess",
        "stages.payload.batches",
        "stages.payload.parts",
        "stages.payload.gate",
    )


@pytest.mark.parametrize("path", files("data/*.py", "importers/*.py"), ids=named)
def test_data_and_importers(path):
    assert foreign(imports(path, top_only=True)) <= {"numpy", "yaml", "tqdm"}, "frameworks are imported late"
    assert not inside(imports(path, top_only=False), "stages.formats", "stages.devices", "mlflow", "hydra", "omegaconf")


@pytest.mark.parametrize("path", files("tasks/*.py"), ids=named)
def test_tasks(path):
    assert foreign(imports(path, top_only=True)) <= {"numpy"}
    assert foreign(imports(path, top_only=False)) <= {"numpy", "sklearn"}
    project = inside(imports(path, top_only=False), "stages")
    assert project == inside(project, "stages.core", "stages.payload.answer")


@pytest.mark.parametrize("path", files("*.py"), ids=named)
def test_stages_never_import_each_other(path):
    others = [f"stages.{name}" for name in STAGE_MODULES if name != path.stem]
    assert not inside(imports(path, top_only=False), *others)


@pytest.mark.parametrize("path", files("**/*.py"), ids=named)
def test_mlflow_and_hydra_stay_where_they_belong(path):
    names, part = imports(path, top_only=False), path.relative_to(STAGES).parts[0]
    assert part in ("track.py", "tracking") or not inside(names, "mlflow")
    assert part in ("compose.py", "composition", "sweep.py", "sweeping") or not inside(names, "hydra", "omegaconf")


@pytest.mark.parametrize("path", files("**/*.py"), ids=named)
def test_no_name_checks_in_shared_code(path):
    """No `== "onnx"` outside the plugins: ask the plugin's declarations instead."""
    if path.relative_to(STAGES).parts[0] in ("formats", "importers", "data"):
        return
    words = {"torch", "onnx", "tflite", "openvino", "digits", "image_folder", "ssh", "classification", "defect_detection", "regression"}
    compared = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Compare)]
    constants = {c.value for node in compared for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)}
    assert not constants & words


def test_every_package_has_its_place_in_the_table():
    folders = {path.name for path in STAGES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(SUPPORT)


def test_no_file_and_no_function_is_too_long():
    broken, _ = lengths.faults(ROOT)
    assert not broken
