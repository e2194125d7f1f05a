"""Files as no converter writes them, and what a format's run.py makes of each, in processes of their own: some runtimes abort."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.agent import sessions
from edgewise.config.schema import part
from edgewise.errors import VariantFailed
from edgewise.proof import isolation

Arrays = Mapping[str, np.ndarray]
NOT_THE_FORMATS = ("layers.json", "tensors.json", "manifest.json")  # which the library writes beside the model
FOREIGN = b"\x1c\0\0\0TFL3\0\0\0\0", b"\x08\x0a\x12\x07pytorch"  # how a TFLite and an ONNX file begin


def damage(content: bytes) -> bytes:
    """Every 97th byte of the middle third inverted: in a large file these are weights."""
    spoiled = bytearray(content)
    for place in range(len(content) // 3, 2 * len(content) // 3, 97):
        spoiled[place] ^= 0xFF
    return bytes(spoiled)


def replace(content: bytes) -> bytes:
    """Another format under this name."""
    start = next(foreign for foreign in FOREIGN if not content.startswith(foreign[:2]))
    return start + bytes(4000)


DAMAGES: Mapping[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-40],
    "text": lambda content: b"a text, and no model at all\n" * 40,
    "another format": replace,
    "damaged": damage,
    "missing": lambda content: None,
}


@dataclass(frozen=True)
class Outcome:
    """how: refused, answered, died. words: of the refusal, or how the process ended. outputs: of a file that was run all the same."""

    how: str
    words: str = ""
    outputs: Arrays | None = None


def model_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in NOT_THE_FORMATS)


def spoil(folder: Path, target: Path) -> dict[tuple[str, str], Path]:
    """Copies of a model below `target`: (file, damage) -> the folder with it."""
    made = {}
    for number, (name, how) in enumerate((name, how) for name in model_files(folder) for how in DAMAGES):
        copy = Path(shutil.copytree(folder, target / str(number)))
        content = DAMAGES[how]((folder / name).read_bytes())
        (copy / name).unlink() if content is None else (copy / name).write_bytes(content)
        made[name, how] = copy
    return made


def try_all(module: str, jobs: Sequence[tuple[str, Mapping[str, Any], Arrays]], told: Path) -> list[Outcome]:
    """Load and run each (folder, settings, feeds). One process does them in turn; where it dies, another goes on with the next."""
    found: list[Outcome] = []
    told.mkdir()
    while len(found) < len(jobs):
        start = len(found)
        try:
            isolation.call_isolated(try_from, module, list(jobs), start, str(told), aborted=VariantFailed)
        except VariantFailed as death:
            ended = Outcome("died", str(death))
        else:
            ended = None
        found += iterate_outcomes(told, start)
        found += [ended] if ended else []
    return found


def try_from(module: str, jobs: Sequence[tuple[str, Mapping[str, Any], Arrays]], start: int, told: str) -> None:
    """Write told/N.json for each job from `start` on, and told/N.npz for one that is answered."""
    runner = part(module, "run")
    for number, (folder, settings, feeds) in enumerate(jobs[start:], start):
        try:
            with isolation._translate_refusal():
                outputs = sessions.run_batched(sessions.load(runner, folder, settings), feeds, 16)
            np.savez(Path(told, f"{number}.npz"), **outputs)
            said = ["answered", ""]
        except Exception as error:
            said = ["refused", f"{type(error).__name__}: {error}"]
        Path(told, f"{number}.json").write_text(json.dumps(said))


def iterate_outcomes(told: Path, start: int) -> Iterator[Outcome]:
    number = start
    while (path := told / f"{number}.json").exists():
        how, words = json.loads(path.read_text())
        outputs = dict(np.load(told / f"{number}.npz")) if how == "answered" else None
        yield Outcome(how, words, outputs)
        number += 1
