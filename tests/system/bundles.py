"""What tests of bundles have in common: interpreters, environments with a bundle's packages alone, and the answers of the evaluation."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewise.artifacts import artifact
from edgewise.data import digits
from edgewise.tasks.predictions import read_predictions

COUNT = 539  # pictures of the test split of digits


def interpreter(version: str) -> str:
    """One that runs: on the PATH, or among those of pyenv."""
    found = [shutil.which(f"python{version}"), *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    for path in filter(None, found):
        if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return path
    pytest.skip(f"there is no Python {version} on this machine")


def make_environment(version: str, requirements: Path, folder: Path) -> str:
    """The Python of a fresh environment in `folder` with these requirements and nothing else."""
    subprocess.run([interpreter(version), "-m", "venv", folder], check=True)
    command = [folder / "bin/python", "-m", "pip", "install", "-q", "-r", requirements]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"no packages to be had: {done.stderr[-200:]}")
    return str(folder / "bin/python")


def write_pictures(splits: Path, folder: Path) -> Path:
    """The test split of digits as the files that it came from. splits: splits.json of models/data."""
    folder.mkdir(parents=True, exist_ok=True)
    test = set(json.loads(splits.read_text())["test"])
    for number, item in enumerate(digits.items(digits.Settings())):
        if number in test:
            Image.fromarray(item.value[:, :, 0]).save(folder / f"{item.name}.png")
    return folder


def infer(python: str, bundle: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [python, str(bundle / "infer.py"), *arguments]
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, cwd=bundle.parent)


def check_answers(python: str, bundle: Path, judged: Path, pictures: Path) -> None:
    """AssertionError unless the bundle answers each picture as the evaluation in the folder `judged` did."""
    predictions = read_predictions(judged)
    outputs, targets = predictions.outputs, predictions.targets
    labels = artifact.read(bundle).labels
    done = infer(python, bundle, str(pictures))
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(targets) == COUNT and np.mean(outputs.argmax(1) == targets) > 0.5
    assert [each["label"] for each in said] == [labels[i] for i in outputs.argmax(1)]
    powers = np.exp(outputs - outputs.max(1, keepdims=True)).max(1) / np.exp(outputs - outputs.max(1, keepdims=True)).sum(1)
    assert [each["probability"] for each in said] == pytest.approx(powers.tolist(), abs=1e-5)
