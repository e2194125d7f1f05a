"""Options that the user writes in conf/, and a models/config.yaml that was damaged: one line that says what is wrong."""

import json
import os
from pathlib import Path

import pytest
import yaml

from edgewise.artifacts import artifact
from edgewise.config import compose, schema
from edgewise.errors import ConfigError


def spoil(file: Path, change: dict) -> None:
    """Change the keys of a YAML file; None removes a key."""
    content = yaml.safe_load(file.read_text()) | change
    file.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("scheme/int8-static", {"min_device_sqnr_db": None}, r"conf/scheme/int8-static\.yaml: min_device_sqnr_db: missing; a scheme needs"),
        ("scheme/int8-static", {"min_sqnr_db": None}, r"conf/scheme/int8-static\.yaml: min_sqnr_db: missing; a scheme needs min_sqnr_db, "),
        ("format/onnx", {"schemes": None}, r"conf/format/onnx\.yaml: schemes: missing; a format needs module, schemes"),
        ("format/tract", {"module": None}, r"conf/format/tract\.yaml: module: missing; a format needs module, schemes"),
        ("format/onnx", {"module": "edgewise.formats.onx"}, r"conf/format/onnx\.yaml: module: 'edgewise\.formats\.onx' cannot be imported"),
    ],
)
def test_an_option_that_lacks_a_key_is_named(project, file, change, message):
    spoil(project / f"conf/{file}.yaml", change)
    with pytest.raises(ConfigError, match=message):
        compose.compose(project / "params.yaml", project / "conf")


@pytest.mark.parametrize("content", [b"variants: [", b"\xff\xfe", b"key: \x00"])
def test_a_composed_file_that_is_no_yaml_is_named(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    for read in (schema.read, schema.settings_sha256, lambda path: schema.read_compared("prune", path)):
        with pytest.raises(ConfigError, match=r"config\.yaml is not YAML .*: run `dvc repro`"):
            read(tmp_path / "config.yaml")


def test_a_record_that_cannot_be_written_leaves_no_file_behind(tmp_path, monkeypatch):
    def full(path, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        artifact.write_json(tmp_path / "record.json", {"a": 1})
    assert os.listdir(tmp_path) == []  # noqa: PTH208
    monkeypatch.undo()
    artifact.write_json(tmp_path / "record.json", {"a": 1})
    assert json.loads((tmp_path / "record.json").read_text()) == {"a": 1} and len(list(tmp_path.iterdir())) == 1
