"""The Model Registry: what is registered answers as the variant does, where Edgewise is not installed, and is there once."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from edgewise.artifacts import artifact
from edgewise.compress import partition
from edgewise.config import schema
from edgewise.config.schema import Budget, Load
from edgewise.formats.onnx import split
from edgewise.report import figure
from edgewise.track import registry
from edgewise.track.run_set import Candidate, make_registration
from edgewise.track.tracking import track_pipeline
from stages import track
from tests.support.fabricate import FIVE, fabricate, write_report

pytestmark = pytest.mark.framework

WEIGHTS = np.random.default_rng(0).normal(0, 0.1, (48, 10)).astype(np.float32)
PROBE = np.random.default_rng(1).normal(0, 1, (5, 3, 4, 4)).astype(np.float32)
SPEC = {"kind": "image", "size": [4, 4], "channels": 3, "resize": "stretch", "scale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3}
ALONE = """
import json, sys
sys.modules["edgewise"] = None
import numpy as np, mlflow
mlflow.set_tracking_uri(sys.argv[1])
found = {}
for alias in sys.argv[2:]:
    model = mlflow.pyfunc.load_model(f"models:/resnet18-digits@{alias}")
    example = model.input_example
    answers = model.predict({"image": np.load("probe.npy")})
    picture = model.unwrap_python_model().feeds(["picture.png"])
    found[alias] = {
        "logits": answers["logits"].tolist(),
        "example": {name: np.asarray(array).tolist() for name, array in example.items()},
        "picture": model.predict(picture)["logits"].tolist(),
        "outputs": str(model.metadata.get_output_schema()),
    }
print(json.dumps(found))
"""


def net(path, scale: float, batch: int | None) -> None:
    """logits = scale * (image, flattened) @ WEIGHTS, as ONNX, with a batch that is free or fixed."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch or "n", 3, 4, 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch or "n", 10])
    graph = helper.make_graph(nodes, "net", [image], [logits], [numpy_helper.from_array((scale * WEIGHTS).astype(np.float32), "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def make_real(root, name: str, scale: float, batch: int | None) -> None:
    """A model that runs, in the place of a fabricated one."""
    folder = root / "models/variants" / name
    net(folder / "model.onnx", scale, batch)
    if batch:  # the one with a fixed batch lies there in parts
        model = split.cuttable(folder, folder, "fp32", {}, ())
        partition.write_parts(model, Load(mode="split", parts=2), [], folder)
        partition.remove_unsplit(folder, model.files)
    tensors = [artifact.Port("image", (batch, 3, 4, 4), "float32"), artifact.Port("logits", (batch, 10), "float32")]
    spec = {**SPEC, "layout": "NCHW", "dtype": "float32"}
    artifact.write(folder, replace(artifact.read(folder), inputs=tensors[:1], outputs=tensors[1:], preprocessing=spec))


def fabricate_real(root, rows=FIVE[:2], **options) -> None:
    fabricate(root, rows, **options)
    write_report(figure=True)
    make_real(root, "onnx-fp32", 1.0, None)
    make_real(root, "onnx-int8-static", 2.0, 2)
    (root / "models/source").mkdir(exist_ok=True)
    np.savez(root / "models/source/probe.npz", **{"in:image": PROBE, "out:logits": PROBE.reshape(5, 48) @ WEIGHTS})


@pytest.fixture
def project(tmp_path, monkeypatch, empty_database):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["track"])
    monkeypatch.setattr(figure, "draw_figure", lambda _, folder: (folder / "accuracy-latency.png").write_bytes(b"drawn elsewhere"))
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    fabricate_real(tmp_path)
    return tmp_path


def client(root):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")


def held(root) -> dict[str, str]:
    """The variant behind each alias."""
    store = client(root)
    aliases = store.get_registered_model("resnet18-digits").aliases
    return {alias: store.get_model_version("resnet18-digits", version).tags["variant"] for alias, version in aliases.items()}


def test_a_registered_variant_answers_as_the_variant_without_edgewise(project):
    track.main()
    assert held(project) == {"local-fastest": "onnx-int8-static", "local-smallest": "onnx-int8-static", "local-most-accurate": "onnx-fp32"}
    np.save(project / "probe.npy", PROBE)
    Image.fromarray(np.full((9, 7, 3), 255, np.uint8)).save(project / "picture.png")
    uri = f"sqlite:///{project / 'mlflow.db'}"
    done = subprocess.run(
        [sys.executable, "-c", ALONE, uri, "local-fastest", "local-most-accurate"], cwd=project, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = PROBE.reshape(5, 48) @ WEIGHTS
    for alias, scale in {"local-fastest": 2.0, "local-most-accurate": 1.0}.items():
        found = json.loads(done.stdout)[alias]
        np.testing.assert_allclose(found["logits"], scale * expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["picture"], scale * WEIGHTS.sum(axis=0)[None], rtol=1e-4)
        np.testing.assert_allclose(found["example"]["image"], PROBE[:1], rtol=1e-6)
        assert "'logits': Tensor('float32', (-1, 10))" in found["outputs"]


def test_what_pip_must_install_is_numpy_mlflow_and_the_one_runtime(project):
    track.main()
    for folder in (project / "mlartifacts/models").glob("m-*/artifacts"):
        names = [line.partition("==")[0] for line in (folder / "requirements.txt").read_text().split()]
        assert sorted(names) == ["mlflow", "numpy", "onnxruntime"]


def test_neither_running_again_nor_measuring_again_adds_a_version(project):
    track.main()
    first = {version.version: version.run_id for version in client(project).search_model_versions()}
    track_pipeline(force=True)
    fabricate_real(project, [FIVE[0], replace(FIVE[1], ratio=1.4)])
    track.main()
    assert {version.version: version.run_id for version in client(project).search_model_versions()} == first
    assert held(project)["local-fastest"] == "onnx-fp32" and len(first) == 2


def test_what_a_budget_chose_has_an_alias_as_long_as_it_fits(project):
    fabricate_real(project, budget=Budget("small", size_bytes=12_000_000))
    track.main()
    assert held(project)["local-small"] == "onnx-int8-static"
    fabricate_real(project, budget=Budget("small", size_bytes=1_000))
    track.main()
    assert "local-small" not in held(project) and len(held(project)) == 3


def test_of_two_writers_at_once_the_later_one_withdraws_its_version(project, monkeypatch):
    log_model, store = registry.log_model, client(project)

    def overtaken(mine, run, folder, variant, settings, example):
        """While this one still copies files, another process registers the same content."""
        monkeypatch.setattr(registry, "log_model", log_model)
        registry.ensure_version(mine, "resnet18-digits", Candidate("", folder.name, {}), project, run)
        return log_model(mine, run, folder, variant, settings, example)

    monkeypatch.setattr(registry, "log_model", overtaken)
    track.main()
    found = store.search_model_versions()
    assert sorted(version.tags["variant"] for version in found) == ["onnx-fp32", "onnx-int8-static"]
    assert set(store.get_registered_model("resnet18-digits").aliases.values()) == {version.version for version in found}
    assert schema.read().variants.keys() == {"onnx-fp32", "onnx-int8-static"}


def test_equals_are_told_apart_by_the_other_results():
    def made(key, ratio, size, accuracy):
        interval = ratio and [ratio, ratio + 0.1]
        known = {"latency_ratio_to_reference": ratio, "latency_ratio_ci95": interval}
        return Candidate(key, key, {**known, "size_bytes": size, "accuracy_top1": accuracy})

    front = [made("a", 0.5, 10, 0.9), made("b", 0.5, 8, 0.9), made("c", None, 4, 0.8), made("d", 0.7, 4, 0.95)]
    aliases = make_registration("m", "board", front, {"small": None}, ("accuracy_top1", True)).aliases
    assert aliases == {"board-fastest": "b", "board-smallest": "d", "board-most-accurate": "d", "board-small": None}


def test_a_measurement_that_is_too_short_for_a_claim_moves_no_alias():
    front = [Candidate(key, key, {"latency_ratio_to_reference": 0.5, "latency_ratio_ci95": None, "size_bytes": 9}) for key in "ab"]
    found = make_registration("m", "board", front, {"small": front[0]}, None)
    assert found.aliases == {} and len(found.candidates) == 2
    unmeasured = [Candidate("a", "a", {"latency_ratio_to_reference": None, "size_bytes": 9})]
    assert make_registration("m", "board", unmeasured, {}, None).aliases == {"board-fastest": None, "board-smallest": "a"}


def test_the_fastest_is_so_at_the_least_favourable_end_and_errors_are_better_small():
    strays = Candidate("strays", "v", {"latency_ratio_to_reference": 0.06, "latency_ratio_ci95": [0.05, 0.4], "mae": 0.3})
    steady = Candidate("steady", "v", {"latency_ratio_to_reference": 0.2, "latency_ratio_ci95": [0.19, 0.21], "mae": 0.2})
    aliases = make_registration("m", "board", [strays, steady], {}, ("mae", False)).aliases
    assert aliases == {"board-fastest": "steady", "board-smallest": None, "board-most-accurate": "steady"}
    assert make_registration("m", "board", [steady], {}, None).aliases == {"board-fastest": "steady", "board-smallest": None}
