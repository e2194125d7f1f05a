"""Write a torch module as a source: exported program, weights, layer names and probe outputs.

models/source/ then holds
    program.pt2          torch.export program with a dynamic batch; `.module()` of it is what the formats convert
    weights.safetensors  the same weights by their names in the program
    probe.npz            "in:NAME" and "out:NAME": real samples and the source's own outputs, the oracle of every variant
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

PREFIX = "model."  # Source keeps the user's module under this name; users never see it
WEIGHTED = ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose2d", "Linear", "Embedding", "Conv1D")


def wrap(module: Any) -> Any:
    """A module whose forward takes the inputs by position and returns one tensor (transformers return an object)."""
    import torch

    class Source(torch.nn.Module):
        def __init__(self, model: torch.nn.Module):
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            result = self.model(*inputs)
            return result.logits if hasattr(result, "logits") else result

    return Source(module)


def layers(module: Any) -> dict[str, dict[str, Any]]:
    """Every layer that holds a weight matrix, by the user's module path: type, name of the weight in the program, shape."""
    found = {}
    for path, child in module.named_modules():
        if type(child).__name__ in WEIGHTED:
            found[path.removeprefix(PREFIX)] = {
                "type": type(child).__name__,
                "weight": f"{path}.weight",
                "shape": list(child.weight.shape),
            }
    return found


def export(source: Any, feeds: Mapping[str, np.ndarray], output: str, folder: Path) -> dict[str, Any]:
    """Export `source` (from `wrap`) into `folder`; feeds: at least two samples a name, [n, ...]. Returns manifest fields."""
    import torch
    from safetensors.torch import save_file

    source = source.eval()
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in feeds.values()]
    batch = torch.export.Dim("batch", min=1, max=1024)
    with torch.no_grad():
        program = torch.export.export(source, tuple(t[:2].clone() for t in tensors), dynamic_shapes=((({0: batch},) * len(tensors)),))
        results = source(*tensors).numpy()
    torch.export.save(program, folder / "program.pt2")
    save_file({k: v.contiguous().clone() for k, v in program.state_dict.items()}, folder / "weights.safetensors")
    arrays = {f"in:{name}": array for name, array in feeds.items()} | {f"out:{output}": results}
    np.savez(folder / "probe.npz", **arrays)
    return {
        "format": "torch",
        "inputs": [{"name": n, "shape": [None, *a.shape[1:]], "dtype": str(a.dtype)} for n, a in feeds.items()],
        "outputs": [{"name": output, "shape": [None, *results.shape[1:]], "dtype": str(results.dtype)}],
        "details": {"layers": layers(source), "parameters": sum(p.numel() for p in source.parameters())},
        "tools": {"torch": torch.__version__},
    }
