"""A model of the transformers library, built from its configuration class and trained here. Nothing is downloaded."""

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.artifacts.artifact import Manifest
from edgewise.config.schema import Train
from edgewise.config.settings import nearest, option
from edgewise.errors import ConfigError, ModelError
from edgewise.sources import trained
from edgewise.sources.torch_source import one_line

FORMAT = "torch"
TEXT = {"vocab_size": "vocab_size", "max_position_embeddings": "length", "pad_token_id": "pad_id"}  # ours: the data's preprocessing
REQUIRES = trained.REQUIRES
ISOLATED = False


@dataclass(frozen=True, kw_only=True)
class Settings(trained.Settings):
    model: str = option(help="class of transformers: ResNetForImageClassification ...")
    config: str = option(help="its configuration class: ResNetConfig ...")
    arguments: dict[str, Any] = option({}, "keyword arguments of the configuration class")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    fields = trained.obtain(lambda manifest: create(settings, manifest), settings, data, train, seed, folder)
    import transformers

    return {**fields, "tools": {**fields["tools"], "transformers": transformers.__version__}}


def create(settings: Settings, data: Manifest) -> Any:
    """The module with fresh weights, for the data's labels and picture size where the arguments do not say otherwise."""
    silence()
    config, model = find(settings.config, "config"), find(settings.model, "model")
    known = {*config().to_dict(), "num_labels"}
    for name in settings.arguments:
        if name not in known:
            raise ConfigError(f"model.arguments.{name}: {settings.config} has no such argument; {nearest(name, known)}")
    wanted = {name: value for name, value in from_data(data).items() if name in known}
    try:
        return model(config(**{**wanted, **settings.arguments}))
    except Exception as error:  # each class of transformers checks its arguments in its own way
        raise ModelError(f"model.arguments: {settings.model} cannot be built from them: {one_line(error)}") from error


def find(name: str, key: str) -> Any:
    import transformers

    if not hasattr(transformers, name):
        close = difflib.get_close_matches(name, dir(transformers), n=3)
        raise ConfigError(f"model.{key}: {name!r} is no class of transformers; near to it: {', '.join(close) or 'nothing'}")
    return getattr(transformers, name)


def from_data(data: Manifest) -> dict[str, Any]:
    """Arguments that follow from the data, by the names that transformers has for them."""
    found: dict[str, Any] = {"num_labels": len(data.labels)}
    for tensor in data.inputs:
        if tensor.layout == "NCHW":
            _, channels, height, width = tensor.shape
            found |= {"num_channels": channels, "image_size": height if height == width else (height, width)}
    text = data.preprocessing if data.preprocessing and data.preprocessing["kind"] == "text" else {}
    return found | {own: text[theirs] for own, theirs in TEXT.items() if theirs in text}


def silence() -> None:
    """transformers imports torchao, which warns about GPU libraries that it does not find and about its own internals."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
