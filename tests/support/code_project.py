"""A project and a library in files that a test writes, for digests of code."""

import textwrap
from pathlib import Path

from edgewise.config.digests import Digests


class Project:
    """A project with a library of its own beside it, both of them in files that a test writes."""

    def __init__(self, folder: Path):
        self.root, self.library = folder / "project", folder / "library"
        self.write("library/edgewise/__init__.py", "")
        self.write("project/params.yaml", "")

    def write(self, path: str, text: str) -> Path:
        file = self.root.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    def digest(self, *names: str) -> str:
        with Digests(self.root, self.library) as found:
            return found.digest(names)

    def files(self, *names: str) -> set[str]:
        found = Digests(self.root, self.library)
        return {label for name in names for label in found.files(name)}

    def changed(self, path: str, text: str, *names: str) -> bool:
        """Whether the digest of the names is another one after the file was written."""
        before = self.digest(*names)
        self.write(path, text)
        return self.digest(*names) != before
