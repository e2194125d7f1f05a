"""A picture of a project's runs in the real MLflow UI: an MLflow server, headless Chromium, and a page that opens the nested runs.

    python -m tests.system.mlflow_picture PROJECT docs/mlflow-sweep.png [PLACE]     PLACE: what follows # in the page's address

The server and the browser are this program's own, on loopback ports; both are stopped at the end.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.system.conftest import free_port

# What a user does by hand: close the assistant, open the sweep, choose columns.
# The page is drawn late: each step is tried until it can be done.
CLICKS = """<script>
const columns = ['accuracy_top1', 'latency_ratio_to_reference', 'size_bytes'];
const all = (what, text) => [...document.querySelectorAll(what)].filter(each => each.textContent.trim() === text);
const steps = [
  () => document.querySelector('button[data-component-id*="runnamecellrenderer"]'),
  () => [...document.querySelectorAll('button')].find(each => each.textContent.includes('Show more')),
  ...columns.map(name => () => all('[class*="tree"] span', name).pop()),
  () => all('button', 'Columns').pop(),
];
const timer = setInterval(() => {
  document.querySelectorAll('[data-component-id*="assistant"][data-component-id*="close"]').forEach(button => button.click());
  const found = steps.length && steps[0]();
  if (found) {
    found.click();
    steps.shift();
  }
}, 1000);
</script>"""
RUNS = "/experiments/1/runs?startTime=ALL"
SIZE = "1900,860"
LOAD_MS = 30_000  # of the page's own time


def proxy(upstream: str) -> ThreadingHTTPServer:
    """The UI with `CLICKS` in its page; everything else as the server gives it."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            kept = {name: value for name, value in self.headers.items() if name.lower() in ("content-type", "accept")}
            asked = urllib.request.Request(upstream + self.path, self.rfile.read(length) or None, kept, method=self.command)
            try:
                with urllib.request.urlopen(asked, timeout=60) as found:
                    code, kind, body = found.status, found.headers.get("Content-Type", ""), found.read()
            except urllib.error.HTTPError as error:
                code, kind, body = error.code, error.headers.get("Content-Type", ""), error.read()
            body = body.replace(b"</head>", CLICKS.encode() + b"</head>") if kind.startswith("text/html") else body
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def serve(database: Path) -> tuple[subprocess.Popen, str]:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}", "--host", "127.0.0.1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command += ["--port", str(port), "--workers", "1"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=2).close()
            return process, address
        except OSError:
            time.sleep(0.5)
    os.killpg(process.pid, 15)
    raise SystemExit("the MLflow server does not start")


def browse(server: str, place: str, *arguments: str) -> str:
    """What Chromium prints for a page of the UI at address `server`. place: what follows # in its address; arguments: Chromium's own."""
    between = proxy(server)
    try:
        with tempfile.TemporaryDirectory() as profile:
            browser = [shutil.which("chromium") or "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            browser += [f"--user-data-dir={profile}", f"--window-size={SIZE}", f"--virtual-time-budget={LOAD_MS}", *arguments]
            address = f"http://127.0.0.1:{between.server_port}/#{place}"
            return subprocess.run([*browser, address], check=True, capture_output=True, text=True, timeout=180).stdout
    finally:
        between.shutdown()


def picture(database: Path, place: str, target: Path) -> None:
    process, address = serve(database)
    try:
        browse(address, place, f"--screenshot={target.resolve()}")
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


if __name__ == "__main__":
    picture(Path(sys.argv[1]).resolve() / "mlflow.db", sys.argv[3] if len(sys.argv) > 3 else RUNS, Path(sys.argv[2]))
