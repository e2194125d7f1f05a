"""The cache on the device, run as it runs there: the text of cache.py by `python -c`, a request on stdin."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgewise.agent import cache
from edgewise.devices import shipping

PROGRAM = Path(cache.__file__).read_text()


def ask(workdir: Path, act: str, content: bytes = b"", **request) -> dict:
    line = json.dumps({"act": act, "workdir": str(workdir), **request}).encode() + b"\n"
    done = subprocess.run([sys.executable, "-S", "-c", PROGRAM], input=line + content, capture_output=True, timeout=120)
    replies = [text for text in done.stdout.decode().splitlines() if text.startswith(cache.MARK)]
    return json.loads(replies[0][len(cache.MARK) :]) if replies else {"ended": done.stderr.decode()}


@pytest.fixture
def tree(tmp_path) -> shipping.FileTree:
    (tmp_path / "model/part").mkdir(parents=True)
    (tmp_path / "model/manifest.json").write_text("{}")
    (tmp_path / "model/part/weights.bin").write_bytes(bytes(range(256)) * 100)
    return shipping.read_folder(tmp_path / "model")


def send(workdir: Path, tree: shipping.FileTree, content: bytes | None = None, limit_bytes: int = 1 << 20, keep: tuple = ()) -> dict:
    request = {"key": tree.key, "files": tree.checksums, "limit_bytes": limit_bytes, "keep": keep}
    return ask(workdir, "receive", tree.content() if content is None else content, **request)


def test_what_is_sent_lies_there_as_it_was(tmp_path, tree):
    workdir = tmp_path / "device"
    assert not ask(workdir, "find", key=tree.key, files=tree.checksums)["complete"]
    path = Path(send(workdir, tree)["path"])
    assert {name: (path / name).read_bytes() for name in tree.files} == {name: file.read_bytes() for name, file in tree.files.items()}
    assert ask(workdir, "find", key=tree.key, files=tree.checksums) == {"home": str(Path.cwd()), "path": str(path), "complete": True}


@pytest.mark.parametrize("spoil", [lambda c: c[:-1] + b"x", lambda c: c[:-1]], ids=["changed", "cut"])
def test_what_came_wrong_is_not_kept(tmp_path, tree, spoil):
    reply = send(tmp_path / "device", tree, spoil(tree.content()))
    assert "another sha256" in reply.get("seen", "") or "bytes of weights.bin to come" in reply.get("ended", "")
    assert not list((tmp_path / "device/trees").iterdir())


def test_a_file_that_changed_on_the_device_is_noticed(tmp_path, tree):
    path = Path(send(tmp_path / "device", tree)["path"], "part/weights.bin")
    path.write_bytes(b"x" + path.read_bytes()[1:])
    assert not ask(tmp_path / "device", "find", key=tree.key, files=tree.checksums)["complete"]


def test_room_is_made_by_what_was_not_used_for_longest(tmp_path, monkeypatch):
    trees = tmp_path / "trees"
    for age, name in enumerate(("new", "kept", "old", "oldest")):
        (trees / name).mkdir(parents=True)
        (trees / name / "model").write_bytes(bytes(100))
        os.utime(trees / name, (1e9 - age, 1e9 - age))
    cache.make_room(trees, 100, 400, ["kept"])
    assert {path.name for path in trees.iterdir()} == {"new", "kept", "old"}
    monkeypatch.setattr(cache, "free_bytes", lambda folder: 0)
    with pytest.raises(OSError, match="KiB are free in"):
        cache.make_room(trees, 100, 400, ["kept"])
    assert {path.name for path in trees.iterdir()} == {"kept"}


def test_a_lost_run_is_ended_by_its_name(tmp_path):
    lost, other = (
        subprocess.Popen(["sh", "-c", "sleep 600; :", name], start_new_session=True) for name in ("edgewise-lost", "edgewise-other")
    )
    assert ask(tmp_path, "kill", runs=["edgewise-lost"]) == {"killed": 1}
    assert lost.wait(60) == -9 and other.poll() is None
    os.killpg(other.pid, 9)
    other.wait()


def test_the_code_for_a_device_is_the_agent_and_one_run_py():
    files = shipping.code_tree("edgewise.formats.onnx.run").files
    assert {"edgewise/agent/program.py", "edgewise/agent/power.py", "edgewise/formats/onnx/run.py", "edgewise/__init__.py"} <= set(files)
    assert not [name for name in files if "make" in name or "tflite" in name or "core" in name]
    assert shipping.code_tree().files.keys() < files.keys()
    assert shipping.code_tree("edgewise.formats.onnx.profile").files.keys() - files.keys() == {"edgewise/formats/onnx/profile.py"}


def test_a_tree_is_known_by_names_and_content(tmp_path, tree):
    before = tree.key
    assert tree.checksums["manifest.json"] == (2, hashlib.sha256(b"{}").hexdigest())
    (tmp_path / "model/manifest.json").rename(tmp_path / "model/other.json")
    assert shipping.read_folder(tmp_path / "model").key != before
