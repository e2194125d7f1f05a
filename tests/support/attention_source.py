"""A small transformer as a source: what renames, folds or merges weights on the way through converters."""

from pathlib import Path

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port

TOKENS, LENGTH, WIDTH = 50, 12, 32
LAYERS = {"tokens", "places", "query", "key", "value", "out", "widen", "narrow", "head"}


def ids(count: int, seed: int = 0) -> np.ndarray:
    """int64 [n, 12]"""
    return np.random.default_rng(seed).integers(0, TOKENS, (count, LENGTH))


def network():
    """One block; a table that only constants index, a layer that is never called, a head whose bias is zero."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
            self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
            self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.widen, self.narrow, self.unused = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.head = nn.Linear(WIDTH, 3)
            nn.init.zeros_(self.head.bias)
            self.register_buffer("order", torch.arange(LENGTH)[None])

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            state = self.tokens(ids) + self.places(self.order)
            normal = self.before(state)
            scores = self.query(normal) @ self.key(normal).transpose(1, 2) / WIDTH**0.5
            state = state + self.out(scores.softmax(-1) @ self.value(normal))
            state = state + self.narrow(torch.relu(self.widen(self.after(state))))
            return self.head(state[:, 0])

    return Block()


def write(folder: Path) -> Path:
    """models/source as train-export writes it."""
    import torch

    from edgewise.sources import torch_source

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    fields = torch_source.export(torch_source.wrap(network()), {"ids": ids(16)}, ("logits",), folder)
    given = {key: fields[key] for key in ("format", "details", "tools")}
    tensors = {"inputs": (Port("ids", (None, LENGTH), "int64"),), "outputs": (Port("logits", (None, 3), "float32"),)}
    artifact.write(folder, Manifest(kind="source", labels=("a", "b", "c"), **tensors, **given))
    return folder
