"""What a result depends on besides settings and code: the data and the device, as the always-changed stages see them."""

import fcntl
import hashlib
import json
import sys

from stages.composition import write
from stages.core.artifact import write_json
from stages.core.config import PATH, to_plain
from stages.core.results import METRICS, read_plain
from stages.sweeping.clone import link_local_files
from stages.sweeping.commands import run
from stages.sweeping.plan import Plan
from stages.sweeping.points import Point

World = dict[str, str]


def see(plan: Plan, point: Point) -> World:
    """{"data": digest, "model": digests of its files, "device": fingerprint}, looked up once in a sweep for the same settings of them."""
    path = plan.folder / "worlds" / f"{signature(point)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            write_json(path, look(plan, point))
    return json.loads(path.read_text(encoding="utf-8"))


def signature(point: Point) -> str:
    content = [to_plain(point.config.data), to_plain(point.config.model), to_plain(point.config.device)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def look(plan: Plan, point: Point) -> World:
    """Run the two probes on the point's configuration, in a folder that holds nothing else."""
    folder = plan.folder / "worlds" / signature(point)
    write(point.config, folder / PATH)
    link_local_files(plan.parent.root, folder, dict(point.choices))
    for module in ("stages.probe_data", "stages.probe_device"):
        run((sys.executable, "-m", module), folder, plan.folder / "logs" / "world.log", code=plan.warm)
    data, model, device = (read_plain(folder / METRICS / f"{name}.json") for name in ("data", "model", "device"))
    return {"data": str(data["digest"]), "model": json.dumps(model["sha256"], sort_keys=True), "device": str(device["fingerprint"])}
