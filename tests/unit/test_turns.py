"""Two models that take turns on one device: their order, that the waiting one is stopped, and which one is blamed for a failure."""

import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewise.agent import latency
from edgewise.agent.protocol import Fault, encode_job
from edgewise.config.schema import Bench, Warmup
from edgewise.devices.local import COMMAND, LocalDevice
from edgewise.errors import VariantFailed
from edgewise.measure.pairs import make_pair_runner, run_in_turns
from edgewise.measure.runs import PlacedVariant
from tests.conftest import ROOT
from tests.support.fake_format.run import HANG_S
from tests.unit.test_agent import make_job

pytestmark = pytest.mark.lengthy  # agents that run, and waits for them

BLOCKS = 6
BENCH = Bench(name="x", processes=1, blocks=BLOCKS, block_s=0.02, min_samples=1, warmup=Warmup(min_runs=2, min_s=0.0, max_s=0.02))


def subject(folder: Path, name: str, deadline_s: float = 120.0, **does) -> PlacedVariant:
    (folder / name).mkdir()
    job = make_job(folder / name, does=does)
    fields = {key: job[key] for key in ("runner", "model", "settings", "inputs", "scope", "preprocessing", "answer")}
    return PlacedVariant(name, fields, LocalDevice(), deadline_s, {})


def noted(file: Path) -> list[str]:
    """The process of each line, in time."""
    lines = [line.split() for line in file.read_text().splitlines() if line.count(" ") == 1]
    return [pid for pid, _ in sorted(lines, key=lambda line: int(line[1]))]


@pytest.mark.parametrize("variant_first", [True, False])
def test_blocks_go_a_b_b_a(tmp_path, variant_first):
    note = str(tmp_path / "runs")
    sides = [subject(tmp_path, name, sleep_ms=ms, note=note) for name, ms in (("v", 2), ("r", 4))]
    variant, reference = run_in_turns(*sides, BENCH, variant_first)
    assert len(variant.blocks_ms) == len(reference.blocks_ms) == BLOCKS
    fastest = [np.min(np.concatenate(run.blocks_ms)) for run in (variant, reference)]  # others wait for a machine that is busy
    assert fastest == pytest.approx([2.1, 4.1], rel=0.25)
    stretches = [(pid, len(list(runs))) for pid, runs in itertools.groupby(noted(tmp_path / "runs"))]
    first, second = (pid for pid, _ in stretches[:2])  # each while it warms up
    turns = [pid for pid, _ in stretches[2:]]
    # a b, b a, a b, ...: neighbouring blocks of one process join; the warm-up of the second is followed by the first block of the first
    assert turns[0] == first and turns == [first if i % 2 == 0 else second for i in range(len(turns))] and len(turns) == BLOCKS + 1


@pytest.mark.parametrize(("slower_ms", "turns"), [(1, range(19, 21)), (30, range(9, 14)), (60, range(8, 9))])
def test_slow_models_take_fewer_turns(tmp_path, slower_ms, turns):
    """Each turn begins with a run that is not timed. A busy machine makes models slower, so it may be fewer than the 13 of 30 ms."""
    sides = [subject(tmp_path, name, sleep_ms=ms) for name, ms in (("v", slower_ms), ("r", 1))]
    runs = make_pair_runner(*sides, replace(BENCH, blocks=20))(True)
    counts = [len(run.blocks_ms) for run in runs]
    assert counts[0] == counts[1] and counts[0] in turns


def test_the_waiting_process_is_stopped(tmp_path):
    """A runtime whose threads spin between runs takes nothing from the other model's blocks."""
    sides = [subject(tmp_path, name, burn_ms=1, spins=str(tmp_path / "spins")) for name in ("v", "r")]
    run_in_turns(*sides, BENCH, True)
    pids = noted(tmp_path / "spins")
    changes = sum(a != b for a, b in itertools.pairwise(pids))
    assert len(pids) > 200 and changes <= 2 * BLOCKS + 2, "each stretch of time belongs to one process"


@pytest.mark.parametrize("broken", ["v", "r"])
@pytest.mark.parametrize(("load", "seen"), [("refuse", "operator Frobnicate"), ("abort", "SIGABRT")])
def test_a_failure_is_that_of_the_model_which_fails_alone(tmp_path, broken, load, seen):
    sides = [subject(tmp_path, name, **({"load": load} if name == broken else {})) for name in ("v", "r")]
    with pytest.raises(VariantFailed, match=f"^{broken} on the device.*{seen}"):
        make_pair_runner(*sides, BENCH)(True)


def test_a_kill_for_memory_of_both_together_names_the_setting(tmp_path):
    class Narrow(LocalDevice):
        def run(self, job, deadline_s):
            if job["kind"] == "pair":
                raise Fault("oom_killed", "the run ended with SIGKILL and the kernel counts 1 kill for memory")
            return super().run(job, deadline_s)

    sides = [PlacedVariant(**{**vars(subject(tmp_path, name)), "connection": Narrow()}) for name in ("v", "r")]
    with pytest.raises(Fault, match=r"each runs alone: set bench\.interleave=processes") as caught:
        run_in_turns(*sides, BENCH, True)
    assert caught.value.word == "oom_killed"


def test_a_hang_of_one_ends_at_the_limit_and_leaves_nothing(tmp_path):
    sides = [subject(tmp_path, name, deadline_s=1.0, **does) for name, does in (("v", {}), ("r", {"load": "hang"}))]
    start = time.monotonic()
    with pytest.raises(Fault) as caught:
        run_in_turns(*sides, BENCH, True)
    assert caught.value.word == "deadline" and time.monotonic() - start < HANG_S / 10
    wait_for(lambda: not agents())


def test_a_stopped_process_ends_with_its_parent(tmp_path):
    """A host that is killed cannot tidy up, and who stands still does not see that its stdin has ended."""
    sides = [subject(tmp_path, name, sleep_ms=1).timed(Bench(name="x", blocks=1000, block_s=0.2, warmup=BENCH.warmup)) for name in "vr"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    agent = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment, start_new_session=True)
    agent.stdin.write(encode_job(kind="pair", deadline_s=600, sides=sides, blocks=1000))
    agent.stdin.flush()
    wait_for(lambda: len(agents()) == 3 and "T" in states())
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    wait_for(lambda: not agents())
    agent.stdin.close()
    agent.stdout.close()


def agents() -> list[Path]:
    """The agents of this test's own process and below."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"edgewise.agent.program" in (process / "cmdline").read_bytes() and (process / "cwd").resolve() == Path.cwd():
                found.append(process)
        except OSError:  # it has ended meanwhile
            continue
    return found


def states() -> str:
    return "".join((process / "stat").read_text().rpartition(") ")[2][0] for process in agents())


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_process_that_is_killed_in_the_middle_of_a_line_ends_the_pair_the_same_way(monkeypatch):
    """A block is a line of megabytes: a kill for memory may well come in the middle of it."""
    code = 'import os, sys; sys.stdin.readline(); os.write(1, b\'{"event": "blo\'); os.kill(os.getpid(), 9)'
    monkeypatch.setattr(latency, "AGENT", (sys.executable, "-S", "-c", code))

    def ended(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(latency, "exit_like", ended)
    job = {
        "runner": "r",
        "model": "m",
        "settings": {},
        "inputs": "i",
        "scope": "model",
        "preprocessing": None,
        "answer": None,
        "warmup": {},
    }
    with pytest.raises(SystemExit) as caught:
        latency.TurnProcess({**job, "blocks": 1, "block_s": 1.0, "min_runs": 1}, 20.0)
    assert caught.value.code == -signal.SIGKILL


def test_a_signal_that_python_ignores_or_catches_is_passed_on_too():
    """Python ignores SIGPIPE and makes an exception of SIGINT."""
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGKILL):
        code = f"from edgewise.agent import latency; latency.exit_like({-number})"
        assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL).returncode == -number
