"""A private PostgreSQL with an MLflow server on it: own data folder, own ports; nothing of the machine's own cluster is touched."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.conftest import free_port

BIN = next((str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), "")
PATH = f"{BIN}:{os.environ['PATH']}"
PROGRAMS = ("initdb", "postgres", "createdb")
OWNER = "postgres"  # PostgreSQL refuses to run as root


@dataclass
class Tracking:
    """folder: readable by the database's own user."""

    folder: Path
    database_port: int = field(default_factory=free_port)
    port: int = field(default_factory=free_port)
    started: list[subprocess.Popen] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def owner(self) -> dict[str, object]:
        return {"user": OWNER, "group": pwd.getpwnam(OWNER).pw_gid, "cwd": "/"} if os.getuid() == 0 else {}

    def start(self) -> "Tracking":
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        if os.getuid() == 0:
            shutil.chown(data, OWNER, pwd.getpwnam(OWNER).pw_gid)
        self.database("initdb", "--auth=trust", "--username=team", "--no-sync", f"--pgdata={data}")
        options = [
            f"-c{name}" for name in (f"port={self.database_port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off")
        ]
        self.run("postgres", [shutil.which("postgres", path=PATH) or "", "-D", str(data), *options], **self.owner)
        address = ("--host=127.0.0.1", f"--port={self.database_port}", "--username=team")
        self.wait_for(lambda: self.database("createdb", *address, "tracking", check=False) == 0, "PostgreSQL")
        self.serve()
        return self

    def serve(self) -> None:
        """The MLflow server alone: it may be stopped and started again."""
        store = f"postgresql+psycopg2://team@127.0.0.1:{self.database_port}/tracking"
        where = ["--backend-store-uri", store, "--artifacts-destination", str(self.folder / "artifacts")]
        command = [sys.executable, "-m", "mlflow", "server", *where, "--host", "127.0.0.1", "--port", str(self.port), "--workers", "2"]
        self.run("mlflow", command, env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"})
        self.wait_for(self.answers, "the MLflow server")

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return True
        except OSError:
            return False

    def database(self, program: str, *arguments: str, check: bool = True) -> int:
        command = [shutil.which(program, path=PATH) or "", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, **self.owner)  # type: ignore[call-overload]
        assert not check or done.returncode == 0, done.stderr
        return done.returncode

    def run(self, name: str, command: list[str], **more: object) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.started.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, **more))  # type: ignore[call-overload]

    def wait_for(self, met, what: str, within_s: float = 120.0) -> None:
        end = time.monotonic() + within_s
        while not met():
            logs = "".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log"))
            assert time.monotonic() < end and all(process.poll() is None for process in self.started), f"{what} does not start: {logs}"
            time.sleep(0.3)

    def stop_server(self) -> None:
        server = self.started.pop()
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)

    def stop(self) -> None:
        while len(self.started) > 1:
            self.stop_server()
        for process in self.started:  # PostgreSQL alone: SIGINT is its fast shutdown
            process.send_signal(signal.SIGINT)
            process.wait(20)


def missing() -> list[str]:
    return [program for program in PROGRAMS if not shutil.which(program, path=PATH)]


@contextlib.contextmanager
def tracking(folder: Path) -> Iterator[Tracking]:
    made = Tracking(folder)
    try:
        yield made.start()
    finally:
        made.stop()
