"""Which modules of the library an import reaches, found by reading and not by importing."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from edgewise.config import syntax

ROOT = Path(__file__).resolve().parents[2]
EMPTY = syntax.canonical(ast.parse(""))
PACKAGE = "edgewise"


def closure(module: str, root: Path = ROOT) -> set[str]:
    """All modules edgewise.* that importing `module` reaches, itself included if it is one: at module level or inside functions, by
    import statements, by `import_module` with a literal, and by literals that are a module's dotted path ("edgewise.formats.onnx.run").
    An __init__.py counts where it holds more than a docstring."""
    seen: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += [found for reached in _named(root, name) for found in _with_parents(root, reached)]
    return {name for name in seen if _ours(name) and syntax.canonical(_tree(root, name)) != EMPTY}


def _named(root: Path, module: str) -> Iterator[str]:
    """Modules of the library that this one names."""
    path, tree = _file(root, module), _tree(root, module)
    package = module if path is not None and path.name == "__init__.py" else module.rpartition(".")[0]
    for name in syntax.imports(tree):
        found = _longest(root, syntax.absolute(name, package))
        if found:
            yield found
    for node in syntax.reached(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[\w.]+(:\w+)?", node.value):
            name = node.value.partition(":")[0]
            if _ours(name) and _file(root, name):
                yield name


def _with_parents(root: Path, module: str) -> Iterator[str]:
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        if _file(root, name):
            yield name


def _longest(root: Path, name: str) -> str:
    """The longest part of a dotted name that is a module of the library; "" if none is."""
    while _ours(name) and not _file(root, name):
        name = name.rpartition(".")[0]
    return name if _ours(name) else ""


def _ours(name: str) -> bool:
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def _file(root: Path, module: str) -> Path | None:
    base = root.joinpath(*module.split("."))
    return next((path for path in (base / "__init__.py", base.with_name(f"{base.name}.py")) if path.is_file()), None)


def _tree(root: Path, module: str) -> ast.Module:
    path = _file(root, module)
    if path is None:
        raise ValueError(f"{module}: there is no such module below {root}")
    return syntax.parse(path.read_bytes(), str(path))
