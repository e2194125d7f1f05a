"""Which layers of an ncnn net stay float because the channels of a depthwise convolution's input differ too much for one scale."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

from edgewise.formats.ncnn import blobs, facts, make, net_files
from edgewise.formats.ncnn.net_files import Layer
from tests.unit.test_format_ncnn import convolution, normal, write_net

pytestmark = [pytest.mark.framework, pytest.mark.formats]


def test_a_depthwise_convolution_of_unlike_channels_stays_float_with_what_feeds_it(tmp_path):
    """Of two, the second has inputs of one size. A scale for all channels leaves those of the first a few steps."""
    weights = normal(8, 3, 1, 1) * np.geomspace(0.002, 10, 8, dtype=np.float32)[:, None, None, None]
    layers = [
        convolution("feeding", weights, "x", "a"),
        Layer("Split", "split", ("a",), ("a1", "a2"), {}, {}),
        Layer("Swish", "swish", ("a1",), ("b",), {}, {}),
        convolution("spread", normal(8, 1, 3, 3), "b", "c", groups=8),
        convolution("even", np.ones((3, 1, 3, 3), np.float32), "x", "d", groups=3),
        convolution("plain", normal(4, 8, 1, 1), "c", "y"),
    ]
    folder, feeds = write_net(tmp_path / "net", layers, (3, 8, 8)), [{"x": normal(3, 8, 8)} for _ in range(3)]
    read_layers = net_files.read(folder)
    assert blobs.find_spread(folder, read_layers, feeds) == ["feeding", "spread"]
    assert blobs.find_spread(folder, read_layers, []) == []
    (tmp_path / "made").mkdir()
    settings = {"calibration": {"method": "minmax"}, "per_channel": True, "spread": "float"}
    assert make.quantize(folder, folder, tmp_path / "made", "int8-static", settings, feeds, ["plain"]) == ["feeding", "spread"]
    dtypes = {node["name"]: node["weights_dtype"] for node in facts.facts(tmp_path / "made")["nodes"]}
    assert dtypes == {"feeding": "float32", "spread": "float32", "even": "int8", "plain": "float32"}
    assert make.quantize(folder, folder, tmp_path / "made", "int8-static", {**settings, "spread": "int8"}, feeds, []) == []
