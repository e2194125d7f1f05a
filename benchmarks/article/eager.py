"""The source as the advice uses it: a torch module, called eagerly. A runner for the agent, like a format's run.py.

load(models/source, {"threads": 1, "quantize_dynamic": true}) quantizes it first, by the advice's own call.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

RUNTIME = PACKAGE = "torch"


def module(source: Path) -> Any:
    """The module behind a project's models/source, with its weights."""
    from safetensors.torch import load_file

    from edgewise.artifacts import artifact
    from edgewise.config import schema
    from edgewise.config.settings import build
    from edgewise.sources import torch_source, transformers_model

    settings = build(transformers_model.Settings, schema.read(source.parent / "config.yaml").model.settings, "model")
    made = torch_source.wrap(transformers_model.create(settings, artifact.read(source.parent / "data")))
    made.load_state_dict(load_file(source / torch_source.WEIGHTS))
    return made.eval()


def gone() -> str | None:
    """Why the advice's call cannot be tried, or None: torch has announced to remove it."""
    try:
        from torch.ao.quantization import quantize_dynamic  # noqa: F401
    except ImportError:
        return (
            f"torch {versions()[PACKAGE]} has no `torch.ao.quantization.quantize_dynamic` any more; up to torch 2.13 the call can be tried"
        )
    return None


def quantize_dynamic(made: Any) -> Any:
    """As the advice has it: linear layers and convolutions are asked for."""
    import torch
    from torch.ao import quantization

    with warnings.catch_warnings(action="ignore"):
        return quantization.quantize_dynamic(made, {torch.nn.Linear, torch.nn.Conv2d}, dtype=torch.qint8)


class Session:
    def __init__(self, made: Any):
        self._module = made

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        with torch.inference_mode():
            return {"logits": self._module(*map(torch.from_numpy, feeds.values())).numpy()}


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    import torch

    torch.set_num_threads(settings["threads"])
    made = module(Path(folder))
    return Session(quantize_dynamic(made) if settings.get("quantize_dynamic") else made)


def versions() -> dict[str, str]:
    from importlib import metadata

    return {PACKAGE: metadata.version(PACKAGE)}
