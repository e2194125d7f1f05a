"""A device of the system tests as the stages see it, with a model that does as it is told."""

import json
from pathlib import Path

import numpy as np

from edgewise.config.schema import Plugin

PROBE = {"kind": "probe", "packages": ["onnxruntime"]}
FAKE = "tests.support.fake_format.run"


def fake_model(folder: Path, **does) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps(does))
    np.savez(folder / "inputs.npz", image=np.zeros((2, 4), np.float32))
    return folder


def latency_job(placed: str, **more) -> dict:
    warmup = {"min_runs": 1, "min_s": 0.0, "max_s": 0.1, "spread": 0.5}
    timing = {"warmup": warmup, "blocks": 1, "block_s": 0.1, "min_runs": 3}
    where = {"runner": FAKE, "model": placed, "settings": {"threads": 1}, "inputs": f"{placed}/inputs.npz"}
    return {"kind": "latency", **where, "scope": "model", "preprocessing": None, "answer": None, **timing, **more}


def plugin(device: dict) -> Plugin:
    return Plugin("board", "edgewise.devices.ssh", device)
