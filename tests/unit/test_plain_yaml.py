"""YAML read without OmegaConf is what OmegaConf makes of it, type by type; what it alone understands is left to it."""

import math
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from edgewise.config.plain_yaml import read_mapping
from tests.conftest import ROOT

VALUES = (
    *("1e-3", "1E5", ".5", "5.", "1_000", "1_0.5", "0x10", "0o17", "010", "+3", "-0", ".inf", "-.INF", ".nan", "1:30", "1:30.5"),
    *("yes", "off", "True", "null", "~", "''", "'null'", "2026-11-28"),
)
LEFT = ("a: ${b}\nb: 1", "a: 1\na: 2", "1: a", "a: !!binary aGk=", "a: !!set {b}", "- a", "", "a: [", "a: {1: b}", "? [a]\n: b")


def typed(value):
    if isinstance(value, dict):
        return {key: typed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [typed(each) for each in value]
    return type(value), str(value)  # nan is not itself


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted((ROOT / "conf").rglob("*.yaml"))], ids=lambda path: path.stem)
def test_a_file_of_the_project_is_read_as_by_omegaconf(path):
    found = read_mapping(path)
    if found is None:
        assert not path.read_text().strip() or "${" in path.read_text() or not OmegaConf.to_container(OmegaConf.load(path))
    else:
        assert typed(found) == typed(OmegaConf.to_container(OmegaConf.load(path), resolve=True))


@pytest.mark.parametrize("text", VALUES)
def test_a_value_has_the_type_that_omegaconf_gives_it(text, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(f"a: {text}\nb: [{text}]\nc: {{d: {text}}}\n")
    assert typed(read_mapping(path)) == typed(OmegaConf.to_container(OmegaConf.load(path), resolve=True))


def test_the_types_are_those_that_one_expects(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: [1e-3, 2026-11-28, yes, 08, .inf]\n")
    assert read_mapping(path) == {"a": [0.001, "2026-11-28", True, "08", math.inf]}


@pytest.mark.parametrize("text", LEFT)
def test_what_it_may_read_otherwise_is_left_to_omegaconf(text, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert read_mapping(path) is None


def test_a_file_that_cannot_be_read_is_left_to_omegaconf(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff: 1")
    assert read_mapping(tmp_path / "a.yaml") is None and read_mapping(tmp_path / "none.yaml") is None
    with pytest.raises((OSError, OmegaConfBaseException)):
        OmegaConf.load(Path(tmp_path / "none.yaml"))
