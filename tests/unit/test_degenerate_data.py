"""Data with nothing of a kind in a split: one clear line, at the stage where the user meets it, and no figure that means nothing."""

import json

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.config.schema import Plugin, Variant
from edgewise.data import dataset, splitting
from edgewise.errors import DataError, run_main
from edgewise.tasks import evaluation
from tests.unit.test_prepare_data import make_pictures, plugin

LOGITS = Manifest(kind="variant", outputs=(Port("y", (None, 2), "float32", meaning="logits"),), details={"covered_share": None})
DETECTION = Plugin("defect_detection", "edgewise.tasks.defect_detection", {"max_false_positive_rate": 0.05})
VARIANT = Variant(name="onnx-fp32", format="onnx", scheme="fp32", module="edgewise.formats.onnx", min_sqnr_db=0.0, min_device_sqnr_db=0.0)


def judge(tmp_path, monkeypatch, task: Plugin, data: Plugin, moved: dict[str, str]) -> Manifest:
    """evaluate on prepared data, with random answers; before that all samples of a label are put where `moved` says: label -> split."""
    real = splitting.assign_splits

    def divide(items, *arguments):
        splits = real(items, *arguments)
        for label, place in moved.items():
            mine = [i for i, item in enumerate(items) if item.label == label]
            splits = {name: np.setdiff1d(indices, mine) for name, indices in splits.items()}
            splits[place] = np.union1d(splits[place], mine).astype(np.int64)
        return splits

    monkeypatch.setattr(splitting, "assign_splits", divide)
    monkeypatch.chdir(tmp_path)
    dataset.prepare(data, 0)
    random = np.random.default_rng(0)

    def answer(variant, samples, indices, split):
        yield {LOGITS.outputs[0].name: random.normal(size=(len(indices), len(samples.labels))).astype(np.float32)}

    monkeypatch.setattr(evaluation, "iterate_outputs", answer)
    evaluation.evaluate(VARIANT, LOGITS, task)
    return artifact.read(tmp_path / "models/evaluate/onnx-fp32")


def names_file(tmp_path) -> str:
    (tmp_path / "names.txt").write_text("dark\nlight\nmid\n")
    return str(tmp_path / "names.txt")


@pytest.mark.parametrize(
    ("moved", "message"),
    [
        ({"dark": "test"}, r"data\.splits\.validation: none of its \d+ samples is normal \('dark'\)"),
        ({"dark": "validation"}, r"data\.splits\.test: none of its \d+ samples is normal \('dark'\)"),
        ({"light": "validation", "mid": "validation"}, r"data\.splits\.test: none of its \d+ samples is a defect"),
    ],
    ids=["no negatives in validation", "no negatives in test", "no defects in test"],
)
def test_a_detector_needs_both_kinds_where_it_is_judged(tmp_path, monkeypatch, capsys, moved, message):
    pictures = make_pictures(tmp_path / "pictures")
    data = plugin("image_folder", path=str(pictures), normal="dark", label_names=names_file(tmp_path))
    with pytest.raises(DataError, match=message):
        judge(tmp_path, monkeypatch, DETECTION, data, moved)
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: evaluation.evaluate(VARIANT, LOGITS, DETECTION))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: data.splits.") and said.count("\n") == 1


def test_a_detector_needs_no_defects_to_set_its_threshold(tmp_path, monkeypatch):
    data = plugin("image_folder", path=str(make_pictures(tmp_path / "pictures")), normal="dark", label_names=names_file(tmp_path))
    found = judge(tmp_path, monkeypatch, DETECTION, data, {"light": "test", "mid": "test"})
    assert found.ok and np.isfinite(found.details["threshold"])


def test_classes_of_the_names_file_that_no_sample_has_are_judged_on_nothing(tmp_path, monkeypatch):
    """Four names, samples of two, of which the test split has one."""
    (tmp_path / "names.txt").write_text("dark\nother\nlight\nnever\n")
    pictures = make_pictures(tmp_path / "pictures", labels=("dark", "light"))
    data = plugin("image_folder", path=str(pictures), label_names=str(tmp_path / "names.txt"))
    classification = Plugin("classification", "edgewise.tasks.classification", {})
    assert judge(tmp_path, monkeypatch, classification, data, {"light": "train"}).ok
    recalls = json.loads((tmp_path / "models/evaluate/onnx-fp32/details.json").read_text())["recall_per_class"]
    assert recalls["dark"] is not None and [recalls[label] for label in ("other", "light", "never")] == [None] * 3
    details = artifact.read(tmp_path / "models/data").details
    assert details["counts"]["test"]["light"] == 0


def test_a_test_split_of_one_number_has_no_interval(tmp_path, monkeypatch):
    np.savez(tmp_path / "d.npz", x=np.arange(40, dtype=np.float32).reshape(10, 4), y=np.arange(10.0))
    shares = {"validation": 0.2, "calibration": 0.2, "test": 0.1}
    data = plugin("arrays", path=str(tmp_path / "d.npz"), targets="values", splits=shares)
    with pytest.raises(DataError, match=r"data\.splits\.test: 1 sample; .* at least 2"):
        judge(tmp_path, monkeypatch, Plugin("regression", "edgewise.tasks.regression", {}), data, {})


@pytest.mark.parametrize("targets", ["classes", "values", "multi_label"])
def test_a_data_set_of_one_sample_is_refused(tmp_path, targets):
    np.savez(tmp_path / "d.npz", x=np.ones((1, 4), np.float32), y={"multi_label": [[1, 0]]}.get(targets, [1]))
    with pytest.raises(DataError, match=r"^data: 1 samples "):
        dataset.prepare(plugin("arrays", path=str(tmp_path / "d.npz"), targets=targets), 0, tmp_path / "data", tmp_path)


def test_a_data_set_without_a_readable_sample_is_refused(tmp_path):
    folder = tmp_path / "pictures"
    for name in ("dark/a.png", "light/b.png"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("no picture")
    for settings in ({}, {"label_names": names_file(tmp_path)}):
        data = plugin("image_folder", path=str(folder), max_unreadable_share=1.0, **settings)
        with pytest.raises(DataError, match=r"^data: 0 samples"):
            dataset.prepare(data, 0, tmp_path / "data", tmp_path)
