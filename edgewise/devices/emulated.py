"""An arm64 board emulated by qemu on this machine: an arm64 Python with the arm64 builds of the runtimes, made by `make arm64`.

It shows what such a board computes, but neither the time nor the memory that it takes there.
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
READY = "key"  # the file that arm64.sh writes last


@dataclass(frozen=True)
class Settings(local.Settings):
    sysroot: str = option(".arm64", "folder that `make arm64` has made; relative to the project")
    cpu: str = option("cortex-a76", "processor to emulate, with its instruction sets; `qemu-aarch64 -cpu help` lists them")
    run_max_s: float = option(600.0, "time limit of one run, seconds: emulated float arithmetic is slow", low=1.0)


@contextlib.contextmanager
def connect(settings: Settings) -> Iterator["EmulatedDevice"]:
    folder = Path(settings.sysroot).expanduser().resolve()
    if not (folder / READY).is_file():
        raise Fault("no_emulator", f"{folder} holds no arm64 system")
    yield EmulatedDevice(settings, folder)


class EmulatedDevice(local.LocalDevice):
    def __init__(self, settings: Settings, folder: Path):
        root = folder / "root"
        qemu = (str(folder / "qemu-aarch64"), "-cpu", settings.cpu, "-L", str(root))
        super().__init__((*qemu, str(root / "usr/bin/python3.11"), "-m", "edgewise.agent.program"))
        self.folder, self.run_max_s = folder, settings.run_max_s

    def environment(self) -> dict[str, str]:
        """No variable of this machine: its libraries and packages are for another processor."""
        paths = os.pathsep.join((str(self.folder / "site"), str(local.ROOT)))
        return {"PATH": os.environ["PATH"], "PYTHONHOME": str(self.folder / "root/usr"), "PYTHONPATH": paths, "PYTHONNOUSERSITE": "1"}

    def run(self, job: Mapping[str, Any], deadline_s: float) -> Iterator[dict[str, Any]]:
        try:
            yield from super().run(job, max(deadline_s, self.run_max_s))
        except Fault as fault:
            if fault.word != "runtime_missing":
                raise
            installed = ", ".join(sorted(path.name.removesuffix(".dist-info") for path in (self.folder / "site").glob("*.dist-info")))
            raise Fault(
                "not_offered",
                f"{', '.join(shipping.find_runners(job)) or job['kind']} needs a runtime that is not in {self.folder} ({installed})",
            ) from fault
