"""Compile an exported program to a TorchScript file.

The program's graph calls ATen overloads (aten.linear.default), which TorchScript has without the name of the overload. The graph is
compiled, not traced, so that the batch stays dynamic: a trace would contain the batch size of the example, or fail.
"""

import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewise.formats.torch.run import TENSORS

CHECKS = ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range", "sym_constrain_range_for_size")
MANGLED_NAME = re.compile(rb"___torch_mangle_\d+")


def to_graph_module(program: Any, inputs: Sequence[str]) -> Any:
    """An ExportedProgram as a GraphModule with plain ATen calls, arguments by the names in `inputs`, and one tensor (or a tuple
    where there are several) as its result."""
    import torch

    module = program.module(check_guards=False)
    graph = module.graph
    for node in list(graph.nodes):
        if isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket
            if node.target.__name__ in CHECKS:
                graph.erase_node(node)
    for node, name in zip(graph.find_nodes(op="placeholder"), inputs, strict=True):
        node.target = name
    (output,) = graph.find_nodes(op="output")
    if len(output.args[0]) == 1:
        output.args = tuple(output.args[0])
    graph.eliminate_dead_code()
    graph.set_codegen(torch.fx.graph.CodeGen())  # the exported one packs and checks arguments in Python
    return torch.fx.GraphModule(module, graph).eval()


def compile_graph(path: Path, module: Any, tensors: Mapping[str, Any]) -> None:
    """Compile a GraphModule and write it to `path`; tensors: {"inputs", "outputs"} as in a manifest. ValueError if TorchScript cannot."""
    import torch

    _reset_class_names()
    try:
        with warnings.catch_warnings(action="ignore"):  # that torch.jit is deprecated
            scripted = torch.jit.script(module)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise ValueError(f"TorchScript cannot compile this program: {type(error).__name__}: {line}") from error
    archive = io.BytesIO()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.save(scripted, archive, _extra_files={TENSORS: json.dumps(tensors, sort_keys=True)})
    archive.seek(0)
    _write_repeatable(archive, path)


def _reset_class_names() -> None:
    """Let the next compilation name its classes as the first in a process does; torch's own tests do the same."""
    import torch

    torch._C._jit_clear_class_registry()
    torch.jit._recursive.concrete_type_store = torch.jit._recursive.ConcreteTypeStore()
    torch.jit._state._clear_class_state()


def _write_repeatable(archive: io.BytesIO, path: Path) -> None:
    """Write an archive without what differs between runs: debug records contain paths of source files, and class names a counter of the
    process."""
    import torch

    reader = torch._C.PyTorchFileReader(archive)
    names = [name for name in reader.get_all_records() if not name.endswith(".debug_pkl") and not name.startswith(".data/")]
    numbers: dict[bytes, bytes] = {}

    def renumber(text: bytes) -> bytes:
        return MANGLED_NAME.sub(lambda found: numbers.setdefault(found[0], b"___torch_mangle_%d" % len(numbers)), text)

    writer = torch._C.PyTorchFileWriter(str(path))
    for name in sorted(names, key=lambda name: (name != "data.pkl", names.index(name))):
        content = reader.get_record(name)
        if name == "data.pkl" or name.startswith("code/"):
            name, content = renumber(name.encode()).decode(), renumber(content)
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()
