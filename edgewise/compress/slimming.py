"""Which channels of a torch module go, and cutting them out (structured pruning).

Channels that are added, normalized or scaled together can go only together. torch-pruning finds them in a dependency graph (DepGraph, Fang
et al. 2023); here they are `Coupled`. One threshold of importance over all of them decides, so that layers with many unimportant channels
lose more than others; it is the lowest with which what is left costs no more than the goal. These stay as they are:

- what gives the module's outputs (classifiers, heads), and layers that the user keeps,
- what attention splits into heads: queries, keys and values,
- grouped convolutions other than depthwise ones, group norms and recurrent layers,
- channels that the model's own code counts on by number: it fails without some of them.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.sources import training
from edgewise.sources.torch_source import count_arithmetic

MACS, PARAMETERS = "macs_share", "params_share"
LEAST_SHARE = 0.1  # of the channels that any layer keeps: one threshold over all layers would cut some of them through
ATTENTION = ("ScaledDotProduct", "Bmm")  # in the names of autograd's nodes
OUT, IN = 0, 1  # sides of a layer: the channels that it makes, and those that it takes


@dataclass(frozen=True, eq=False)
class Coupled:
    """Channels that go together, by number.

    root: the path of the layer by which they are cut. importance: of each, [channels], 1 on average. uses: layers with a weight matrix
    that they pass through, as (path, side, for each of that side's channels here the number of its channel in this group).
    """

    root: str
    handler: Any
    importance: np.ndarray
    uses: tuple[tuple[str, int, np.ndarray], ...]

    @property
    def channels(self) -> int:
        return len(self.importance)

    def least_important(self, count: int) -> np.ndarray:
        """The numbers of so many channels, sorted."""
        return np.sort(np.argsort(self.importance, kind="stable")[:count])


@dataclass(frozen=True)
class Layer:
    """What a layer with a weight matrix costs: multiply-adds for one sample, parameters, and its channels, [made, taken]."""

    multiply_adds: int
    parameters: int
    channels: tuple[int, int]

    def left(self, removed: Sequence[int]) -> float:
        """The share of its cost that is left without so many channels, [made, taken]."""
        out, taken = (1 - count / total for count, total in zip(removed, self.channels, strict=True))
        return out * taken


@dataclass(frozen=True)
class Costs:
    """What a module costs, as a whole and by layer."""

    multiply_adds: int
    parameters: int
    layers: Mapping[str, Layer]

    def of(self, kind: str) -> int:
        """kind: MACS or PARAMETERS."""
        return self.multiply_adds if kind == MACS else self.parameters

    def after(self, kind: str, groups: Sequence[Coupled], removed: Sequence[np.ndarray]) -> float:
        """What it will cost without these channels of each group; norms and attention's own products count in full."""
        gone: dict[str, list[int]] = {}
        for group, channels in zip(groups, removed, strict=True):
            for path, side, numbers in group.uses:
                gone.setdefault(path, [0, 0])[side] += int(np.isin(numbers, channels).sum())
        own = {path: layer.multiply_adds if kind == MACS else layer.parameters for path, layer in self.layers.items()}
        return self.of(kind) - sum(own[path] * (1 - self.layers[path].left(counts)) for path, counts in gone.items())


def measure(module: Any, feeds: Mapping[str, np.ndarray]) -> Costs:
    """Costs of a module that takes these feeds by position, [n, ...]."""
    arithmetic = count_arithmetic(module, feeds)
    layers = {}
    for path, child in module.named_modules():
        weight = getattr(child, "weight", None)
        if weight is not None and weight.ndim >= 2:
            own = sum(parameter.numel() for parameter in child.parameters(recurse=False))
            layers[path] = Layer(arithmetic.by_module.get(path, 0), own, _channels(child))
    return Costs(arithmetic.total, sum(parameter.numel() for parameter in module.parameters()), layers)


def _channels(layer: Any) -> tuple[int, int]:
    """Channels that a layer makes and takes; of a depthwise convolution and an embedding, what it takes does not count."""
    made, taken = layer.weight.shape[:2]
    if hasattr(layer, "embedding_dim"):
        return int(layer.embedding_dim), 1
    if getattr(layer, "transposed", False):
        made, taken = taken, made
    return int(made), 1 if getattr(layer, "groups", 1) > 1 else int(taken)


def trace(module: Any, feeds: Mapping[str, np.ndarray]) -> Any:
    """The dependency graph of a module, layers included that run and do not reach its outputs. ValueError where torch-pruning fails."""
    import torch_pruning

    module.eval()
    inputs = tuple(training.to_tensors(feeds))
    try:
        graph = torch_pruning.DependencyGraph().build_dependency(module, inputs, verbose=False)
        aside = [layer for layer in called_layers(module, inputs) if layer not in graph.module2node]
        if aside:
            graph = torch_pruning.DependencyGraph().build_dependency(
                module, inputs, forward_fn=lambda model, given: run_with(model, given, aside), verbose=False
            )
    except Exception as error:  # torch-pruning has no class of errors of its own
        raise ValueError(f"prune: torch-pruning cannot follow this model: {type(error).__name__}: {error}; leave `prune` out") from error
    return graph


def called_layers(module: Any, inputs: Sequence[Any]) -> list[Any]:
    """The layers with a weight matrix that run, in order."""
    called: list[Any] = []
    layers = [child for child in module.modules() if getattr(getattr(child, "weight", None), "ndim", 0) >= 2]
    handles = [layer.register_forward_hook(lambda layer, _, result: called.append(layer)) for layer in layers]
    module(*inputs)
    for handle in handles:
        handle.remove()
    return called


def run_with(module: Any, inputs: Sequence[Any], layers: Sequence[Any]) -> list[Any]:
    """The outputs of a module and those of some of its layers."""
    results: list[Any] = []
    handles = [layer.register_forward_hook(lambda layer, _, result: results.append(result)) for layer in layers]
    outputs = module(*inputs)
    for handle in handles:
        handle.remove()
    return [outputs, *results]


def find_coupled(graph: Any, criterion: str, keep: Sequence[str]) -> list[Coupled]:
    """All channels that may go. keep: paths of layers that stay as they are. ValueError where there are none."""
    names = {module: path for path, module in graph.model.named_modules()}
    score, found = importance_of(criterion), []
    for group in graph.get_all_groups():
        importance = None if is_fixed(graph, group, names, keep) else score(group)
        if importance is not None:
            values = importance.double().numpy()
            found.append(Coupled(names[group[0].dep.target.module], group[0].dep.handler, values, _uses(graph, group, names)))
    if not found:
        hint = "; bn_scale needs batch norms, try magnitude" if criterion == "bn_scale" else "; keep fewer layers, or use another model"
        raise ValueError(f"prune: no channel of this model can be removed by criterion {criterion}{hint}")
    return found


def importance_of(criterion: str) -> Callable[[Any], Any]:
    """The importance of each channel of a group of torch-pruning; None where the criterion says nothing of it.

    magnitude: the squared norm of all its weights. taylor: how much the loss would change to first order (Molchanov et al. 2019), from the
    gradients that the parameters have. bn_scale: the factors of its batch norms (Liu et al. 2017).
    """
    import torch_pruning

    kinds = {
        "magnitude": torch_pruning.importance.GroupMagnitudeImportance,
        "taylor": torch_pruning.importance.GroupTaylorImportance,
        "bn_scale": torch_pruning.importance.BNScaleImportance,
    }
    score: Callable[[Any], Any] = kinds[criterion]()
    return score


def is_fixed(graph: Any, group: Any, names: Mapping[Any, str], keep: Sequence[str]) -> bool:
    """Whether channels of a group of torch-pruning must stay: see the head of this module."""
    from torch import nn
    from torch_pruning import ops

    plain = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.Embedding, nn.PReLU)
    for dep, _ in group:
        node, layer = dep.target, dep.target.module
        made = graph.is_out_channel_pruning_fn(dep.handler)
        if node.type == ops.OPTYPE.OUTPUT or (made and not node.outputs and isinstance(layer, nn.Module) and layer in names):
            return True
        if any(word in str(node.name) for word in ATTENTION) or names.get(layer) in keep:
            return True
        if layer in names and not isinstance(layer, plain):
            return True
        if isinstance(layer, nn.modules.conv._ConvNd) and 1 < layer.groups < layer.out_channels:
            return True
    return False


def _uses(graph: Any, group: Any, names: Mapping[Any, str]) -> tuple[tuple[str, int, np.ndarray], ...]:
    found = []
    for item in group:
        layer = item.dep.target.module
        weight = getattr(layer, "weight", None)
        if layer in names and weight is not None and weight.ndim >= 2:
            side = OUT if graph.is_out_channel_pruning_fn(item.dep.handler) else IN
            found.append((names[layer], side, np.asarray(item.root_idxs, np.int64)))
    return tuple(found)


def choose(groups: Sequence[Coupled], costs: Costs, kind: str, goal: float, multiple: int) -> list[np.ndarray]:
    """The channels of each group to cut, so that what is left costs at most `goal`. ValueError where that cannot be reached.

    multiple: each group keeps a multiple of this number of channels, unless it keeps all. Where the last group to be cut takes far more
    than was needed, the others get channels back.
    """
    widest = max(group.channels for group in groups)
    if multiple >= widest:
        raise ValueError(
            f"prune.multiple: {multiple}; allowed for this model: 1 to {widest - 1}, fewer than the channels of the widest layer"
            " that may lose some; choose a smaller one, for example 8"
        )
    levels = np.unique(np.concatenate([group.importance for group in groups]))

    def removed(level: int) -> list[np.ndarray]:
        threshold = levels[level - 1] if level else -math.inf
        return [group.least_important(group.channels - channels_left(group, threshold, multiple)) for group in groups]

    def costs_too_much(channels: Sequence[np.ndarray]) -> bool:
        return costs.after(kind, groups, channels) > goal

    most = removed(len(levels))
    if costs_too_much(most):
        share, asked = costs.after(kind, groups, most) / costs.of(kind), goal / costs.of(kind)
        raise ValueError(
            f"prune.{kind}: not reached: of what is left before this step {asked:.3f} may stay, and {share:.3f} stays with multiple"
            f" {multiple} and a tenth of each layer; ask for a larger share, a smaller multiple, or keep fewer layers"
        )
    found = find_first(len(levels), lambda level: not costs_too_much(removed(level)))
    if not found:
        return removed(found)
    pairs = zip(removed(found), removed(found - 1), strict=True)
    last = {number: channels for number, (channels, fewer) in enumerate(pairs) if len(channels) > len(fewer)}

    def with_last(level: int) -> list[np.ndarray]:
        return [last.get(number, channels) for number, channels in enumerate(removed(level))]

    return with_last(find_first(found, lambda level: not costs_too_much(with_last(level))))


def find_first(end: int, holds: Callable[[int], bool]) -> int:
    """The first number from 0 to `end` for which something holds that holds for `end` and, once it does, for all that follow."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def channels_left(group: Coupled, threshold: float, multiple: int) -> int:
    """How many channels more important than the threshold a group keeps, rounded up to a multiple."""
    wanted = max(int((group.importance > threshold).sum()), LEAST_SHARE * group.channels, 1)
    return min(group.channels, math.ceil(wanted / multiple) * multiple)


def cut(module: Any, feeds: Mapping[str, np.ndarray], groups: Sequence[Coupled], removed: Sequence[np.ndarray]) -> Any | None:
    """A copy of the module without these channels of each group; None where it then fails, or gives outputs of another shape."""
    import torch

    slim = copy.deepcopy(module)
    graph = trace(slim, feeds)
    for group, channels in zip(groups, removed, strict=True):
        if len(channels):
            graph.get_pruning_group(slim.get_submodule(group.root), group.handler, channels.tolist()).prune()
    with torch.no_grad():
        wanted = [tensor.shape for tensor in training.run(module.eval(), feeds)]
        try:
            return slim if [tensor.shape for tensor in training.run(slim.eval(), feeds)] == wanted else None
        except (RuntimeError, ValueError, TypeError, IndexError):
            return None


def prune(
    module: Any,
    feeds: Mapping[str, np.ndarray],
    kind: str,
    goal: float,
    *,
    multiple: int = 8,
    criterion: str = "magnitude",
    keep: Sequence[str] = (),
) -> Any:
    """A copy of the module that costs at most `goal` (see `Costs.of`). feeds: two samples or more, by position.

    taylor reads the gradients of the module's parameters. ValueError where the goal cannot be reached, or the model cannot be pruned.
    """
    costs, groups = measure(module, feeds), find_coupled(trace(module, feeds), criterion, keep)
    slim = cut(module, feeds, groups, choose(groups, costs, kind, goal, multiple))
    if slim is None:
        groups = [group for group in groups if may_go_alone(module, feeds, group, multiple)]
        slim = cut(module, feeds, groups, choose(groups, costs, kind, goal, multiple)) if groups else None
    if slim is None:
        raise ValueError("prune: this model depends on its number of channels and fails with fewer; leave `prune` out")
    return slim


def may_go_alone(module: Any, feeds: Mapping[str, np.ndarray], group: Coupled, multiple: int) -> bool:
    """Whether the model still works without a few channels of this group alone."""
    few = group.least_important(min(multiple, group.channels - 1))
    return cut(module, feeds, [group], [few]) is not None
