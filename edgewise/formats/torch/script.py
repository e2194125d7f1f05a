"""Compile an exported program to a TorchScript file.

The graph is compiled, not traced, so that the batch stays dynamic: a trace would contain the batch size of the example, or fail.
"""

import io
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewise.formats.torch.run import TENSORS

MANGLED_NAME = re.compile(rb"___torch_mangle_\d+")


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
