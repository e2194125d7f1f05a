"""Read an exported program, torch.export.save's file, from anyone.

A program may hold pickles (example inputs, some weights), which torch loads even if they run code, and expressions of sizes, which sympy
evaluates as Python. So the archive is checked first, with torch's own reader, because Python's reads some archives differently. Allowed
are only members that torch.export.save writes, pickles of nothing but tensors, and arithmetic. Everything else is refused.
"""

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgewise.errors import ModelError
from edgewise.sources import checkpoint
from edgewise.sources.inspection import one_line

MEMBERS = re.compile(  # what torch.export.save writes, without the archive's root; model.pt beside weights: torch 2.8
    r"models/model\.json|archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)|extra/.+"
    r"|data/(weights/(weight_\d+|model_weights_config\.json|model\.pt)|constants/(tensor_\d+|model_constants_config\.json|model\.pt))"
    r"|data/sample_inputs/model\.pt"
)
TENSOR_FILE = re.compile(r"(weight|tensor)_\d+")  # torch unpickles constants in files of other names
PROGRAM = "models/model.json"
PROGRAM_FILE = "program.pt2"  # in models/source
SIZE_FUNCTIONS = ("floor", "ceiling", "sqrt", "exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh")
ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Name, ast.Constant),
    *(ast.Load, ast.keyword, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
TEXT = re.compile(r"\w+|[-+]?[\d.]+(e[-+]?\d+)?")  # in Symbol('s0', integer=True), Float('1.5', precision=53)
HOW_TO_SAVE = "save it with torch.export.save(torch.export.export(model.eval(), inputs, dynamic_shapes=...), FILE)"


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
