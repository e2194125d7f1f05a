"""Digests of code: what a stage's result depends on, beside data and settings.

    digest(["edgewise.proof", "stages.quantize", "my_nets:tiny"], root)

A stage script names the parts of the library in CODE; `expand` puts the variant's own plugins into it. Of Python a digest takes what the
syntax says (see syntax.py), so that prose and formatting change nothing; of all other files the bytes. Nothing is imported: modules
are found on disk. What a stage script imports from the project, and whatever a user's own module imports that is not installed, counts
with it; of the library itself a named package counts whole, and a named module with what it imports of its own package.
"""

import contextlib
import functools
import hashlib
import importlib
import itertools
import json
import os
import re
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from edgewise.config import syntax
from edgewise.errors import ConfigError

LIBRARY = Path(__file__).resolve().parents[2]  # the folder that holds edgewise/
CACHE = Path(".edgewise/code-digests")
CACHED_FILES = 2000  # about ten times the library; beyond that, what the last run did not need is dropped
STRICT = ("edgewise", "stages")  # named by CODE: a typo there must not pass for an attribute
SITES = {"site-packages", "dist-packages"}  # where pip and Debian install


@dataclass(frozen=True)
class File:
    """digest: sha256 in hex of what the file says. imports: see `syntax.imports`."""

    digest: str
    imports: tuple[str, ...]


@dataclass(frozen=True)
class Module:
    """name: dotted. path: its file; None for a folder without __init__.py, and for what is built into Python. folders: where its
    submodules are; none if it is no package."""

    name: str
    path: Path | None
    folders: tuple[Path, ...] = ()

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]

    @property
    def package(self) -> str:
        return self.name if self.folders else self.name.rpartition(".")[0]

    @property
    def label(self) -> str:
        """The file's place below the folder in which the top package is, the same on every machine."""
        assert self.path is not None
        return self.name.replace(".", "/") + (f"/{self.path.name}" if self.folders else self.path.suffix)


def digest(names: Iterable[str], root: Path = Path()) -> str:
    """The digest of the code that the names stand for: sha256 in hex. For many digests, keep one `Digests`: it reads each file once.

    Raises ConfigError for a name that is nowhere and for a file with a syntax error.
    """
    with Digests(root) as digests:
        return digests.digest(names)


def expand(code: Sequence[str], **plugin: str | Sequence[str]) -> tuple[str, ...]:
    """CODE with `{format}`, `{task}` and the like replaced, once for each value that is given: a name with a placeholder of no value is
    left out. Raises ConfigError for a placeholder that nothing is given for."""
    names: list[str] = []
    for name in code:
        values = {key: [value] if isinstance(value, str) else value for key, value in plugin.items() if "{" + key + "}" in name}
        names += [_expanded(name, plugin | dict(zip(values, chosen, strict=True))) for chosen in itertools.product(*values.values())]
    return tuple(names)


def _expanded(name: str, plugin: Mapping[str, object]) -> str:
    try:
        return name.format_map(plugin)
    except (KeyError, IndexError, ValueError, AttributeError):
        known = ", ".join("{" + key + "}" for key in sorted(plugin)) or "none"
        raise ConfigError(f"CODE: {name!r} has an unknown placeholder; known here: {known}; correct CODE in the stage script") from None


class Digests:
    """Digests of the code as it is now: each file is read once, when it is first asked for. A new object sees what was edited since.

    root: the project, where stages/ and the user's own modules are. library: the folder that holds edgewise/. What a file says is kept
    in `cache` (by default .edgewise/code-digests of the project) under the sha256 of its bytes; `save`, or the end of a `with`
    block, writes it.
    """

    def __init__(self, root: Path = Path(), library: Path = LIBRARY, cache: Path | None = None):
        self.root, self.library = root.absolute(), library.absolute()
        self._store = Store(cache or self.root / CACHE)
        self._files: dict[Path, File] = {}
        self._named: dict[str, dict[str, str]] = {}
        self._found: dict[str, Module | None] = {}
        importlib.invalidate_caches()  # the finders keep lists of folders, too old for files of the last moment

    def __enter__(self) -> "Digests":
        return self

    def __exit__(self, *_: object) -> None:
        self.save()

    def save(self) -> None:
        self._store.save()

    def digest(self, names: Iterable[str]) -> str:
        """The digest of all files that the names stand for; neither their order nor repeated names matter."""
        return _of({label: mark for name in names for label, mark in self.files(name).items()})

    def files(self, name: str) -> dict[str, str]:
        """What one dotted name stands for: label of each file -> its digest; for an installed package, DISTRIBUTION==VERSION."""
        if name not in self._named:
            self._named[name] = self._mark(name)
        return self._named[name]

    def file(self, path: Path) -> str:
        """The digest of one file: of what Python says, of the bytes of anything else."""
        return self._file(path).digest

    def _mark(self, name: str) -> dict[str, str]:
        module, whole = self._resolve(name)
        if self._installed(module):
            owner = find_distribution(module)
            if owner is not None:
                return {owner: ""}
        if module.top == "edgewise":
            return self._below(module) if module.folders and whole else self._family(module)
        marks = self._follow([module], library=module.top != "stages")
        return marks | self._below(module) if module.folders and whole else marks

    def _resolve(self, name: str) -> tuple[Module, bool]:
        """The module that a name says, and whether the name is the module's own and not that of something in it."""
        dotted, _, attribute = name.partition(":")
        module = self._find(dotted) if re.fullmatch(r"\w+(\.\w+)*", dotted) else None
        if module is None:
            raise ConfigError(f"{name!r}: there is no module {dotted.partition('.')[0]!r} in {self.root} or on sys.path; {SPELLING}")
        exact = module.name == dotted
        in_module = not exact or bool(attribute)
        if (in_module and module.path is None and module.folders) or (not exact and (attribute or module.top in STRICT)):
            known = ", ".join(sorted(_submodules(module))) or "no modules"
            raise ConfigError(f"{name!r}: {module.name} has no module {_next(name, module.name)!r}; it has {known}; {SPELLING}")
        return module, not in_module

    def _find(self, dotted: str) -> Module | None:
        """The longest part of a dotted name that is a module."""
        if dotted not in self._found:
            self._found[dotted] = self._locate(dotted)
        return self._found[dotted]

    def _locate(self, dotted: str) -> Module | None:
        above, _, last = dotted.rpartition(".")
        if not above:
            return _module(dotted, self._top(dotted))
        parent = self._find(above)
        if parent is None or parent.name != above or not parent.folders:
            return parent
        spec = PathFinder.find_spec(last, [str(folder) for folder in parent.folders])
        return _module(dotted, spec) or parent

    def _top(self, name: str) -> ModuleSpec | None:
        """Like `import` with the project's root in front of sys.path, except that nothing is executed."""
        if name in STRICT:
            return PathFinder.find_spec(name, [str(self.library if name == "edgewise" else self.root)])
        path = [str(self.root), *sys.path]
        for finder in sys.meta_path:
            if finder is PathFinder:
                spec = PathFinder.find_spec(name, path)
            else:
                spec = finder.find_spec(name, None) if hasattr(finder, "find_spec") else None  # import passes over those without, too
            if spec is not None:
                return spec
        return None

    def _below(self, package: Module) -> dict[str, str]:
        """Every file below a package, without what Python compiled and hidden files."""
        prefix = package.name.replace(".", "/")
        return {
            f"{prefix}/{path.relative_to(folder).as_posix()}": self._file(path).digest
            for folder in package.folders
            for path in _tree(folder)
        }

    def _family(self, module: Module) -> dict[str, str]:
        """A module of the library, and what it imports of the package that it lies in: modules again, packages whole."""
        marks: dict[str, str] = {}
        pending, seen, place = [module], {module.name}, module.name.rpartition(".")[0]
        while pending:
            member = pending.pop()
            if member.folders and member is not module:
                marks |= self._below(member)
                continue
            file = self._file(member.path)
            marks[member.label] = file.digest
            found = (other for other in self._imported(file, member.package) if other.name.rpartition(".")[0] == place)
            for other in found:
                if other.name not in seen:
                    seen.add(other.name)
                    pending.append(other)
        return marks

    def _follow(self, modules: list[Module], library: bool) -> dict[str, str]:
        """The modules, the packages around them, and whatever these import that is not installed; of the library only if `library`."""
        marks: dict[str, str] = {}
        pending, seen, first = list(modules), set(), set(modules)  # an installed file that no distribution claims counts by itself
        while pending:
            module = pending.pop()
            if module.name in seen or (module not in first and self._installed(module)) or (module.top == "edgewise" and not library):
                continue
            seen.add(module.name)
            pending += self._around(module)
            if module.path is not None:
                file = self._file(module.path)
                marks[module.label] = file.digest
                pending += self._imported(file, module.package)
        return marks

    def _around(self, module: Module) -> list[Module]:
        parent = self._find(module.name.rpartition(".")[0]) if "." in module.name else None
        return [parent] if parent else []

    def _imported(self, file: File, package: str) -> list[Module]:
        found = (self._find(name) for name in (syntax.absolute(name, package) for name in file.imports) if name)
        return [module for module in found if module is not None]

    def _installed(self, module: Module) -> bool:
        """Whether a module belongs to the standard library or to an installed distribution; never true of edgewise and stages."""
        if module.top in STRICT:
            return False
        places = [module.path] if module.path else list(module.folders)
        return not places or any(SITES & set(place.parts) or _standard(place) for place in places)

    def _file(self, path: Path | None) -> File:
        assert path is not None
        if path not in self._files:
            self._files[path] = self._read(path)
        return self._files[path]

    def _read(self, path: Path) -> File:
        try:
            source = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; make it readable, or remove it if it belongs to no code") from None
        key = hashlib.sha256(source).hexdigest()
        if path.suffix != ".py":
            return File(key, ())
        known = self._store.get(key)
        if known is None:
            known = read_python(source, path)
            self._store.put(key, known)
        return known


SPELLING = "check the spelling; write package.module or package.module:function"


def read_python(source: bytes, path: Path) -> File:
    try:
        tree = syntax.parse(source, str(path))
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise ConfigError(f"{path}{line}: {error.msg}; correct it, then run the same command again") from None
    return File(hashlib.sha256(syntax.canonical(tree).encode()).hexdigest(), tuple(syntax.imports(tree)))


class Store:
    """What files say, kept from run to run: sha256 of a file's bytes -> File. A damaged store, or one by another syntax.py, is empty."""

    def __init__(self, path: Path):
        self.path = path
        self._used: dict[str, File] = {}
        self._changed = False

    @functools.cached_property
    def _kept(self) -> dict[str, File]:
        try:
            head, _, body = self.path.read_bytes().partition(b"\n")
        except OSError:
            return {}  # the first run, or a folder that may not be read: everything is parsed
        if head != self._head(body):
            return {}
        return {key: File(mark, tuple(imports)) for key, (mark, imports) in json.loads(body).items()}

    def _head(self, body: bytes) -> bytes:
        """A first line that tells damage and which syntax.py wrote the body."""
        return f"{_scheme()} {hashlib.sha256(body).hexdigest()}".encode()

    def get(self, key: str) -> File | None:
        file = self._kept.get(key)
        if file is not None:
            self._used[key] = file
        return file

    def put(self, key: str, file: File) -> None:
        self._used[key] = file
        self._changed = True

    def save(self) -> None:
        """Write what is new, whole or not at all. A folder that cannot be written only costs the next run its time."""
        if not self._changed:
            return
        kept = self._kept | self._used
        if len(kept) > CACHED_FILES:
            kept = self._used
        body = json.dumps({key: [file.digest, file.imports] for key, file in kept.items()}).encode()
        with contextlib.suppress(OSError):
            replace(self.path, self._head(body) + b"\n" + body)
            self._changed = False


def replace(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def find_distribution(module: Module) -> str | None:
    """NAME==VERSION of what installed a module; python for the standard library; None where nothing claims the file."""
    place = module.path or next(iter(module.folders), None)
    if place is None or _standard(place):
        return "python"
    from importlib import metadata  # 30 ms, and few projects name installed code

    likely = metadata.distributions(name=module.top)  # most are called like their module; reading all lists of files takes 0.2 s
    for found in itertools.chain(likely, metadata.distributions()):
        if _claims(found.read_text("RECORD"), found.locate_file(""), place):
            return f"{re.sub(r'[-_.]+', '-', found.metadata['Name']).lower()}=={found.version}"
    return None


def _claims(record: str | None, site: object, place: Path) -> bool:
    """Whether the list of installed files (path,hash,size) has the file, or one below the folder."""
    try:
        relative = place.relative_to(Path(str(site)).absolute()).as_posix()
    except ValueError:
        return False
    return re.search(rf"^\"?{re.escape(relative)}[,/\"]", record or "", re.MULTILINE) is not None


def _standard(path: Path) -> bool:
    return not SITES & set(path.parts) and any(path.is_relative_to(folder) for folder in _standard_folders())


@functools.cache
def _standard_folders() -> frozenset[str]:
    paths = sysconfig.get_paths()
    return frozenset({paths["stdlib"], paths["platstdlib"], str(Path(os.__file__).parent)})


@functools.cache
def _scheme() -> str:
    return hashlib.sha256(Path(syntax.__file__).read_bytes()).hexdigest()


def _module(name: str, spec: ModuleSpec | None) -> Module | None:
    if spec is None:
        return None
    folders = tuple(dict.fromkeys(Path(folder).absolute() for folder in spec.submodule_search_locations or ()))
    return Module(name, Path(spec.origin).absolute() if spec.has_location and spec.origin else None, folders)


def _tree(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith(".") and not name.endswith((".pyc", ".pyo")))


def _submodules(package: Module) -> Iterator[str]:
    for folder in package.folders:
        for path in folder.iterdir():
            if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.name != "__init__.py":
                yield path.stem


def _next(dotted: str, found: str) -> str:
    return re.split(r"[.:]", dotted[len(found) + 1 :])[0]


def _of(marks: dict[str, str]) -> str:
    lines = (f"{json.dumps(label)} {marks[label]}\n" for label in sorted(marks))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
