"""What a model.pte really holds, and how much of it XNNPACK runs, read with the schemas that come with ExecuTorch.

The file is a program with one list of instructions: calls of kernels, and calls of delegates. What a delegate runs is a flatbuffer of
XNNPACK's own inside of the file, whose constants lie beside it under the hash of their content.
"""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from edgewise.formats.common.weighted_nodes import count_elements
from edgewise.formats.executorch import run
from edgewise.formats.executorch.run import MODEL

DELEGATE = "XnnpackBackend"
DTYPES = {  # of XNNPACK, without xnn_datatype_ -> numpy's
    **{"fp32": "float32", "pfp32": "float32", "fp16": "float16", "bf16": "bfloat16", "qint8": "int8", "quint8": "uint8", "qcint8": "int8"},
    **{"qcint4": "int4", "qbint4": "int4", "qdint8": "dynamic", "qpint8": "dynamic", "qint32": "int32", "qcint32": "int32"},
}
WEIGHT_DTYPES = ("float64", "float32", "float16", "bfloat16", "int8", "uint8", "int4")
BITS = {"int4": 4}
WEIGHTED = (
    "Conv1d",
    "Conv2d",
    "DepthwiseConv2d",
    "ConvTranspose2d",
    "GroupConvTranspose2d",
    "FullyConnected",
)  # products, as in run.read_names
LAYOUT = ("StaticTranspose", "StaticReshape", "Copy")  # of a delegate
NO_HANDLE = 65535  # of what the lowering adds
CONVERT = "Convert"
INPUTS = (
    "input_id",
    "input1_id",
    "input2_id",
    "input3_id",
    "input4_id",
    "input5_id",
    "filter_id",
    "slope_id",
    "query_id",
    "key_id",
    "value_id",
)
BARE = re.compile(r"(?<=[\s:,\[])-?(?:inf|nan)\b")  # flatc writes them so, and JSON does not have them


@dataclass(frozen=True)
class Weight:
    """A constant with two or more dimensions. name: the same for constants of equal content."""

    name: str
    dtype: str
    elements: int

    @property
    def bytes(self) -> int:
        bits = BITS.get(self.dtype) or int(re.sub(r"\D", "", self.dtype))
        return -(-self.elements * bits // 8)


@dataclass(frozen=True)
class Node:
    """One operator. activations: type of its first input, floating where there is one. delegated: it runs in XNNPACK. added: by the
    lowering, to change a layout."""

    name: str
    operator: str
    activations: str
    delegated: bool
    added: bool = False
    weights: tuple[Weight, ...] = field(default=())

    @property
    def converts(self) -> bool:
        return self.operator == CONVERT if self.delegated else run.converts(self.operator)


@dataclass(frozen=True)
class File:
    """nodes: in the order of execution. kernels: the operators outside of delegates, as the runtime looks them up (aten::mean.out).
    delegates: number of calls."""

    nodes: tuple[Node, ...]
    kernels: tuple[str, ...]
    delegates: int


def read(path: Path) -> File:
    """ValueError for a file that is no such program, or has another delegate."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    try:
        found = deserialize_pte_binary(path.read_bytes())
    except Exception as error:  # whatever reading a damaged flatbuffer ends in
        raise ValueError(f"{path.name} is not an ExecuTorch program, or is damaged: {type(error).__name__}: {error}") from error
    plans = {plan.name: plan for plan in found.program.execution_plan}
    if not {run.METHOD, run.NAMES} <= plans.keys():
        raise ValueError(f"{path.name} has the methods {', '.join(plans)}; a file of Edgewise has {run.METHOD} and {run.NAMES}")
    names = json.loads(plans[run.NAMES].values[plans[run.NAMES].outputs[0]].val.string_val)
    return _Reader(found, plans[run.METHOD], names).read()


class _Reader:
    def __init__(self, found: Any, plan: Any, names: Mapping[str, Any]):
        self._found, self._plan, self._names = found, plan, names
        self._count: Counter[str] = Counter()
        self._kernels: list[str] = []
        self._delegates = 0

    def read(self) -> File:
        nodes = [node for chain in self._plan.chains for each in chain.instructions for node in self._read_instruction(each.instr_args)]
        return File(tuple(nodes), tuple(self._kernels), self._delegates)

    def _read_instruction(self, call: Any) -> Iterator[Node]:
        kind = type(call).__name__
        if kind == "DelegateCall":
            yield from self._read_delegate(self._plan.delegates[call.delegate_index])
        elif kind == "KernelCall":
            yield self._read_kernel(self._plan.operators[call.op_index], [self._plan.values[i].val for i in call.args])

    def _read_kernel(self, operator: Any, values: Sequence[Any]) -> Node:
        packet = operator.name.rpartition("::")[2]
        self._kernels.append(f"{operator.name}.{operator.overload}" if operator.overload else operator.name)
        self._count[packet] += 1
        tensors = [value for value in values if type(value).__name__ == "Tensor"]
        computed = [tensor for tensor in tensors if not tensor.data_buffer_idx or tensor.allocation_info]
        held = tuple(weight for tensor in tensors if tensor not in computed and (weight := _kernel_weight(tensor)))
        types = [_scalar_type(tensor) for tensor in computed]
        dtype = next((name for name in types if "float" in name), types[0] if types else "none")  # a lookup of rows takes integers
        return Node(run.kernel_name(self._names, packet, self._count[packet]), packet, dtype, delegated=False, weights=held)

    def _read_delegate(self, delegate: Any) -> Iterator[Node]:
        if delegate.id != DELEGATE:
            raise ValueError(f"the file needs the delegate {delegate.id}; Edgewise reads those of {DELEGATE}")
        graph = read_graph(self._found.program.backend_delegate_data[delegate.processed.index].data)
        named = self._names["delegates"][self._delegates] if self._delegates < len(self._names["delegates"]) else []
        self._delegates += 1
        values = {value["id_out"]: value for value in map(_tensor_of, graph["xvalues"])}
        described = [_describe_xnode(node, values, graph["constant_data"]) for node in graph["xnodes"]]
        weighted = [place for place, (kind, *_, weights) in enumerate(described) if kind in WEIGHTED and weights]
        known = dict(zip(weighted, named, strict=True)) if len(weighted) == len(named) else {}
        for place, (kind, dtype, added, weights) in enumerate(described):
            self._count[kind] += 1
            yield Node(known.get(place, f"{kind} {self._count[kind]}"), kind, dtype, True, added, weights)


def read_graph(payload: bytes) -> dict[str, Any]:
    """XNNPACK's graph of a delegate as schema.fbs of the wheel has it."""
    from executorch.backends.xnnpack import serialization
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = XNNHeader.from_bytes(bytes(payload[: XNNHeader.EXPECTED_LENGTH]))
    graph = bytes(payload[header.flatbuffer_offset : header.flatbuffer_offset + header.flatbuffer_size])
    schema = next(Path(place) / "schema.fbs" for place in serialization.__path__)
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "graph.bin"
        binary.write_bytes(graph)
        _flatc_decompile(folder, str(schema), str(binary))
        text = (Path(folder) / "graph.json").read_text(encoding="utf-8")
    read: dict[str, Any] = json.loads(BARE.sub(lambda found: f'"{found[0]}"', text))
    return read


def _tensor_of(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensor of a value, which a quantized one holds inside."""
    union: Mapping[str, Any] = value["xvalue_union"]
    tensor: Mapping[str, Any] = union.get("tensor_value", union)
    return tensor


def _describe_xnode(
    node: Mapping[str, Any], values: Mapping[int, Any], constants: Sequence[Any]
) -> tuple[str, str, bool, tuple[Weight, ...]]:
    """Operator, type of its first input, whether the lowering added it, and its weights."""
    union = node["xnode_union"]
    kind = node["xnode_union_type"].removeprefix("XNN").lstrip("_")
    if kind == "ConvTranspose2d" and union["groups"] > 1:
        kind = f"Group{kind}"
    given = [values[union[key]] for key in INPUTS if union.get(key) in values]
    if kind == "Conv2d" and _is_flat(union, values[union["input1_id"]]["dims"]):
        kind = "Conv1d"
    held = [tensor for tensor in given if tensor["constant_buffer_idx"]]
    flowing = [tensor for tensor in given if not tensor["constant_buffer_idx"]]
    added = kind == CONVERT or (kind in LAYOUT and node["debug_handle"] == NO_HANDLE)
    weights = tuple(weight for tensor in held if (weight := _delegate_weight(tensor, constants)))
    return kind, _dtype(flowing[0]) if flowing else "none", added, weights


def _is_flat(convolution: Mapping[str, Any], size: Sequence[int]) -> bool:
    """Whether a convolution runs along one axis only. size: of its input, [n, height, width, channels]."""
    kernel = (convolution["kernel_height"], convolution["kernel_width"])
    return [side == 1 for side in size[1:3]].count(True) == 1 and kernel[list(size[1:3]).index(1)] == 1


def _dtype(tensor: Mapping[str, Any]) -> str:
    name = str(tensor["datatype"]).removeprefix("xnn_datatype_")
    return DTYPES.get(name, name)


def _delegate_weight(tensor: Mapping[str, Any], constants: Sequence[Any]) -> Weight | None:
    held, dtype = constants[tensor["constant_buffer_idx"]], _dtype(tensor)
    if tensor["num_dims"] < 2 or dtype not in WEIGHT_DTYPES:
        return None
    return Weight(held["named_key"] or str(held["offset"]), dtype, prod(tensor["dims"]))


def _kernel_weight(tensor: Any) -> Weight | None:
    dtype = _scalar_type(tensor)
    if len(tensor.sizes) < 2 or dtype not in WEIGHT_DTYPES:
        return None
    return Weight(f"constant {tensor.data_buffer_idx}", dtype, prod(tensor.sizes))


def _scalar_type(tensor: Any) -> str:
    return run.DTYPES.get(int(tensor.scalar_type), str(tensor.scalar_type))


def facts(folder: Path) -> Mapping[str, Any]:
    """plugins.Facts of model.pte. Operators have XNNPACK's names, those outside of it the names of ATen.

    delegation: {"delegate", "operators": how many the file has, "delegated": how many of them XNNPACK runs, "calls" of XNNPACK, "left":
    {operator: count} of the others}. Neither conversions between float and integer nor changes of a layout that the lowering added count
    there.
    """
    file = read(Path(folder) / MODEL)
    weighted = [node for node in file.nodes if node.weights]
    unique = {weight.name: weight for node in weighted for weight in node.weights}.values()
    sizes = Counter[str]()
    for weight in unique:
        sizes[weight.dtype] += weight.bytes
    counts = count_elements([node.weights for node in weighted])
    return {
        "operators": dict(sorted(Counter(f"{n.operator}[{n.activations}]" if n.weights else n.operator for n in file.nodes).items())),
        "weights_bytes_by_dtype": dict(sorted(sizes.items())),
        "weights_elements": sum(weight.elements for weight in unique),
        "nodes": [_describe(node, count) for node, count in zip(weighted, counts, strict=True)],
        "conversions": dict(sorted(Counter(node.operator for node in file.nodes if node.converts).items())),
        "delegation": describe_delegation(file),
    }


def describe_delegation(file: File) -> dict[str, Any]:
    counted = [node for node in file.nodes if not node.added and not node.converts]
    left = Counter(node.operator for node in counted if not node.delegated)
    return {
        "delegate": "XNNPACK",
        "operators": len(counted),
        "delegated": len(counted) - left.total(),
        "calls": file.delegates,
        "left": dict(sorted(left.items())),
    }


def _describe(node: Node, elements: int) -> dict[str, Any]:
    main = max(node.weights, key=lambda weight: weight.elements)
    return {
        "name": node.name,
        "operator": node.operator,
        "weights_dtype": main.dtype,
        "activations_dtype": node.activations,
        "elements": elements,
    }
