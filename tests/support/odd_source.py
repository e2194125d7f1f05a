"""A small source on token ids with what formats stumble on: tied and unused weights, a layer called twice, a transposed
convolution, the batch size used as a number, and infinity in a mask."""

from pathlib import Path

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port

WORDS, LENGTH = 20, 6


def ids(count: int = 16, seed: int = 0) -> np.ndarray:
    """int64 [count, LENGTH]; 0 is padding, never first."""
    drawn = np.random.default_rng(seed).integers(0, WORDS, (count, LENGTH))
    drawn[:, 0] = np.maximum(drawn[:, 0], 1)
    return drawn


def network():
    import torch
    from torch import nn

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(WORDS, 8)
            self.mix = nn.Conv1d(8, 8, 3, padding=1)
            self.wide = nn.ConvTranspose2d(1, 2, 2, stride=2)
            self.twice = nn.Linear(8, 8)
            self.score = nn.Linear(8, 1)
            self.never = nn.Linear(3, 3)
            self.head = nn.Linear(8, WORDS, bias=False)
            self.head.weight = self.words.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.words(ids)
            x = x + self.mix(x.transpose(1, 2)).transpose(1, 2)
            x = self.twice(torch.relu(self.twice(x)))
            x = (x + self.wide(x.unsqueeze(1)).mean(1)[:, ::2, ::2])[torch.arange(ids.shape[0])]
            share = self.score(x).masked_fill((ids == 0).unsqueeze(-1), float("-inf")).softmax(1)
            return self.head((x * share).sum(1))

    torch.manual_seed(0)
    return Odd()


def write(folder: Path) -> Path:
    """models/source of this network."""
    from edgewise.sources import torch_source

    folder.mkdir(parents=True)
    fields = torch_source.export(torch_source.wrap(network()), {"ids": ids()}, ("logits",), folder)
    inputs = (Port("ids", (None, LENGTH), "int64", None, "token_ids"),)
    outputs = (Port("logits", (None, WORDS), "float32", None, "logits"),)
    artifact.write(folder, Manifest(kind="source", format="torch", inputs=inputs, outputs=outputs, details=fields["details"]))
    return folder
