"""Which modules of the library an import reaches, found by reading and not by importing."""

import ast
import functools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgewise.config import syntax

ROOT = Path(__file__).resolve().parents[2]
EMPTY = syntax.canonical(ast.parse(""))
PACKAGE = "edgewise"


def closure(module: str, root: Path = ROOT, stop: Collection[str] = ()) -> set[str]:
    """All modules edgewise.* that importing `module` reaches, itself included if it is one: at module level or inside functions, by
    import statements, by `import_module` with a literal, and by literals that are a module's dotted path ("edgewise.formats.onnx.run").
    An __init__.py counts where it holds more than a docstring. What only modules of `stop` reach is left out; they themselves are not."""
    seen: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            if name in stop:
                continue
            pending += [found for reached in _named(root, name) for found in _with_parents(root, reached)]
    return {name for name in seen if _ours(name) and says_anything(name, root)}


def says_anything(module: str, root: Path = ROOT) -> bool:
    """Whether there is more than a docstring in the module's file."""
    return _says(_file(root, module)).anything


def _named(root: Path, module: str) -> Iterator[str]:
    """Modules of the library that this one names."""
    path = _file(root, module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    says = _says(path)
    yield from filter(None, (_longest(root, syntax.absolute(name, package)) for name in says.imports))
    yield from (name for name in says.literals if _is_file(root, name))


def _with_parents(root: Path, module: str) -> Iterator[str]:
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        if _is_file(root, name):
            yield name


def _longest(root: Path, name: str) -> str:
    """The longest part of a dotted name that is a module of the library; "" if none is."""
    while _ours(name) and not _is_file(root, name):
        name = name.rpartition(".")[0]
    return name if _ours(name) else ""


def _ours(name: str) -> bool:
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def _is_file(root: Path, module: str) -> bool:
    return any(path.is_file() for path in _paths(root, module))


def _paths(root: Path, module: str) -> tuple[Path, Path]:
    base = root.joinpath(*module.split("."))
    return base / "__init__.py", base.with_name(f"{base.name}.py")


def _file(root: Path, module: str) -> Path:
    for path in _paths(root, module):
        if path.is_file():
            return path
    raise ValueError(f"{module}: there is no such module below {root}")


@dataclass(frozen=True)
class Says:
    """What a file says: its imports (see `syntax.imports`), literals that look like a module of the library, and whether there is more
    than a docstring."""

    imports: tuple[str, ...]
    literals: frozenset[str]
    anything: bool


def _says(path: Path) -> Says:
    return _says_source(path.read_bytes(), str(path))


@functools.cache  # by content: the closures of all stages share most of their files
def _says_source(source: bytes, filename: str) -> Says:
    tree = syntax.parse(source, filename)
    strings = (node.value for node in syntax.iterate_reached(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    literals = (text.partition(":")[0] for text in strings if re.fullmatch(r"[\w.]+(:\w+)?", text))
    return Says(tuple(syntax.imports(tree)), frozenset(filter(_ours, literals)), syntax.canonical(tree) != EMPTY)
