"""`edgewise bundle --variant NAME`: a bundle of another variant than the chosen one."""

import json

import pytest

from edgewise.bundle import assembly
from edgewise.cli.main import dispatch
from edgewise.errors import ConfigError, UserError
from tests.unit.test_bundle import project


def test_a_variant_is_bundled_by_its_name_whatever_was_chosen(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    project(tmp_path, {"answer": "highest"})
    assembly.make_bundle()
    before = (tmp_path / "models/bundle/card.json").read_bytes()
    assembly.bundle_variant("onnx-fp32")
    made = tmp_path / "models/bundles/onnx-fp32"
    assert f"bundle: onnx-fp32 in {made.relative_to(tmp_path)}" in capsys.readouterr().out
    assert json.loads((made / "bundle.json").read_text())["variant"] == "onnx-fp32"
    assert json.loads((made / "card.json").read_text())["reason"].startswith("asked for by name; chosen by the budget: onnx-")
    assert (tmp_path / "models/bundle/card.json").read_bytes() == before
    with pytest.raises(ConfigError, match="--variant onnx-fp23: not a variant of the last run; did you mean 'onnx-fp32'"):
        assembly.bundle_variant("onnx-fp23")


def test_it_is_not_copied_in_the_place_of_the_chosen_one():
    with pytest.raises(UserError, match="give it without --variant"):
        dispatch(["bundle", "--variant", "onnx-fp32", "--to", "device"])
