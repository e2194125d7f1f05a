"""The canonical form of Python source: what is no change, what is one, in every version of Python; and imports."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from edgewise.config import syntax
from tests.support.closure import ROOT, closure


def form(source: str) -> str:
    return syntax.canonical(syntax.parse(dedent(source).encode(), "test"))


BASE = """
    import os

    class Box:
        side: int = 3
        name: str

        def area(self, scale: float = 1.0, *rest: int, plain: bool = False) -> float:
            total: float = self.side ** 2
            found: list[int]
            for found in rest:
                total += found
            return f"{total}" + 'a "b"'
"""

SAME = {
    "comment": (": int = 3", ": int = 3  # of a square"),
    "blank lines": ("\n    class", "\n\n\n    class"),
    "spaces": ("self.side ** 2", "self.side**2"),
    "parentheses": ("self.side ** 2", "(self.side ** 2)"),
    "line broken": ("self, scale", "self,\n                scale"),
    "quotes": ("'a \"b\"'", '"a \\"b\\""'),
    "pieces of a string": ("'a \"b\"'", "'a ' '\"b\"'"),
    "u before a string": ("'a \"b\"'", "u'a \"b\"'"),
    "docstring of the module": ("\n    import os", '\n    """A module."""\n    import os'),
    "docstring of a class": ("class Box:", 'class Box:\n        """A box."""'),
    "docstring of a function": ("-> float:", '-> float:\n            """Its area."""'),
    "docstring of a field": ("name: str", 'name: str\n        """What it is called."""'),
    "annotation of an argument": ("scale: float", "scale: int"),
    "no annotation of an argument": ("scale: float", "scale"),
    "annotation of the other arguments": ("*rest: int, plain: bool", "*rest, plain: str"),
    "annotation of what is returned": (" -> float:", ":"),
    "annotation of a local variable": ("total: float", "total: int"),
    "no annotation of a local variable": ("total: float", "total"),
    "annotation of a declared variable": ("found: list[int]", "found: int"),
}

CHANGES = {
    "number": ("** 2", "** 3"),
    "type of a number": ("= 1.0", "= 1"),
    "number or truth": (" = False", " = 0"),
    "text": ("'a \"b\"'", "'a b'"),
    "bytes": ("'a \"b\"'", "b'a \"b\"'"),
    "operator": ("total += found", "total -= found"),
    "name of a local variable": ("total", "sum"),
    "name of a function": ("def area", "def volume"),
    "default": ("= False", "= True"),
    "no default": (" = False", ""),
    "field's annotation": ("side: int", "side: float"),
    "field's default": ("name: str", "name: str = ''"),
    "no field": ("\n        name: str", ""),
    "import": ("import os", "import io"),
    "decorator": ("        def area", "        @staticmethod\n        def area"),
    "declaration": ("found: list[int]", "other: list[int]"),
    "format of a piece": ("{total}", "{total:.2f}"),
    "conversion of a piece": ("{total}", "{total!r}"),
    "order": ("side: int = 3\n        name: str", "name: str\n        side: int = 3"),
}


@pytest.mark.parametrize("edit", SAME)
def test_no_change(edit: str) -> None:
    edited = BASE.replace(*SAME[edit])
    assert edited != BASE
    assert form(edited) == form(BASE)


@pytest.mark.parametrize("edit", CHANGES)
def test_change(edit: str) -> None:
    edited = BASE.replace(*CHANGES[edit])
    assert edited != BASE
    assert form(edited) != form(BASE)


@pytest.mark.parametrize("head", ["def f():", "class A:", "async def f():", "if x:", "try:\n    x\nexcept E:"])
def test_a_body_of_a_docstring_alone_is_a_body_that_does_nothing(head: str) -> None:
    assert form(f"{head}\n    'Text.'") == form(f"{head}\n    pass") != form(f"{head}\n    return 1" if "def" in head else f"{head}\n    y")


def test_a_branch_of_a_text_alone_is_no_branch() -> None:
    assert form("for x in y:\n    z\nelse:\n    'Text.'") == form("for x in y:\n    z") != form("for x in y:\n    z\nelse:\n    1")


def test_annotations_of_a_class_in_a_function_and_of_a_module_stay() -> None:
    assert form("def f():\n    class A:\n        x: int = 1") != form("def f():\n    class A:\n        x: str = 1")
    assert form("x: int = 1") != form("x: str = 1")
    assert form("class A:\n    def f(self):\n        x: int = 1") == form("class A:\n    def f(self):\n        x = 1")


def test_a_declared_name_is_not_an_assigned_one() -> None:
    forms = {form(f"def f():\n    {line}\n    return x") for line in ("x: int", "x: int = 1", "x = 2", "pass")}
    assert len(forms) == 4


@pytest.mark.parametrize(
    "pair", ["{**a}|{None: a}", "f(*a)|f(a)", "1|True", "1|1.0", "1|1j", "'1'|1", "'a'|b'a'", "None|'None'", "...|'...'", "(1,)|[1]"]
)
def test_different_expressions_have_different_forms(pair: str) -> None:
    left, right = pair.split("|")
    assert form(left) != form(right)


def test_any_depth_and_any_number() -> None:
    long = " + ".join(["x"] * 900)
    assert form(long) != form(long.replace("x", "y", 1))
    assert form("x = 0x" + "f" * 9000) != form("x = 0x" + "f" * 8999 + "e")


def test_a_warning_of_the_parser_is_not_passed_on(recwarn: pytest.WarningsRecorder) -> None:
    form(r"x = '\d' is 1")
    assert not recwarn.list


def test_fields_of_newer_pythons_count_only_where_they_are_used() -> None:
    tree = ast.parse("def f(): pass")
    plain, function = syntax.canonical(tree), tree.body[0]
    function._fields = tuple(name for name in function._fields if name != "type_params")  # type: ignore[misc]  # as in Python 3.11
    assert syntax.canonical(tree) == plain
    function._fields += ("type_params",)  # type: ignore[misc]
    function.type_params = []  # type: ignore[attr-defined]  # as in Python 3.12
    assert syntax.canonical(tree) == plain
    function.type_params = [ast.Name("T")]  # type: ignore[attr-defined]
    assert syntax.canonical(tree) != plain


def test_pieces_of_an_f_string_are_joined_however_python_cuts_them() -> None:
    def cut(*texts: str, spec: list[ast.expr] | None) -> str:
        value = ast.FormattedValue(ast.Name("x"), -1, None if spec is None else ast.JoinedStr(spec))
        return syntax.canonical(ast.JoinedStr([*(ast.Constant(text) for text in texts), value, ast.Constant("")]))

    assert cut("ab", spec=None) == cut("a", "", "b", spec=[]) == cut("a", "b", spec=[ast.Constant("")])
    assert cut("ab", spec=None) != cut("a", spec=None) != cut("a", spec=[ast.Constant(">")])


SAMPLES = [
    *(
        'f"{x:}"',
        'f"a{{b{x!r:>{w}}c}}" "d" f""',
        'f"{x = }"',
        'f"{x=:.2f}"',
        "f'{x:{y}{z}}'",
        r"rf'\d{x:\d}'",
        "f'''{\nx\n}'''",
        "f'{x!r:}' ''",
    ),
    *(
        "'\U0001fae8'",
        "with (a as b, c as d): pass",
        "match x:\n  case {'a': None, **r}: pass",
        "lambda *, a, b=1: a",
        "async def f(): pass",
    ),
]
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import syntax
for source in [*(text.encode() for text in eval(sys.argv[2])), *(path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.py")))]:
    tree = syntax.parse(source, "test")
    print(syntax.canonical(tree), syntax.imports(tree))
"""


def interpreter(version: str) -> str:
    """A Python of this version on PATH or of pyenv. Skips the test where there is none."""
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which(f"python{version}"), *map(str, home.glob(f"versions/{version}.*/bin/python"))]
    for path in filter(None, found):
        if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return path
    pytest.skip(f"there is no Python {version} on this machine")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_python_gives_the_same(version: str) -> None:
    def run(python: str) -> list[str]:
        command = [python, "-c", SCRIPT, str(Path(syntax.__file__).parent), repr(SAMPLES)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    here = run(sys.executable)
    assert len(here) > len(SAMPLES)
    assert run(interpreter(version)) == here


# Imports


def test_imports_are_found_everywhere_but_for_type_checkers() -> None:
    source = """
        import a.b, c as d
        from e import f, g as h
        from . import i
        from ..j import k
        from l import *
        from . import *
        if TYPE_CHECKING:
            import m
        else:
            import n
        if typing.TYPE_CHECKING:
            import o
        def late():
            import p
            importlib.import_module("q.r")
            import_module(".s", __package__)
            import_module(name)
    """
    expected = {"a.b", "c", "e.f", "e.g", ".i", "..j.k", "l", ".", "n", "p", "q.r", ".s"}
    assert set(syntax.imports(ast.parse(dedent(source)))) == expected


@pytest.mark.parametrize(
    ("name", "full"), [("a.b", "a.b"), (".", "p.q"), (".a", "p.q.a"), ("..a.b", "p.a.b"), ("..", "p"), ("...", ""), ("...a", "")]
)
def test_relative_imports_start_from_the_package(name: str, full: str) -> None:
    assert syntax.absolute(name, "p.q") == full


@pytest.fixture
def library(tmp_path: Path) -> Path:
    files = {
        "edgewise/__init__.py": "",
        "edgewise/a/__init__.py": '"""Only prose."""',
        "edgewise/a/one.py": "from . import two\nimport numpy",
        "edgewise/a/two.py": "def f():\n    from edgewise.b.three import g",
        "edgewise/b/__init__.py": "X = 1",
        "edgewise/b/three.py": "from ..a.one import something\nRUNNER = 'edgewise.c.run'\nNOT = 'edgewise.c.absent, edgewise.d'",
        "edgewise/c/run.py": "import importlib\nimportlib.import_module('edgewise.c.late')\nTARGET = 'edgewise.c.named:main'",
        "edgewise/c/late.py": "if TYPE_CHECKING:\n    import edgewise.d",
        "edgewise/c/named.py": "from edgewise import e",
        "edgewise/d.py": "",
        "edgewise/e.py": "x = 1",
        "stages/toy.py": "import edgewise.c.named\nfrom stages import other",
        "stages/other.py": "import edgewise.d",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_closure_follows_every_kind_of_import(library: Path) -> None:
    everything = {"a.one", "a.two", "b", "b.three", "c.run", "c.late", "c.named", "e"}
    assert closure("edgewise.a.one", library) == {f"edgewise.{name}" for name in everything}
    assert closure("edgewise.b.three", library) == closure("edgewise.a.one", library)  # a cycle
    assert closure("stages.toy", library) == {"edgewise.c.named", "edgewise.e"}


def test_closure_of_a_module_that_is_not_there(library: Path) -> None:
    with pytest.raises(ValueError, match=r"edgewise\.absent"):
        closure("edgewise.absent", library)


def test_closure_holds_whatever_python_really_imports() -> None:
    source = "import sys, edgewise.config.digests; print(*(name for name in sys.modules if name.startswith('edgewise.')))"
    loaded = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {"edgewise.config.syntax", "edgewise.errors"} <= set(loaded) - {"edgewise.config"} <= closure("edgewise.config.digests")
