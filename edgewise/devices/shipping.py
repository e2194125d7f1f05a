"""What is sent to a device: trees of files, each known by its content."""

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
class Tree:
    """files: name on the device -> file here, in the order in which they are sent."""

    files: Mapping[str, Path]

    @cached_property
    def listed(self) -> dict[str, tuple[int, str]]:
        """name -> size in bytes, sha256."""
        contents = {name: path.read_bytes() for name, path in self.files.items()}
        return {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in contents.items()}

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.listed, sort_keys=True).encode()).hexdigest()[:32]

    def content(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.files.values())


def folder(path: Path) -> Tree:
    return Tree({str(p.relative_to(path)): p for p in sorted(path.rglob("*")) if p.is_file()})


def runners(job: Mapping[str, Any]) -> list[str]:
    """What a job runs: nothing, one model, or one on each side."""
    return sorted({side["runner"] for side in (job, *job.get("sides", ())) if "runner" in side})


def code(*runners: str) -> Tree:
    """The agent and, for a job on models, their runners with the packages that they lie in and the run.py beside each."""
    files = {f"edgewise/agent/{name}": path for name, path in folder(AGENT).files.items() if path.suffix == ".py"}
    for words in map(str.split, ("edgewise.agent.program", *runners), "." * (len(runners) + 1)):
        for count in range(1, len(words) + 1):
            files |= _module(".".join(words[:count]))
    for runner in runners:
        files |= _module(f"{runner.rpartition('.')[0]}.run")
    return Tree({**_module("edgewise"), **files})


def _module(dotted: str) -> dict[str, Path]:
    """The file of a module, by its name on the device; nothing for a package without a file."""
    spec = importlib.util.find_spec(dotted)
    if spec is None:
        raise ModuleNotFoundError(f"{dotted} cannot be imported")
    place = dotted.replace(".", "/") + ("/__init__.py" if spec.submodule_search_locations is not None else ".py")
    return {place: Path(spec.origin)} if spec.origin else {}
