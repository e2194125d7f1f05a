"""A fresh clone has NAME.dvc in the place of data and models: what says so, and when."""

import hashlib
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgewise.artifacts.dvc_files import find_pointer, require_pulled, require_unspoiled
from edgewise.config.schema import Plugin
from edgewise.errors import ConfigError, DataError, ModelError
from stages import probe_data

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_the_file_beside_a_missing_path_or_a_folder_above_it_is_found():
    Path("pictures.dvc").touch()
    assert find_pointer(Path("pictures")) == find_pointer(Path("pictures/train/cat")) == Path("pictures.dvc")
    assert find_pointer(Path("pictures").absolute()) == Path("pictures.dvc").absolute()
    assert find_pointer(Path("pics")) is None and find_pointer(Path("x" * 300)) is None and find_pointer(Path("../..")) is None
    Path("pictures").mkdir()
    assert find_pointer(Path("pictures")) is None
    assert find_pointer(Path("pictures/trian")) is None, "a slip: what DVC keeps is here"


@pytest.mark.parametrize(("section", "key", "kind"), [("data", "path", DataError), ("model", "weights", ModelError)])
def test_the_error_names_what_brings_it(section, key, kind):
    settings = {key: "in/my.onnx", "image_size": 32, "groups": None, "layout": "auto"}
    require_pulled(section, settings, kind)
    Path("in").mkdir()
    Path("in/my.onnx.dvc").touch()
    said = f"{section}.{key}: in/my.onnx does not exist; `in/my.onnx.dvc` lies beside it: `dvc pull` brings it"
    with pytest.raises(kind, match=f"^{re.escape(said)}$"):
        require_pulled(section, settings, kind)


@pytest.mark.parametrize(("name", "kind"), [("pictures", DataError), ("my.onnx", ModelError), ("teacher", ConfigError)])
def test_the_first_stage_stops_for_data_model_and_teacher(name, kind, monkeypatch):
    data = Plugin("image_folder", "edgewise.data.image_folder", {"path": "pictures"})
    model = Plugin("onnx_file", "edgewise.sources.onnx_file", {"path": "my.onnx"})
    monkeypatch.setattr(probe_data, "read", lambda: SimpleNamespace(data=data, model=model, train=SimpleNamespace(teacher="teacher")))
    Path(f"{name}.dvc").touch()
    with pytest.raises(kind, match=f"{name} does not exist; .* `dvc pull` brings it"):
        probe_data.main()


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_file_that_was_written_over_in_the_cache_is_told_from_one_that_was_replaced(link, tmp_path, monkeypatch):
    """DVC itself takes the new bytes for the old file: `dvc checkout` brings the wrong one, and `dvc status` is content."""
    monkeypatch.chdir(tmp_path)
    model, cached = Path("my.onnx"), tmp_path / "cached"
    cached.write_bytes(b"old")
    link(cached, model)
    digest = hashlib.md5(b"old").hexdigest()
    Path("my.onnx.dvc").write_text(f"outs:\n- {{md5: {digest}, size: 3, hash: md5, path: my.onnx}}\n")
    require_unspoiled("model", {"path": "my.onnx", "threads": 2}, ModelError)
    cached.write_bytes(b"new")
    with pytest.raises(ModelError, match=rf"model\.path: my\.onnx was written over .* files/md5/{digest[:2]}/{digest[2:]} .*dvc unprotect"):
        require_unspoiled("model", {"path": "my.onnx"}, ModelError)
    model.unlink()
    model.write_bytes(b"new")  # as after `dvc unprotect`: not added yet, which is no mistake
    require_unspoiled("model", {"path": "my.onnx"}, ModelError)
