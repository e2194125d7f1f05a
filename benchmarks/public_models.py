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

Each reached a report and a bundle (profile smoke; silero_vad, face, cls and det with three or four variants), and `infer.py` answered.
All variants of the tables were made and proved; to save time, stages were asked for a few at a time, in place of one `dvc repro`.
"""


@dataclass(frozen=True)
class Public:
    """A model file below DIR/pretrained. sound: fed with sequences of sound, else with pictures. note: what the figures do not say."""

    title: str
    file: str
    sound: bool = False
    note: str = ""


ROUNDING = """The rounding of float32 costs as much: the original file agrees with itself to 96 dB where the optimizations of ONNX Runtime
are off, and to 101 dB where each pixel is moved by half a unit in the last place."""
SENSITIVE = """The net multiplies the rounding of float32: the original file agrees with itself to 101 dB where the optimizations of
ONNX Runtime are off, and to 105 dB where each pixel is moved by half a unit in the last place. A single convolution with a sigmoid agrees
to 139 dB in OpenVINO, to 127 in MNN and to 121 in ncnn, and the net has 110 of them."""
WINOGRAD = """The 82 dB are the rounding of MNN's winograd convolutions with their largest tiles. On six other pictures the file agrees to
96 dB, and to 120 dB with `engine: {winograd_memory: 2}`."""
MODELS = {
    "yolox": Public("YOLOX-Nano", "yolox/yolox_nano.onnx", note=SENSITIVE),
    "silero": Public("silero_vad.onnx", "silero/silero_vad.onnx", sound=True),
    "silero16": Public("silero_vad_16k_op15.onnx", "silero/silero_vad_16k_op15.onnx", sound=True),
    "face": Public("MediaPipe face_detection_short_range.tflite", "mediapipe/face_detection_short_range.tflite"),
    "selfie": Public("MediaPipe selfie_segmentation.tflite", "mediapipe/selfie_segmentation.tflite"),
    "cls": Public("PP-OCR cls", "ppocr/ch_ppocr_mobile_v2.0_cls_infer.onnx", note=ROUNDING),
    "det": Public("PP-OCR det", "ppocr/ch_PP-OCRv4_det_infer.onnx", note=WINOGRAD),
}

EXTRA = """### Speech, step by step

Both silero files over 30 seconds of speech (937 steps of 512 samples, each behind the last 64 of the one before, with carried state;
recordings of Debian's alsa-utils, speech in 47 % of the steps), against the original file in ONNX Runtime with its state carried by hand:
`python -m benchmarks.speech compare`. The figures of both files are the same.

| variant | largest difference of the probability | mean | decisions at 0.5 that change |
| --- | --- | --- | --- |
| onnx-fp32 | 0 | 0 | 0 |
| onnx-fp16 | 0.010 | 0.00018 | 0 |
| onnx-int8-dynamic | 0.18 | 0.0052 | 3 of 937 |
| onnx-int8-static | 0.98 | 0.12 | 109 of 937 |
| openvino-fp32 | 0.0000026 | 0.00000008 | 0 |
| openvino-fp16 | 0.0043 | 0.000068 | 0 |
| openvino-int8-static | 0.99 | 0.12 | 110 of 937 |

The int8-static ones pass the scheme's limit of 3 dB and are no use: a state that is rounded in every step forgets what it heard.

silero_vad_16k_op15.onnx by `dvc repro` (profile smoke, one thread, while other work kept the machine busy): a step takes 0.059 ms in
onnx-fp32, 0.062 in onnx-fp16, 0.079 in onnx-int8-dynamic and 0.066 in openvino-fp32 (p50), of the 32 ms that it covers: real-time factors
of 0.0019 to 0.0025. The bundle of onnx-int8-dynamic streams the 937 steps from stdin, with the same answers bit by bit.

### Pictures at their own sizes

PP-OCR det with `data.resize=as_is data.pad_stride=32` on 12 pictures with printed text, from 160x384 to 320x320 as they go in; SQNR in dB:
onnx-fp32 200, onnx-fp16 51, onnx-int8-dynamic 17, onnx-int8-static 14, openvino-fp32 117, openvino-int8-static 26. ncnn-fp32 is refused:
ncnn takes inputs of one size.
"""


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
    text = "\n".join([HEAD, *found, EXTRA])
    if given.write:
        TARGET.write_text(replace_section(TARGET.read_text(encoding="utf-8"), text), encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    run_main(main)
