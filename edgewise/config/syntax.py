"""What a Python file says, whatever it looks like: its syntax tree as text, and the modules that it imports.

The text is the same for Python 3.11, 3.12 and 3.13, which differ in the fields of nodes (`type_params`), in how they cut f-strings
into pieces, and in what `ast.dump` leaves out. It leaves out what cannot change a result: positions, comments, docstrings, other bare
strings, and annotations in functions. Annotations in class bodies stay: they are the fields of dataclasses.
"""

import ast
import warnings
from collections.abc import Iterator
from typing import Any, TypeAlias

# A value that is still to be written, with whether it stands in a function's body; or a piece of finished text.
Pending: TypeAlias = tuple[ast.AST, bool] | str

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LEFT_OUT = {
    "FunctionDef": {"returns", "type_comment"},
    "AsyncFunctionDef": {"returns", "type_comment"},
    "arg": {"annotation", "type_comment"},
    "Module": {"type_ignores"},
    "Constant": {"kind"},  # the u of u"text"
}
IMPORTERS = {"import_module", "__import__"}


def parse(source: bytes, filename: str) -> ast.Module:
    """The syntax tree. Raises SyntaxError, with the line where there is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape sequence is for those who run the file
        try:
            return ast.parse(source, filename)
        except (ValueError, RecursionError) as error:  # a null byte in Python before 3.11.4; very deep nesting
            raise SyntaxError(str(error), (filename, None, None, None)) from None


def canonical(tree: ast.AST) -> str:
    """The tree as ASCII text: node names, and fields that are neither None nor empty. Not recursive: any depth that Python parses."""
    parts: list[str] = []
    pending: list[Pending] = [(tree, False)]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            parts.append(item)
        else:
            pending.extend(reversed(_written(*item)))
    return "".join(parts)


def _written(node: ast.AST, in_function: bool) -> list[Pending]:
    if isinstance(node, ast.AnnAssign) and in_function:
        node = _plain(node)
    inside = isinstance(node, FUNCTIONS) or (in_function and not isinstance(node, ast.ClassDef))
    written: list[Pending] = ["(", type(node).__name__]
    for name, value in _fields(node):
        written.append(f" {name}=")
        if isinstance(value, list):
            written.append("[")
            for item in value:
                written += [_item(item, inside), ","]
            written.append("]")
        else:
            written.append(_item(value, inside))
    return [*written, ")"]


def _item(value: Any, inside: bool) -> Pending:
    return (value, inside) if isinstance(value, ast.AST) else _literal(value)


def _literal(value: Any) -> str:
    """ascii() and not repr(): which characters repr() escapes changes with the Unicode version. hex(): int to decimal has a limit."""
    return hex(value) if type(value) is int else ascii(value)


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    left_out = LEFT_OUT.get(type(node).__name__, set())
    for name in node._fields:
        value = getattr(node, name, None)
        if name == "body" and isinstance(value, list):
            value = _statements(value) or [ast.Pass()]
        elif isinstance(node, ast.JoinedStr):
            value = _pieces(node.values)
        elif name == "format_spec" and isinstance(value, ast.JoinedStr) and not _pieces(value.values):
            value = None  # f"{x:}"
        elif isinstance(value, list) and name in ("orelse", "finalbody"):
            value = _statements(value)
        if name not in left_out and value is not None and value != []:
            yield name, value


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements except strings on their own: docstrings of modules, classes, functions and attributes."""
    return [line for line in body if not (isinstance(line, ast.Expr) and _text(line.value) is not None)]


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _pieces(values: list[ast.expr]) -> list[ast.expr]:
    """The pieces of an f-string, neighbouring texts joined and empty ones left out: Python's versions cut them differently."""
    pieces: list[ast.expr] = []
    for value in values:
        text, before = _text(value), _text(pieces[-1]) if pieces else None
        if text is not None and before is not None:
            pieces[-1] = ast.Constant(before + text)
        elif text != "":
            pieces.append(value)
    return pieces


def _plain(node: ast.AnnAssign) -> ast.stmt:
    """An annotated assignment as a plain one. Without a value it stays a declaration: it makes the name a local one."""
    if node.value is not None:
        return ast.Assign([node.target], node.value)
    return ast.AnnAssign(target=node.target, annotation=ast.Constant(None), value=None, simple=node.simple)


def imports(tree: ast.AST) -> list[str]:
    """Dotted names that the file imports, in functions too, sorted; those relative to its package begin with dots.

    `from a import b` gives a.b, which is a module or something in the module a. `importlib.import_module("a.b")` counts with a literal
    name only. What stands under `if TYPE_CHECKING` is never imported.
    """
    found: set[str] = set()
    for node in iterate_reached(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found.update(base if alias.name == "*" else _joined(base, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and _called(node.func) in IMPORTERS:
            found.add(_text(node.args[0]) or "")
    return sorted(found - {""})


def iterate_reached(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node except those under `if TYPE_CHECKING`."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and _called(node.test) == "TYPE_CHECKING":
            pending.extend(node.orelse)
        else:
            pending.extend(ast.iter_child_nodes(node))


def _called(node: ast.expr) -> str:
    """The last name of f or module.f."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _joined(base: str, name: str) -> str:
    return f"{base}{name}" if base.endswith(".") else f"{base}.{name}"


def absolute(name: str, package: str) -> str:
    """The full name of an import that the package (the module itself, for an __init__.py) makes; "" where it leads out of all packages."""
    rest = name.lstrip(".")
    level = len(name) - len(rest)
    if not level:
        return name
    parents = package.split(".")
    if level > len(parents):
        return ""
    return ".".join([*parents[: len(parents) - level + 1], *([rest] if rest else [])])
