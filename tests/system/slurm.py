"""A private Slurm on this machine: own munge key, own ports, own state; nothing of a machine's own Slurm is touched."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.conftest import free_port

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue")
CPUS = 4  # as many jobs at once, whatever the machine has
CONFIG = """
ClusterName=edgewise
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmdParameters=config_overrides
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
MpiDefault=none
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000
PartitionName=main Nodes={host} Default=YES
"""


@dataclass
class Slurm:
    """A cluster of one node, without accounting, as small clusters are."""

    folder: Path
    started: list[subprocess.Popen] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PATH}

    def start(self) -> "Slurm":
        host, munge = socket.gethostname().partition(".")[0], self.folder / "munge"
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(mode=0o755)
        key = munge / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        text = CONFIG.format(host=host, folder=self.folder, controller=free_port(), node=free_port(), cpus=CPUS)
        (self.folder / "slurm.conf").write_text(text)
        own = [f"--{name}-file={munge}/{name}" for name in ("key", "log", "pid", "seed")]
        self.run("munged", "--foreground", "--force", f"--socket={munge}/socket", *own)
        self.wait_for(lambda: (munge / "socket").exists(), "munged")
        self.run("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        self.run("slurmd", "-D", "-f", str(self.folder / "slurm.conf"), "-N", host)
        self.wait_for(lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T"), "the node")
        return self

    def run(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.out").open("wb") as log:
            command = [shutil.which(program, path=PATH), *arguments]
            environment = {**os.environ, **self.environment}
            self.started.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment))

    def ask(self, *command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **self.environment}, timeout=30).stdout

    def wait_for(self, met, what: str, within_s: float = 60.0) -> None:
        end = time.monotonic() + within_s
        while not met():
            logs = "".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.out"))
            assert time.monotonic() < end and all(process.poll() is None for process in self.started), f"{what} does not come: {logs}"
            time.sleep(0.2)

    def running(self) -> list[str]:
        """The ids of jobs that run now."""
        return self.ask("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i").split()

    def stop(self) -> None:
        self.ask("scancel", "--state=PENDING", "--me")
        self.ask("scancel", "--state=RUNNING", "--me", "--signal=KILL")
        for process in reversed(self.started):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def missing() -> Sequence[str]:
    return [program for program in PROGRAMS if not shutil.which(program, path=PATH)]


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Slurm]:
    made = Slurm(folder)
    try:
        yield made.start()
    finally:
        made.stop()
