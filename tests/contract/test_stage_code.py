"""CODE of every stage script covers what its result depends on: held against the import closure, and by editing each module of it."""

import ast
import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from edgewise.config.digests import Digests, expand
from edgewise.config.stage_code import GROUPS, StageCode, read_declared
from tests.conftest import ROOT
from tests.support.closure import closure

pytestmark = pytest.mark.usefixtures("parsed_once")

READS_SETTINGS = "reads and checks settings, whose values are among the params of the stage"
NO_METHODS = "the stage takes types and records without methods from it; stages that compute with it name it"
# Modules that cannot change a result, of the stages named, with the reason.
CANNOT_CHANGE_A_RESULT = {
    "edgewise.errors": ("every", "kinds of errors and their exit codes"),
    "edgewise.config.schema": ("every", READS_SETTINGS),
    "edgewise.config.settings": ("every", READS_SETTINGS),
    "edgewise.config.choices": ("report bundle", READS_SETTINGS),
    "edgewise.config.compose": ("report", "tells the profile of params.yaml, for a line in the terminal"),
    "edgewise.config.prune_settings": ("every", READS_SETTINGS),
    "edgewise.config.runtimes": ("every", "tells which package a failed import lacked; the versions are among the params of the stage"),
    "edgewise.devices.access": ("bundle", "only `--to device` reaches it, which writes nothing"),
    "edgewise.measure.runs": ("bundle", "only `--to device` reaches it, which writes nothing"),
    "edgewise.agent.lease": ("bench-on-device", "keeps other hosts away from a device"),
    "edgewise.agent.cache": ("bench-on-device", "copies files to a device and checks their hashes"),
    "edgewise.plugins": ("prepare-data train-export convert scan-layers train-qat prune quantize bench-on-device", NO_METHODS),
}
SECTIONS = {"data": "data", "source": "model", "task": "task", "device": "device", "format": "format"}  # placeholder -> group of conf/


def exempt(stage: str) -> frozenset[str]:
    return frozenset(module for module, (where, _) in CANNOT_CHANGE_A_RESULT.items() if where == "every" or stage in where.split())


@functools.cache
def declared() -> dict[str, StageCode]:
    found = {path.stem.replace("_", "-"): read_declared(path) for path in sorted((ROOT / "stages").glob("*.py"))}
    return {stage: code for stage, code in found.items() if code}


STAGES = tuple(declared())


@functools.cache
def plugins(group: str) -> list[str]:
    contents = (yaml.safe_load(path.read_text()) for path in sorted((ROOT / "conf" / group).glob("*.yaml")))
    return sorted({content["module"] for content in contents if content.get("module")})


def choices() -> Iterator[dict[str, str | tuple[str, ...]]]:
    """What placeholders stand for: every plugin of conf/ in turn."""
    for number in range(max(len(plugins(group)) for group in SECTIONS.values())):
        chosen: dict[str, str | tuple[str, ...]] = {key: plugins(group)[number % len(plugins(group))] for key, group in SECTIONS.items()}
        scan = f"{chosen['format']}.scan"
        own = (scan,) if ROOT.joinpath(*scan.split(".")).with_suffix(".py").exists() else ()
        yield chosen | {"reference": chosen["format"], "formats": chosen["format"], "between": chosen["format"], "scanner": own, **GROUPS}


@functools.cache
def cases(stage: str) -> list[tuple[tuple[str, ...], frozenset[str]]]:
    """For each choice of plugins: all that CODE names with the script, and the import closure of script and plugins."""
    script, code, found = f"stages.{stage.replace('-', '_')}", declared()[stage].code, {}
    for chosen in choices():
        by_placeholder = expand([name for name in code if "{" in name and name.strip("{}") not in GROUPS], **chosen)
        reached = frozenset().union(*(reach(stage, top) for top in (script, *by_placeholder)))
        found[(script, *expand(code, **chosen))] = reached
    return list(found.items())


@functools.cache
def reach(stage: str, module: str) -> frozenset[str]:
    return frozenset(closure(module, stop=exempt(stage)))


def label(module: str, root: Path = ROOT) -> str:
    path = module.replace(".", "/")
    return f"{path}.py" if (root / f"{path}.py").exists() else f"{path}/__init__.py"


@pytest.mark.parametrize("stage", STAGES)
def test_code_covers_the_import_closure(stage: str) -> None:
    digests = Digests(ROOT, ROOT)
    for names, reached in cases(stage):
        covered = {file for name in names for file in digests.files(name)}
        missing = {module for module in reached - exempt(stage) if label(module) not in covered}
        assert not missing, f"add them to CODE in stages/{stage.replace('-', '_')}.py, or say here why they cannot change its result"


def test_no_exception_is_idle() -> None:
    """Each is in the closure of the stages that it names, and no CODE names it."""
    digests = Digests(ROOT, ROOT)
    for module, (where, reason) in CANNOT_CHANGE_A_RESULT.items():
        stages = STAGES if where == "every" else where.split()
        reached = {stage for stage in stages if any(module in closure_of for _, closure_of in cases(stage))}
        assert reached and (where == "every" or reached == set(stages)), module
        assert not any(label(module) in digests.files(name) for stage in stages for names, _ in cases(stage) for name in names), module
        assert len(reason.split()) > 4


def test_a_stage_takes_no_more_than_it_needs() -> None:
    """The whole library is no answer: what reports does not judge, what makes a file does not measure it."""
    digests = Digests(ROOT, ROOT)
    files = {stage: {file for names, _ in cases(stage) for name in names for file in digests.files(name)} for stage in STAGES}
    packages = {stage: {file.split("/")[1] for file in found} for stage, found in files.items()}
    assert not packages["evaluate"] & {"report", "measure", "compress", "sources", "data", "devices"}
    assert not packages["bench-on-device"] & {"report", "compress", "sources", "data", "tasks"}
    assert not any(file.endswith(("/make.py", "/recipes.py")) for stage in ("evaluate", "bench-on-device") for file in files[stage])
    assert not packages["quantize"] & {"report", "measure", "tasks", "sources", "data", "devices"}
    assert not packages["prepare-data"] & {"sources", "compress", "proof", "formats", "measure", "report"}
    assert not packages["train-export"] & {"compress", "formats", "measure", "report", "data"}
    assert all("edgewise/compress/qat.py" not in files[stage] for stage in STAGES if stage not in ("train-qat", "prune"))


def test_dvc_yaml_names_no_code_and_every_digest() -> None:
    every = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    always = set()
    for name, entry in every.items():
        stage, body = name, entry.get("do", entry)
        assert not [dep for dep in body["deps"] if dep.startswith(("stages", "edgewise"))] if "deps" in body else True
        if body.get("always_changed"):
            always.add(name)
            continue
        if name.startswith("convert-"):
            stage, key = "convert", f"code.convert.{name.removeprefix('convert-')}"
        else:
            key = f"code.{name}.${{key}}" if "do" in entry else f"code.{name}"
        assert key in next(param["models/config.yaml"] for param in body["params"] if "models/config.yaml" in param)
        assert declared()[stage].foreach == ("formats" if stage == "convert" else "variants" if "do" in entry else None)
    scripts = {path.stem.replace("_", "-") for path in (ROOT / "stages").glob("*.py")}
    assert always == scripts - set(STAGES) == {"compose", "probe-data", "probe-device", "track", "visits"}


class Copy:
    """The library and the stages in a folder of their own, to be edited, with the digest of any names after each edit."""

    def __init__(self, folder: Path):
        for name in ("edgewise", "stages"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.folder, self.digests = folder, Digests(folder, folder)

    def digest(self, names: tuple[str, ...]) -> str:
        return self.digests.digest(names)

    def write(self, file: str, source: str) -> None:
        path = self.folder / file
        path.write_text(source, encoding="utf-8")
        self.digests._files.pop(path, None)
        self.digests._named.clear()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("copy"))


@functools.cache  # many stages reach the same modules
def changed_function(source: str) -> str:
    """With another statement in the first function; in a module without one, with another constant."""
    tree = ast.parse(source)
    first = next((node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)), tree)
    first.body.append(ast.parse("_edited = 1").body[0])
    return ast.unparse(tree)


@functools.cache
def changed_prose(source: str) -> str:
    """Without its comments and layout, and with other docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            node.body[0] = ast.Expr(ast.Constant("Another docstring."))
    return "# A comment.\n" + ast.unparse(tree)


@pytest.mark.parametrize("stage", STAGES)
def test_an_edit_of_any_module_that_a_stage_reaches_changes_its_digest_and_prose_does_not(stage: str, copy: Copy) -> None:
    pending = {module: names for names, reached in cases(stage) for module in reached - exempt(stage)}
    for module, names in {f"stages.{stage.replace('-', '_')}": cases(stage)[0][0], **pending}.items():
        file = label(module)
        source, before = (copy.folder / file).read_text(encoding="utf-8"), copy.digest(names)
        copy.write(file, changed_prose(source))
        assert copy.digest(names) == before, module
        copy.write(file, changed_function(source))
        assert copy.digest(names) != before, module
        copy.write(file, source)
