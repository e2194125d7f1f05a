"""data/surface: a production line by seed. The same scene drawn with and without its defect shows the defect alone."""

import itertools

import numpy as np
import pytest

from edgewise.config.settings import build
from edgewise.data import surface
from edgewise.data.surface import DEFECTS, TEXTURES
from edgewise.errors import ConfigError


def settings(**given) -> surface.Settings:
    return build(surface.Settings, {"image_size": 64, "channels": 1, "samples": 40, **given}, "data")


def drawn(**given):
    return list(surface.items(settings(**given)))


def test_the_seed_alone_decides_and_more_samples_only_add():
    first, again, longer, other = drawn(), drawn(), drawn(samples=60), drawn(seed=1)
    assert [i.sha256 for i in first] == [i.sha256 for i in again] == [i.sha256 for i in longer[:40]]
    assert not {i.sha256 for i in first} & {i.sha256 for i in other}


@pytest.mark.parametrize("texture", [*TEXTURES, "mixed"])
def test_pictures_are_as_asked(texture):
    found = drawn(texture=texture, image_size=[48, 80])
    assert {(i.value.shape, i.value.dtype) for i in found} == {((48, 80, 1), np.dtype(np.uint8))}
    assert len({i.sha256 for i in found}) == len({i.name for i in found}) == 40
    levels = np.array([i.value.mean() for i in found])
    assert levels.min() > 70 and levels.max() < 180 and min(i.value.std() for i in found) > 5


def test_exposures_of_a_scene_are_a_group_of_near_twins():
    found = drawn(exposures=4, texture="tiles")
    for _, group in itertools.groupby(found, key=lambda i: i.group):
        group = list(group)
        assert len(group) == 4 and len({i.label for i in group}) == 1

    def likeness(one, other):
        """The best correlation over small shifts of the middle."""
        middle = one.value[10:-10, 10:-10, 0].ravel()
        windows = (other.value[y : y + 44, x : x + 44, 0].ravel() for y in range(0, 21, 2) for x in range(0, 21, 2))
        return max(np.corrcoef(middle, window)[0, 1] for window in windows)

    assert likeness(found[0], found[1]) > 0.5 > likeness(found[0], found[8])


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.9])
def test_defects_are_as_rare_as_asked_and_their_kinds_alike(share):
    kinds = [surface.choose_kind(index, share) for index in range(2000)]
    counts = [kinds.count(kind) for kind in DEFECTS]
    assert sum(counts) == int(2000 * share) and max(counts) - min(counts) <= 1


def defect_alone(kind: str, index: int, **given) -> np.ndarray:
    asked = settings(image_size=224, **given)
    scenes = [surface.draw_scene(np.random.default_rng([0, index]), k, asked)[0] for k in (kind, surface.GOOD)]
    return np.abs(scenes[0] - scenes[1])


@pytest.mark.parametrize("kind", DEFECTS)
@pytest.mark.parametrize("texture", TEXTURES)
def test_a_defect_is_visible_and_fainter_where_it_is_hard(kind, texture):
    easy, hard = (np.mean([defect_alone(kind, i, difficulty=d, texture=texture).max() for i in range(4)]) for d in (0.0, 1.0))
    assert easy > 0.15 and easy > 2 * hard > 0.05
    if kind != "uneven":
        assert max((defect_alone(kind, i, texture=texture) > 0.02).mean() for i in range(4)) < 0.2


def test_a_simple_detector_finds_the_pits_of_an_easy_line():
    from sklearn.metrics import roc_auc_score

    found = [
        i for i in drawn(samples=200, exposures=1, difficulty=0.0, defect_share=0.9, texture="tiles") if i.label in ("good", "blowhole")
    ]
    contrast = [np.percentile(i.value, 1) / i.value.mean() - np.percentile(i.value, 0.05) / i.value.mean() for i in found]
    assert roc_auc_score([i.label == "blowhole" for i in found], contrast) > 0.6


def test_boxes_and_masks_are_those_of_the_defect_and_change_no_picture():
    """Where the scene with its defect differs from the scene without it, there is a box around it and the mask has its class."""
    given = {"image_size": 224, "exposures": 1, "defect_share": 0.9, "samples": 20}
    plain, boxed, masked = (drawn(**given, targets=targets) for targets in ("classes", "boxes", "masks"))
    assert [i.sha256 for i in plain] == [i.sha256 for i in boxed] == [i.sha256 for i in masked]
    kinds = list(DEFECTS)
    for item, boxes, mask in zip(plain, (i.label for i in boxed), (i.label.unpack() for i in masked), strict=True):
        assert set(boxes.classes.tolist()) == ({kinds.index(item.label)} if item.label != surface.GOOD else set())
        assert set(np.unique(mask)) <= {0, kinds.index(item.label) + 1 if item.label != surface.GOOD else 0}
        covered = np.zeros(mask.shape, bool)
        for x0, y0, x1, y1 in boxes.corners.astype(int).tolist():
            covered[y0:y1, x0:x1] = True
        assert not (mask[~covered] > 0).any() and boxes.areas.sum() >= (mask > 0).sum() > 0 or item.label == surface.GOOD


@pytest.mark.parametrize("kind", [kind for kind in DEFECTS if kind != "uneven"])
def test_regions_are_where_the_scene_changed(kind):
    for index in range(6):
        asked = settings(image_size=224, difficulty=0.0)
        _, regions = surface.draw_scene(np.random.default_rng([0, index]), kind, asked)
        changed = defect_alone(kind, index, difficulty=0.0)
        region = np.any(regions, axis=0)
        assert changed[region].mean() > 8 * changed[~region].mean() and changed[~region].max() < 0.7 * changed.max()


def test_one_class_of_defects():
    assert settings(targets="boxes", merge_defects=True, normal="good").class_names() == ["defect"]
    assert settings(targets="masks").class_names() == ["background", *DEFECTS]
    merged = drawn(targets="masks", merge_defects=True, normal="good", defect_share=0.9)
    assert {value for item in merged for value in np.unique(item.label.unpack()).tolist()} == {0, 1}


def test_the_probe_knows_no_files():
    assert surface.probe(settings()) == surface.probe(settings(seed=3)) and surface.probe(settings())["files"] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"texture": "wood"}, "data.texture: 'wood'; allowed: fabric, metal, mixed, tiles"),
        ({"difficulty": 2}, "data.difficulty: 2.0 must be"),
        ({"merge_defects": True}, "data.merge_defects: true needs data.normal"),
        ({"samples": 5}, "data.samples: 5 must be at least 10"),
    ],
)
def test_wrong_settings(given, message):
    with pytest.raises(ConfigError, match=message):
        settings(**given)
