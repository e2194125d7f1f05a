"""What is particular to the ExecuTorch format: the share of XNNPACK, one sample a run, one thread pool, torch beside the runtime."""

import dataclasses
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.agent import memory
from edgewise.agent.packages import find_oldest, list_packages
from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.bundle.contents import runtime_ranges
from edgewise.config.runtimes import own_packages, runtimes
from edgewise.config.schema import ConfigError
from edgewise.measure.device_facts import find_missing_runtime
from edgewise.proof import checks
from edgewise.report.rows import describe_delegation
from edgewise.stats.agreement import sqnr_db
from tests.support.formats import require, variant

torch = pytest.importorskip("torch")
pytest.importorskip("executorch.exir")

from edgewise.formats.executorch import facts, lowering, make, profile, recipes, run, split, store  # noqa: E402

pytestmark = [pytest.mark.framework, pytest.mark.formats]

STATIC = {"calibration": {"method": "minmax"}, "per_channel": True}


class Mixed(torch.nn.Module):
    """Of its five operators XNNPACK takes four: a running sum stays outside."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.last = torch.nn.Linear(6, 4), torch.nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.last(torch.sigmoid(self.line(x)).cumsum(1).tanh())


class Twice(torch.nn.Module):
    """One layer for values of unlike size."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.last = torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.last(torch.relu(self.line(20 * torch.relu(self.line(x)))))


class Unsupported(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.linalg.matrix_exp(x[:, None] * x[:, :, None])


class Counting(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Any) -> Any:
        self.calls += 1
        return x + self.calls


def write_source(module: Any, x: np.ndarray, folder: Path) -> Path:
    """models/source of a module with one input x, [n, ...]."""
    from edgewise.sources import torch_source

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    fields = torch_source.export(torch_source.wrap(module), {"x": x}, ("y",), folder)
    given = {key: fields[key] for key in ("format", "details")}
    ports = {side: tuple(Port(**{**entry, "shape": tuple(entry["shape"])}) for entry in fields[side]) for side in ("inputs", "outputs")}
    artifact.write(folder, Manifest(kind="source", **ports, **given))
    return folder


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    return write_source(Mixed(), numbers(16, 6), tmp_path_factory.mktemp("mixed") / "source")


@pytest.fixture(scope="module")
def mixed_file(mixed) -> Path:
    (mixed.parent / "float").mkdir()
    make.convert(mixed, mixed.parent / "float", {})
    return mixed.parent / "float"


@pytest.fixture(scope="module")
def foreign(mixed) -> tuple[Any, bytes]:
    """What ExecuTorch itself makes of the program: the lowered graph, and a file without our names."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    prepared = lowering.prepare(mixed)
    with warnings.catch_warnings(action="ignore"):
        edge = to_edge_transform_and_lower(lowering.export(prepared.module, prepared.examples), partitioner=[XnnpackPartitioner()])
        graph = edge.exported_program().graph_module
        return graph, bytes(edge.to_executorch().buffer)


@pytest.fixture
def folder(tmp_path, mixed_file) -> Callable[[bytes | None], str]:
    """folder(CONTENT): one with such a model.pte; None: the one of `mixed_file`."""

    def put(content: bytes | None = None) -> str:
        (tmp_path / run.MODEL).write_bytes((mixed_file / run.MODEL).read_bytes() if content is None else content)
        return str(tmp_path)

    return put


def test_the_share_of_xnnpack_is_what_executorch_itself_prints(foreign, mixed_file, capsys):
    from executorch.devtools.backend_debug import get_delegation_info, print_delegation_info

    graph, _ = foreign
    print_delegation_info(graph)
    printed = {name.strip(): int(count) for name, count in re.findall(r"^(.+): (\d+)$", capsys.readouterr().out, re.M)}
    told = {op: counts for op, counts in get_delegation_info(graph).delegation_by_operator.items() if op not in ("getitem", "alloc")}
    left = {op.split("_")[1]: counts.non_delegated for op, counts in told.items() if counts.non_delegated}
    found = facts.facts(mixed_file)["delegation"]
    assert found["left"] == left == {"cumsum": 1}
    assert found["delegated"] == printed["Number of delegated nodes"] == 4
    assert found["calls"] == printed["Total delegated subgraphs"] == 2
    assert found["operators"] == found["delegated"] + sum(left.values())
    assert describe_delegation(found) == "4 of 5 operators in XNNPACK, in 2 calls; not cumsum"


def test_operators_of_a_profile_have_the_names_of_layers_and_say_what_is_no_delegates(mixed_file):
    session = profile.load(str(mixed_file), {"threads": 1})
    for i in range(2):
        session.run({"x": numbers(2, 6)[i : i + 1]})
    runs = session.profile()["runs"]
    assert len(runs) == 2
    names = {op["name"]: op for op in runs[1]}
    assert {"line", "last", "cumsum 1", "DelegateCall 1", "DelegateCall 2"} <= names.keys()
    assert [op["name"] for op in runs[1] if op["fallback"]] == ["cumsum 1"]
    assert names["line"]["type"] == "Fully Connected" and names["line"]["dtype"] == "float32"


def test_a_layer_that_is_called_twice_rounds_its_bias_for_each_call(tmp_path):
    """XNNPACK's lowering alone uses the scale of one of the calls for both."""
    source = write_source(Twice(), numbers(16, 8), tmp_path / "source")
    prepared = lowering.prepare(source)
    assert prepared.layers == {"line": ["line", "line#2"], "last": ["last"]}
    inputs, expected = checks.read_probe(source)
    feeds = [{"x": inputs["x"][i : i + 1]} for i in range(16)]
    make.quantize(tmp_path, source, tmp_path, "int8-static", STATIC, feeds, [])
    session = run.load(str(tmp_path), {"threads": 1})
    given = np.concatenate([session.run(feed)["y"] for feed in feeds])
    assert sqnr_db(expected["y"], given) > 25
    nodes = {node["name"]: node for node in facts.facts(tmp_path)["nodes"]}
    assert nodes["line#2"]["elements"] == 0 and {node["weights_dtype"] for node in nodes.values()} == {"int8"}


class Clipped(torch.nn.Module):
    """The activation of MobileNets."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 3)

    def forward(self, x: Any) -> Any:
        return self.second(torch.nn.functional.relu6(self.first(x)))


def test_a_convolution_and_its_relu6_are_one_operator(tmp_path):
    """XNNPACK's quantizer alone rounds between them, and a Clamp is left."""
    source = write_source(Clipped(), 100 * numbers(8, 3, 8, 8), tmp_path / "source")
    inputs, expected = checks.read_probe(source)
    feeds = [{"x": inputs["x"][i : i + 1]} for i in range(8)]
    make.quantize(tmp_path, source, tmp_path, "int8-static", STATIC, feeds, [])
    assert "Clamp" not in facts.facts(tmp_path)["operators"]
    session = run.load(str(tmp_path), {"threads": 1})
    assert sqnr_db(expected["y"][:8], np.concatenate([session.run(feed)["y"] for feed in feeds])) > 20


class Reordered(torch.nn.Module):
    """Convolutions behind an operator, the last one behind a convolution."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change, self.first, self.second = change, torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.Conv2d(8, 4, 1)

    def forward(self, x: Any) -> Any:
        return self.second(torch.nn.functional.hardswish(self.first(self.change(x))))


CHANGES = {
    "padding": lambda x: torch.nn.functional.pad(x, (0, 1, 0, 1)),
    "slice": lambda x: torch.relu(x[:, :, 1:, 2:]),
    "transpose": lambda x: x.transpose(2, 3),
    "sum": lambda x: x + 1,
    "pooling": lambda x: torch.nn.functional.max_pool2d(x, 2),
    "none": lambda x: x,
}


@pytest.mark.parametrize("name", CHANGES)
def test_convolutions_that_xnnpack_would_run_on_other_axes_stay_float(name, tmp_path):
    """Quantized with dynamic inputs they fail as the model runs: Propagating input shapes failed."""
    source = write_source(Reordered(CHANGES[name]), numbers(8, 3, 8, 8), tmp_path / "source")
    inputs, expected = checks.read_probe(source)
    make.quantize(tmp_path, source, tmp_path, "int8-dynamic", {}, [], [])
    nodes = {node["name"]: node["weights_dtype"] for node in facts.facts(tmp_path)["nodes"]}
    assert nodes == {"first": "int8" if name in ("pooling", "none") else "float32", "second": "int8"}
    session = run.load(str(tmp_path), {"threads": 1})
    given = [session.run({"x": inputs["x"][i : i + 1]})["y"] for i in range(4)]
    assert sqnr_db(expected["y"][:4], np.concatenate(given)) > 25


REFUSED = {
    "empty": (lambda whole, _: b"", "offset 0"),
    "truncated": (lambda whole, _: whole[:1000], "File size is too small"),
    "cut at its end": (lambda whole, _: whole[:-100], "File size is too small"),
    "text": (lambda whole, _: b"a text, not a program " * 99, "Program identifier"),
    "an ONNX file": (lambda whole, _: b"\x08\x0a\x12\x07pytorch" + bytes(4000), "Program identifier"),
    "a TFLite file": (lambda whole, _: b"\x1c\0\0\0TFL3" + bytes(4000), "Program identifier 'TFL3'"),
    "without names": (lambda whole, foreign: foreign, "does not name its inputs and outputs"),
    "another delegate": (lambda whole, _: whole.replace(b"XnnpackBackend", b"XnnpackBackenb"), "XnnpackBackenb"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_bad_file_is_refused_in_the_words_of_the_runtime(how, folder, mixed_file, foreign):
    damage, message = REFUSED[how]
    with pytest.raises(ValueError, match=message):
        run.load(folder(damage((mixed_file / run.MODEL).read_bytes(), foreign[1])), {"threads": 1})


@pytest.mark.parametrize("how", ["empty", "truncated", "text", "without names", "another delegate"])
def test_the_facts_of_a_bad_file_are_refused(how, folder, mixed_file, foreign):
    with pytest.raises(
        ValueError, match=r"is not an ExecuTorch program, or is damaged|has the methods forward;|needs the delegate XnnpackBackenb"
    ):
        facts.facts(Path(folder(REFUSED[how][0]((mixed_file / run.MODEL).read_bytes(), foreign[1]))))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.pte does not exist"):
        run.load(str(tmp_path), {"threads": 1})


@pytest.mark.parametrize(
    ("scheme", "settings", "message"),
    [
        ("fp32", {"engine": {"threads": 0}}, "from 1 to 1024"),
        ("fp32", {"engine": {"treads": 2}}, "did you mean 'threads'"),
        ("int8-static", {"calibration": {"method": "entropy"}}, "histogram, minmax, moving_average"),
        ("int8-static", {"per_channel": 1}, "allowed: False, True"),
        ("int8-dynamic", {"per_channel": True}, "per_channel"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_runs(scheme, settings, message):
    with pytest.raises(ConfigError, match=message):
        variant("executorch", scheme, **settings)


def test_a_pool_of_threads_is_not_taken_from_a_loaded_model(mixed_file):
    held = run.load(str(mixed_file), {"threads": 1})
    with pytest.raises(ValueError, match="threads: 2; a model with 1 is loaded"):
        run.load(str(mixed_file), {"threads": 2})
    again = run.load(str(mixed_file), {"threads": 1})
    np.testing.assert_array_equal(held.run({"x": numbers(1, 6)})["y"], again.run({"x": numbers(1, 6)})["y"])


def test_an_operator_without_a_kernel_is_named(tmp_path):
    source = write_source(Unsupported(), numbers(4, 3), tmp_path / "source")
    with pytest.raises(ValueError, match="linalg_matrix_exp"):
        make.convert(source, tmp_path, {})


def test_a_program_that_changes_its_buffers_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"changes its own buffers \(.*calls\).*model\.state"):
        make.convert(write_source(Counting(), numbers(4, 3), tmp_path / "source"), tmp_path, {})


def test_what_is_not_offered_says_what_to_use_instead(tmp_path):
    with pytest.raises(ValueError, match=r"maps model\.pte in every mode"):
        store.store(tmp_path, {}, {}, mapped=True)
    with pytest.raises(ValueError, match="use onnx, tflite or torch"):
        split.cuttable(tmp_path, tmp_path, "fp32", {}, [])


def test_four_bits_need_an_even_number_of_inputs(tmp_path):
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(5, 4)

        def forward(self, x: Any) -> Any:
            return self.line(x)

    prepared = lowering.prepare(write_source(Odd(), numbers(4, 5), tmp_path / "source"))
    with pytest.raises(ValueError, match=r"line has 5 inputs.*keep_float: \[line\]"):
        recipes.quantize(prepared, "int4-weight", {}, [], [])


def test_the_runtime_is_torch_and_executorch_wherever_packages_are_named():
    assert list(list_packages(run).values()) == ["torch", "executorch"]
    assert runtimes("edgewise.formats.executorch") == ["torch", "executorch"]
    assert set(own_packages("edgewise.formats.executorch")) == {"torch", "executorch", "torchao"}
    files = {path.name for path in memory.list_files("edgewise.formats.executorch.run", "/nonexistent")}
    assert "libtorch_cpu.so" in files and any(name.startswith("_C.cpython") for name in files)


def test_a_device_without_torch_fails_the_variants_that_need_it():
    record = {"variants": {"a": "torch missing, executorch 1.5.1", "b": "torch 2.13.0+cpu, executorch 1.5.1", "c": "torch missing"}}
    said = "No module named 'torch'; on the device: python -m pip install torch executorch; install the runtime"
    assert find_missing_runtime(record, said, "a") == "a"
    assert find_missing_runtime(record, said, "b") is None, "both are there: one is broken"
    assert find_missing_runtime(record, said, "c") is None, "another runtime"


def test_a_bundle_takes_the_releases_that_were_built_for_each_other():
    made = dataclasses.replace(Manifest(kind="variant"), details={})
    found = runtime_ranges(made, find_oldest(run), {"torch": "2.13.0+cpu", "executorch": "1.5.1", "numpy": "2.4"})
    assert found == {"torch": ("2.13", "2.14"), "executorch": ("1.5", "1.6")}
    assert runtime_ranges(made, {"torch": "2.13"}, {"torch": "2.13.0+cpu"}) == {"torch": ("2.13", "3")}


def test_versions_are_those_of_the_distributions():
    require("executorch")
    assert run.versions().keys() == {"executorch", "torch", "numpy"}
    assert facts.DELEGATE == "XnnpackBackend"
