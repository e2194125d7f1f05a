"""OpenVINO on one thread, with inputs of a fixed size: matrix products in 8 bits give what the file says."""

from pathlib import Path

import numpy as np
import pytest

from edgewise.formats.openvino import make, run
from edgewise.stats.agreement import sqnr_db
from tests.support.onnx_sources import imported, model, node, normal

pytestmark = [pytest.mark.framework, pytest.mark.formats]

pytest.importorskip("openvino")
pytest.importorskip("onnx")
SETTINGS = {"calibration": {"method": "minmax"}, "per_channel": True, "symmetric": False}


def products(rows: int | str):
    nodes = [node("MatMul", ["x", "v"], ["p"], name="first"), node("Relu", ["p"], ["r"], name="relu")]
    nodes += [node("MatMul", ["r", "w"], ["y"], name="second")]
    return model(nodes, {"x": [rows, 6]}, {"y": [rows, 3]}, {"v": normal(6, 8, seed=1), "w": normal(8, 3, seed=2)})


@pytest.mark.parametrize("rows", [1, 5, "batch"])
@pytest.mark.parametrize("threads", [1, 2])
def test_products_in_a_row_do_not_vanish(rows, threads, tmp_path):
    count = rows if isinstance(rows, int) else 4
    source = imported(products(rows), {"x": normal(24, 6)}, tmp_path / "source")
    for name in ("float", "int8"):
        (tmp_path / name).mkdir()
    make.convert(Path(source), tmp_path / "float", {})
    feeds = [{"x": normal(count, 6, seed=seed)} for seed in range(16)]
    make.quantize(tmp_path / "float", source, tmp_path / "int8", "int8-static", SETTINGS, feeds, [])
    expected, given = (
        np.concatenate([run.load(str(tmp_path / name), {"threads": threads}).run(feed)["y"] for feed in feeds])
        for name in ("float", "int8")
    )
    assert sqnr_db(expected, given) > 25
