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
    scenes = [surface.draw_scene(np.random.default_rng([0, index]), k, asked) for k in (kind, surface.GOOD)]
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
