"""A generated production line: pictures of a moving surface, some with a defect, several exposures of each scene.

Scene n looks the same whatever the number of samples. Exposures of a scene are near twins, so they are one group.
"""

import hashlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.core.plugins import Item
from stages.core.settings import option
from stages.data import surface_defects, surface_textures
from stages.data.pictures import PictureSettings, encoder

__all__ = ["Settings", "encoder", "items", "probe"]

GOOD = "good"
MARGIN = 0.05  # of a side: how far the exposures of a scene are shifted against each other, at most
GREY_LEVEL = 0.5  # mean brightness, 0..1
TEXTURE_CONTRAST = (0.05, 0.11)  # standard deviation of the brightness
NOISE = (0.01, 0.025)  # of the sensor, standard deviation


@dataclass(frozen=True, kw_only=True)
class Settings(PictureSettings):
    seed: int = option(0, "another seed is another production run", low=0)
    samples: int = option(4000, "pictures in all", low=10, high=1_000_000)
    exposures: int = option(2, "pictures of each scene", low=1, high=20)
    texture: str = option("metal", "mixed: each scene has one of the others", choices=(*surface_textures.TEXTURES, "mixed"))
    defect_share: float = option(0.2, "share of the scenes with a defect, the same number of each kind", low=0.01, high=0.9)
    difficulty: float = option(0.3, "0: strong defects on a clean surface, 1: faint ones among dust and shadows", low=0.0, high=1.0)


def probe(settings: Settings) -> Mapping[str, Any]:
    """The pictures depend on the settings, which the stage's parameters watch, and on what draws them."""
    tools = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "pillow"))
    return {"digest": hashlib.sha256(tools.encode()).hexdigest(), "files": 0, "bytes": 0}


def items(settings: Settings) -> Iterator[Item]:
    from tqdm import tqdm

    for number in tqdm(range(settings.samples), desc="drawing", unit="picture", delay=3, disable=None):
        index, exposure = divmod(number, settings.exposures)
        if exposure == 0:
            generator = np.random.default_rng([settings.seed, index])
            kind = kind_of(index, settings.defect_share)
            canvas = scene(generator, kind, settings)
        image = expose(generator, canvas, settings)
        name = f"{kind}/{index:06d}-{exposure}"
        yield Item(name, kind, f"{index:06d}", hashlib.sha256(image.tobytes()).hexdigest(), image)


def kind_of(index: int, defect_share: float) -> str:
    """Every 1/defect_share-th scene has a defect, the kinds in turn."""
    count = int((index + 1) * defect_share)
    if count == int(index * defect_share):
        return GOOD
    kinds = tuple(surface_defects.DEFECTS)
    return kinds[count % len(kinds)]


def scene(generator: np.random.Generator, kind: str, settings: Settings) -> np.ndarray:
    """Brightness 0..1, float32 [height, width], larger than the pictures by the margin."""
    shape = tuple(round(side * (1 + 2 * MARGIN)) for side in settings.size)
    texture = settings.texture if settings.texture != "mixed" else str(generator.choice(list(surface_textures.TEXTURES)))
    pattern = surface_textures.TEXTURES[texture](generator, shape)
    canvas = GREY_LEVEL + generator.uniform(*TEXTURE_CONTRAST) * pattern
    canvas = surface_defects.disturb(generator, canvas, settings.difficulty)
    if kind == GOOD:
        return canvas
    strength = (1.1 - 0.75 * settings.difficulty) * generator.uniform(0.8, 1.2)
    return surface_defects.DEFECTS[kind](generator, canvas, strength)


def expose(generator: np.random.Generator, canvas: np.ndarray, settings: Settings) -> np.ndarray:
    """One picture of the scene, uint8 [height, width, 1]: shifted, lighter or darker, with the noise of a sensor."""
    height, width = settings.size
    top, left = (int(generator.integers(0, whole - part + 1)) for whole, part in zip(canvas.shape, (height, width), strict=True))
    light = canvas[top : top + height, left : left + width] * np.float32(generator.uniform(0.75, 1.25))
    noise = generator.standard_normal((height, width), np.float32) * np.float32(generator.uniform(*NOISE))
    return np.rint(np.clip(light + noise, 0, 1) * 255).astype(np.uint8)[:, :, None]
