"""Sequences of speech for a model with state, and how far its variants are from the original file over 30 seconds of it.

    python -m benchmarks.speech make WAV_DIR FILE.npz    steps of 512 samples at 16 kHz, each behind the last 64 of the one before
    python -m benchmarks.speech compare MODEL.onnx PROJECT FILE.npz VARIANT ...

`make` also writes FILE.bin, the 30 seconds as a bundle's infer.py streams them. `compare` prints the largest difference of the probability
of speech, how many decisions at 0.5 change, and, where PROJECT has a bundle, whether it streams the same from stdin. The recordings of the
figures in docs/sources.md come with Debian's alsa-utils (/usr/share/sounds/alsa).
"""

import json
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.agent import sessions
from edgewise.config import schema
from edgewise.errors import UserError, run_main

RATE_HZ, STEP, CONTEXT = 16_000, 512, 64
STEPS = 20  # of one sequence
SECONDS, REPEATS = 30, 3
THRESHOLD = 0.5


def read_recordings(folder: Path) -> Iterator[np.ndarray]:
    """The first channel of each, float32 from -1 to 1 at 16 kHz, with a pause of faint noise behind it."""
    from scipy.signal import resample_poly

    random = np.random.default_rng(0)
    for path in sorted(folder.glob("*.wav")) * REPEATS:
        with wave.open(str(path)) as file:
            sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())[:, 0] / 32768
            yield resample_poly(sound, RATE_HZ, file.getframerate())
        yield random.normal(0, 1e-3, random.integers(4000, 9000))


def cut_steps(sound: np.ndarray) -> np.ndarray:
    """[steps, 64 + 512]: each step behind the end of the one before."""
    count = len(sound) // STEP
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), sound[: count * STEP]])
    return np.stack([padded[i * STEP : i * STEP + CONTEXT + STEP] for i in range(count)])


def make(folder: Path, target: Path) -> None:
    sound = np.concatenate(list(read_recordings(folder))).astype(np.float32)
    steps = cut_steps(sound)
    count = len(steps) // STEPS
    np.savez(target, input=steps[: count * STEPS].reshape(count, STEPS, CONTEXT + STEP))
    long = cut_steps(sound[: SECONDS * RATE_HZ])
    target.with_suffix(".bin").write_bytes(long.astype("<f4").tobytes())
    print(f"{target}: {count} sequences of {STEPS} steps; {target.with_suffix('.bin')}: {len(long)} steps")


def read_long(target: Path) -> np.ndarray:
    """The 30 seconds, [1, steps, 576]."""
    return np.fromfile(target.with_suffix(".bin"), "<f4").reshape(1, -1, CONTEXT + STEP)


def run_original(model: Path, long: np.ndarray) -> np.ndarray:
    """The probability of speech in each step, by ONNX Runtime alone, with the state carried by hand."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    state, found = np.zeros((2, 1, 128), np.float32), []
    for step in range(long.shape[1]):
        output, state = session.run(None, {"input": long[:, step], "state": state, "sr": np.array(RATE_HZ)})
        found.append(output[0, 0])
    return np.array(found)


def describe(name: str, given: np.ndarray, expected: np.ndarray) -> str:
    difference, changed = np.abs(given - expected), int(((given > THRESHOLD) != (expected > THRESHOLD)).sum())
    return (
        f"{name}: largest difference {difference.max():.2g}, mean {difference.mean():.2g}; {changed} of {len(expected)} decisions at"
        f" {THRESHOLD} change"
    )


def describe_speed(project: Path, name: str) -> str:
    row: Any = json.loads((project / "metrics/summary.json").read_text())["variants"][name]
    latency = row["latency"]
    return f"; p50 of a step {latency['p50_ms']:.3g} ms, real-time factor {latency['real_time_factor']:.2g}"


def stream(bundle: Path, long: np.ndarray) -> np.ndarray:
    """What the bundle prints, step by step."""
    command = [sys.executable, str(bundle / "infer.py"), "--stream"]
    done = subprocess.run(command, input=long.astype("<f4").tobytes(), capture_output=True, check=True)
    return np.array(
        [np.ravel(next(iter(json.loads(line)[key] for key in json.loads(line) if key != "sample")))[0] for line in done.stdout.splitlines()]
    )


def compare(model: Path, project: Path, target: Path, names: list[str]) -> None:
    long = read_long(target)
    expected = run_original(model, long)
    print(f"{len(expected)} steps, speech in {np.mean(expected > THRESHOLD):.0%}")
    chosen = json.loads((project / "models/bundle/bundle.json").read_text())["variant"] if (project / "models/bundle").exists() else None
    for name in names:
        runner = schema.part(f"edgewise.formats.{name.partition('-')[0]}", "run")
        session = sessions.load(runner, str(project / "models/variants" / name), {"threads": 1})
        given = session.run({"input": long})["output"].ravel()
        print(describe(name, given, expected) + describe_speed(project, name))
        if name == chosen:
            print(
                f"{name}: largest difference of the bundle's stream to this "
                f"{np.abs(stream(project / 'models/bundle', long) - given).max():.2g}"
            )


def main() -> None:
    match sys.argv[1:]:
        case ["make", folder, target]:
            make(Path(folder), Path(target))
        case ["compare", model, project, target, *names] if names:
            compare(Path(model), Path(project), Path(target), names)
        case _:
            raise UserError("usage: python -m benchmarks.speech make WAV_DIR FILE.npz | compare MODEL.onnx PROJECT FILE.npz VARIANT ...")


if __name__ == "__main__":
    run_main(main)
