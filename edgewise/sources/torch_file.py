"""The user's own torch model, imported unchanged: a torch.export program, or a callable with its checkpoint.

A program may hold pickles (example inputs, some weights), which torch loads even if they run code, and expressions of sizes, which sympy
evaluates as Python. So the archive is checked first, with torch's own reader, because Python's reads some archives differently. Allowed
are only members that torch.export.save writes, pickles of nothing but tensors, and arithmetic. Everything else is refused.
"""

import ast
import dataclasses
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.config.settings import option
from edgewise.errors import ConfigError, ModelError
from edgewise.sources import checkpoint, imported, python_callable, torch_ports, torch_source, training
from edgewise.sources.inspection import Inspection, Port, one_line
from edgewise.sources.oracle import Oracle, fit_ports
from edgewise.sources.torch_ports import ProgramSession

FORMAT = "torch"
REQUIRES = torch_source.REQUIRES
ISOLATED = False
RECOGNIZED = (".pt2",)  # shown by `edgewise inspect` when no importer fits
MEMBERS = re.compile(  # what torch.export.save writes, without the archive's root; model.pt beside weights: torch 2.8
    r"models/model\.json|archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)|extra/.+"
    r"|data/(weights/(weight_\d+|model_weights_config\.json|model\.pt)|constants/(tensor_\d+|model_constants_config\.json|model\.pt))"
    r"|data/sample_inputs/model\.pt"
)
TENSOR_FILE = re.compile(r"(weight|tensor)_\d+")  # torch unpickles constants in files of other names
PROGRAM = "models/model.json"
SIZE_FUNCTIONS = ("floor", "ceiling", "sqrt", "exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh")
ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Name, ast.Constant),
    *(ast.Load, ast.keyword, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
TEXT = re.compile(r"\w+|[-+]?[\d.]+(e[-+]?\d+)?")  # in Symbol('s0', integer=True), Float('1.5', precision=53)
HOW_TO_SAVE = "save it with torch.export.save(torch.export.export(model.eval(), inputs, dynamic_shapes=...), FILE)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(imported.Settings):
    path: str = option(help="file of torch.export.save; with a callable: the checkpoint with its weights")
    callable: str | None = option(None, "dotted path of the callable that builds the model, if the file holds weights only")
    arguments: dict[str, Any] = option({}, "keyword arguments of the callable")
    classes_argument: str | None = option(None, "argument of the callable for the number of labels; null: found in the signature")
    weights_ignore: tuple[str, ...] = option((), "layers that are not loaded from the file")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    if settings.callable is not None:
        return _obtain_callable(settings, data, Train(name=train.name, epochs=0, threads=train.threads), seed, folder)
    manifest, samples, path = artifact.read(data), Samples.open(data), Path(settings.path)
    program = load(path)
    with training.repeatable(seed, train.threads) as threads:
        session = ProgramSession(path, program)
        fit = fit_ports(path, settings, session, manifest, imported.make_probe(samples))
        oracle = Oracle(session, fit)
        fields = imported.record(settings, oracle, samples, folder)
        places = [place for place, entry in enumerate(session.outputs) if entry["name"] in {port.name for port in fit.outputs}]
        module = torch_ports.keep_outputs(session.module, places, len(session.outputs))
        first = oracle.first_feeds(imported.make_probe(samples))
        examples = {entry["name"]: first[entry["name"]].astype(entry["dtype"]) for entry in session.inputs}
        saved = torch_source.save(module, examples, open_axes(session), folder)
    types = find_layer_types(program)
    layers = {name: {**layer, "type": types.get(name, layer["type"])} for name, layer in saved["details"]["layers"].items()}
    own = {"layers": layers, "imported_sha256": artifact.sha256(path), "threads": threads}
    return {**fields, **saved, "details": {**fields["details"], **saved["details"], **own}}


def _obtain_callable(settings: Settings, data: Path, untrained: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    """As sources that are trained, with 0 epochs. ConfigError for settings that only a program has."""
    usual = {field.name: field.default for field in dataclasses.fields(imported.Settings) if field.name != "path"}
    given = [name for name in usual if getattr(settings, name)]
    if given:
        raise ConfigError(f"model.{given[0]}: it is for programs of torch.export.save; leave it out, or model.callable")
    return python_callable.obtain(_as_callable(settings), data, untrained, seed, folder)


def _as_callable(settings: Settings) -> python_callable.Settings:
    """The settings of a callable with a checkpoint as those of a callable that is trained."""
    own = ("callable", "arguments", "classes_argument", "weights_ignore")
    return python_callable.Settings(weights=settings.path, **{name: getattr(settings, name) for name in own})


def create(settings: Settings, data: artifact.Manifest) -> Any:
    """The module that the callable builds. ValueError for a program, which is no torch module any more."""
    if settings.callable is None:
        raise ValueError(
            f"not from this source: model.path {settings.path!r} is an exported program, and channels can be cut out of torch modules only;"
            " name what builds the module with model.callable=MODULE.FUNCTION and its weights with model.path"
        )
    return python_callable.create(_as_callable(settings), data)


def open_session(path: Path) -> ProgramSession:
    return ProgramSession(path, load(path))


def open_axes(session: ProgramSession) -> list[list[int]]:
    """The axes of each input that have no fixed size."""
    return [[axis for axis, size in enumerate(entry["shape"]) if size is None] for entry in session.inputs]


def recognizes(path: Path) -> bool:
    """By name, or by what is in the archive: a program, or TorchScript, which is refused with what to do."""
    if not path.is_file():
        return False
    return path.suffix in (".pt2", ".pth2", ".ep") or not {PROGRAM, "constants.pkl"}.isdisjoint(checkpoint.list_members(path))


def load(path: Path) -> Any:
    """The exported program. ModelError if the file is not one, or would run code on loading."""
    import torch

    check_file(path)
    archive = open_archive(path)
    check_members(path, archive)
    check_pickles(path, archive)
    check_expressions(path, archive)
    try:
        return torch.export.load(path)
    except Exception as error:  # torch.export has no common class for a program of another version or a damaged one
        raise ModelError(f"model.path: {path} cannot be loaded: {one_line(error)}; {HOW_TO_SAVE}") from error


def find_layer_types(program: Any) -> dict[str, str]:
    """Class of each module by path, as recorded in the program; its unpacked modules have lost theirs."""
    stacks = [node.meta.get("nn_module_stack", {}) for node in program.graph.nodes]
    return {path: str(kind).rpartition(".")[2] for stack in stacks for path, kind in stack.values()}


def check_file(path: Path) -> None:
    """ModelError if the file is not a program, with what it is instead."""
    if not path.is_file():
        raise ModelError(f"model.path: {path} {'is a folder' if path.is_dir() else 'does not exist'}; name a file of torch.export.save")
    if not zipfile.is_zipfile(path):
        raise ModelError(f"model.path: {path} is not a torch.export program (a zip archive); {HOW_TO_SAVE}")
    names = checkpoint.list_members(path)
    if checkpoint.is_torchscript(path):
        raise ModelError(f"model.path: {path} {checkpoint.TORCHSCRIPT}")
    if "data.pkl" in names:
        raise ModelError(f"model.path: {path} holds weights without a model; set model.callable=MODULE.FUNCTION to what builds it")


def open_archive(path: Path) -> Any:
    """torch's reader, which torch.export.load uses; it ignores the case of member names."""
    import torch

    try:
        archive = torch._C.PyTorchFileReader(str(path))
        archive.get_all_records()  # fails if a member lies outside of the root
        return archive
    except RuntimeError as error:
        raise ModelError(f"model.path: {path} cannot be loaded: {one_line(error)}; {HOW_TO_SAVE}") from error


def check_members(path: Path, archive: Any) -> None:
    """ModelError for members that torch.export.save does not write, and for names that differ only in case."""
    names = archive.get_all_records()
    with zipfile.ZipFile(path) as other:
        seen = [name.partition("/")[2] for name in other.namelist()]
    if sorted(seen) != sorted(names):
        raise ModelError(f"model.path: {path} is refused: torch and Python list different members in it; {HOW_TO_SAVE}")
    unknown = next((name for name in names if not MEMBERS.fullmatch(name)), None)
    if unknown:
        raise ModelError(f"model.path: {path} is refused: it holds {unknown!r}, which torch.export.save does not write; {HOW_TO_SAVE}")
    folded = [name.casefold() for name in names]
    twice = next((name for name in names if folded.count(name.casefold()) > 1), None)
    if twice:
        raise ModelError(f"model.path: {path} is refused: it holds {twice!r} twice, or in upper and lower case; {HOW_TO_SAVE}")


def check_pickles(path: Path, archive: Any) -> None:
    """ModelError unless every pickle in the archive holds nothing but tensors."""
    import torch

    for name in list_pickles(path, archive):
        try:
            torch.load(io.BytesIO(archive.get_record(name)), map_location="cpu", weights_only=True)
        except Exception as error:  # whatever the restricted unpickler raises: it is more than tensors
            raise ModelError(
                f"model.path: {path} is refused: {name} in it is a pickle of more than tensors, and a pickle can run code on loading;"
                " export the model with tensors as its example inputs"
            ) from error


def list_pickles(path: Path, archive: Any) -> Iterator[str]:
    """Members that torch.export.load unpickles: *.pt, and those that a *_config.json lists with use_pickle."""
    for name in archive.get_all_records():
        if name.endswith(".pt"):
            yield name
        elif name.endswith("_config.json"):
            yield from (f"{name.rpartition('/')[0]}/{file}" for file in read_pickle_list(path, name, archive.get_record(name)))


def read_pickle_list(path: Path, name: str, content: bytes) -> list[str]:
    """Files with use_pickle in the JSON member `name`. ModelError if it is damaged, or lists files that are not tensors."""
    try:
        entries = [(entry["path_name"], entry["use_pickle"]) for entry in json.loads(content)["config"].values()]
        strange = next((file for file, _ in entries if not TENSOR_FILE.fullmatch(file)), None)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"model.path: {path} cannot be loaded: {name} in it is damaged ({one_line(error)}); {HOW_TO_SAVE}") from error
    if strange:
        raise ModelError(f"model.path: {path} is refused: {name} in it lists {strange!r}, which is not a tensor; {HOW_TO_SAVE}")
    return [file for file, use_pickle in entries if use_pickle]


def check_expressions(path: Path, archive: Any) -> None:
    """ModelError unless all sizes in the program are arithmetic on names and numbers, and no input structure names a module."""
    try:
        program = json.loads(archive.get_record(PROGRAM))
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"model.path: {path} cannot be loaded: {PROGRAM} in it is missing or damaged; {HOW_TO_SAVE}") from error
    for key, value in iterate_json(program):
        if key == "expr_str" and not is_arithmetic(value):
            raise ModelError(
                f"model.path: {path} is refused: {str(value)[:60]!r} is not arithmetic, and torch would run it as code; {HOW_TO_SAVE}"
            )
        if key == "default_factory_module":
            raise ModelError(f"model.path: {path} is refused: it uses a defaultdict, for which torch would import {value!r}; {HOW_TO_SAVE}")


def iterate_json(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of JSON, including JSON inside of strings, as torch stores the structure of inputs."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from iterate_json(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from iterate_json(inner)
    elif isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            inside = json.loads(value)
        except ValueError:
            return  # torch does not read it as JSON either
        yield from iterate_json(inside)


def is_arithmetic(expression: Any) -> bool:
    """Whether it consists of names, numbers, operators and functions of sympy, whose classes begin with a capital; no dot, no lambda."""
    try:
        nodes = list(ast.walk(ast.parse(expression, mode="eval")))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return False
    return all(isinstance(node, ARITHMETIC) and _is_allowed(node) for node in nodes)


def _is_allowed(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (bool, int, float)) or (isinstance(node.value, str) and bool(TEXT.fullmatch(node.value)))
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and (node.func.id[0].isupper() or node.func.id in SIZE_FUNCTIONS)
    return True


def inspect(path: Path) -> Inspection:
    """Loads the program, after the same checks as `obtain`."""
    import torch

    program = load(path)
    session = ProgramSession(path, program)
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    inputs, outputs = (tuple(Port(e["name"], tuple(e["shape"]), e["dtype"]) for e in side) for side in (session.inputs, session.outputs))
    fixed = [port.name for port in inputs if port.shape and port.shape[0] is not None]
    how = "; for others export it with dynamic_shapes=({0: torch.export.Dim('batch', min=1, max=1024)},)"
    multiply_adds, unknown = _multiply_adds(session, inputs)
    return Inspection(
        kind=f"torch.export program (this is torch {torch.__version__})",
        inputs=inputs,
        outputs=outputs,
        operators=Counter(str(node.target).removesuffix(".default") for node in calls),
        parameters=sum(tensor.numel() for tensor in program.parameters()),
        multiply_adds=multiply_adds,
        notes=(*(f"input {name} has a fixed batch size{how}" for name in fixed), *unknown),
        model={"name": "torch_file", "path": str(path)},
    )


def _multiply_adds(session: ProgramSession, inputs: tuple[Port, ...]) -> tuple[int | None, tuple[str, ...]]:
    """Multiply-adds per sample, counted in a run on zeros (torch counts two operations for each), or None and a note."""
    from torch.utils.flop_counter import FlopCounterMode

    zeros = {port.name: np.zeros([1 if side is None else side for side in port.shape], port.dtype) for port in inputs}
    try:
        with FlopCounterMode(display=False) as counter:
            session.run(zeros)
    except ModelError as error:
        return None, (f"multiply-adds are unknown: the program fails on zeros ({one_line(error)})",)
    first = inputs[0].shape[:1]
    return counter.get_total_flops() // 2 // max(1, (first[0] if first else 1) or 1), ()
