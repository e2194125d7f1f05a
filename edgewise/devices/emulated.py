"""An arm64 board imitated by qemu on this machine: the arm64 builds of the runtimes in an arm64 Python, in the folder of `make arm64`.

It tells what such a board answers, and nothing of what that costs there: neither time nor memory.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.agent.protocol import Fault
from edgewise.config.settings import option
from edgewise.devices import local, shipping

EMULATED = True
READY = "key"  # written last by arm64.sh


@dataclass(frozen=True)
class Settings(local.Settings):
    sysroot: str = option(".arm64", "folder that `make arm64` has made; relative to the project")
    cpu: str = option("cortex-a76", "processor that qemu imitates, with its instruction sets: qemu-aarch64 -cpu help")
    run_max_s: float = option(600.0, "the longest that one run may take: float arithmetic is slow here", low=1.0)


@contextlib.contextmanager
def connect(settings: Settings) -> Iterator["Emulated"]:
    folder = Path(settings.sysroot).expanduser().resolve()
    if not (folder / READY).is_file():
        raise Fault("no_emulator", f"{folder} holds no arm64 system")
    yield Emulated(settings, folder)


class Emulated(local.Local):
    def __init__(self, settings: Settings, folder: Path):
        root = folder / "root"
        qemu = (str(folder / "qemu-aarch64"), "-cpu", settings.cpu, "-L", str(root))
        super().__init__((*qemu, str(root / "usr/bin/python3.11"), "-m", "edgewise.agent.program"))
        self.folder, self.run_max_s = folder, settings.run_max_s

    def environment(self) -> dict[str, str]:
        """Nothing of this machine's own: its libraries and packages are for another processor."""
        paths = os.pathsep.join((str(self.folder / "site"), str(local.ROOT)))
        return {"PATH": os.environ["PATH"], "PYTHONHOME": str(self.folder / "root/usr"), "PYTHONPATH": paths, "PYTHONNOUSERSITE": "1"}

    def run(self, job: Mapping[str, Any], deadline_s: float) -> Iterator[dict[str, Any]]:
        try:
            yield from super().run(job, max(deadline_s, self.run_max_s))
        except Fault as fault:
            if fault.word != "runtime_missing":
                raise
            there = ", ".join(sorted(path.name.removesuffix(".dist-info") for path in (self.folder / "site").glob("*.dist-info")))
            raise Fault(
                "not_offered", f"{', '.join(shipping.runners(job)) or job['kind']} needs a runtime that is not in {self.folder} ({there})"
            ) from fault
