"""A model of the transformers library, built from its configuration class and trained from scratch. Nothing is downloaded."""

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
from edgewise.sources import torch_source
from edgewise.sources.inspection import one_line

FORMAT = "torch"
TEXT_ARGUMENTS = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "length",
    "pad_token_id": "pad_id",
}  # -> key of the data's preprocessing
REQUIRES = torch_source.REQUIRES
ISOLATED = False


@dataclass(frozen=True, kw_only=True)
class Settings(torch_source.Settings):
    model: str = option(help="model class of transformers, for example ResNetForImageClassification")
    config: str = option(help="configuration class of transformers, for example ResNetConfig")
    arguments: dict[str, Any] = option({}, "keyword arguments of the configuration class")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    return with_tools(torch_source.obtain(lambda manifest: create(settings, manifest), settings, data, train, seed, folder))


def with_tools(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The manifest fields with the version of transformers."""
    import transformers

    return {**fields, "tools": {**fields["tools"], "transformers": transformers.__version__}}


def create(settings: Settings, data: Manifest) -> Any:
    """The module with random weights, for the data's labels and picture size unless the arguments say otherwise."""
    silence_torchao()
    config, model = find_class(settings.config, "config"), find_class(settings.model, "model")
    known = {*config().to_dict(), "num_labels"}
    for name in settings.arguments:
        if name not in known:
            raise ConfigError(f"model.arguments.{name}: unknown argument of {settings.config}; {nearest(name, known)}")
    derived = {name: value for name, value in derive_arguments(data).items() if name in known}
    try:
        return model(config(**{**derived, **settings.arguments}))
    except Exception as error:  # each class of transformers checks its arguments in its own way
        raise ModelError(f"model.arguments: {settings.model} cannot be built with them: {one_line(error)}; fix the arguments") from error


def find_class(name: str, key: str) -> Any:
    import transformers

    if not hasattr(transformers, name):
        close = difflib.get_close_matches(name, dir(transformers), n=3)
        raise ConfigError(f"model.{key}: {name!r} is not a class of transformers; similar: {', '.join(close) or 'none'}")
    return getattr(transformers, name)


def derive_arguments(data: Manifest) -> dict[str, Any]:
    """Arguments of the configuration class that follow from the data."""
    found: dict[str, Any] = {"num_labels": len(data.labels)}
    for tensor in data.inputs:
        if tensor.layout == "NCHW":
            _, channels, height, width = tensor.shape
            found |= {"num_channels": channels, "image_size": height if height == width else (height, width)}
    text = data.preprocessing if data.preprocessing and data.preprocessing["kind"] == "text" else {}
    return found | {argument: text[key] for argument, key in TEXT_ARGUMENTS.items() if key in text}


def silence_torchao() -> None:
    """transformers imports torchao, which logs warnings about missing GPU libraries and its own internals."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
