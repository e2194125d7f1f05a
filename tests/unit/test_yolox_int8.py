"""A published detector, depthwise and with SiLU, in static int8 of the runtimes of small boards."""

import numpy as np
import pytest

from edgewise.agent import preprocess
from tests.conftest import SHARED_DATA
from tests.support import onnx_sources

onnx = pytest.importorskip("onnx")
ABSENT = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the folder shared/data beside the checkout is absent")
pytestmark = [pytest.mark.framework, pytest.mark.formats, pytest.mark.slow, ABSENT]

LEAST_DB = 3.0  # what int8-static asks for
PICTURES = 24
SPEC = {
    **{"size": [416, 416], "channels": 3, "resize": "letterbox", "pad_value": 114, "anchor": "corner", "stride": None},
    **{"scale": 1.0, "mean": [0.0], "std": [1.0], "order": "BGR", "layout": "NCHW", "dtype": "float32"},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """models/source of YOLOX-Nano, with pictures of COCO."""
    pytest.importorskip("onnxruntime")
    paths = sorted((SHARED_DATA / "coco128/images/train2017").iterdir())[:PICTURES]
    pictures = [preprocess.resize_to_spec(preprocess.decode_picture(str(path)), SPEC) for path in paths]
    feeds = preprocess.normalize(np.stack(pictures), SPEC)
    file = SHARED_DATA / "pretrained/yolox/yolox_nano.onnx"
    name = onnx.load(file).graph.input[0].name
    return onnx_sources.imported(file, {name: feeds}, tmp_path_factory.mktemp("yolox") / "source")


@pytest.mark.parametrize("method", ["mean", "minmax"])
@pytest.mark.parametrize("name", ["ncnn", "mnn"])
def test_boxes_and_scores_agree_as_much_as_the_scheme_asks_for(name, method, source, tmp_path):
    pytest.importorskip({"ncnn": "ncnn", "mnn": "MNN"}[name])
    given = source if name == "ncnn" else onnx_sources.converted("onnx", source, tmp_path / "onnx")
    parent = onnx_sources.converted(name, given, tmp_path / "float")
    calibration = {"samples": PICTURES, "method": method, "resamples": 0}
    made = onnx_sources.quantized(name, "int8-static", parent, source, tmp_path / "int8", calibration=calibration)
    dtypes = [node["weights_dtype"] for node in onnx_sources.facts_of(name, made)["nodes"]]
    assert onnx_sources.worst_db(name, made, source) >= LEAST_DB
    assert dtypes.count("int8") >= 0.8 * len(dtypes)
