"""Small data sets of pictures with objects or masks, written in each of the forms that users have them in.

`SCENES` says what they show, so that every form must give the same boxes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

NAMES = ("bolt", "nut", "washer")
Box = tuple[int, int, int, int, int]  # class, x0, y0, x1, y1
PICTURES = 24
SPLITS = {"train": range(14), "val": range(14, 18), "test": range(18, 24)}


def scene(number: int) -> tuple[tuple[int, int], list[Box]]:
    """Height and width of picture `number`, and its objects; every sixth shows none."""
    size = (40 + number, 60)
    if number % 6 == 5:
        return size, []
    boxes = [(number % 3, 2 + number, 5, 22 + number, 25)]
    return size, boxes + ([(1, 40, 10, 60, 40)] if number % 2 else [])


SCENES = {f"part{number:02d}": scene(number) for number in range(PICTURES)}


def picture(size: tuple[int, int], boxes: Sequence[Box], seed: int) -> np.ndarray:
    image = np.random.default_rng(seed).integers(90, 110, (*size, 3)).astype(np.uint8)
    for number, x0, y0, x1, y1 in boxes:
        image[y0:y1, x0:x1, number] = 250
    return image


def save_picture(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(*SCENES[name], seed=int(name[4:]))).save(path)


def splits(only: Sequence[str] = tuple(SPLITS)) -> dict[str, list[str]]:
    return {split: [f"part{number:02d}" for number in SPLITS[split]] for split in only}


def write_yolo(folder: Path, only: Sequence[str] = tuple(SPLITS), outlines: bool = False, **more: Any) -> Path:
    """The dataset yaml; pictures without objects have no file of labels. more: entries of the yaml."""
    for split, names in splits(only).items():
        for name in names:
            save_picture(folder / "images" / split / f"{name}.png", name)
            (height, width), boxes = SCENES[name]
            lines = [yolo_line(box, height, width, outlines) for box in boxes]
            path = folder / "labels" / split / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            if lines:
                path.write_text("\n".join(lines) + "\n")
    content = {"path": ".", **{split: f"images/{split}" for split in only}, "names": dict(enumerate(NAMES)), **more}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return folder / "data.yaml"


def yolo_line(box: Box, height: int, width: int, outline: bool) -> str:
    number, x0, y0, x1, y1 = box
    points = [x0, y0, x1, y0, x1, y1, x0, y1] if outline else [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
    return " ".join([str(number), *(f"{value / (width, height)[i % 2]:.6f}" for i, value in enumerate(points))])


def write_coco(folder: Path, only: Sequence[str] = tuple(SPLITS), numbers: Sequence[int] = (3, 17, 90)) -> Path:
    """annotations/instances_SPLIT.json, pictures in SPLIT/; categories are listed backwards and have numbers with gaps."""
    categories = [{"id": number, "name": name} for number, name in zip(numbers, NAMES, strict=True)][::-1]
    for split, names in splits(only).items():
        images, annotations = [], list[Mapping[str, Any]]()
        for name in names:
            save_picture(folder / split / f"{name}.png", name)
            (height, width), boxes = SCENES[name]
            images.append({"id": int(name[4:]), "file_name": f"{name}.png", "height": height, "width": width})
            annotations += [coco_entry(len(annotations), int(name[4:]), box, numbers) for box in boxes]
        (folder / "annotations").mkdir(exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


def coco_entry(number: int, image: int, box: Box, numbers: Sequence[int]) -> dict[str, Any]:
    place, x0, y0, x1, y1 = box
    outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
    known = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0, "segmentation": outline}
    return {"id": number, "image_id": image, "category_id": numbers[place], **known}


def write_voc(folder: Path, only: Sequence[str] = tuple(SPLITS)) -> Path:
    for split, names in splits(only).items():
        for name in names:
            save_picture(folder / "JPEGImages" / f"{name}.png", name)
            (height, width), boxes = SCENES[name]
            path = folder / "Annotations" / f"{name}.xml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(voc_file(height, width, boxes))
        lists = folder / "ImageSets/Main"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
    return folder


def voc_file(height: int, width: int, boxes: Sequence[Box], difficult: int = 0) -> str:
    objects = [
        f"<object><name>{NAMES[n]}</name><difficult>{difficult}</difficult><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for n, x0, y0, x1, y1 in boxes
    ]
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{''.join(objects)}</annotation>"


def class_map(name: str) -> np.ndarray:
    """The class of each pixel: 0 for the background, later objects over earlier ones, 255 for the upper row."""
    size, boxes = SCENES[name]
    classes = np.zeros(size, np.uint8)
    for number, x0, y0, x1, y1 in boxes:
        classes[y0:y1, x0:x1] = number + 1
    classes[0] = 255
    return classes


COLOURS = {"background": (0, 0, 0), "bolt": (255, 0, 0), "nut": (0, 255, 0), "washer": (0, 0, 255), "void": (255, 255, 255)}


def write_masks(folder: Path, only: Sequence[str] = tuple(SPLITS), colours: bool = False) -> Path:
    table = np.zeros((256, 3), np.uint8)
    table[[0, 1, 2, 3, 255]] = list(COLOURS.values())
    for split, names in splits(only).items():
        for name in names:
            save_picture(folder / "images" / split / f"{name}.png", name)
            path = folder / "masks" / split / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(table[class_map(name)] if colours else class_map(name)).save(path)
    return folder


WRITERS = {"yolo": write_yolo, "coco": write_coco, "voc": write_voc, "masks": write_masks}
