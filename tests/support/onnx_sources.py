"""Small ONNX models of all kinds, and the way of a file through import, conversion and quantization, without the pipeline."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.config.schema import Train, part
from edgewise.proof import checks, isolation, making
from edgewise.sources import onnx_file
from edgewise.stats.agreement import compare_groups, sqnr_db, worst_of
from tests.support.source_kinds import form, make_of

Arrays = Mapping[str, np.ndarray]
SAMPLES = 24


def node(kind: str, given: Sequence[str], made: Sequence[str], **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, given, made, **attributes)


def graph(nodes: Sequence[Any], inputs: Mapping[str, Sequence], outputs: Mapping[str, Sequence], weights: Arrays | None = None) -> Any:
    """A graph. inputs, outputs: name -> shape, of float32, or [dtype, shape]."""
    from onnx import helper, numpy_helper

    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    sides = [[_port(name, shape) for name, shape in side.items()] for side in (inputs, outputs)]
    return helper.make_graph(list(nodes), "net", *sides, held)


def _port(name: str, shape: Sequence[Any]) -> Any:
    from onnx import helper

    kind, shape = shape if len(shape) == 2 and isinstance(shape[0], type) else (np.float32, shape)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)


def model(nodes: Sequence[Any], inputs: Mapping[str, Sequence], outputs: Mapping[str, Sequence], weights: Arrays | None = None) -> Any:
    from onnx import helper

    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph(nodes, inputs, outputs, weights), opset_imports=domains, ir_version=10)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers; along the first axis each sample has a level of its own, so that outputs move."""
    random = np.random.default_rng(seed)
    return (random.normal(size=shape) + random.normal(size=(shape[0], *[1] * (len(shape) - 1)))).astype(np.float32)


def by_channel(*shape: int, axis: int, seed: int = 0) -> np.ndarray:
    """Weights whose channels along `axis` differ in size by a factor of up to 300."""
    random = np.random.default_rng(seed)
    sizes = np.geomspace(0.01, 3, shape[axis]).reshape([-1 if place == axis else 1 for place in range(len(shape))])
    return (random.normal(size=shape) * sizes).astype(np.float32)


def imported(net: Any, arrays: Arrays, folder: Path, **settings: Any) -> Path:
    """models/source of the model (or the file of that path) with these samples, which have no labels."""
    import onnx

    folder.mkdir(parents=True)
    path = net if isinstance(net, Path) else folder.parent / "mine.onnx"
    if not isinstance(net, Path):
        onnx.save(net, path)
    chosen = onnx_file.Settings(path=str(path), **settings)
    fields = dict(onnx_file.obtain(chosen, data(folder.parent / "data", arrays), Train(name="none"), 0, folder))
    del fields["weights"], fields["training"]
    fields |= {side: making.make_tensors(fields[side], ()) for side in ("inputs", "outputs")}
    artifact.write(folder, Manifest(kind="source", **fields))
    return folder


def data(folder: Path, arrays: Arrays) -> Path:
    """models/data of these samples, all of them for calibration."""
    (folder / "inputs").mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"inputs/{name}.npy", array)
    count = len(next(iter(arrays.values())))
    np.save(folder / "targets.npy", np.zeros(count, np.int64))
    (folder / "splits.json").write_text(json.dumps({"train": [], "validation": [], "calibration": list(range(count))}))
    ports = tuple(Port(name, (None, *array.shape[1:]), str(array.dtype)) for name, array in arrays.items())
    artifact.write(folder, Manifest(kind="data", inputs=ports, preprocessing={"kind": "arrays"}, details={"targets": "none"}))
    return folder


def converted(name: str, source: Path, folder: Path) -> Path:
    """The float model of a format, with layers.json and ports.json."""
    folder.mkdir()
    made, origin = make_of(name).convert(source, folder, form(name).get("convert") or {}), artifact.read(source)
    (folder / "layers.json").write_text(json.dumps(dict(made["layers"])))
    sides = {side: making.make_tensors(made[side], getattr(origin, side)) for side in ("inputs", "outputs")}
    making.write_ports(folder, **sides)
    artifact.write(folder, Manifest(kind="format", **sides))
    return folder


def quantized(name: str, scheme: str, parent: Path, source: Path, folder: Path, keep: Sequence[str] = (), **settings: Any) -> Path:
    """A variant, with the default settings of its scheme and these. keep: nodes that stay float."""
    folder.mkdir()
    chosen = {"per_channel": None, "calibration": None, **(form(name)["schemes"][scheme] or {}), **settings}
    inputs, _ = checks.read_probe(source)
    single = [{key: array[i : i + 1] for key, array in inputs.items()} for i in range(len(next(iter(inputs.values()))))]
    module = form(name)["module"]
    stateful = chosen["calibration"] and (parent / "ports.json").exists()
    feeds = isolation.compute_file_feeds(module, parent, {"threads": 1}, single) if stateful else single
    make_of(name).quantize(parent, source, folder, scheme, chosen, feeds if chosen["calibration"] else [], list(keep))
    making.write_ports(folder, artifact.read(parent).inputs, artifact.read(parent).outputs)
    return folder


def outputs(name: str, folder: Path, source: Path) -> dict[str, np.ndarray]:
    inputs, _ = checks.read_probe(source)
    return isolation.compute_outputs(form(name)["module"], folder, {"threads": 1}, inputs)


def worst_db(name: str, folder: Path, source: Path) -> float:
    """The lowest SQNR of a group of outputs against those of the user's file."""
    return worst_of(compare_groups(checks.read_probe(source)[1], outputs(name, folder, source))).sqnr_db


def whole_db(name: str, folder: Path, source: Path) -> float:
    """The lowest SQNR of an output as a whole."""
    given = outputs(name, folder, source)
    return min(sqnr_db(array, given[key]) for key, array in checks.read_probe(source)[1].items())


def facts_of(name: str, folder: Path) -> dict[str, Any]:
    return dict(part(form(name)["module"], "facts").facts(folder))


def tail_of(name: str, folder: Path) -> Any:
    return part(form(name)["module"], "facts").find_tail(folder)


def layers_behind(name: str, folder: Path, output: str, total: int, start: int, stop: int) -> list[str]:
    """Nodes behind a part of an output."""
    return list(part(form(name)["module"], "facts").find_layers_behind(folder, output, total, start, stop))


def share_of(name: str, scheme: str, folder: Path, keep: Sequence[str] = ()) -> float:
    """The share of the weights that the scheme covers; VariantFailed where the file is not what its name says."""
    return checks.check_scheme(facts_of(name, folder), make_of(name).SCHEMES[scheme], keep, scheme)


def layers_of(parent: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads((parent / "layers.json").read_text())
    return found


def stored(folder: Path) -> dict[str, np.ndarray]:
    """The constants of model.onnx by name."""
    import onnx

    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(folder / "model.onnx").graph.initializer}


def kinds(folder: Path) -> list[str]:
    """The operators of model.onnx in their order."""
    import onnx

    return [entry.op_type for entry in onnx.load(folder / "model.onnx").graph.node]
