"""MediaPipe's face detection and selfie segmentation, float and in 8 bits, on the people of coco128.

    python -m benchmarks.mediapipe --shared FOLDER [--profile quick] [faces selfies]

Reads   FOLDER/pretrained/mediapipe; FOLDER/coco128, whose val is the test split and whose train the calibration
Writes  .edgewise/mediapipe: the people as data sets of their own, and a project for each model; the tables are printed

selfies: the pixels of people, from the outlines of coco128, in the pictures that have some. faces: nothing says where a face is, so that a
variant is held against the float model: which of its detections above 0.5 are found again, in the upper parts of people, cut out. What is
given as truth there, the whole cutting, is never judged by.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.own_models import ROOT, carry, speed
from edgewise.artifacts.records import Summary, VariantSummary
from edgewise.errors import DataError, run_main

HOME = ROOT / ".edgewise/mediapipe"
MODELS = "pretrained/mediapipe"
SPLITS = {"train": "train2017", "val": "val2017"}
PERSON = {"labels": "0", "labels_segments": "1"}  # folder of coco128 -> number of the class
NARROWEST = 48  # pixels of a person whose head is cut out
WIDER = 1.2  # than the person, the cutting
SAMPLES = 64
REFERENCE = "tflite-fp32"
ANCHORS = {  # mediapipe/modules/face_detection/face_detection_short_range.pbtxt
    **{"strides": [8, 16, 16, 16], "min_scale": 0.1484375, "max_scale": 0.75},
    **{"aspect_ratios": [1.0], "fixed_anchor_size": True},
}
DECODING = {
    **{"head": "ssd", "outputs": {"boxes": "regressors", "scores": "classificators"}, "anchors": ANCHORS},
    **{"variances": [1 / 128] * 4, "exponential": False, "activation": "sigmoid", "background": "none", "nms_threshold": 0.3},
}
SPLIT_SHARES = {"validation": 0.25, "calibration": 0.5, "test": 0.25}


def read_people(path: Path, number: str) -> list[list[str]]:
    """What a file of labels says of each person, behind the number of the class."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return [words[1:] for words in lines if words and words[0] == number]


def pictures_with_people(coco: Path, kind: str) -> Iterator[tuple[str, Path, list[list[str]]]]:
    """(split, picture, people) of the files in the folder `kind`."""
    for split, folder in SPLITS.items():
        for labels in sorted((coco / kind / folder).glob("*.txt")):
            picture, people = coco / "images" / folder / f"{labels.stem}.jpg", read_people(labels, PERSON[kind])
            if people and picture.exists():
                yield split, picture, people


def write_selfies(coco: Path, folder: Path) -> dict[str, Any]:
    """Pictures with the outlines of their people; the section `data`."""
    for split, picture, people in pictures_with_people(coco, "labels_segments"):
        place = folder / "images" / split / picture.name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.symlink_to(picture)
        write_labels(folder, split, picture.stem, [" ".join(("0", *words)) for words in people])
    return {"path": write_yaml(folder), "targets": "masks", "image_size": 256, "range": [0, 1], "resize": "stretch"}


def write_faces(coco: Path, folder: Path) -> dict[str, Any]:
    """The upper parts of people, squares; the section `data`."""
    from PIL import Image

    for split, picture, people in pictures_with_people(coco, "labels"):
        image = Image.open(picture).convert("RGB")
        for number, box in enumerate(people):
            x, y, width, height = (float(word) * side for word, side in zip(box, image.size * 2, strict=True))
            if width < NARROWEST or height < width:
                continue
            half, name = WIDER * width / 2, f"{picture.stem}-{number}"
            top = y - height / 2 - (WIDER - 1) * width / 2
            place = folder / "images" / split / f"{name}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            image.crop(tuple(round(side) for side in (x - half, top, x + half, top + 2 * half))).save(place)
            write_labels(folder, split, name, ["0 0.5 0.5 1 1"])
    return {"path": write_yaml(folder), "targets": "boxes", "image_size": 128, "range": [-1, 1], "pad_value": 0}


def write_labels(folder: Path, split: str, name: str, lines: Sequence[str]) -> None:
    path = folder / "labels" / split / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_yaml(folder: Path) -> str:
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [person]\n", encoding="utf-8")
    return str(folder / "data.yaml")


def choose_variants() -> dict[str, dict[str, Any]]:
    """Both formats that read a TFLite file, float and in 8 bits, and what 8 bits are without float tails."""
    found: dict[str, dict[str, Any]] = {}
    for form, schemes in {"tflite": ("fp32", "int8-static"), "openvino": ("fp32", "int8-static")}.items():
        for scheme in schemes:
            found[f"{form}-{scheme}"] = {"format": form, "scheme": scheme}
    plain = {"calibration": {"samples": SAMPLES}}
    found |= {name: {**found[name], **plain} for name in found if name.endswith("static")}
    return found | {"tflite-int8-static-naive": {**found["tflite-int8-static"], "tail": "int8"}}


Case = tuple[str, Callable[[Path, Path], dict[str, Any]], dict[str, Any]]  # file, what writes its data, section task
CASES: Mapping[str, Case] = {
    "faces": ("face_detection_short_range.tflite", write_faces, {"name": "detection", "threshold": 0.5, "decoding": DECODING}),
    "selfies": ("selfie_segmentation.tflite", write_selfies, {"name": "segmentation", "probabilities": True}),
}


def write_params(shared: Path, name: str, profile: str) -> dict[str, Any]:
    file, write_data, task = CASES[name]
    data = write_data(shared / "coco128", HOME / "data" / name)
    return {
        **{"seed": 0, "data": {"name": "yolo", "channels_last": True, "splits": SPLIT_SHARES, **data}, "task": task},
        **{"model": {"name": "tflite_file", "path": str(shared / MODELS / file)}, "train": {"name": "default"}},
        **{"device": {"name": "local", "host": None, "threads": 1}, "bench": {"name": profile}, "budget": {"name": "none"}},
        **{"reference": REFERENCE, "variants": choose_variants()},
    }


def cells(name: str, row: VariantSummary) -> list[str]:
    """Of faces, what is lost of the float model's detections; of selfies, mean IoU and the pixels that changed."""
    quality, scores = row.quality, row.quality.scores
    if row.quality.score is None:
        return [name, f"failed: {row.reason}", "", "", "", ""]
    if "lost_detections_share" in scores:
        low, high = scores["lost_detections_share_ci95"] or (0.0, 0.0)
        lost = f"{scores['lost_detections_share']:.1%} [{low:.1%}, {high:.1%}] of {scores['detections']}"
        kept = [lost, f"{scores['score_shift_median']:+.3f}"]
    else:
        low, high = quality.delta_ci95 or (0.0, 0.0)
        change = f"{100 * (quality.delta or 0):+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
        kept = [f"{quality.score:.3f}, {change}", f"{scores.get('pixels_changed_share') or 0:.2%}"]
    return [
        name,
        *kept,
        "" if row.proof.sqnr_to_source_db is None else f"{row.proof.sqnr_to_source_db:.1f}",
        f"{(row.file.size_bytes or 0) / 1000:.0f}",
        speed(row)[1],
    ]


COLUMNS = {
    "faces": ("variant", "detections lost", "score shift", "SQNR dB", "kB", "ratio"),
    "selfies": ("variant", "mean IoU, Δ points", "pixels changed", "SQNR dB", "kB", "ratio"),
}


def make_table(name: str, summary: Summary) -> str:
    rows = [cells(variant, row) for variant, row in summary.variants.items()]
    samples = next(row.quality.samples for row in summary.variants.values() if row.quality.samples)
    lines = ["| " + " | ".join(line) + " |" for line in (COLUMNS[name], ["---"] * len(COLUMNS[name]), *rows)]
    return "\n".join([f"{name}, {samples} pictures", "", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mediapipe", description="face detection and selfie segmentation")
    parser.add_argument("--shared", type=Path, required=True, help="the folder with pretrained/mediapipe and coco128")
    parser.add_argument("--profile", default="quick", help="how to measure: smoke claims nothing, quick, standard")
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(CASES)}; both without it")
    arguments = parser.parse_args()
    if not (arguments.shared / MODELS).is_dir():
        raise DataError(f"--shared: {arguments.shared} has no {MODELS}; name the folder with the public files")
    for name in arguments.names or CASES:
        print(make_table(name, carry(write_params(arguments.shared.resolve(), name, arguments.profile), HOME / name)))


if __name__ == "__main__":
    run_main(main)
