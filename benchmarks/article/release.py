"""How much memory each step frees that is said to free memory. Run in a fresh process; prints one JSON object: step -> resident bytes.

python -m benchmarks.article.release MODELS/source MODELS/inputs.npz
"""

import gc
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from benchmarks.article import eager
from edgewise.agent import memory
from edgewise.agent.sessions import release_memory
from edgewise.sources import (
    transformers_model,  # noqa: F401  # used by eager; imported before anything is counted
)

IMPORTED, LOADED, RUN, DELETED, COLLECTED, EMPTIED, TRIMMED = STEPS = (
    "imports",
    "model loaded",
    "model run once",
    "`del model`",
    "`gc.collect()`",
    "`torch.cuda.empty_cache()`",
    "`malloc_trim(0)`",
)


def steps(source: Path, feeds: Mapping[str, np.ndarray]) -> Mapping[str, Callable[[], Any]]:
    held: dict[str, Any] = {}

    def load() -> None:
        held["model"] = eager.load(str(source), {"threads": 1})

    def run() -> None:
        held["model"].run(feeds)

    def first() -> None:
        """Another, tiny one, so that all code is in memory before anything is counted."""
        ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1]))
        release_memory()

    return dict(zip(STEPS, (first, load, run, held.clear, gc.collect, torch.cuda.empty_cache, release_memory), strict=True))


def main() -> None:
    with np.load(sys.argv[2]) as stored:
        feeds = {name: stored[name][:1] for name in stored.files}
    resident = {}
    for name, step in steps(Path(sys.argv[1]), feeds).items():
        step()
        resident[name] = memory.read_usage()["rss"]
    print(json.dumps(resident))


if __name__ == "__main__":
    main()
