"""Load the user's checkpoint: safetensors, or a torch.save file that holds nothing but tensors."""

import fnmatch
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewise.config.settings import nearest
from edgewise.errors import ModelError
from edgewise.sources.inspection import Inspection, one_line

PREFIX = "model."  # of the weights in models/source: torch_source.wrap keeps the user's module under this name
NESTED_KEYS = ("state_dict", "model_state_dict", "model")  # where training frameworks keep the tensors
WRAPPERS = ("module.", PREFIX)  # prefixes of DataParallel, and of models/source/weights.safetensors
MAX_LISTED = 3
TORCHSCRIPT = (
    "is a TorchScript archive, which torch deprecates and cannot export; build the model in Python, load its weights, and save it with"
    " torch.export.save(torch.export.export(model.eval(), inputs, dynamic_shapes=...), FILE.pt2), or save its weights with"
    " torch.save(model.state_dict(), FILE) and set model.callable"
)


def load_into(module: Any, path: Path, ignore: Sequence[str], classes: int) -> None:
    """Copy the checkpoint's tensors into `module`.

    ignore: names or patterns of layers that keep their initial weights. ModelError names tensors that are missing, unexpected, of another
    shape or not finite, and the setting that helps.
    """
    own = module.state_dict()
    given = _strip_prefixes(read_tensors(path), own)
    skipped = _match_layers(ignore, [*own, *given])
    own = {name: tensor for name, tensor in own.items() if name not in skipped}
    given = {name: tensor for name, tensor in given.items() if name not in skipped}
    _check_names(own, given, path)
    _check_shapes(own, given, path, classes)
    _check_finite(given, path)
    module.load_state_dict(given, strict=False)


def read_tensors(path: Path) -> dict[str, Any]:
    """Tensors by name. The type of the file is recognized by its first bytes, not by its name."""
    if not path.is_file():
        kind = "is a folder; name the file in it" if path.is_dir() else "does not exist; the path is relative to the project"
        raise ModelError(
            f"model.weights: {path} {kind}, for example {path / 'model.safetensors' if path.is_dir() else 'weights.safetensors'}"
        )
    with path.open("rb") as stream:
        head = stream.read(9)
    return _read_safetensors(path) if head[8:] == b"{" else _read_torch(path)


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(
            f"model.weights: {path} is a damaged or truncated safetensors file ({one_line(error)}); copy or save it again"
        ) from None


def list_members(path: Path) -> set[str]:
    """Names of the members of a zip archive, as torch writes them, without its root; none for another file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError):
        return set()


def is_torchscript(path: Path) -> bool:
    return "constants.pkl" in list_members(path)


def _read_torch(path: Path) -> dict[str, Any]:
    import pickle

    import torch

    if is_torchscript(path):
        raise ModelError(f"model.weights: {path} {TORCHSCRIPT}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"model.weights: {path} is refused: {_explain_refusal(error)}") from None
    except Exception as error:  # torch's unpickler raises all sorts of exceptions on foreign bytes: IndexError, EOFError ...
        raise ModelError(
            f"model.weights: {path} cannot be read as safetensors nor as a torch checkpoint ({one_line(error)});"
            " save the weights with torch.save(model.state_dict(), FILE)"
        ) from None
    return _find_tensors(content, path)


def _explain_refusal(error: Exception) -> str:
    """One line with the function that the pickle would have called, if torch names it."""
    named = [part.split()[0] for part in str(error).split("GLOBAL ")[1:]]
    code = f" ({named[0]})" if named else ""
    return f"it is a pickle of more than tensors, which can run code on loading{code}; save it with torch.save(model.state_dict(), FILE)"


def _find_tensors(content: Any, path: Path) -> dict[str, Any]:
    """The named tensors in what torch.load returned. ModelError if there are none, or something else among them."""
    import torch

    for key in NESTED_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"model.weights: {path} holds a {type(content).__name__}, not named tensors; save model.state_dict()")
    for name, value in content.items():
        if not torch.is_tensor(value):
            raise ModelError(f"model.weights: {path}: {name!r} is a {type(value).__name__}, not a tensor; save model.state_dict() alone")
    return dict(content)


def _strip_prefixes(given: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Remove prefixes that all names in the file have and not all of the model's."""
    names = dict(given)
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in names) and not all(name.startswith(prefix) for name in own):
            names = {name.removeprefix(prefix): tensor for name, tensor in names.items()}
    return names


def _match_layers(patterns: Sequence[str], names: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        hits = {name for name in names if name.startswith(f"{pattern}.") or fnmatch.fnmatchcase(name, pattern)}
        if not hits:
            tops = {name.partition(".")[0] for name in names}
            raise ModelError(f"model.weights_ignore: {pattern!r} matches no layer of the model or the checkpoint; {nearest(pattern, tops)}")
        found |= hits
    return found


def _check_names(own: Mapping[str, Any], given: Mapping[str, Any], path: Path) -> None:
    missing, unexpected = [n for n in own if n not in given], [n for n in given if n not in own]
    if missing or unexpected:
        parts = [
            f"{_shorten(names)} {what}" for names, what in ((missing, "missing in the file"), (unexpected, "unknown to the model")) if names
        ]
        tops = sorted({name.partition(".")[0] for name in missing + unexpected})
        raise ModelError(
            f"model.weights: {path} does not fit the model: {'; '.join(parts)};"
            f" choose the model that it was saved from, or skip layers with model.weights_ignore=[{','.join(tops)}]"
        )


def _check_shapes(own: Mapping[str, Any], given: Mapping[str, Any], path: Path, classes: int) -> None:
    wrong = [name for name in own if own[name].shape != given[name].shape]
    if not wrong:
        return
    mismatches = _shorten([f"{name} {[*given[name].shape]} instead of {[*own[name].shape]}" for name in wrong])
    layers = sorted({name.rpartition(".")[0] for name in wrong})
    other_classes = {(*given[name].shape,)[:1] for name in wrong}
    if len(layers) == 1 and len(other_classes) == 1 and all((*own[name].shape,)[:1] == (classes,) for name in wrong):
        raise ModelError(
            f"model.weights: {path} was trained for {other_classes.pop()[0]} classes, the data has {classes} ({mismatches});"
            f" train a new head with model.weights_ignore=[{layers[0]}]"
        )
    raise ModelError(f"model.weights: {path} does not fit the model: {mismatches}; choose the model and arguments that it was saved with")


def _check_finite(given: Mapping[str, Any], path: Path) -> None:
    import torch

    bad = [name for name, tensor in given.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if bad:
        raise ModelError(f"model.weights: {path} holds NaN or infinite values in {_shorten(bad)}; use an earlier checkpoint")


def _shorten(names: Sequence[str]) -> str:
    rest = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def inspect(path: Path) -> Inspection:
    """The number, types and shapes of the tensors."""
    tensors = read_tensors(path)
    matrices = [f"{name} {[*tensor.shape]}" for name, tensor in tensors.items() if tensor.ndim >= 2]
    shown = f"{matrices[0]} ... {matrices[-1]}" if matrices else "no matrices"
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    return Inspection(
        kind=f"weights without a model, {len(tensors)} tensors ({', '.join(f'{count} {dtype}' for dtype, count in dtypes.items())})",
        parameters=sum(tensor.numel() for tensor in tensors.values() if tensor.is_floating_point()),
        notes=(
            shown,
            f"it needs the model that it belongs to: -S model.name=resnet18 -S model.weights={path}, or your own, model.name=callable",
        ),
    )
