"""data/masks: numbers, palettes and colours give the same masks; sizes, names and numbers that do not fit are named."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.config.settings import build
from edgewise.data import masks
from edgewise.errors import ConfigError, DataError
from edgewise.plugins import IGNORED, Unreadable
from tests.support.object_sets import COLOURS, SCENES, class_map, write_masks
from tests.unit.test_prepare_data import plugin, prepare

PLAIN_COLOURS = {name: list(colour) for name, colour in COLOURS.items()}


def made(folder: Path, tmp_path: Path, **settings) -> tuple[Manifest, dict[str, np.ndarray]]:
    """The manifest, and the masks by the name of the picture."""
    manifest = prepare(plugin("masks", path=str(folder), image_size=32, **settings), tmp_path)
    files = json.loads((tmp_path / "models/data/files.json").read_text())
    found = Samples.open(tmp_path / "models/data").targets(np.arange(len(files))) or [None] * len(files)
    return manifest, {Path(file["name"]).stem: mask for file, mask in zip(files, found, strict=True)}


def read(folder: Path, **settings):
    return list(masks.items(build(masks.Settings, {"path": str(folder), **settings}, "data")))


def save(path: Path, mask: np.ndarray) -> None:
    Image.fromarray(mask).save(path)


def same(found: dict[str, np.ndarray]) -> bool:
    return found.keys() == SCENES.keys() and all(np.array_equal(mask, class_map(name)) for name, mask in found.items())


def test_class_numbers(tmp_path):
    manifest, found = made(write_masks(tmp_path / "set"), tmp_path, classes=["ground", "bolt", "nut", "washer"])
    assert same(found) and manifest.labels == ("ground", "bolt", "nut", "washer") and manifest.details["problems"] == {}
    assert manifest.details["sizes"]["test"] == 6 and manifest.details["sizes"]["validation"] == 4
    expected = [sum(int((class_map(f"part{i}") == number).sum()) for i in range(18, 24)) for number in range(4)]
    assert list(manifest.details["pixels"]["test"].values()) == expected


def test_colours_by_setting_and_by_table(tmp_path):
    folder = write_masks(tmp_path / "set", colours=True)
    (tmp_path / "table.csv").write_text("name, r, g, b\n" + "".join(f"{n}, {r}, {g}, {b}\n" for n, (r, g, b) in COLOURS.items()))
    for given in ({"colors": PLAIN_COLOURS}, {"color_table": str(tmp_path / "table.csv")}):
        manifest, found = made(folder, tmp_path, ignore_names=["void"], **given)
        assert same(found) and manifest.labels == ("background", "bolt", "nut", "washer")


def test_a_palette_holds_numbers_and_not_colours(tmp_path):
    folder = write_masks(tmp_path / "set")
    for path in (folder / "masks").rglob("*.png"):
        picture = Image.fromarray(np.array(Image.open(path)))
        picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
        assert picture.mode == "P"
        picture.save(path)
    assert same(made(folder, tmp_path)[1])


def test_numbers_that_are_not_scored_or_count_from_one(tmp_path):
    folder = write_masks(tmp_path / "set")
    _, found = made(folder, tmp_path, ignore=[3, 255])
    assert all(np.array_equal(mask, np.where(class_map(n) == 3, IGNORED, class_map(n))) for n, mask in found.items())
    manifest, found = made(folder, tmp_path, first_number=1, classes=["bolt", "nut", "washer"])
    moved = {name: np.where(np.isin(class_map(name), (0, 255)), IGNORED, class_map(name) - 1) for name in found}
    assert all(np.array_equal(mask, moved[name]) for name, mask in found.items()) and manifest.details["problems"] == {}


def test_numbers_without_a_name_are_not_scored_and_told(tmp_path):
    folder, three = write_masks(tmp_path / "set"), ["ground", "bolt", "nut"]
    manifest, found = made(folder, tmp_path, classes=three, max_unreadable_share=0.9)
    assert all((mask[class_map(name) == 3] == IGNORED).all() for name, mask in found.items())
    with_washers = sum((class_map(name) == 3).any() for name in SCENES)
    problem = manifest.details["problems"][masks.UNNAMED]
    assert problem["count"] == with_washers and problem["named"][0] == "images/test/part20.png (3)"
    with pytest.raises(
        DataError, match=rf"{with_washers} of 24 masks have classes without a name, such as 3; name them in data.classes, or"
    ):
        read(folder, classes=three)
    folder = write_masks(tmp_path / "colours", colours=True)
    fewer = {name: colour for name, colour in PLAIN_COLOURS.items() if name != "void"}
    told = made(folder, tmp_path, colors=fewer, max_unreadable_share=1.0)[0].details["problems"]
    assert told[masks.UNKNOWN_COLOUR]["count"] == len(SCENES)
    with pytest.raises(DataError, match=r"24 of 24 masks have classes without a name, such as \[255, 255, 255\]; name them in data.colors"):
        read(folder, colors=fewer)


def test_names_of_masks_with_other_ends_and_one_folder(tmp_path):
    folder = tmp_path / "set"
    for number in range(20):
        for place, end, array in (
            ("photos", "_rgb", np.zeros((9, 12, 3), np.uint8)),
            ("labels", "_ids", np.full((9, 12), number % 2, np.uint8)),
        ):
            (folder / place / "city").mkdir(parents=True, exist_ok=True)
            array[0, 0] = number if place == "photos" else number % 2
            save(folder / place / "city" / f"{number:02d}{end}.png", array)
    manifest, found = made(folder, tmp_path, images="photos", masks="labels", image_suffix="_rgb", mask_suffix="_ids")
    assert manifest.labels == ("0", "1") and len(found) == 20 and manifest.details["sizes"]["train"] == 12


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "no mask part03.png"),
        (lambda path: path.write_text("text"), "mask part03.png: cannot identify image file"),
        (lambda path: save(path, np.zeros((43, 61), np.uint8)), "mask part03.png has 61x43 pixels, the picture 60x43"),
        (
            lambda path: save(path, np.eye(43, 60, dtype=np.uint8)[:, :, None] * np.uint8([9, 0, 0])),
            "the mask has colours, not class numbers",
        ),
    ],
)
def test_a_mask_that_does_not_fit_its_picture(tmp_path, spoil, reason):
    folder = write_masks(tmp_path / "set")
    spoil(folder / "masks/train/part03.png")
    (bad,) = [item for item in read(folder) if isinstance(item, Unreadable)]
    assert bad.name == "images/train/part03.png" and bad.reason.startswith(reason)
    with pytest.raises(DataError, match=r"1 of 24 pictures cannot be read \(images/train/part03.png: "):
        read(folder, max_unreadable_share=0.01)


def test_pictures_of_which_only_some_have_a_mask(tmp_path):
    folder = write_masks(tmp_path / "set")
    for number in range(1, 24, 2):
        next((folder / "masks").rglob(f"part{number:02d}.png")).unlink()
    manifest, found = made(folder, tmp_path, partial=True, pooled=True)
    assert sorted(found) == [f"part{number:02d}" for number in range(0, 24, 2)] and manifest.details["unreadable"]["count"] == 0
    with pytest.raises(DataError, match=r"12 of 24 pictures cannot be read \(.*: no mask part\d\d.png"):
        read(folder)


def test_splits_again_and_pictures_alone(tmp_path):
    folder = write_masks(tmp_path / "set", only=("train", "val"))
    assert made(folder, tmp_path)[0].details["sizes"]["test"] == 4
    assert made(folder, tmp_path, pooled=True)[0].details["sizes"]["test"] in (3, 4)
    manifest, found = made(folder, tmp_path, targets="none")
    assert manifest.labels == () and set(found.values()) == {None}
    (folder / "images/train").rename(folder / "images/dev")
    words = r"images: dev, val, but no train/, from which the calibration split is taken; set data.pooled=true"
    with pytest.raises(DataError, match=words):
        read(folder)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"masks": "labels"}, DataError, r"none of the 24 pictures has a mask: .* should have .*/labels/test/part18.png; set data.masks"),
        ({"images": "photos"}, DataError, "no pictures in photos/; the folder must hold images/"),
        ({"ignore": [0, 1, 2, 3]}, DataError, "24 masks without a pixel of any class; check data.ignore"),
        ({"colors": {"road": [1, 2]}}, ConfigError, r"data.colors.road: \[1, 2\] must be three numbers from 0 to 255"),
        ({"colors": {"road": [1, 2, 3]}, "color_table": "x.csv"}, ConfigError, "data.colors, data.color_table: both are given"),
        ({"colors": {"road": [1, 2, 3]}, "classes": ["road"]}, ConfigError, "data.classes: the colours name the classes already"),
        (
            {"color_table": "absent.csv"},
            DataError,
            "data.color_table: absent.csv: No such file .*; give a CSV file with the columns name,r,g,b",
        ),
    ],
)
def test_wrong_settings(tmp_path, given, error, message):
    folder = write_masks(tmp_path / "set")
    with pytest.raises(error, match=message):
        made(folder, tmp_path, **given)


@pytest.mark.parametrize(
    "table", ["name,r,g\na,1,2\n", "name,r,g,b\na,1,2,x\n", "name,r,g,b\na,1,2,3\na,4,5,6\n", "r,g,b,name\n1,2,3\n", ""]
)
def test_tables_that_are_none(tmp_path, table):
    (tmp_path / "table.csv").write_text(table)
    with pytest.raises(DataError, match=r"data.color_table: .*table.csv: .*; give"):
        read(write_masks(tmp_path / "set"), color_table=str(tmp_path / "table.csv"))
