"""What is particular to the format ncnn: its files, its integers as its own reader computes them, and what pnnx leaves undone."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.errors import ConfigError
from edgewise.proof import checks, isolation, making
from edgewise.sources import torch_source
from edgewise.stats.agreement import sqnr_db
from tests.support import onnx_sources
from tests.support.formats import contents, quantize, variant

pytestmark = [pytest.mark.framework, pytest.mark.formats]

torch = pytest.importorskip("torch")
pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

from edgewise.formats.ncnn import blobs, facts, make, net_files, pnnx_converter, profile, recipes, run, store  # noqa: E402
from edgewise.formats.ncnn.net_files import Layer  # noqa: E402

MODULE = "edgewise.formats.ncnn"
rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def parent(floats) -> Path:
    return floats["ncnn"]


@pytest.fixture
def copied(parent, tmp_path) -> Path:
    """The float net, to be spoiled."""
    return Path(shutil.copytree(parent, tmp_path / "copied"))


def write_net(folder: Path, layers: list[Layer], shape: tuple[int, ...]) -> Path:
    """A net of these layers behind one input, whose last blob is its output."""
    folder.mkdir(exist_ok=True)
    net_files.write(folder, [Layer("Input", "x", (), ("x",), {}, {}), *layers])
    port = {"dtype": "float32", "held": "float32", "axis": None}
    sides = {"inputs": [{"name": "x", "blob": "x", "shape": list(shape), **port}], "outputs": []}
    (folder / run.PORTS).write_text(json.dumps(sides))
    return folder


def read(folder: Path, blob: str, x: np.ndarray, **settings) -> np.ndarray:
    net = run.open_net(str(folder), {"light": False, **settings})
    return run.read_blobs(run.start(net, run.read_ports(str(folder))["inputs"], {"x": x}), [blob])[blob]


def convolve(x: np.ndarray, weight: np.ndarray, groups: int = 1, stride: int = 1, pad: int = 1) -> np.ndarray:
    """x [inputs, h, w], weight [outputs, inputs / groups, k, k], in 64 bits."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad)))
    side = weight.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))[:, ::stride, ::stride]
    split = np.split(windows, groups), np.split(weight.astype(np.float64), groups)
    return np.concatenate([np.einsum("chwij,ocij->ohw", *pair) for pair in zip(*split, strict=True)])


def convolution(name: str, weight: np.ndarray, given: str, made: str, groups: int = 1, stride: int = 1) -> Layer:
    outputs, _, side, _ = weight.shape
    kind = "ConvolutionDepthWise" if groups > 1 else "Convolution"
    params = {0: outputs, 1: side, 3: stride, 4: side // 2, 5: 1, 6: weight.size, 9: 1, **({7: groups} if groups > 1 else {})}
    arrays = {"weight": weight.reshape(outputs, -1), "bias": rng.normal(size=outputs).astype(np.float32)}
    return Layer(kind, name, (given,), (made,), {key: str(value) for key, value in params.items()}, arrays)


def normal(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def simulate(x: np.ndarray, layer: Layer, shape: tuple[int, ...], groups: int, stride: int) -> np.ndarray:
    """What a convolution of static int8 gives, with its relu: integers from integers, then floats."""
    steps = np.clip(np.rint(x * layer.arrays["input_scales"]), -127, 127)
    sums = convolve(steps, layer.arrays["weight"].reshape(shape), groups, stride, shape[-1] // 2)
    scales = (layer.arrays["input_scales"] * layer.arrays["weight_scales"]).astype(np.float64)
    found: np.ndarray = np.maximum(sums / scales[:, None, None] + layer.arrays["bias"][:, None, None], 0)
    return found


@pytest.mark.parametrize("settings", [{}, run.AS_WRITTEN, {"winograd": False}], ids=str)
@pytest.mark.parametrize(
    ("shape", "groups", "stride"), [((24, 16, 3, 3), 1, 1), ((16, 1, 3, 3), 16, 1), ((32, 16, 1, 1), 1, 1), ((20, 16, 3, 3), 1, 2)]
)
def test_a_convolution_of_int8_computes_what_its_scales_say(shape, groups, stride, settings, tmp_path):
    x = normal(16, 12, 12)
    layer = recipes.quantize_static(convolution("c", normal(*shape), "x", "y", groups, stride), float(np.abs(x).max()), True, False)
    assert layer.arrays["weight"].dtype == np.int8 and len(layer.arrays["weight_scales"]) == shape[0]
    given = read(write_net(tmp_path / "net", [layer], x.shape), "y", x, **settings)
    assert sqnr_db(simulate(x, layer, shape, groups, stride), given) > (120 if settings is run.AS_WRITTEN or groups == 1 else 70)


def test_between_two_convolutions_of_int8_the_blob_is_int8(tmp_path):
    x, shapes = normal(16, 12, 12), ((24, 16, 3, 3), (8, 24, 1, 1))
    floats = [convolution("a", normal(*shapes[0]), "x", "y"), convolution("b", normal(*shapes[1]), "y", "z")]
    first, second = (recipes.quantize_static(layer, reach, True, False) for layer, reach in zip(floats, (3.0, 40.0), strict=True))
    joined = recipes.requantize([first, second])
    assert [layer.params[8] for layer in joined] == ["102", "2"] and joined[0].arrays["output_scales"] == second.arrays["input_scales"]
    folder = write_net(tmp_path / "net", joined, x.shape)
    session = profile.Session(run.open_net(str(folder), {"light": False}), {"inputs": run.read_ports(str(folder))["inputs"], "outputs": []})
    session.run({"x": x})
    assert [entry["dtype"] for entry in session.profile()["runs"][0]] == ["float32", "int8"]
    between = simulate(x, first, shapes[0], 1, 1)
    np.testing.assert_allclose(
        read(folder, "z", x), simulate(between, second, shapes[1], 1, 1), atol=0.5 / second.arrays["input_scales"][0]
    )


def test_a_blob_that_another_layer_reads_too_stays_float():
    split = Layer("Split", "s", ("y",), ("y1", "y2"), {}, {})
    pairs = (("x", "y"), ("y1", "z"))
    first, second = (recipes.quantize_static(convolution(made, normal(4, 4, 1, 1), given, made), 1.0, True, False) for given, made in pairs)
    add = Layer("BinaryOp", "add", ("y2", "z"), ("sum",), {0: "0"}, {})
    assert [layer.params.get(8) for layer in recipes.requantize([first, split, second, add])] == ["2", None, "2", None]
    third = recipes.quantize_static(convolution("c", normal(4, 4, 1, 1), "y2", "w"), 1.0, True, False)
    assert [layer.params.get(8) for layer in recipes.requantize([first, split, second, third])] == ["102", None, "2", "2"]
    other = recipes.quantize_static(convolution("c", normal(4, 4, 1, 1), "y2", "w"), 2.0, True, False)
    assert recipes.requantize([first, split, second, other])[0].params[8] == "2"


def test_an_inner_product_of_int8_computes_what_its_scales_say(tmp_path):
    x, weight = normal(40), normal(6, 40)
    arrays = {"weight": weight, "bias": normal(6)}
    layer = Layer("InnerProduct", "i", ("x",), ("y",), {0: "6", 1: "1", 2: "240"}, arrays)
    made = recipes.quantize_static(layer, float(np.abs(x).max()), False, False)
    steps = np.rint(x * made.arrays["input_scales"])
    scales = made.arrays["input_scales"] * made.arrays["weight_scales"]
    expected = (made.arrays["weight"].astype(np.float64) @ steps) / scales + arrays["bias"]
    np.testing.assert_allclose(read(write_net(tmp_path / "net", [made], x.shape), "y", x), expected, atol=1e-4)
    assert len(set(made.arrays["weight_scales"].tolist())) == 1


@pytest.mark.parametrize("inner", [40, 41])
@pytest.mark.parametrize(("bits", "size"), [(4, 32), (8, 32), (8, 128)])
def test_weights_in_blocks_are_read_as_they_were_packed(bits, size, inner, tmp_path):
    x, weight = normal(5, inner), normal(6, inner)
    params = {2: "0", 3: "1", 4: "0", 5: "1", 6: "1", 8: "6", 9: str(inner), 10: "4"}
    gemm = Layer("Gemm", "g", ("x",), ("y",), params, {"weight": weight, "bias": normal(1, 6)})
    term = 100 * bits + recipes.BLOCKS["block_size"].index(size)
    made = recipes.quantize_product(gemm, lambda rows: recipes.to_blocks(rows, bits, size), term)
    folder = write_net(tmp_path / "net", [made], x.shape)
    largest, blocks = 2 ** (bits - 1) - 1, np.arange(inner) // size
    scales = np.stack([largest / np.abs(weight[:, blocks == block]).max(axis=1) for block in range(blocks.max() + 1)], axis=1)[:, blocks]
    least_db = 120 if bits == 4 else 35  # its kernels for blocks of 8 bits round the input too, by row
    assert sqnr_db(x @ (np.rint(weight * scales) / scales).T + gemm.arrays["bias"], read(folder, "y", x)) > least_db
    (node,) = facts.facts(folder)["nodes"]
    assert (node["weights_dtype"], node["elements"], node["activations_dtype"]) == (f"int{bits}", weight.size, "float32")
    assert facts.facts(folder)["weights_bytes_by_dtype"] == {f"int{bits}": -(-weight.size * bits // 8)}


def test_winograd_kernels_are_left_out_for_weights_that_they_would_overflow(tmp_path):
    weight, wide = normal(16, 16, 3, 3), normal(16, 16, 1, 1)
    full, reduced = (recipes.quantize_static(convolution("c", weight, "x", "y"), 1.0, True, reduce) for reduce in (False, True))
    assert full.params[31] == "64" and np.abs(full.arrays["weight"]).max() == 127
    assert 31 not in reduced.params and np.abs(reduced.arrays["weight"]).max() == 31
    assert 31 not in recipes.quantize_static(convolution("c", wide, "x", "y"), 1.0, True, False).params
    x = normal(16, 24, 24)
    plain = convolution("c", weight, "x", "y")
    masked = replace(plain, params={**plain.params, 31: "64"})
    given, without, obeyed = (
        read(write_net(tmp_path / "net", [layer], x.shape), "y", x, winograd=on)
        for layer, on in ((plain, True), (plain, False), (masked, True))
    )
    assert (given != without).any() and (obeyed == without).all()


def test_thresholds_of_known_distributions():
    counts = np.rint(1e5 * np.exp(-((np.arange(blobs.BINS) / 150) ** 2) / 2))
    counts[-1] = 1  # one value far beyond all others
    assert 300 < blobs.choose_entropy(counts) < 1000
    kept = np.cumsum(counts)[int(blobs.choose_percentile(counts)) - 1] / counts.sum()
    assert kept >= 0.99999 > kept - 1e-5
    assert blobs.choose_entropy(np.full(blobs.BINS, 10.0)) > 0.9 * blobs.BINS
    assert blobs.choose_entropy(np.zeros(blobs.BINS)) == blobs.BINS


def test_the_extremes_of_a_blob_are_those_of_all_samples_or_their_mean(parent):
    feeds = [{"image": np.full((1, 3, 16, 16), size, np.float32)} for size in (1.0, -3.0)]
    assert blobs.find_thresholds(parent, ["in0"], feeds, "minmax") == {"in0": 3.0}
    assert blobs.find_thresholds(parent, ["in0"], feeds, "mean") == {"in0": 2.0}


@pytest.mark.parametrize("method", blobs.METHODS)
def test_every_method_of_calibration_answers_like_the_source(method, floats, source, tmp_path):
    chosen = variant("ncnn", "int8-static", calibration={"method": method})
    folder = quantize(chosen, floats, source, tmp_path / "v")
    inputs, expected = checks.read_probe(source)
    given = isolation.compute_outputs(MODULE, folder, {"threads": 1}, inputs)
    assert checks.check_outputs(expected, given, 15.0) > 15


def test_facts_are_what_ncnn_itself_reads(parent):
    net = run.open_net(str(parent), {})
    found = facts.facts(parent)
    assert sum(found["operators"].values()) == len(net.layers())
    kinds = {layer.name: layer.type for layer in net.layers()}
    assert {node["name"]: node["operator"] for node in found["nodes"]}.items() <= kinds.items()
    assert found["weights_elements"] == 3 * 16 * 9 + 16 * 9 + 16 * 32 * 9 + 32 * 4
    assert found["weights_bytes_by_dtype"] == {"float32": 4 * found["weights_elements"]}


def test_files_are_written_as_they_were_read(parent, tmp_path):
    net_files.write(tmp_path, net_files.read(parent))
    names = (run.PARAM, run.BIN)
    assert {name: contents(tmp_path)[name] for name in names} == {name: contents(parent)[name] for name in names}


def spoil_param(folder: Path) -> None:
    text = (folder / run.PARAM).read_text()
    (folder / run.PARAM).write_text(text[: text.rindex("\nInnerProduct")] + "\n")


def spoil_bin(folder: Path) -> None:
    data = (folder / run.BIN).read_bytes()
    (folder / run.BIN).write_bytes(data[: len(data) // 2])


def bring_another_format(folder: Path) -> None:
    (folder / run.PARAM).write_bytes(b"\x08\x0a\x12\x07pytorch")


def use_an_operator_that_is_not_there(folder: Path) -> None:
    (folder / run.PARAM).write_text((folder / run.PARAM).read_text().replace("Reduction ", "Reducktion "))


BAD_FILES = [
    (spoil_param, "it counts 9 layers and has 8, so it is truncated"),
    (spoil_bin, "ncnn refuses model.bin: it is shorter than model.param says"),
    (bring_another_format, "model.param is not a .param file of ncnn: its first line is not 7767517"),
    (use_an_operator_that_is_not_there, "this release has no operator Reducktion; use the release that wrote it"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_FILES, ids=[spoil.__name__ for spoil, _ in BAD_FILES])
def test_bad_files_are_refused_with_the_reason(spoil, message, copied):
    spoil(copied)
    with pytest.raises(RuntimeError, match=message):
        run.load(str(copied), {"threads": 1})


def test_bytes_that_belong_to_no_layer_are_found(copied):
    with (copied / run.BIN).open("ab") as stream:
        stream.write(bytes(8))
    with pytest.raises(ValueError, match=r"bytes where the layers of model\.param need"):
        facts.facts(copied)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 0}, "engine.threads: 0; allowed: from 1 to 1024"),
        ({"precision": "f8"}, "engine.precision: 'f8'; allowed: f32, f16, bf16"),
        ({"winograd": 1}, "engine.winograd: 1; allowed: True, False"),
        ({"spinning": "no"}, "engine.spinning: 'no'; allowed: False, True"),
    ],
)
def test_bad_engine_settings_are_refused_with_what_is_allowed(settings, message, parent):
    with pytest.raises(ValueError, match=f"^{message}$"):
        run.load(str(parent), settings)


@pytest.mark.parametrize(
    ("scheme", "settings", "message"),
    [
        ("int8-static", {"calibration": {"method": "max"}}, "allowed: .*minmax"),
        ("int4-weight", {"block_size": 48}, "block_size: 48"),
        ("fp32", {"engine": {"precison": "f16"}}, "did you mean 'precision'"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(scheme, settings, message):
    with pytest.raises(ConfigError, match=message):
        variant("ncnn", scheme, **settings)


@pytest.mark.parametrize(
    ("settings", "policy"), [({"threads": 2}, "PASSIVE"), ({"threads": 2, "spinning": True}, None), ({"threads": 1}, None)]
)
def test_threads_sleep_while_they_wait_unless_they_are_to_spin(settings, policy, parent, monkeypatch):
    """On a machine that is busy, threads that spin take turns with those that they wait for: 420 ms instead of 6 for a ResNet-18."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    run.load(str(parent), settings)
    assert os.environ.get("OMP_WAIT_POLICY") == policy
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


def test_an_input_of_another_shape_is_refused(parent):
    with pytest.raises(ValueError, match=r"input image: shape \[1, 3, 8, 8\]; the file takes \[1, 3, 16, 16\]"):
        run.load(str(parent), {}).run({"image": np.zeros((1, 3, 8, 8), np.float32)})


def test_weights_cannot_be_mapped(parent):
    with pytest.raises(ValueError, match=r"load\.mode mapped: ncnn copies the weights"):
        store.store(parent, {}, {}, True)


def test_a_layer_that_is_in_no_node_cannot_stay_float(parent, source, tmp_path):
    with pytest.raises(ValueError, match="no layer of the net has the weights of gone, so it cannot stay float"):
        make.quantize(parent, source, tmp_path, "fp16", {}, [], ["gone"])


def test_a_weight_beyond_float16_is_named():
    layer = convolution("c", np.full((2, 2, 1, 1), 1e5, np.float32), "x", "y")
    with pytest.raises(ValueError, match="layer c has a weight of 100000, float16 ends at 65504; keep it float"):
        recipes.halve(layer)


class Causal(torch.nn.Module):
    """Two heads of attention behind a mask of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(8, 8) for _ in range(3))
        self.register_buffer("mask", torch.tril(torch.ones(5, 5, dtype=torch.bool)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = (side(x).reshape(-1, 5, 2, 4).transpose(1, 2) for side in (self.query, self.key, self.value))
        seen = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=self.mask)
        return seen.transpose(1, 2).reshape(-1, 5, 8)


def of_torch(kind: type[torch.nn.Module], arrays: dict[str, np.ndarray], outputs: tuple[str, ...], folder: Path) -> Path:
    """models/source of a module with random weights."""
    torch.manual_seed(0)
    folder.mkdir()
    fields = torch_source.export(torch_source.wrap(kind().eval()), arrays, outputs, folder)
    sides = {side: making.make_tensors(fields[side], ()) for side in ("inputs", "outputs")}
    artifact.write(folder, Manifest(kind="source", format="torch", details=fields["details"], **sides))
    return folder


def test_a_mask_of_attention_hides_what_it_should(tmp_path):
    """ncnn reads the bytes that pnnx writes as floats, beyond their end."""
    source = of_torch(Causal, {"x": normal(16, 5, 8)}, ("y",), tmp_path / "source")
    parent = onnx_sources.converted("ncnn", source, tmp_path / "float")
    assert onnx_sources.worst_db("ncnn", parent, source) > 100
    (mask,) = (layer.arrays["constant"] for layer in net_files.read(parent) if layer.kind == "MemoryData")
    np.testing.assert_array_equal(mask < -1e9, ~np.tril(np.ones((5, 5), bool)))


class Looking(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.line = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 6)

    def forward(self, ids: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.line(self.table(ids))
        return torch.tanh(found.mean(1)), found + h


def test_ids_and_several_ports(tmp_path):
    arrays = {"ids": rng.integers(0, 9, (16, 7)), "h": normal(16, 7, 6)}
    source = of_torch(Looking, arrays, ("mean", "sums"), tmp_path / "source")
    parent = onnx_sources.converted("ncnn", source, tmp_path / "float")
    assert onnx_sources.worst_db("ncnn", parent, source) > 100
    made = onnx_sources.quantized("ncnn", "fp16", parent, source, tmp_path / "fp16")
    assert onnx_sources.share_of("ncnn", "fp16", made) == 1 and onnx_sources.worst_db("ncnn", made, source) > 50


def of_onnx(nodes, arrays, outputs, weights, folder: Path, **settings) -> Path:
    inputs = {name: [array.dtype.type, ["n", *array.shape[1:]]] for name, array in arrays.items()}
    model = onnx_sources.model(nodes, inputs, outputs, weights)
    return onnx_sources.imported(model, arrays, folder / "source", **settings)


def test_slices_with_a_step_become_what_ncnn_has(tmp_path):
    """The focus of YOLOX, and a slice with an end of its own."""
    node, x = onnx_sources.node, onnx_sources.normal(16, 3, 16, 17)
    bounds = {"rows": (0, 2**31 - 1), "more": (1, 2**31 - 1), "some": (3, 12)}
    constants = {f"{name}{side}": np.array([value, value]) for name, pair in bounds.items() for side, value in zip("ab", pair, strict=True)}
    constants |= {"axes": np.array([2, 3]), "steps": np.array([2, 2]), "three": np.array([3, 1]), "w": normal(8, 6, 3, 3)}
    nodes = [
        node("Slice", ["x", "rowsa", "rowsb", "axes", "steps"], ["p"]),
        node("Slice", ["x", "somea", "someb", "axes", "three"], ["z"]),
        node("Slice", ["x", "morea", "moreb", "axes", "steps"], ["q"]),
        node("Slice", ["p", "rowsa", "eight", "axes", "ones"], ["p8"]),
        node("Concat", ["p8", "q"], ["joined"], axis=1),
        node("Conv", ["joined", "w"], ["y"], name="conv"),
    ]
    constants |= {"eight": np.array([8, 8]), "ones": np.array([1, 1])}
    source = of_onnx(nodes, {"x": x}, {"y": ["n", 8, 6, 6], "z": ["n", 3, 3, 9]}, constants, tmp_path)
    parent = onnx_sources.converted("ncnn", source, tmp_path / "float")
    assert onnx_sources.worst_db("ncnn", parent, source) > 100
    assert onnx_sources.layers_of(parent) == {"conv": ["conv"]}


def test_an_operator_that_ncnn_lacks_is_named(tmp_path):
    node, x = onnx_sources.node, onnx_sources.normal(16, 6)
    nodes = [node("Gemm", ["x", "w"], ["h"], name="gemm"), node("IsNaN", ["h"], ["n"]), node("Where", ["n", "h", "h"], ["y"])]
    source = of_onnx(nodes, {"x": x}, {"y": ["n", 4]}, {"w": normal(6, 4)}, tmp_path)
    with pytest.raises(ValueError, match=r"ncnn has no operator for .*; write the model without it, or use another format for it"):
        onnx_sources.converted("ncnn", source, tmp_path / "float")


def test_a_recurrent_layer_of_an_onnx_file_is_refused(tmp_path):
    node, x = onnx_sources.node, onnx_sources.normal(16, 5, 4)
    nodes = [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node("GRU", ["t", "w", "r"], ["", "h"], hidden_size=3, name="gru")]
    nodes.append(node("Squeeze", ["h", "axis"], ["y"]))
    weights = {"w": normal(1, 9, 4), "r": normal(1, 9, 3), "axis": np.array([0])}
    source = of_onnx(nodes, {"x": x}, {"y": ["n", 3]}, weights, tmp_path)
    with pytest.raises(ValueError, match="pnnx does not translate GRU of an ONNX file; bring the model as a torch program"):
        onnx_sources.converted("ncnn", source, tmp_path / "float")


def test_an_output_of_integers_is_refused():
    with pytest.raises(ValueError, match=r"^output best is int64; a net of ncnn gives floats alone: leave it out with model\.outputs$"):
        make.check_floats([{"name": "y", "dtype": "float32"}, {"name": "best", "dtype": "int64"}])


def test_what_pnnx_cannot_read_is_told_in_one_line(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"^pnnx cannot convert this source \(.*\): .*; use another format$"):
        pnnx_converter.run_pnnx(tmp_path / "net.onnx", [np.zeros((1, 3), np.float32)])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "x", "shape": [4, 3], "sample_axis": 0}, "input x is fixed to 4 samples a run, a net of ncnn takes one"),
        ({"name": "x", "shape": [2, 4, 3], "sample_axis": 1}, "input x is fixed to 4 samples"),
    ],
)
def test_a_source_of_more_samples_a_run_is_refused(entry, message):
    with pytest.raises(ValueError, match=message):
        pnnx_converter.check_single([entry])
