"""How much arithmetic a torch module does, counted in one run of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.sources import training


@dataclass(frozen=True)
class Arithmetic:
    """Multiply-adds for one sample: of the whole module, and of each module inside of it that does any, by its path."""

    total: int
    by_module: Mapping[str, int]


def count_arithmetic(module: Any, feeds: Mapping[str, np.ndarray]) -> Arithmetic:
    """Count convolutions, matrix products and attention, as torch.utils.flop_counter does; it counts two operations for a multiply-add.
    feeds: the inputs by position, [n, ...]."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    mode = module.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(*training.to_tensors(feeds))
    module.train(mode)
    samples = len(next(iter(feeds.values())))
    counts = {name: sum(operators.values()) // 2 // samples for name, operators in counter.get_flop_counts().items()}
    prefix = f"{type(module).__name__}."
    inside = {name.removeprefix(prefix): count for name, count in counts.items() if name.startswith(prefix)}
    return Arithmetic(counter.get_total_flops() // 2 // samples, inside)
