"""The trees of files that are sent to a device, each named by its content."""

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

AGENT = Path(__file__).resolve().parents[1] / "agent"


@dataclass(frozen=True)
class FileTree:
    """files: name on the device -> file on this machine, in the order in which they are sent."""

    files: Mapping[str, Path]

    @cached_property
    def checksums(self) -> dict[str, tuple[int, str]]:
        """name -> size in bytes, sha256."""
        contents = {name: path.read_bytes() for name, path in self.files.items()}
        return {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in contents.items()}

    @property
    def key(self) -> str:
        """32 hexadecimal digits of a sha256 over names and contents."""
        return hashlib.sha256(json.dumps(self.checksums, sort_keys=True).encode()).hexdigest()[:32]

    def content(self) -> bytes:
        """The bytes of all files, one after the other."""
        return b"".join(path.read_bytes() for path in self.files.values())


def read_folder(path: Path) -> FileTree:
    """All files in a folder."""
    return FileTree({str(p.relative_to(path)): p for p in sorted(path.rglob("*")) if p.is_file()})


def find_runners(job: Mapping[str, Any]) -> list[str]:
    """The run.py or profile.py modules that a job needs: none, one, or one for each of its sides."""
    return sorted({side["runner"] for side in (job, *job.get("sides", ())) if "runner" in side})


def code_tree(*runners: str) -> FileTree:
    """The agent and the runners of a job, each with its packages and the run.py beside it."""
    files = {f"edgewise/agent/{name}": path for name, path in read_folder(AGENT).files.items() if path.suffix == ".py"}
    for words in map(str.split, ("edgewise.agent.program", *runners), "." * (len(runners) + 1)):
        for count in range(1, len(words) + 1):
            files |= _module(".".join(words[:count]))
    for runner in runners:
        files |= _module(f"{runner.rpartition('.')[0]}.run")
    return FileTree({**_module("edgewise"), **files})


def _module(dotted: str) -> dict[str, Path]:
    """The file of a module, by its name on the device; empty for a package without a file."""
    spec = importlib.util.find_spec(dotted)
    if spec is None:
        raise ModuleNotFoundError(f"{dotted} cannot be imported")
    name = dotted.replace(".", "/") + ("/__init__.py" if spec.submodule_search_locations is not None else ".py")
    return {name: Path(spec.origin)} if spec.origin else {}
