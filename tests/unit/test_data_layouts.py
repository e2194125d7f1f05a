"""Folders that bring their own splits, and the good/defect layout of anomaly benchmarks, up to models/data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Plugin
from edgewise.config.settings import build
from edgewise.data import splitting
from edgewise.errors import DataError
from edgewise.report import page
from tests.unit.test_image_folder import picture
from tests.unit.test_prepare_data import plugin, prepare

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def folder_of(tmp_path: Path, **pictures: int) -> str:
    """folder_of(train__good=3): three pictures in train/good."""
    for place, count in pictures.items():
        for number in range(count):
            picture(tmp_path / "pictures" / place.replace("__", "/") / f"{number}.png")
    return str(tmp_path / "pictures")


def probe_of(data: Plugin) -> Mapping[str, Any]:
    module = data.load()
    return module.probe(build(module.Settings, data.settings, "data"))


def splits_of(tmp_path: Path) -> dict[str, set[str]]:
    """The first folders of the pictures in each split."""
    files = json.loads((tmp_path / "models/data/files.json").read_text())
    splits = json.loads((tmp_path / "models/data/splits.json").read_text())
    return {name: {files[i]["name"].split("/")[0] for i in indices} for name, indices in splits.items()}


def test_train_and_test_folders_are_splits(tmp_path):
    path = folder_of(tmp_path, train__a=20, train__b=20, test__a=4, test__b=6)
    manifest = prepare(plugin("image_folder", path=path), tmp_path)
    assert manifest.labels == ("a", "b")
    assert manifest.details["counts"] == {
        "train": {"a": 16, "b": 16}, "validation": {"a": 2, "b": 2}, "calibration": {"a": 2, "b": 2}, "test": {"a": 4, "b": 6},
    }  # fmt: skip
    assert splits_of(tmp_path) == {"train": {"train"}, "validation": {"train"}, "calibration": {"train"}, "test": {"test"}}


def test_a_validation_folder_is_taken_too_and_calibration_never_from_it(tmp_path):
    path = folder_of(tmp_path, train__a=20, train__b=20, Val__a=3, Val__b=3, test__a=4, test__b=6)
    prepare(plugin("image_folder", path=path), tmp_path)
    assert splits_of(tmp_path) == {"train": {"train"}, "validation": {"Val"}, "calibration": {"train"}, "test": {"test"}}


@pytest.mark.parametrize("held_out", ["val", "valid", "Validation", "dev"])
def test_train_and_val_without_test_are_splits_and_never_two_classes(tmp_path, held_out):
    path = folder_of(tmp_path, train__a=20, train__b=20, **{f"{held_out}__a": 4, f"{held_out}__b": 6})
    manifest = prepare(plugin("image_folder", path=path), tmp_path)
    assert manifest.labels == ("a", "b")
    assert splits_of(tmp_path) == {"train": {"train"}, "validation": {held_out}, "calibration": {"train"}, "test": {"train"}}


def test_classes_that_are_called_like_splits_stay_classes(tmp_path):
    path = folder_of(tmp_path, train=20, test=20, val=20)
    assert prepare(plugin("image_folder", path=path, layout="classes"), tmp_path).labels == ("test", "train", "val")
    (tmp_path / "pictures/spare").mkdir()
    assert prepare(plugin("image_folder", path=path), tmp_path).labels == ("test", "train", "val")


def test_pictures_in_folders_of_splits_have_no_labels(tmp_path):
    data = plugin("image_folder", path=folder_of(tmp_path, train=20, test=6, val=4))
    manifest = prepare(data, tmp_path)
    assert manifest.labels == () and manifest.details["targets"] == "none" == probe_of(data)["targets"]
    assert splits_of(tmp_path) == {"train": {"train"}, "validation": {"val"}, "calibration": {"train"}, "test": {"test"}}


def test_pictures_without_folders_have_no_labels(tmp_path):
    path = folder_of(tmp_path, **{"": 20})
    data = plugin("image_folder", path=path)
    manifest = prepare(data, tmp_path)
    samples = Samples.open(tmp_path / "models/data")
    assert manifest.details["targets"] == "none" == probe_of(data)["targets"] and samples.targets(np.arange(3)) is None
    assert manifest.details["sizes"] == {"train": 12, "validation": 2, "calibration": 2, "test": 4}
    assert samples.sizes(np.arange(20)).tolist() == [[12, 10]] * 20 and samples.feeds(np.arange(3))["image"].shape == (3, 3, 96, 96)


def test_folders_that_are_no_labels(tmp_path):
    path = folder_of(tmp_path, monday=10, tuesday__early=5, tuesday__late=5)
    manifest = prepare(plugin("image_folder", path=path, targets="none", groups=None), tmp_path)
    assert manifest.labels == () and manifest.details["samples"] == 20


def test_names_of_the_models_classes_are_kept_without_labels(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    path = folder_of(tmp_path, **{"": 20})
    assert prepare(plugin("image_folder", path=path, label_names=str(tmp_path / "names.txt")), tmp_path).labels == ("cat", "dog")


def test_the_layout_of_anomaly_benchmarks(tmp_path):
    path = folder_of(tmp_path, train__good=30, test__good=10, test__crack=10, test__hole=10, ground_truth__crack=10)
    manifest = prepare(plugin("image_folder", path=path, normal="good"), tmp_path)
    assert manifest.labels == ("crack", "good", "hole") and manifest.details["samples"] == 60 and manifest.details["normal"] == "good"
    assert manifest.details["counts"]["train"] == {"crack": 6, "good": 24, "hole": 6}


def test_defects_merged_are_still_divided_by_kind(tmp_path):
    path = folder_of(tmp_path, good=40, crack=10, hole=30)
    manifest = prepare(plugin("image_folder", path=path, normal="good", merge_defects=True), tmp_path)
    samples = Samples.open(tmp_path / "models/data")
    files = json.loads((tmp_path / "models/data/files.json").read_text())
    assert manifest.labels == ("defect", "good")
    for index, file in enumerate(files):
        assert samples.labels[samples.targets(np.array([index]))[0]] == ("good" if file["name"].startswith("good") else "defect")
    cracks = [sum(files[i]["name"].startswith("crack") for i in samples.indices(name)) for name in samples.splits]
    assert sorted(cracks) == [1, 1, 2, 6]


def test_the_layout_can_be_said(tmp_path):
    path = folder_of(tmp_path, train__a=20, train__b=20, test__a=20, test__b=20)
    assert prepare(plugin("image_folder", path=path, layout="classes"), tmp_path).labels == ("test", "train")
    prepare(plugin("image_folder", path=path, layout="pooled"), tmp_path)
    assert splits_of(tmp_path)["test"] == {"train", "test"}


def test_copies_in_two_given_splits_are_told(tmp_path):
    path = folder_of(tmp_path, train__a=20, train__b=20, test__a=4, test__b=6)
    Path(path, "test/a/0.png").write_bytes(Path(path, "train/a/0.png").read_bytes())
    manifest = prepare(plugin("image_folder", path=path), tmp_path)
    assert manifest.details["groups_in_two_splits"] == 1
    assert any(f"1 groups (or copies of a file) {page.LEAK}" in note for note in splitting.list_warnings(manifest.details))


def test_a_normal_class_that_is_not_there(tmp_path):
    path = folder_of(tmp_path, ok=20, crack=20)
    with pytest.raises(DataError, match=r"data.normal: no sample has the label 'good'; allowed: crack, ok"):
        prepare(plugin("image_folder", path=path, normal="good"), tmp_path)


def test_a_class_that_only_the_test_folder_has(tmp_path):
    path = folder_of(tmp_path, train__a=20, train__b=20, test__a=4, test__b=4, test__c=6)
    with pytest.raises(DataError, match="class 'c' has 6 samples in 6 groups, not in both train and test"):
        prepare(plugin("image_folder", path=path, layout="splits"), tmp_path)


def test_a_generated_line_becomes_samples(tmp_path):
    manifest = prepare(plugin("surface", samples=200, image_size=32, defect_share=0.5, merge_defects=True), tmp_path)
    assert manifest.labels == ("defect", "good") and manifest.details["groups"] == 100 and manifest.details["normal"] == "good"
    assert Samples.open(tmp_path / "models/data").feeds(np.arange(3))["image"].shape == (3, 1, 32, 32)
