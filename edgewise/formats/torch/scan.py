"""Which layers of a torch program suffer from 8 bits: one layer at a time is quantized, the rest stays float.

Weights and inputs of a layer are rounded to the values that int8 can hold, and computed in float: no runtime has a say in the
result. Ranges of the inputs are found once, and a layer's turn costs only what comes after it in the net.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.torch.make import read
from edgewise.formats.torch.script import graph_of

JUDGED = 16  # samples whose outputs are compared
CHUNK = 8  # samples in one run: all values inside the net of one run lie in memory at once
OUTPUT_SECOND = ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Conv1D")  # layers whose weights are [input, output, ...]
NORM_ARGUMENTS = (1, 4, 7)  # weight, running variance and epsilon among the arguments of aten.batch_norm
Arrays = Mapping[str, np.ndarray]


class Rounder:
    """A step in the graph. Off it hands its tensor on; on it gives the nearest values that 8 bits hold."""

    __name__ = "rounder"  # torch.fx names a step after its function

    def __init__(self, owners: set[str], fixed: Any = None):
        self.on = self.watching = False
        self.owners = owners  # the layers with which it is on
        self.fixed, self.low, self.high = fixed, 0.0, 0.0

    def __call__(self, tensor: Any) -> Any:
        if self.watching and self.fixed is None:
            low, high = (bound.item() for bound in tensor.aminmax())
            self.low, self.high = min(self.low, low), max(self.high, high)
        if not self.on:
            return tensor
        return self.fixed if self.fixed is not None else self._round(tensor)

    def _round(self, tensor: Any) -> Any:
        """uint8 with a zero point, over the range that was seen."""
        import torch

        scale = max(self.high - self.low, 1e-30) / 255
        return torch.fake_quantize_per_tensor_affine(tensor, scale, round(-self.low / scale), 0, 255)


def scan(source: Path, feeds: Sequence[Arrays], per_channel: bool) -> dict[str, Any]:
    """{"layers": {path: {"noise", "elements"}}, "noise": with all of them quantized}. Noise is the power of the output's error over the
    power of the output about its mean (as proof.checks.sqnr_db has it); elements are weights. feeds: calibration samples of batch 1.
    A weight that layers share is scanned under the first of them; layers that are never called are left out."""
    import torch
    from tqdm import tqdm

    manifest, program = read(source)
    names = [entry["name"] for entry in manifest["inputs"]]
    parts = [feeds[start : start + CHUNK] for start in range(0, len(feeds), CHUNK)]
    chunks = [[torch.from_numpy(np.concatenate([feed[name] for feed in part])) for name in names] for part in parts]
    judged = chunks[: -(-JUDGED // CHUNK)]
    with torch.inference_mode():
        net = Net(graph_of(program, names), manifest["details"]["layers"], program.state_dict, per_channel)
        with tqdm(total=len(chunks) + len(judged) * len(net.places), desc="scan layers", unit="run", disable=None) as bar:
            net.watch(chunks, bar)
            return net.noises(judged, bar)


class Net:
    """A program's graph with a rounder before each layer and behind each weight."""

    def __init__(self, module: Any, layers: Mapping[str, Mapping[str, Any]], weights: Mapping[str, Any], per_channel: bool):
        self.module, self.graph, self.layers, self.weights, self.per_channel = module, module.graph, layers, weights, per_channel
        self.rounders: list[Rounder] = []
        paths: dict[int, str] = {}
        for path, layer in layers.items():
            paths.setdefault(weights[layer["weight"]].data_ptr(), path)
        held = [node for node in self.graph.nodes if node.op == "get_attr" and node.target in weights]
        read = [(node, paths[place]) for node in held if (place := weights[node.target].data_ptr()) in paths]
        calls = {call: path for node, path in read for call in calls_of(node)}
        for node, path in read:
            self._round_weight(node, path)
        for call, path in calls.items():
            if self.layers[path]["type"] != "Embedding":
                self._round_input(call, {path}, calls)
        self._round_input(next(iter(self.graph.find_nodes(op="output"))), set(), calls)
        self.nodes = list(self.graph.nodes)
        self.places: dict[str, int] = {}  # layer -> position of the first step that changes with it
        for place, node in enumerate(self.nodes):
            for path in node.target.owners if isinstance(node.target, Rounder) else ():
                self.places.setdefault(path, place)

    def _round_weight(self, weight: Any, path: str) -> None:
        call = next(calls_of(weight), None)
        if call is None:
            return
        factors = norm_factors(call, self.weights, self.module)
        rounded = round_weight(self.weights[weight.target].detach(), self.layers[path]["type"], factors, self.per_channel)
        with self.graph.inserting_after(weight):
            step = self._step(weight, Rounder({path}, rounded))
        weight.replace_all_uses_with(step, delete_user_cb=lambda user: user is not step)

    def _round_input(self, call: Any, owners: set[str], calls: Mapping[Any, str]) -> None:
        """What lies between two layers is in 8 bits unless both are float: that is how the runtimes do it."""
        data = next(given for given in call.all_input_nodes if not is_constant(given))
        maker = maker_of(data, calls)
        with self.graph.inserting_before(call):
            call.replace_input_with(data, self._step(data, Rounder(owners | ({calls[maker]} if maker else set()))))

    def _step(self, value: Any, rounder: Rounder) -> Any:
        self.rounders.append(rounder)
        return self.graph.call_function(rounder, (value,))

    def watch(self, chunks: Sequence[list[Any]], bar: Any) -> None:
        """Find the range of each layer's inputs over all chunks."""
        for rounder in self.rounders:
            rounder.watching = True
        for chunk in chunks:
            self._run(chunk, {})
            bar.update()
        for rounder in self.rounders:
            rounder.watching = False

    def noises(self, chunks: Sequence[list[Any]], bar: Any) -> dict[str, Any]:
        """See `scan`."""
        exact: list[np.ndarray] = []
        errors = dict.fromkeys([*self.places, ""], 0.0)
        for chunk in chunks:
            output, values = self._run(chunk, {}, keep=True)
            exact.append(output)
            for path, place in self.places.items():
                known = {node: values[node] for node in self.nodes[:place]}
                errors[path] += self._error([path], chunk, known, output)
                bar.update()
            errors[""] += self._error(self.places, chunk, {}, output)
        outputs = np.concatenate(exact)
        signal = max(float(np.sum((outputs - outputs.mean(axis=0)) ** 2)), 1e-30)
        sizes = {path: self.weights[self.layers[path]["weight"]].numel() for path in self.places}
        layers = {path: {"noise": errors[path] / signal, "elements": sizes[path]} for path in self.places}
        return {"layers": layers, "noise": errors[""] / signal}

    def _error(self, paths: Iterable[str], chunk: list[Any], known: dict[Any, Any], exact: np.ndarray) -> float:
        """Sum of the squared errors of the outputs with these layers quantized. known: values that are there already."""
        for rounder in self.rounders:
            rounder.on = not rounder.owners.isdisjoint(paths)
        given, _ = self._run(chunk, known)
        for rounder in self.rounders:
            rounder.on = False
        return float(np.sum((given - exact) ** 2))

    def _run(self, chunk: list[Any], known: dict[Any, Any], keep: bool = False) -> tuple[np.ndarray, dict[Any, Any]]:
        """The output, float64 [n, ...], and the values of the nodes where they are kept."""
        import torch

        runner = torch.fx.Interpreter(self.module, garbage_collect_values=not keep, graph=self.graph)
        return runner.run(*chunk, initial_env=known).double().numpy(), runner.env


def calls_of(weight: Any) -> Iterator[Any]:
    """The nodes that apply a weight to something, through those that only turn it."""
    for user in weight.users:
        if is_constant(user):
            yield from calls_of(user)
        else:
            yield user


def maker_of(value: Any, calls: Mapping[Any, str]) -> Any | None:
    """The call of a layer that a value comes from, through steps with no other input (a norm, an activation, pooling)."""
    while value is not None and value not in calls:
        inputs = [given for given in value.all_input_nodes if not is_constant(given)]
        value = inputs[0] if len(inputs) == 1 else None
    return value


def is_constant(node: Any) -> bool:
    inputs = node.all_input_nodes
    return node.op == "get_attr" or (node.op == "call_function" and bool(inputs) and all(map(is_constant, inputs)))


def norm_factors(call: Any, weights: Mapping[str, Any], module: Any) -> Any | None:
    """What a batch norm directly behind a call multiplies each output channel by; None where there is none."""
    (user, *others) = call.users
    if others or getattr(user.target, "__name__", "") != "batch_norm":
        return None
    weight, variance, epsilon = (user.args[i] for i in NORM_ARGUMENTS)
    values = [weights[node.target] if node.target in weights else module.get_buffer(node.target) for node in (weight, variance)]
    return (values[0] / (values[1] + epsilon).sqrt()).detach()


def round_weight(weight: Any, kind: str, factors: Any | None, per_channel: bool) -> Any:
    """Symmetric int8 weights. Every format folds a batch norm behind the layer into them, so its factors are rounded along."""
    import torch

    axis = 1 if kind in OUTPUT_SECOND else 0
    spread = torch.ones(()) if factors is None else factors.view([-1 if i == axis else 1 for i in range(weight.ndim)])
    folded = weight * spread
    scale = folded.abs().amax([i for i in range(weight.ndim) if i != axis or not per_channel], keepdim=True).clamp(min=1e-30) / 127
    return torch.where(spread == 0, weight, torch.round(folded / scale) * scale / spread)
