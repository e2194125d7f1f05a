"""The user's own torch model, imported as it is: a torch.export program, or a callable with the checkpoint that belongs to it.

A program may hold pickles (its example inputs, odd weights), which torch would load even where they run code: they are
read as tensors first, and refused otherwise.
"""

import dataclasses
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.core import artifact
from stages.core.artifact import Manifest
from stages.core.config import Train
from stages.core.errors import ModelError
from stages.core.inspection import Inspection
from stages.core.settings import option
from stages.importers import python_callable, trained
from stages.importers.torch_source import one_line

FORMAT = "torch"
REQUIRES = trained.REQUIRES
ISOLATED = False
RECOGNIZED = (".pt2",)  # what stages.inspect shows it
HOW = "save it with torch.export.save(torch.export.export(model.eval(), inputs, dynamic_shapes=...), FILE)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    path: str = option(help="file of torch.export.save; with a callable: checkpoint with its weights")
    callable: str | None = option(None, "dotted path of what builds the model, where the file holds its weights only")
    arguments: dict[str, Any] = option({}, "keyword arguments of the callable")
    classes_argument: str | None = option(None, "its argument that takes the number of labels; null: found in the signature")
    weights_ignore: tuple[str, ...] = option((), "layers that do not come from the file")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    """As the torch importers that train, with no epochs and so no augmentation."""
    untrained = Train(name=train.name, epochs=0, threads=train.threads)
    if settings.callable is not None:
        given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings) if field.name != "path"}
        return python_callable.obtain(python_callable.Settings(weights=settings.path, **given), data, untrained, seed, folder)
    path = Path(settings.path)
    program = load(path)
    fields = trained.obtain(lambda manifest: as_module(path, program, manifest), trained.Settings(), data, untrained, seed, folder)
    types = layer_types(program)
    layers = {name: {**layer, "type": types.get(name, layer["type"])} for name, layer in fields["details"]["layers"].items()}
    return {**fields, "details": {**fields["details"], "layers": layers, "imported_sha256": artifact.sha256(path)}}


def recognizes(path: Path) -> bool:
    return path.is_file() and path.suffix in (".pt2", ".pth2", ".ep")


def look(path: Path) -> Inspection:
    from stages.importers import torch_look

    return torch_look.look(path)


def load(path: Path) -> Any:
    """The exported program. ModelError where the file is none, or would run code on loading."""
    import torch

    check_file(path)
    check_pickles(path)
    try:
        return torch.export.load(path)
    except Exception as error:  # torch.export has no common class for a program of another version or a damaged one
        raise ModelError(f"model.path: {path} cannot be loaded: {one_line(error)}; {HOW}") from error


def as_module(path: Path, program: Any, data: Manifest) -> Any:
    """The program as a module for any batch size. ModelError where it does not take the data's inputs."""
    check_inputs(path, program, data)
    module = program.module(check_guards=False)  # the guards hold the largest batch that the user thought of
    module.train = lambda mode=True: module  # torch forbids train() and eval() here: the mode is that of the export
    return module


def layer_types(program: Any) -> dict[str, str]:
    """Class of each module by its path, as the program remembers it; as a module it consists of nameless ones."""
    stacks = [node.meta.get("nn_module_stack", {}) for node in program.graph.nodes]
    return {path: str(kind).rpartition(".")[2] for stack in stacks for path, kind in stack.values()}


def check_file(path: Path) -> None:
    """ModelError that names what the file is instead of a program."""
    if not path.is_file():
        raise ModelError(f"model.path: {path} {'is a folder' if path.is_dir() else 'does not exist'}; name a file of torch.export.save")
    if not zipfile.is_zipfile(path):
        raise ModelError(f"model.path: {path} is no torch.export program (those are zip archives); {HOW}")
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in names:
        raise ModelError(f"model.path: {path} is a TorchScript archive; {HOW}")
    if "data.pkl" in names:
        raise ModelError(f"model.path: {path} holds weights without a model; name what builds it: model.callable=MODULE.FUNCTION")


def check_pickles(path: Path) -> None:
    """ModelError unless every pickle in the archive holds tensors alone."""
    import torch

    with zipfile.ZipFile(path) as archive:
        for name in pickles(archive):
            try:
                torch.load(io.BytesIO(archive.read(name)), map_location="cpu", weights_only=True)
            except Exception as error:  # whatever the restricted unpickler meets: it is not tensors alone
                raise ModelError(
                    f"model.path: {path} is refused: {name} in it is a pickle of more than tensors, and a pickle can run code on loading;"
                    " export the model with tensors as its example inputs"
                ) from error


def pickles(archive: zipfile.ZipFile) -> Iterator[str]:
    """Members that torch.export.load unpickles: *.pt, and what a *_config.json lists with use_pickle."""
    for name in archive.namelist():
        if name.endswith(".pt"):
            yield name
        elif name.endswith("_config.json"):
            entries = json.loads(archive.read(name)).get("config", {}).values()
            yield from (f"{name.rpartition('/')[0]}/{entry['path_name']}" for entry in entries if entry.get("use_pickle"))


def check_inputs(path: Path, program: Any, data: Manifest) -> None:
    wanted = [([*t.shape], t.dtype) for t in data.inputs]
    names = program.graph_signature.user_inputs
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    taken = [([side if isinstance(side, int) else None for side in v.shape], str(v.dtype).removeprefix("torch.")) for v in values]
    if taken == wanted:
        return
    if [(shape[1:], dtype) for shape, dtype in taken] == [(shape[1:], dtype) for shape, dtype in wanted]:
        raise ModelError(
            f"model.path: {path} was exported for batches of {taken[0][0][0]} only; "
            "export it with dynamic_shapes=({0: torch.export.Dim('batch', min=1, max=1024)},)"
        )
    raise ModelError(f"model.path: {path} takes {_told(taken)}, the data gives {_told(wanted)}; change data.* so that they fit")


def _told(tensors: list[tuple[list[int | None], str]]) -> str:
    return (
        ", ".join(f"{dtype} {['any' if side is None else side for side in shape]}".replace("'", "") for shape, dtype in tensors)
        or "nothing"
    )
