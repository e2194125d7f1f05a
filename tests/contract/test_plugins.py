"""Every plugin of every kind has what the Protocols of edgewise/plugins.py ask for. Plugins are found by their yaml in conf/."""

import dataclasses
import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from edgewise import plugins
from edgewise.config import compose
from edgewise.data.common import DataSettings
from edgewise.devices import local
from tests.support import object_sets
from tests.support.formats import FORMATS, OPTIONS, UNCUTTABLE, part, require
from tests.support.protocols import violations

PARTS = {
    "run": plugins.Runner,
    "profile": plugins.Profiler,
    "make": plugins.Maker,
    "facts": plugins.Facts,
    "store": plugins.Storer,
    "split": plugins.Splitter,
}
KINDS = {"task": plugins.Task, "data": plugins.DataSet, "model": plugins.Importer, "device": plugins.Device}


def modules(group: str) -> list[str]:
    return sorted({OPTIONS.load(group, name, "test")["module"] for name in OPTIONS.names(group)})


MODULES = [(group, path) for group in KINDS for path in modules(group)]


@pytest.mark.parametrize("which", PARTS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_has_all_its_parts(name, which):
    assert violations(part(name, which), PARTS[which]) == []


@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_a_format_that_sources_have_may_be_scanned(name):
    assert violations(part(name, "scan"), plugins.Scanner) == []


@pytest.mark.parametrize(("group", "path"), MODULES)
def test_a_plugin_is_what_its_kind_asks_for(group, path):
    module = importlib.import_module(path)
    assert violations(module, KINDS[group]) == []
    assert dataclasses.is_dataclass(module.Settings) and module.Settings.__dataclass_params__.frozen


@pytest.mark.parametrize("path", modules("data"))
def test_a_data_set_has_the_settings_that_all_have(path):
    assert fields(DataSettings) <= fields(importlib.import_module(path).Settings)


@pytest.mark.parametrize("path", modules("device"))
def test_a_device_has_the_settings_of_the_local_one(path):
    assert fields(local.Settings) <= fields(importlib.import_module(path).Settings)


def fields(settings: type) -> set[str]:
    return {field.name for field in dataclasses.fields(settings)}


@pytest.mark.parametrize("path", modules("task"))
def test_a_task_names_its_splits_with_test_last(path):
    assert importlib.import_module(path).SPLITS[-1] == "test"


def given_by_nobody(name: str) -> bool:
    """Whether an option of data has all its values, so that it runs as it is."""
    return "???" not in str(OPTIONS.load("data", name, "test"))


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.parametrize("name", [name for name in OPTIONS.names("data") if given_by_nobody(name)])
def test_items_and_encoder_of_a_data_set(name, tmp_path):
    check_data_set(name, {}, tmp_path)


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.parametrize("name", object_sets.WRITERS)
def test_items_and_encoder_of_a_data_set_with_objects(name, tmp_path):
    item = check_data_set(name, {"path": str(object_sets.WRITERS[name](tmp_path / "set"))}, tmp_path)
    assert isinstance(item.label, plugins.Mask if name == "masks" else plugins.Boxes)


def check_data_set(name: str, given: dict[str, str], tmp_path: Path) -> plugins.Item:
    """The first of its samples."""
    chosen = compose.plugin("data", {"name": name, **given}, OPTIONS)
    module: ModuleType = chosen.load()
    settings = module.Settings(**chosen.settings)
    item = next(iter(module.items(settings)))
    assert isinstance(item, plugins.Item)
    assert violations(module.encoder(settings, tmp_path), plugins.Encoder) == []
    assert {"digest", "files"} <= set(module.probe(settings)) and settings.targets == chosen.settings.get("targets", "classes")
    return item


def test_a_connection_to_this_machine():
    with local.connect(local.Settings()) as connection:
        assert violations(connection, plugins.Connection) == []


@pytest.mark.framework
@pytest.mark.parametrize("name", FORMATS)
def test_sessions_of_a_format(name, floats):
    settings, folder = {"threads": 1}, str(floats[name])
    assert violations(part(name, "run").load(folder, settings), plugins.Session) == []
    profiled = part(name, "profile").load(folder, settings)
    assert violations(profiled, plugins.ProfiledSession) == []
    assert profiled.profile()["runs"] == [], "nothing has run; what records is stopped"
    assert part(name, "run").versions().keys() >= {part(name, "run").PACKAGE}


@pytest.mark.framework
@pytest.mark.parametrize("name", [name for name in FORMATS if name not in UNCUTTABLE])
def test_a_model_that_can_be_cut(name, source, floats, tmp_path):
    from tests.support.formats import quantize, variant

    require(name)
    chosen = variant(name, "fp32")
    folder = quantize(chosen, floats, source, tmp_path / "variant")
    model = part(name, "split").cuttable(folder, source, "fp32", {"engine": chosen.engine}, [])
    assert violations(model, plugins.Cuttable) == []
    assert all({"node", "weights_bytes", "crossing"} <= set(step) for step in model.steps)
    assert all((folder / file).is_file() for file in model.files) and isinstance(folder, Path)


def test_what_is_missing_or_of_another_type_is_named():
    task = importlib.import_module("edgewise.tasks.none")
    broken = SimpleNamespace(**{**vars(task), "SPLITS": ["test"], "judge": lambda settings: None})
    del broken.decide
    lines = violations(broken, plugins.Task)
    assert [line.split()[0].partition("(")[0] for line in lines] == ["SPLITS", "judge", "decide"]
