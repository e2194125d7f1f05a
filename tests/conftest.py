"""Fixtures that more than one file uses, and the options --fast and --hide."""

import functools
import importlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewise.config import digests
from edgewise.errors import ConfigError
from tests.support import sources
from tests.support.formats import Floats
from tests.support.shared import Shared, of_run

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"
FRAMEWORKS = frozenset({"keras", "litert_torch", "mlflow", "nncf", "onnx", "openvino", "tensorflow", "torch", "torchao", "transformers"})
# hundreds of tests start Python: with bytecode that is kept, each start is a third faster, whatever this shell prefers
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
FIRST = ("pipeline", "contract", "test_tuning", "test_track", "test_inspect")  # long files, so that no worker is left with one in the end


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fast", action="store_true", help="leave out what is lengthy or imports a framework; a test that imports one all the same fails"
    )
    parser.addoption(
        "--hide", default="", metavar="NAMES", help="packages that shall look as if not installed, by import name: openvino,nncf"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.fast:
        config.option.markexpr = "not framework and not lengthy and not slow and not pipeline and not formats and not system"
    if config.option.hide:
        os.environ["EDGEWISE_TESTS_HIDE"] = config.option.hide
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests/support/hidden"), *([before] if before else [])])
        importlib.import_module("tests.support.hidden.sitecustomize")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --fast, a file whose first marker is `framework` or `lengthy` is not even imported."""
    if config.option.fast and collection_path.suffix == ".py":
        return bool(re.search(r"^pytestmark = .*\b(framework|lengthy)\b", collection_path.read_text(encoding="utf-8"), re.M)) or None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        return next((number for number, name in enumerate(FIRST) if name in (item.path.stem, item.path.parent.name)), len(FIRST))

    items.sort(key=rank)


blamed: set[str] = set()  # frameworks whose import was reported


def pytest_collection_finish(session: pytest.Session) -> None:
    blamed.update(FRAMEWORKS & sys.modules.keys())
    if session.config.option.fast and blamed:
        raise pytest.UsageError(f"--fast: {', '.join(sorted(blamed))} imported while tests were collected; mark that file with `framework`")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    yield
    found = (FRAMEWORKS & sys.modules.keys()) - blamed
    if item.config.option.fast and found:
        blamed.update(found)
        pytest.fail(f"{item.nodeid} imports {', '.join(sorted(found))}: mark it with `framework`")


@pytest.fixture
def shared_data() -> Path:
    """Real pictures and models that lie beside the checkout on the developers' machines; never part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder shared/data beside the checkout is absent")
    return SHARED_DATA


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs in an empty folder, into which the stores of .edgewise go."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of params.yaml and conf/ that a test may spoil."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    return tmp_path


read_python = digests.read_python


@functools.cache
def read_once(source: bytes) -> digests.File:
    return read_python(source, Path("any.py"))


@pytest.fixture
def parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests of code parse each file once in all tests that ask for this: what a file says is in its bytes."""

    def read(source: bytes, path: Path) -> digests.File:
        try:
            return read_once(source)
        except ConfigError:
            return read_python(source, path)  # whose message names the file

    monkeypatch.setattr(digests, "read_python", read)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """Folders that are made once for all workers."""
    return of_run(tmp_path_factory)


@pytest.fixture(scope="session")
def source(shared: Shared) -> Path:
    """models/source of the convolutional net of tests/support/sources.py."""
    pytest.importorskip("torch", reason="the source of this test is a torch model")
    return shared.folder("source", sources.write)


@pytest.fixture(scope="session")
def floats(source: Path, shared: Shared) -> Floats:
    """Its float model in every format, by name."""
    return Floats(source, shared)


@pytest.fixture(scope="session")
def empty_database(shared: Shared) -> Path:
    """A new database of MLflow to copy: making the tables takes seconds, once is enough."""

    def make(folder: Path) -> None:
        from mlflow import MlflowClient

        folder.mkdir()
        MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").search_experiments()

    return shared.folder("mlflow", make) / "mlflow.db"
