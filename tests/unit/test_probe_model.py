"""A checkpoint that is replaced under the same name is another source."""

import json

from edgewise.data import dataset


def probed(tmp_path, settings) -> dict:
    dataset.probe_model(settings, tmp_path / "model.json")
    return json.loads((tmp_path / "model.json").read_text())["sha256"]


def test_another_content_under_the_same_name_is_noticed(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"abc")
    before = probed(tmp_path, {"weights": str(weights), "path": None})
    assert before == {"weights": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    weights.write_bytes(b"abd")
    assert probed(tmp_path, {"weights": str(weights)}) != before


def test_a_folder_counts_by_its_files(tmp_path):
    folder = tmp_path / "saved_model"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    before = probed(tmp_path, {"path": str(folder)})
    (folder / "b").write_bytes(b"")
    assert probed(tmp_path, {"path": str(folder)})["path"] != before["path"]


def test_no_file_and_an_absent_one_have_no_digest(tmp_path):
    assert probed(tmp_path, {"weights": None, "arguments": {}}) == {}
    assert probed(tmp_path, {"weights": str(tmp_path / "gone")}) == {}
