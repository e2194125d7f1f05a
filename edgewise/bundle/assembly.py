"""Make the bundle of the chosen variant; copy it to the configured device and run it there once, on a test sample."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from edgewise.artifacts import artifact, records
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.artifacts.targets import CLASSES
from edgewise.bundle import contents
from edgewise.config import schema
from edgewise.config.schema import Plugin
from edgewise.config.settings import nearest
from edgewise.devices.access import connect, lock
from edgewise.errors import ConfigError, DeviceError
from edgewise.measure.runs import Run

MODELS = Path("models")
BUNDLE, BUNDLES = MODELS / "bundle", MODELS / "bundles"
DEADLINE_S = 180.0  # to start python, import a runtime and answer once on a slow board


def make_bundle() -> None:
    """Write models/bundle for the chosen variant, or a manifest with status `none` and the reason where nothing is chosen."""
    summary = records.read_summary()
    if summary.chosen is None:
        artifact.write_status(BUNDLE, Manifest(kind="bundle", status="none", reason=summary.chosen_reason))
        print(f"bundle: none, nothing is chosen: {summary.chosen_reason}")
        return
    write_bundle(summary, summary.chosen, BUNDLE)
    if summary.chosen == summary.reference:
        print(f"bundle: {summary.chosen} is {summary.chosen_reason}")


def bundle_variant(name: str) -> None:
    """Write models/bundles/NAME for a variant of the last run, whatever the budget chose. ConfigError for one that is unknown or failed."""
    summary = records.read_summary()
    if name not in summary.variants:
        raise ConfigError(f"--variant {name}: not a variant of the last run; {nearest(name, summary.variants)}")
    if not summary.variants[name].ok:
        raise ConfigError(f"--variant {name}: it failed ({summary.variants[name].reason}), so there is nothing to bundle")
    write_bundle(summary, name, BUNDLES / name)


def write_bundle(summary: records.Summary, name: str, target: Path) -> None:
    chosen = contents.Chosen.read(schema.read(), summary, name, MODELS)
    with artifact.building(target) as folder:
        contents.write_contents(chosen, folder)
        contents.write_card(chosen, folder)
        made = Manifest(kind="bundle", format=chosen.variant.format, scheme=chosen.variant.scheme, labels=chosen.evaluated.labels)
        artifact.write(folder, made)
        contents.write_checksums(folder)  # last: the checksums cover the manifest too
    print(f"bundle: {name} in {target}; copy the folder, then: python infer.py --help")


def send_bundle(to: str) -> None:
    """Run models/bundle on the configured device once. to: the word device, or the configured device's name.

    Raises ConfigError without a bundle and for another device, DeviceError where it gives no answer.
    """
    made = artifact.read(BUNDLE)
    if not made.ok:
        raise ConfigError(f"{BUNDLE} is {made.status}: {made.reason}; a budget in params.yaml (budget.name) chooses a variant to bundle")
    settings = schema.read()
    if to not in ("device", settings.device.name):
        raise ConfigError(
            f"--to {to}: the configured device is {settings.device.name!r}; give that name or the word device, or choose the other in "
            "params.yaml (device.name) and run `dvc repro`"
        )
    place, answer = run_on_device(settings.device, BUNDLE, MODELS / "data")
    print(f"bundle: on {settings.device.name} in {place}; its answer for the first test sample: {json.dumps(answer, ensure_ascii=False)}")
    truth = read_true_label(MODELS / "data") if "label" in answer else None
    if truth is not None:
        print(f"bundle: that sample's own label: {truth}")


def read_true_label(data: Path) -> str | None:
    """The class of the first test sample; None where the data names none."""
    samples = Samples.open(data)
    targets = samples.targets(samples.indices("test")[:1]) if samples.kind == CLASSES else None
    return None if targets is None else samples.labels[int(targets[0])]


def run_on_device(device: Plugin, bundle: Path, data: Path) -> tuple[str, dict[str, Any]]:
    """Returns the bundle's path on the device and its answer. Raises DeviceError with the reason where it gave none."""
    with sample_input(bundle, data) as (folder, arguments), lock(device), connect(device) as connection:
        place = connection.place(bundle)
        beside = connection.place(folder)
        given = ["--", *(f"{beside}/{each}" if isinstance(each, PurePath) else each for each in arguments)]  # a text may begin with a dash
        job = {"kind": "bundle", "bundle": place, "arguments": given}
        ended = Run.of(connection.run(job, DEADLINE_S), bundle=1).one("bundle")
    if ended["code"]:
        raise DeviceError("agent_error", failure_reason(ended))
    return place, read_answer(ended)


def read_answer(ended: Mapping[str, Any]) -> dict[str, Any]:
    """The answer that infer.py printed in its first line. DeviceError if that is none: what a device prints is not trusted."""
    try:
        answer = json.loads(ended["stdout"].splitlines()[0])
        if not isinstance(answer, dict):
            raise ValueError
    except (IndexError, ValueError):
        raise DeviceError(
            "protocol", f"infer.py printed no answer but {ended['stdout'][:80]!r}; run the bundle there by hand to see what else prints"
        ) from None
    return answer


def failure_reason(ended: Mapping[str, Any]) -> str:
    """Why infer.py gave no answer, in one line: its own error, else the last line of stderr."""
    lines = [line.strip() for line in ended["stderr"].splitlines() if line.strip()]
    own = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return str((own[:1] or lines[-1:] or [f"infer.py ended with code {ended['code']}"])[0])


@contextmanager
def sample_input(bundle: Path, data: Path) -> Iterator[tuple[Path, list[str | PurePath]]]:
    """A folder with the first test sample, and the arguments for infer.py: text, and paths in that folder."""
    samples = Samples.open(data)
    raw = samples.raw(samples.indices("test")[:1])
    kind = samples.preprocessing["kind"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "image":
            write_picture(next(iter(raw.values()))[0], folder / "sample.png")
            yield folder, [PurePath("sample.png")]
        elif kind == "text":
            shutil.copyfile(bundle / samples.preprocessing["tokenizer"], folder / "tokenizer.json")
            yield folder, [decode_text(folder / "tokenizer.json", next(iter(raw.values()))[0])]
        else:
            np.savez(folder / "sample.npz", **raw)  # type: ignore[arg-type]
            yield folder, [PurePath("sample.npz")]


def write_picture(image: np.ndarray, path: Path) -> None:
    """Write a PNG. image: uint8 [height, width, 1 or 3]."""
    from PIL import Image

    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)


def decode_text(tokenizer: Path, ids: np.ndarray) -> str:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(tokenizer)).decode(ids.tolist())
