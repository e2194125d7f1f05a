"""How much each layer of a torch program suffers from int8: quantize one layer at a time, keep the rest in float.

Weights and inputs of a layer are fake-quantized and computed in float, so that the result does not depend on a runtime. Ranges of the
inputs are found once, and for each layer only the rest of the network after it is computed again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common import rounding
from edgewise.formats.common.programs import to_graph_module
from edgewise.formats.torch.make import read_source

JUDGED = 16  # samples whose outputs are compared
CHUNK = 8  # samples per run; all activations of a run are kept in memory
OUTPUT_SECOND = ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Conv1D")  # layers whose weights are [input, output, ...]
NORM_ARGUMENTS = (1, 4, 7)  # weight, running variance and epsilon among the arguments of aten.batch_norm
Arrays = Mapping[str, np.ndarray]
Outputs = list[np.ndarray]  # parts of them, float64 [n, ...]


class FakeQuantize:
    """A node of the graph that passes its tensor on, or if `on`, rounds it to 8 bits. fixed: the rounded weight, for weights."""

    __name__ = "fake_quantize"  # torch.fx names a node after its function

    def __init__(self, owners: set[str], fixed: Any = None):
        self.on = self.observing = False
        self.owners = owners  # layers for which it is on
        self.fixed, self.low, self.high = fixed, 0.0, 0.0

    def __call__(self, tensor: Any) -> Any:
        if self.observing and self.fixed is None:
            low, high = (bound.item() for bound in tensor.aminmax())
            self.low, self.high = min(self.low, low), max(self.high, high)
        if not self.on:
            return tensor
        return self.fixed if self.fixed is not None else self._round(tensor)

    def _round(self, tensor: Any) -> Any:
        """uint8 with a zero point, over the observed range."""
        import torch

        scale = max(self.high - self.low, 1e-30) / 255
        return torch.fake_quantize_per_tensor_affine(tensor, scale, round(-self.low / scale), 0, 255)


def scan(source: Path, feeds: Sequence[Arrays], per_channel: bool, parts: rounding.Parts, ports: Mapping[str, Any]) -> dict[str, Any]:
    """plugins.Scanner.scan. A weight that layers share is scanned for the first of them. ValueError for a source with constants, state, or
    samples on another axis than the first."""
    import torch
    from tqdm import tqdm

    manifest, program = read_source(source)
    _check_ports(ports)
    names = [entry["name"] for entry in manifest["inputs"]]
    size = manifest["inputs"][0]["shape"][0] or CHUNK  # a fixed batch, or one of ours
    groups = [feeds[start : start + size] for start in range(0, len(feeds) - len(feeds) % size if size != CHUNK else len(feeds), size)]
    chunks = [[torch.from_numpy(np.concatenate([feed[name] for feed in group])) for name in names] for group in groups]
    judged = chunks[: -(-JUDGED // size)]
    with torch.inference_mode():
        outputs, layers = [entry["name"] for entry in manifest["outputs"]], manifest["details"]["layers"]
        net = ScannedProgram(to_graph_module(program, names), layers, program.state_dict, per_channel, outputs, parts)
        with tqdm(total=len(chunks) + len(judged) * len(net.places), desc="scan layers", unit="run", disable=None) as bar:
            net.observe_ranges(chunks, bar)
            return net.measure_noise(judged, bar)


def _check_ports(ports: Mapping[str, Mapping[str, Any]]) -> None:
    for name in (name for side in ports.values() for name in side):
        raise ValueError(
            f"{name} is a constant, state, or has its samples on another axis: such a torch source cannot be scanned layer by layer;"
            " name the layers that are to stay float by keep_float, with int8-static"
        )


class ScannedProgram:
    """A program's graph with fake quantization before each layer and behind each weight. outputs: their names, in order; parts: of them,
    that are compared."""

    def __init__(
        self,
        module: Any,
        layers: Mapping[str, Mapping[str, Any]],
        weights: Mapping[str, Any],
        per_channel: bool,
        outputs: Sequence[str],
        parts: rounding.Parts,
    ):
        self.module, self.graph, self.layers, self.weights, self.per_channel = module, module.graph, layers, weights, per_channel
        self.outputs, self.parts = outputs, parts
        self.quantizers: list[FakeQuantize] = []
        paths: dict[int, str] = {}
        for path, layer in layers.items():
            paths.setdefault(weights[layer["weight"]].data_ptr(), path)
        held = [node for node in self.graph.nodes if node.op == "get_attr" and node.target in weights]
        read = [(node, paths[place]) for node in held if (place := weights[node.target].data_ptr()) in paths]
        calls = {call: path for node, path in read for call in iterate_calls(node)}
        for node, path in read:
            self._round_weight(node, path)
        for call, path in calls.items():
            if self.layers[path]["type"] != "Embedding":
                self._round_input(call, {path}, calls)
        (output,) = self.graph.find_nodes(op="output")
        for data in output.all_input_nodes:
            if data.meta["val"].dtype.is_floating_point:
                self._round_tensor(output, data, set(), calls)
        self.nodes = list(self.graph.nodes)
        self.places: dict[str, int] = {}  # layer -> position of the first step that changes with it
        for place, node in enumerate(self.nodes):
            for path in node.target.owners if isinstance(node.target, FakeQuantize) else ():
                self.places.setdefault(path, place)

    def _round_weight(self, weight: Any, path: str) -> None:
        call = next(iterate_calls(weight), None)
        if call is None:
            return
        factors = norm_factors(call, self.weights, self.module)
        rounded = round_weight(self.weights[weight.target].detach(), self.layers[path]["type"], factors, self.per_channel)
        with self.graph.inserting_after(weight):
            step = self._step(weight, FakeQuantize({path}, rounded))
        weight.replace_all_uses_with(step, delete_user_cb=lambda user: user is not step)

    def _round_input(self, call: Any, owners: set[str], calls: Mapping[Any, str]) -> None:
        self._round_tensor(call, next(given for given in call.all_input_nodes if not is_constant(given)), owners, calls)

    def _round_tensor(self, call: Any, data: Any, owners: set[str], calls: Mapping[Any, str]) -> None:
        """A tensor between two layers is quantized unless both are float, as in the runtimes."""
        producer = find_producer(data, calls)
        with self.graph.inserting_before(call):
            call.replace_input_with(data, self._step(data, FakeQuantize(owners | ({calls[producer]} if producer else set()))))

    def _step(self, value: Any, quantizer: FakeQuantize) -> Any:
        self.quantizers.append(quantizer)
        return self.graph.call_function(quantizer, (value,))

    def observe_ranges(self, chunks: Sequence[list[Any]], bar: Any) -> None:
        """Find the range of each layer's inputs over all chunks."""
        for quantizer in self.quantizers:
            quantizer.observing = True
        for chunk in chunks:
            self._run(chunk, {})
            bar.update()
        for quantizer in self.quantizers:
            quantizer.observing = False

    def measure_noise(self, chunks: Sequence[list[Any]], bar: Any) -> dict[str, Any]:
        """See `scan`."""
        exact: list[Outputs] = []
        errors: dict[str, Any] = dict.fromkeys([*self.places, ""], 0.0)
        for chunk in chunks:
            outputs, values = self._run(chunk, {}, keep=True)
            exact.append(outputs)
            for path, place in self.places.items():
                known = {node: values[node] for node in self.nodes[:place]}
                errors[path] += self._errors([path], chunk, known, outputs)
                bar.update()
            errors[""] += self._errors(self.places, chunk, {}, outputs)
        whole = [np.concatenate(chunks) for chunks in zip(*exact, strict=True)]
        found = {path: rounding.find_noise(error, whole) for path, error in errors.items()}
        sizes = {path: self.weights[self.layers[path]["weight"]].numel() for path in self.places}
        layers = {path: {"noise": found[path], "elements": sizes[path]} for path in self.places}
        return {"layers": layers, "noise": found[""]}

    def _errors(self, paths: Iterable[str], chunk: list[Any], known: dict[Any, Any], exact: Outputs) -> np.ndarray:
        """The sum of squared errors of each part of the outputs with these layers quantized. known: values that are there already."""
        for quantizer in self.quantizers:
            quantizer.on = not quantizer.owners.isdisjoint(paths)
        given, _ = self._run(chunk, known)
        for quantizer in self.quantizers:
            quantizer.on = False
        return rounding.sum_errors(exact, given)

    def _run(self, chunk: list[Any], known: dict[Any, Any], keep: bool = False) -> tuple[Outputs, dict[Any, Any]]:
        """The parts of the outputs that are compared, and the values of the nodes where they are kept."""
        import torch

        runner = torch.fx.Interpreter(self.module, garbage_collect_values=not keep, graph=self.graph)
        results = runner.run(*chunk, initial_env=known)
        tensors = results if isinstance(results, (tuple, list)) else (results,)
        arrays = {name: tensor.numpy() for name, tensor in zip(self.outputs, tensors, strict=True)}
        return rounding.cut_parts(arrays, self.parts), runner.env


def iterate_calls(weight: Any) -> Iterator[Any]:
    """The nodes that apply a weight, through those that only transpose it."""
    for user in weight.users:
        if is_constant(user):
            yield from iterate_calls(user)
        else:
            yield user


def find_producer(value: Any, calls: Mapping[Any, str]) -> Any | None:
    """The call of a layer that a value comes from, through nodes with one input (a norm, an activation, pooling)."""
    while value is not None and value not in calls:
        inputs = [given for given in value.all_input_nodes if not is_constant(given)]
        value = inputs[0] if len(inputs) == 1 else None
    return value


def is_constant(node: Any) -> bool:
    inputs = node.all_input_nodes
    return node.op == "get_attr" or (node.op == "call_function" and bool(inputs) and all(map(is_constant, inputs)))


def norm_factors(call: Any, weights: Mapping[str, Any], module: Any) -> Any | None:
    """Factors per output channel of a batch norm directly behind a call; None if there is none."""
    (user, *others) = call.users
    if others or getattr(user.target, "__name__", "") != "batch_norm":
        return None
    weight, variance, epsilon = (user.args[i] for i in NORM_ARGUMENTS)
    values = [weights[node.target] if node.target in weights else module.get_buffer(node.target) for node in (weight, variance)]
    return (values[0] / (values[1] + epsilon).sqrt()).detach()


def round_weight(weight: Any, kind: str, factors: Any | None, per_channel: bool) -> Any:
    """Weights rounded to symmetric int8, with the factors of a batch norm folded in, as all formats do."""
    import torch

    axis = 1 if kind in OUTPUT_SECOND else 0
    spread = torch.ones(()) if factors is None else factors.view([-1 if i == axis else 1 for i in range(weight.ndim)])
    folded = weight * spread
    scale = folded.abs().amax([i for i in range(weight.ndim) if i != axis or not per_channel], keepdim=True).clamp(min=1e-30) / 127
    return torch.where(spread == 0, weight, torch.round(folded / scale) * scale / spread)
