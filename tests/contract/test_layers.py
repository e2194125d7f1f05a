"""The import table of the design, held by reading the imports. `top` is what runs at import, `all` includes functions."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

from edgewise.agent.packages import list_packages
from tests.conftest import ROOT
from tests.support import lengths

LIBRARY = ROOT / "edgewise"
BASE = ("edgewise.errors", "edgewise.plugins", "edgewise.onnx_reading")  # anyone but the agent may import them
ALL = ("agent", "stats", "config", "artifacts", "proof", "data", "sources", "tasks", "devices", "compress", "measure")
MAY_IMPORT = {
    "agent": (),
    "errors": (),
    "plugins": (),
    "onnx_reading": (),
    "stats": (),
    "config": (),
    "artifacts": ("config", "agent"),
    "proof": ("artifacts", "config", "stats", "agent"),
    "data": ("artifacts", "config", "proof", "stats", "agent"),
    "sources": ("artifacts", "config", "proof", "stats", "agent"),
    "tasks": ("artifacts", "config", "proof", "stats", "agent"),
    "devices": ("artifacts", "config", "proof", "stats", "agent"),
    "compress": ("agent", "artifacts", "config", "data", "proof", "sources", "stats", "tasks"),
    "measure": ("artifacts", "config", "devices", "proof", "stats", "agent"),
    "report": ALL,
    "inspect": (*ALL, "report"),
    "bundle": (*ALL, "report"),
    "track": (*ALL, "report"),
    "sweep": (*ALL, "report"),
    "study": (*ALL, "report", "sweep"),
    "cli": (*ALL, "report", "inspect", "bundle", "track", "sweep", "study"),
}


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
            names |= {f"{module}.{alias.name}" if module.startswith("edgewise") else module for alias in node.names}
    return names


def foreign(names: set[str]) -> set[str]:
    """Top-level packages that are neither the standard library nor this project."""
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"edgewise", "__future__"}


def inside(names: set[str], *prefixes: str) -> set[str]:
    return {name for name in names if any(name == p or name.startswith(f"{p}.") for p in prefixes)}


def files(*globs: str) -> list[Path]:
    found = [path for pattern in globs for path in sorted(LIBRARY.glob(pattern)) if path.name != "__init__.py" or path.read_text()]
    assert found, globs
    return found


def below(path: Path) -> str:
    return str(path.relative_to(LIBRARY))


def package_of(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [p for p in files("**/*.py") if package_of(p) != "formats"], ids=below)
def test_packages_import_what_the_table_allows(path):
    package = package_of(path)
    allowed = [f"edgewise.{name}" for name in (package, *MAY_IMPORT[package])]
    project = inside(imports(path, top_only=False), "edgewise")
    assert project == inside(project, *allowed, *(BASE if package != "agent" else ()))


@pytest.mark.parametrize("path", files("agent/**/*.py"), ids=below)
def test_the_agent_needs_numpy_alone(path):
    assert foreign(imports(path, top_only=True)) <= {"numpy"}
    assert foreign(imports(path, top_only=False)) <= {"numpy", "PIL", "tokenizers"}


def test_the_package_itself_is_empty():
    assert not (LIBRARY / "__init__.py").read_text()


@pytest.mark.parametrize("path", files("formats/*/*.py"), ids=below)
def test_formats(path):
    own, everything = f"edgewise.formats.{path.parent.name}", imports(path, top_only=False)
    project = inside(everything, "edgewise")
    if path.name == "run.py":
        packages = {name.partition(".")[0] for name in list_packages(importlib.import_module(f"{own}.run"))}
        assert foreign(everything) - {"numpy"} == packages, "the one runtime, and what it stands on"
        assert project == inside(project, "edgewise.agent"), "run.py is shipped with the agent alone"
    elif path.name == "profile.py":
        assert foreign(everything) <= {"numpy"}, "it is shipped with run.py, which has the runtime"
        assert project == inside(project, f"{own}.run", "edgewise.agent")
    else:
        assert foreign(imports(path, top_only=True)) <= {"numpy"}
        assert project == inside(project, own, "edgewise.formats.common", "edgewise.agent", *BASE)


@pytest.mark.parametrize(
    "path", files("devices/*.py", "stats/*.py", "config/*.py", "artifacts/*.py", "proof/*.py", "tasks/*.py"), ids=below
)
def test_third_parties_of_the_lower_packages(path):
    allowed = {"tasks": {"numpy", "sklearn", "tqdm"}, "stats": {"numpy"}, "devices": set(), "config": {"yaml", "hydra", "omegaconf"}}
    assert foreign(imports(path, top_only=False)) <= allowed.get(package_of(path), {"numpy", "yaml"})
    assert foreign(imports(path, top_only=True)) <= {"numpy", "yaml", "hydra", "omegaconf"}


@pytest.mark.parametrize("path", files("data/*.py", "sources/*.py"), ids=below)
def test_frameworks_are_imported_late(path):
    assert foreign(imports(path, top_only=True)) <= {"numpy", "yaml", "tqdm"}


@pytest.mark.parametrize("path", sorted((ROOT / "stages").glob("*.py")), ids=lambda path: path.name)
def test_stages_call_the_library_and_no_other_stage(path):
    assert not inside(imports(path, top_only=False), "stages")


@pytest.mark.parametrize("path", files("**/*.py"), ids=below)
def test_mlflow_and_hydra_stay_where_they_belong(path):
    names = imports(path, top_only=False)
    assert package_of(path) == "track" or not inside(names, "mlflow")
    assert package_of(path) in ("config", "sweep", "cli") or not inside(names, "hydra", "omegaconf")


@pytest.mark.parametrize("path", files("**/*.py"), ids=below)
def test_no_name_checks_in_shared_code(path):
    """No `== "onnx"` outside the plugins: ask the plugin's declarations instead."""
    if package_of(path) in ("formats", "sources", "data"):
        return
    words = {path.stem for group in ("format", "task", "data", "device") for path in (ROOT / "conf" / group).glob("*.yaml")} - {"none"}
    compared = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Compare)]
    constants = {c.value for node in compared for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)}
    assert not constants & words


def modules() -> dict[str, Path]:
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(LIBRARY.rglob("*.py"))}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def edges() -> dict[str, set[str]]:
    """Which module imports which, functions included."""
    known = modules()
    nearest = {
        name: name if name in known else name.rpartition(".")[0] for path in known.values() for name in imports(path, top_only=False)
    }
    return {m: {nearest[n] for n in imports(path, top_only=False) if nearest[n] in known} - {m} for m, path in known.items()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan, SIAM J. Comput. 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            place = stack.index(node)
            component = stack[place:]
            del stack[place:]
            if len(component) > 1:
                found.append(sorted(component))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_no_import_circle():
    assert not circles(edges())


SEAM = {"run", "make", "facts", "split", "store", "profile", "recipes", "scan"}  # what formats have in common


def test_no_two_modules_share_a_name():
    stems: dict[str, list[str]] = {}
    for name, path in modules().items():
        if path.name == "__init__.py":
            continue
        stems.setdefault(name.rpartition(".")[2], []).append(name)
    assert not {stem: names for stem, names in stems.items() if len(names) > 1 and stem not in SEAM}


def test_every_package_has_its_place_in_the_table():
    assert {path.name for path in LIBRARY.iterdir() if path.is_dir() and path.name != "__pycache__"} <= {*MAY_IMPORT, "formats"}


def test_stages_holds_one_script_for_each_stage_and_nothing_else():
    import yaml

    named = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    commands = {(stage.get("do") or stage)["cmd"].split()[2].removeprefix("stages.") for stage in named}
    assert commands == {path.stem for path in (ROOT / "stages").glob("*.py")}
    assert not [path for path in (ROOT / "stages").iterdir() if path.suffix != ".py" and path.name != "__pycache__"]


def test_no_file_and_no_function_is_too_long():
    broken, _ = lengths.faults(ROOT)
    assert not broken
