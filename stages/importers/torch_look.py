"""What a torch file is: a torch.export program, or a checkpoint of weights alone."""

from collections import Counter
from pathlib import Path
from typing import Any

from stages.core.inspection import Inspection, Port
from stages.importers import checkpoint, torch_file
from stages.importers.torch_source import one_line


def look(path: Path) -> Inspection:
    """Of a program; loads it, with the checks of the importer."""
    import torch

    program = torch_file.load(path)
    signature = program.graph_signature
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    outputs = [name for name in signature.user_outputs if name is not None]
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    inputs = tuple(_port(name, values[name]) for name in signature.user_inputs)
    fixed = [port.name for port in inputs if port.shape and port.shape[0] is not None]
    how = "; export it with dynamic_shapes=({0: torch.export.Dim('batch', min=1, max=1024)},)"
    multiply_adds, unknown = _multiply_adds(program, inputs)
    return Inspection(
        kind=f"torch.export program (this is torch {torch.__version__})",
        inputs=inputs,
        outputs=tuple(_port(name, values[name]) for name in outputs),
        operators=Counter(str(node.target).removesuffix(".default") for node in calls),
        parameters=sum(tensor.numel() for tensor in program.parameters()),
        multiply_adds=multiply_adds,
        notes=(*(f"input {name} takes one batch size only{how}" for name in fixed), *unknown),
        model={"name": "torch_file", "path": str(path)},
    )


def weights(path: Path) -> Inspection:
    """Of a checkpoint: names, shapes and bytes of its tensors."""
    tensors = checkpoint.read(path)
    matrices = [f"{name} {[*tensor.shape]}" for name, tensor in tensors.items() if tensor.ndim >= 2]
    shown = f"{matrices[0]} ... {matrices[-1]}" if matrices else "no matrix"
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    return Inspection(
        kind=f"weights alone, {len(tensors)} tensors ({', '.join(f'{count} {dtype}' for dtype, count in dtypes.items())})",
        parameters=sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point()),
        notes=(
            shown,
            f"it needs the model that it belongs to: -S model.name=resnet18 -S model.weights={path}, or your own, model.name=callable",
        ),
    )


def _port(name: str, value: Any) -> Port:
    sides = tuple(side if isinstance(side, int) else None for side in value.shape)
    return Port(name, sides, str(value.dtype).removeprefix("torch."))


def _multiply_adds(program: Any, inputs: tuple[Port, ...]) -> tuple[int | None, tuple[str, ...]]:
    """By running it once on zeros; torch counts two operations for a multiply-add."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    zeros = [torch.zeros([1 if side is None else side for side in port.shape], dtype=getattr(torch, port.dtype)) for port in inputs]
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            program.module(check_guards=False)(*zeros)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        return None, (f"multiply-adds are unknown: it does not run on zeros ({one_line(error)})",)
    return counter.get_total_flops() // 2 // max(1, inputs[0].shape[0] or 1), ()
