"""The settings of `prune` of a variant: how much of the source is left, and how it is trained again."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from edgewise.config.settings import nearest, option
from edgewise.errors import ConfigError

SHARES = ("macs_share", "params_share")


@dataclasses.dataclass(frozen=True)
class Distillation:
    """How much another net, the teacher, has to say in a training."""

    weight: float = option(0.7, "share of the loss that is the distance to the teacher's outputs; 0: none", low=0.0, high=1.0)
    temperature: float = option(2.0, "by which logits are divided before they are compared", low=0.1, high=100.0)
    features: float = option(0.0, "factor of the distance between attention maps inside of both nets; 0: none", low=0.0, high=10_000.0)


@dataclasses.dataclass(frozen=True)
class Prune:
    """Channels are cut out of the source, in steps, each followed by training."""

    macs_share: float | None = option(None, "share of the source's multiply-adds that is left", low=0.01, high=0.99)
    params_share: float | None = option(None, "share of the source's parameters that is left", low=0.01, high=0.99)
    latency_share: float | None = option(None, "refused: latency differs between formats and schemes, which share a pruned source")
    multiple: int = option(8, "each layer keeps a multiple of this number of channels; kernels like 8 or 16", low=1, high=1024)
    criterion: str = option("magnitude", "which channels matter least", choices=("magnitude", "taylor", "bn_scale"))
    steps: int = option(2, "in how many steps; the share falls by the same factor in each", low=1, high=50)
    epochs: int = option(4, "passes over the training split after each step", low=0, high=10_000)
    learning_rate: float | None = option(None, "peak of the cosine schedule; null: that of the section train", low=1e-8, high=10.0)
    distillation: Distillation = option(Distillation(), "by the source before it was pruned")
    keep: tuple[str, ...] = option((), "layers that lose no channels: names, or patterns as in keep_float")

    @property
    def goal(self) -> tuple[str, float]:
        """Which of SHARES is asked for, and the share."""
        return next((name, value) for name in SHARES if (value := getattr(self, name)) is not None)

    @property
    def key(self) -> str:
        """A name for these settings, of a folder: no two have the same."""
        kind, share = self.goal
        content = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return f"{kind.removesuffix('_share')}-{100 * share:02.0f}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def check_prune(prune: Prune | None, where: str) -> None:
    """ConfigError unless exactly one share is given, if there are any settings. where: their key, such as params.yaml: variants.V.prune"""
    if prune is None:
        return
    given = [name for name in SHARES if getattr(prune, name) is not None]
    if prune.latency_share is not None:
        raise ConfigError(
            f"{where}.latency_share: {prune.latency_share:g}; latency differs between the formats and schemes that share a pruned source;"
            " give macs_share, and read the latency in the table"
        )
    if len(given) != 1:
        raise ConfigError(
            f"{where}: {' and '.join(given) or 'no share'} given; give one of {', '.join(SHARES)}, for example macs_share: 0.4"
        )


def share_prunes(variants: Mapping[str, Any]) -> dict[str, Any]:
    """The choices of all variants; a variant whose `prune` is the name of another gets the settings of that one. ConfigError for a name
    that is none of a variant with settings of its own."""
    given = {name: choice.get("prune") if isinstance(choice, Mapping) else None for name, choice in variants.items()}
    own = {name: prune for name, prune in given.items() if isinstance(prune, Mapping)}
    found: dict[str, Any] = {}
    for name, choice in variants.items():
        named = given[name]
        if isinstance(named, str) and named not in own:
            raise ConfigError(
                f"params.yaml: variants.{name}.prune: {named!r} is not a variant with settings of prune; {nearest(named, own)}"
            )
        found[name] = {**choice, "prune": own[named]} if isinstance(named, str) else choice
    return found
