"""Public model files, each from `edgewise inspect` alone to a report; writes the last section of docs/sources.md.

    python -m benchmarks.public_models --data DIR --speech FILE.npz [--projects DIR] [--write] [NAME ...]

Reads   DIR: coco128/images/val2017 and pretrained/{yolox,silero,mediapipe,ppocr}; FILE.npz: sequences of sound, see benchmarks/speech.py
Writes  a project for each model in the folder of --projects, made with the commands of COMMANDS and nothing else; with --write the section

A project that is there is only read again; delete it to make it anew. Without --write the section is printed.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.errors import InfrastructureError, run_main

ROOT, VARIANTS = Path(__file__).parents[1], Path("models/variants")
TARGET = ROOT / "docs/sources.md"
TITLE = "## Public models, from inspect alone"
PICTURES = 16  # of COCO, without labels
Variants = Mapping[str, Manifest]
COMMANDS = (
    "edgewise init {project}",
    "edgewise inspect {file} --data {data} --output params.yaml",
    "dvc repro",
    "edgewise report",
)
HEAD = f"""{TITLE}

Written by `python -m benchmarks.public_models --write`. Each file is public and not shipped. It goes from `edgewise inspect` to a report in
four commands, without an edit of a file, on {PICTURES} pictures without labels or on sequences of speech:

    edgewise init PROJECT
    cd PROJECT; edgewise inspect FILE --data DATA --output params.yaml
    dvc repro
    edgewise report

A cell is the SQNR against the original file in dB, where there are several outputs output by output, of the group that agrees least, which
is named where an output has several. It is that of the probe samples, before anything is measured. A dash: it failed; why stands below.
With three pictures for calibration (a fifth of {PICTURES}) the int8-static ones are worse than a user's would be.
"""


@dataclass(frozen=True)
class Public:
    """A model file below DIR/pretrained. sound: fed with sequences of sound, else with pictures. note: what the figures do not say."""

    title: str
    file: str
    sound: bool = False
    note: str = ""


ROUNDING = """Float variants below 100 dB differ by the rounding of float32: the original file agrees with itself to 96 dB where the
optimizations of ONNX Runtime are off, and to 101 dB where each pixel is moved by half a unit in the last place."""
MODELS = {
    "yolox": Public("YOLOX-Nano", "yolox/yolox_nano.onnx"),
    "silero": Public("silero_vad.onnx", "silero/silero_vad.onnx", sound=True),
    "silero16": Public("silero_vad_16k_op15.onnx", "silero/silero_vad_16k_op15.onnx", sound=True),
    "face": Public("MediaPipe face_detection_short_range.tflite", "mediapipe/face_detection_short_range.tflite"),
    "selfie": Public("MediaPipe selfie_segmentation.tflite", "mediapipe/selfie_segmentation.tflite"),
    "cls": Public("PP-OCR cls", "ppocr/ch_ppocr_mobile_v2.0_cls_infer.onnx", note=ROUNDING),
    "det": Public("PP-OCR det", "ppocr/ch_PP-OCRv4_det_infer.onnx"),
}


def copy_pictures(data: Path, folder: Path) -> Path:
    """Some pictures of COCO in a folder of their own."""
    if not folder.exists():
        folder.mkdir(parents=True)
        for picture in sorted((data / "coco128/images/val2017").glob("*.jpg"))[:PICTURES]:
            shutil.copy(picture, folder)
    return folder


def carry(model: Public, project: Path, data: Path, fed: Path) -> dict[str, Manifest]:
    """All commands, unless the project has its variants already; the manifest of each. InfrastructureError if a command fails."""
    if not (project / VARIANTS).exists():
        words = {"project": str(project), "file": str(data / "pretrained" / model.file), "data": str(fed)}
        for command in COMMANDS:
            place = project if project.exists() else project.parent
            run([word.format(**words) for word in command.split()], place)
    named = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))["variants"]
    return {name: artifact.read(project / VARIANTS / name) for name in named}


def run(command: Sequence[str], place: Path) -> None:
    print(f"$ {' '.join(command)}", file=sys.stderr, flush=True)
    environment = {"EDGEWISE_PROFILE": "smoke", **os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if subprocess.run(command, cwd=place, env=environment).returncode:
        raise InfrastructureError(f"{' '.join(command)}: failed in {place}, see above")


def by_output(made: Manifest) -> dict[str, float]:
    """The lowest SQNR of each output, as the proof found it."""
    found: dict[str, float] = {}
    for one in made.details.get("agreement", ()):
        found[one["output"]] = min(one["sqnr_db"], found.get(one["output"], one["sqnr_db"]))
    return dict(sorted(found.items()))


def worst_group(made: Manifest) -> str:
    """The group of an output that agrees least; empty where the output is one group."""
    return str(made.details["agreement"][0]["group"])


def table(variants: Variants) -> Iterator[str]:
    """Formats by schemes."""
    schemes, formats = (list(dict.fromkeys(str(getattr(made, key)) for made in variants.values())) for key in ("scheme", "format"))
    yield f"| format | {' | '.join(schemes)} |"
    yield "| --- " * (len(schemes) + 1) + "|"
    for name in formats:
        made = {each.scheme: each for each in variants.values() if each.format == name}
        yield f"| {name} | {' | '.join(cell(made[scheme]) if scheme in made else '' for scheme in schemes)} |"


def cell(made: Manifest) -> str:
    if not made.ok:
        return "-"
    values = ", ".join(f"{value:.0f}" for value in by_output(made).values())
    return values + (f" ({worst_group(made)})" if worst_group(made) else "")


def failures(variants: Variants) -> Iterator[str]:
    """A line for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, made in variants.items():
        if not made.ok:
            reasons.setdefault(str(made.reason), []).append(name)
    yield from (f"* {', '.join(names)}: {reason}" for reason, names in reasons.items())


def section(model: Public, variants: Variants) -> str:
    outputs = next((list(by_output(made)) for made in variants.values() if made.ok), [])
    told = f"Outputs: {', '.join(outputs)}." if len(outputs) > 1 else ""
    lines = [f"### {model.title}", "", *([told, ""] if told else []), *table(variants), "", *([model.note, ""] if model.note else [])]
    missed = list(failures(variants))
    return "\n".join([*lines, *missed, *([""] if missed else [])])


def replace_section(page: str, text: str) -> str:
    """The page with the section at its end."""
    return f"{page.partition(TITLE)[0].rstrip()}\n\n{text.rstrip()}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--projects", type=Path, default=ROOT / ".edgewise/public-models")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    given = parser.parse_args()
    given.projects.mkdir(parents=True, exist_ok=True)
    pictures = copy_pictures(given.data, given.projects / "pictures")
    found = []
    for name in given.names or MODELS:
        fed = given.speech if MODELS[name].sound else pictures
        found.append(section(MODELS[name], carry(MODELS[name], given.projects / name, given.data.resolve(), fed.resolve())))
    text = "\n".join([HEAD, *found])
    if given.write:
        TARGET.write_text(replace_section(TARGET.read_text(encoding="utf-8"), text), encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    run_main(main)
