"""The inputs and outputs of torch modules, whatever structure of tuples, lists, dicts and objects they have: as tensors with names."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.errors import ModelError
from edgewise.sources.inspection import one_line

ASIDE = ("hidden_state", "attention", "past_key_values", "cache", "loss")  # in the names of what models of transformers give beside answers


def take_tensors(result: Any) -> dict[str, Any]:
    """The leaves of a module's result by name, in order: keys of dicts joined by dots, else output_0, output_1; a single one is `output`.

    Of an object with .logits, as models of transformers return it, what they answer, without inner states.
    """
    from torch.utils import _pytree

    if hasattr(result, "logits") and isinstance(result, Mapping):
        result = {name: value for name, value in result.items() if not any(word in name for word in ASIDE)}
    elif hasattr(result, "logits"):
        result = {"logits": result.logits}
    leaves = [(path, leaf) for path, leaf in _pytree.tree_flatten_with_path(result)[0] if leaf is not None]
    parts = [[str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path] for path, _ in leaves]
    named = any(not part.isdigit() for path in parts for part in path)
    if named:
        return {".".join(path): leaf for path, (_, leaf) in zip(parts, leaves, strict=True)}
    names = ["output"] if len(leaves) == 1 else [f"output_{i}" for i in range(len(leaves))]
    return {name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}


def as_forward(tensors: Mapping[str, Any]) -> Any:
    """What a forward returns: one tensor, or several in a tuple."""
    found = tuple(tensors.values())
    return found[0] if len(found) == 1 else found


class ProgramSession:
    """An exported program as a plugins.Session. ModelError for inputs that are no tensors.

    module: takes the tensors of `inputs` by position and returns those of `outputs`; weights have the prefix `model.`.
    """

    def __init__(self, path: Path, program: Any):
        self._path = path
        values = {node.name: node.meta.get("val") for node in program.graph.nodes}
        given = [
            (spec.arg.name, values.get(spec.arg.name)) for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"
        ]
        odd = next((name for name, value in given if not hasattr(value, "dtype")), None)
        if odd is not None:
            raise ModelError(f"model.path: {path}: input {odd} is not a tensor; export the model with that argument fixed")
        made = [spec.arg for spec in program.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT"]
        names = list(take_tensors(_unflatten([arg.name for arg in made], program.call_spec.out_spec)))
        kept = [arg.name for arg in made if getattr(values.get(arg.name), "dtype", None) is not None]
        if not given or len(names) != len(kept):
            raise ModelError(f"model.path: {path} must take and return tensors; export the model again")
        self.inputs = [_describe(name, value) for name, value in given]
        self.outputs = [_describe(name, values[node]) for name, node in zip(names, kept, strict=True)]
        self.module = _flat_module(program)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        tensors = [torch.from_numpy(np.array(feeds[entry["name"]], entry["dtype"], order="C")) for entry in self.inputs]
        try:
            with torch.no_grad():
                results = self.module(*tensors)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise ModelError(f"model.path: torch fails on {self._path}: {one_line(error)}; export the model again") from error
        found = results if isinstance(results, tuple) else (results,)
        return {entry["name"]: to_numpy(result) for entry, result in zip(self.outputs, found, strict=True)}


def to_numpy(tensor: Any) -> np.ndarray:
    """numpy has no bfloat16."""
    import torch

    array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
    return array


def _describe(name: str, value: Any) -> dict[str, Any]:
    shape = [side if isinstance(side, int) else None for side in value.shape]
    return {"name": name, "shape": shape, "dtype": str(value.dtype).removeprefix("torch.")}


def _unflatten(leaves: Sequence[Any], spec: Any) -> Any:
    from torch.utils import _pytree

    return _pytree.tree_unflatten(leaves, spec)


def _flat_module(program: Any) -> Any:
    """The program with its inputs by position."""
    import torch

    inner = program.module(check_guards=False)  # the guards, and the hook below, would reject batches larger than those of the export
    inner._forward_pre_hooks.clear()
    inner.train = lambda mode=True: inner  # torch forbids train() and eval() here: the mode is that of the export

    class Flat(torch.nn.Module):  # type: ignore[misc]  # torch is Any to mypy, see pyproject.toml
        def __init__(self) -> None:
            super().__init__()
            self.model = inner

        def forward(self, *inputs: torch.Tensor) -> Any:
            positional, named = _unflatten(inputs, program.call_spec.in_spec)
            return as_forward(take_tensors(self.model(*positional, **named)))

    return Flat()


def keep_outputs(module: Any, places: Sequence[int], count: int) -> Any:
    """The module with some of its `count` outputs only."""
    import torch

    if len(places) == count:
        return module

    class Chosen(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = module.model
            self._forward: Callable[..., Any] = module.forward

        def forward(self, *inputs: torch.Tensor) -> Any:
            results = self._forward(*inputs)
            return as_forward({str(place): results[place] for place in places})

    return Chosen()
