"""Write a torch module as a source: exported program, weights, layer names and probe outputs.

models/source/ then holds
    program.pt2          torch.export program with a dynamic batch; `.module()` of it is what the formats convert
    weights.safetensors  the same weights by their names in the program
    probe.npz            "in:NAME" and "out:NAME": real samples and the source's own outputs, the oracle of every variant

The same weights give the same bytes: torch writes its archive with fixed dates, and what names this machine is taken out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.errors import ModelError

PREFIX = "model."  # Source keeps the user's module under this name; users never see it
WEIGHTS = "weights.safetensors"
MAX_BATCH = 1024
LONGEST = 240  # characters of another library's message


def wrap(module: Any) -> Any:
    """A module whose forward takes the inputs by position and returns one tensor (transformers return an object)."""
    import torch

    class Source(torch.nn.Module):  # type: ignore[misc]  # torch is Any to mypy, see pyproject.toml
        def __init__(self, model: torch.nn.Module):
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            result = self.model(*inputs)
            return result.logits if hasattr(result, "logits") else result

    return Source(module)


def layers(source: Any) -> dict[str, dict[str, Any]]:
    """Every layer that holds a weight matrix, by the user's module path: type, name of the weight in the program, shape.
    A weight that two layers share is listed under both."""
    found = {}
    for name, parameter in source.named_parameters(remove_duplicate=False):
        owner, _, leaf = name.rpartition(".")
        if leaf == "weight" and parameter.ndim >= 2:
            kind = type(source.get_submodule(owner)).__name__
            found[owner.removeprefix(PREFIX)] = {"type": kind, "weight": name, "shape": list(parameter.shape)}
    return found


def tensors(feeds: Mapping[str, np.ndarray]) -> list[Any]:
    import torch

    return [torch.from_numpy(np.ascontiguousarray(array)) for array in feeds.values()]


def check_outputs(source: Any, feeds: Mapping[str, np.ndarray], labels: Sequence[str]) -> None:
    """ModelError unless `source` takes the feeds, [n, ...], and gives one score per label, [n, labels]."""
    import torch

    shapes = ", ".join(f"{name} {[*array.shape]}" for name, array in feeds.items())
    try:
        with torch.no_grad():
            result = source.eval()(*tensors(feeds))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ModelError(
            f"the model does not take {shapes}: {one_line(error)}; change data.* or model.arguments so that they fit"
        ) from error
    if not torch.is_tensor(result):
        raise ModelError(f"the model returns a {type(result).__name__}; it must return one tensor of logits, or an object with .logits")
    wanted = [len(next(iter(feeds.values()))), len(labels)]
    if [*result.shape] != wanted:
        raise ModelError(
            f"the model returns {[*result.shape]} for {shapes}, but the data has {len(labels)} labels, so it must be {wanted};"
            " set the number of classes in model.arguments"
        )


def one_line(error: BaseException) -> str:
    """What another library says, fit for one line of ours; torch's own messages run to pages."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= LONGEST else f"{words[:LONGEST]} ..."


def export(source: Any, feeds: Mapping[str, np.ndarray], output: str, folder: Path) -> dict[str, Any]:
    """Export `source` (from `wrap`) into `folder`; feeds: at least two samples a name, [n, ...]. Returns manifest fields."""
    import torch
    from safetensors.torch import save_file

    source = source.eval()
    program = _program(source, tensors({name: array[:2] for name, array in feeds.items()}))
    with torch.no_grad():
        results = source(*tensors(feeds)).numpy()
    torch.export.save(program, folder / "program.pt2")
    save_file({k: v.contiguous().clone() for k, v in program.state_dict.items()}, folder / WEIGHTS)
    arrays = {f"in:{name}": array for name, array in feeds.items()} | {f"out:{output}": results}
    np.savez(folder / "probe.npz", **arrays)
    return {
        "format": "torch",
        "inputs": [{"name": n, "shape": [None, *a.shape[1:]], "dtype": str(a.dtype)} for n, a in feeds.items()],
        "outputs": [{"name": output, "shape": [None, *results.shape[1:]], "dtype": str(results.dtype), "meaning": output}],
        "details": {"layers": layers(source), "parameters": sum(p.numel() for p in source.parameters())},
        "tools": {"torch": torch.__version__},
        "weights": WEIGHTS,
    }


def _program(source: Any, examples: list[Any]) -> Any:
    """The exported program, any batch from 1 to MAX_BATCH. Batch 2 is the example: torch takes a 1 for a constant."""
    import torch

    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    # laid out anew: pictures of one channel pass for channels last, and pooling would carry an as_strided into every format
    plain = tuple(t.clone(memory_format=torch.contiguous_format) for t in examples)
    try:
        with torch.no_grad():
            program = torch.export.export(source, plain, dynamic_shapes=((({0: batch},) * len(examples)),))
    except Exception as error:  # torch.export has no common class for what it cannot trace
        raise ModelError(f"torch.export cannot export the model: {one_line(error)}; it must be traceable with any batch size") from error
    return _without_paths(program)


def _without_paths(program: Any) -> Any:
    """Take the stack traces out: they hold the file system paths of this machine."""
    import torch

    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program
