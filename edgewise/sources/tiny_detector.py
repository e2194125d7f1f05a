"""A small detector without anchors, trained from scratch: a backbone of transformers, a feature pyramid, and a head on each grid.

Scores and boxes leave it as two outputs, as the last convolutions give them: in 8 bits each has a scale of its own, and the arithmetic
that turns them into boxes stays outside of the file (agent.decoding). box_objective says how it is trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.artifacts.artifact import Manifest
from edgewise.config.schema import Train
from edgewise.config.settings import option
from edgewise.errors import ConfigError, ModelError
from edgewise.sources import torch_source, transformers_model

FORMAT = "torch"
REQUIRES = torch_source.REQUIRES
ISOLATED = False
SMALL_SIDE = 192  # pixels; below, the finest grid has a stride of 4, else of 8
COARSEST = 32  # stride of the last stage of most backbones
LEAST_CELLS = 4  # of a grid, in each direction
DECODING = {
    **{"head": "grid", "outputs": {"boxes": "boxes", "scores": "scores"}, "channels_first": True, "activation": "sigmoid"},
    "nms_threshold": 0.5,  # each point in the middle of an object gives a box; of a thin one 0.65 keeps several
}
RARE = 0.01  # probability of an object at any point, with which training begins (Lin et al. 2017)


@dataclass(frozen=True, kw_only=True)
class Settings(transformers_model.Settings):
    model: str = option("ResNetModel", "model class of transformers that gives hidden states: ResNetModel, MobileNetV2Model")
    config: str = option("ResNetConfig", "its configuration class")
    width: int = option(64, "channels of the pyramid and of the heads", low=8, high=512)
    strides: tuple[int, ...] = option((), "pixels of the input for one cell of each grid, powers of 2; empty: chosen by the input's size")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    return transformers_model.with_tools(
        torch_source.obtain(lambda manifest: create(settings, manifest), settings, data, train, seed, folder)
    )


def create(settings: Settings, data: Manifest) -> Any:
    """The detector with random weights. ModelError for a backbone without maps of the strides, ConfigError for data without boxes."""
    kind = data.details.get("targets", "classes")
    if kind != "boxes":
        raise ConfigError(f"data.targets: {kind!r}, but model.name=tiny_detector learns boxes; set data.targets=boxes, or another model")
    backbone = transformers_model.create(settings, data)
    channels, height, width = (side or 0 for side in data.inputs[0].shape[1:])
    strides = settings.strides or choose_strides(height, width)
    maps = find_maps(backbone, (channels, height, width), strides)
    detector = build(backbone, maps, len(data.labels), settings.width)
    detector.decoding = {**DECODING, "strides": [*strides], "size": [height, width]}
    return detector


def choose_strides(height: int, width: int) -> tuple[int, ...]:
    """The strides of the grids for inputs of this size, finest first."""
    side = min(height, width)
    strides = [4 if side < SMALL_SIDE else 8]
    while strides[-1] < COARSEST and side >= LEAST_CELLS * 2 * strides[-1]:
        strides.append(2 * strides[-1])
    return tuple(strides)


def find_maps(backbone: Any, shape: Sequence[int], strides: Sequence[int]) -> dict[int, tuple[int, int]]:
    """For each stride the position of the last hidden state of it, and its channels. shape: of one input, [channels, height, width]."""
    import torch

    with torch.no_grad():
        states = backbone.eval()(torch.zeros(1, *shape), output_hidden_states=True).hidden_states
    sizes = [[*state.shape[2:]] for state in states]
    found = {}
    for stride in strides:
        places = [i for i, size in enumerate(sizes) if [side * stride for side in size] == [*shape[1:]]]
        if places:
            found[stride] = (places[-1], states[places[-1]].shape[1])
    missing = [stride for stride in strides if stride not in found]
    if missing:
        sides = ", ".join(dict.fromkeys("x".join(map(str, size)) for size in sizes))
        raise ModelError(
            f"model.strides: {missing[0]}: the backbone has no such map for inputs of {shape[1]}x{shape[2]}, only {sides};"
            f" set model.strides, or a data.image_size that {max(strides)} divides"
        )
    return found


def build(backbone: Any, maps: Mapping[int, tuple[int, int]], classes: int, width: int) -> Any:
    """The module: pictures to scores, logits [n, classes, points], and boxes [n, 4, points]. maps: of `find_maps`, finest first."""
    import torch
    from torch import nn

    def block(inner: int, outer: int, kernel: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inner, outer, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outer), nn.ReLU())

    class TinyDetector(nn.Module):  # type: ignore[misc]  # torch is Any to mypy, see pyproject.toml
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.places = backbone, [place for place, _ in maps.values()]
            self.lateral = nn.ModuleList(block(channels, width, 1) for _, channels in maps.values())
            self.score_tower = nn.ModuleList(block(width, width, 3) for _ in maps)
            self.box_tower = nn.ModuleList(block(width, width, 3) for _ in maps)
            self.scores = nn.ModuleList(nn.Conv2d(width, classes, 1) for _ in maps)
            self.boxes = nn.ModuleList(nn.Conv2d(width, 4, 1) for _ in maps)
            for scores, boxes in zip(self.scores, self.boxes, strict=True):
                nn.init.constant_(scores.bias, torch.tensor(RARE).logit().item())
                nn.init.zeros_(boxes.bias)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            states = self.backbone(image, output_hidden_states=True).hidden_states
            levels = [lateral(states[place]) for lateral, place in zip(self.lateral, self.places, strict=True)]
            for i in range(len(levels) - 1, 0, -1):
                levels[i - 1] = levels[i - 1] + nn.functional.interpolate(levels[i], size=levels[i - 1].shape[2:], mode="nearest")
            scores = [head(tower(level)) for head, tower, level in zip(self.scores, self.score_tower, levels, strict=True)]
            boxes = [head(tower(level)) for head, tower, level in zip(self.boxes, self.box_tower, levels, strict=True)]
            return torch.cat([part.flatten(2) for part in scores], 2), torch.cat([part.flatten(2) for part in boxes], 2)

    return TinyDetector()
