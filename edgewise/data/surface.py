"""A simulated production line: generated pictures of a moving surface, some with a defect, several exposures of each scene.

Scene n looks the same whatever the number of samples. Exposures of one scene are nearly the same and therefore form a group. Textures are
float32 [height, width] with mean 0 and standard deviation 1; defects change a scene of brightness 0..1, float32 [height, width], and tell
where: regions of bool [height, width], one for each object.
"""

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.artifacts.targets import BOXES, CLASSES, MASKS, NONE, SHAPED
from edgewise.config.settings import option
from edgewise.data.common import BACKGROUND, DEFECT, follow
from edgewise.data.encoders import PictureEncoder, PictureSettings
from edgewise.plugins import Boxes, Item, Label, Mask

__all__ = ["Settings", "encoder", "items", "probe"]

GOOD = "good"
MARGIN = 0.05  # largest shift between the exposures of a scene, share of a side
GREY_LEVEL = 0.5  # mean brightness, 0..1
TEXTURE_CONTRAST = (0.05, 0.11)  # standard deviation of the brightness
NOISE = (0.01, 0.025)  # of the sensor, standard deviation
OVERSAMPLING = 2  # lines are drawn larger and then reduced, for smooth edges
COVERED = 0.25  # from what share of its strength on a pixel belongs to a defect
Shape = tuple[int, ...]
Drawn = tuple[np.ndarray, list[np.ndarray]]  # the scene with the defect, and its regions
encoder = PictureEncoder


def smooth_noise(generator: np.random.Generator, shape: Shape, cells: Shape) -> np.ndarray:
    """Random values on a grid of cells (rows, columns), interpolated to `shape`."""
    from PIL import Image

    coarse = generator.standard_normal(cells, np.float32)
    return np.array(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def standardize(pattern: np.ndarray) -> np.ndarray:
    """To mean 0 and standard deviation 1."""
    scaled: np.ndarray = ((pattern - pattern.mean()) / pattern.std()).astype(np.float32)
    return scaled


def metal(generator: np.random.Generator, shape: Shape) -> np.ndarray:
    """Brushed metal: fine streaks along the direction of motion, over soft bands and grain."""
    height = shape[0]
    streaks = smooth_noise(generator, shape, (height, 3)) + smooth_noise(generator, shape, (height // 2, 8))
    return standardize(streaks + 0.8 * smooth_noise(generator, shape, (6, 3)) + 0.5 * generator.standard_normal(shape, np.float32))


def tiles(generator: np.random.Generator, shape: Shape) -> np.ndarray:
    """Glazed, mottled tiles of different shades with dark joints."""
    side = max(shape) / generator.uniform(2.5, 4.0)
    down, across = (np.arange(n) / side + generator.uniform(0, 1) for n in shape)
    shades = generator.standard_normal((8, 8), np.float32)[down.astype(int)[:, None], across.astype(int)[None, :]]
    gap = np.minimum(*np.meshgrid(*(np.abs((axis + 0.5) % 1 - 0.5) for axis in (across, down))))
    joint = np.clip(1.5 - gap * side / (0.012 * max(shape)), 0, 1)
    mottles = smooth_noise(generator, shape, (40, 40)) + smooth_noise(generator, shape, (12, 12))
    return standardize(0.5 * shades + 0.6 * mottles - 4.0 * joint + 0.3 * generator.standard_normal(shape, np.float32))


def fabric(generator: np.random.Generator, shape: Shape) -> np.ndarray:
    """Plain weave of slightly bent threads of uneven thickness."""
    pitch = max(shape) / generator.uniform(24, 34)
    grid = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")
    down, across = (axis / pitch + 0.35 * smooth_noise(generator, shape, (5, 5)) for axis in grid)
    over = (np.floor(down) + np.floor(across)) % 2
    threads = np.where(over == 1, np.sin(np.pi * (down % 1)) * 1.1, np.sin(np.pi * (across % 1)))
    slubs = smooth_noise(generator, shape, (shape[0] // 6, 4)) + smooth_noise(generator, shape, (4, shape[1] // 6))
    return standardize(threads + 0.12 * slubs + 0.15 * generator.standard_normal(shape, np.float32))


TEXTURES: dict[str, Callable[[np.random.Generator, Shape], np.ndarray]] = {"metal": metal, "tiles": tiles, "fabric": fabric}


def line(points: np.ndarray, width: float, shape: tuple[int, ...]) -> np.ndarray:
    """Coverage 0..1 of each pixel by a line through points [n, (row, column)]. width in pixels, at least 1."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (shape[1] * OVERSAMPLING, shape[0] * OVERSAMPLING))
    ImageDraw.Draw(canvas).line(
        [(x * OVERSAMPLING, y * OVERSAMPLING) for y, x in points], fill=255, width=round(max(width, 1) * OVERSAMPLING), joint="curve"
    )
    return np.asarray(canvas.resize((shape[1], shape[0]), Image.Resampling.BOX), np.float32) / 255


def path(generator: np.random.Generator, shape: tuple[int, ...], length: float, jitter: float, steps: int) -> np.ndarray:
    """Points [steps, 2] of a random walk that starts well inside; each step turns by a normal angle of `jitter` radians."""
    start = generator.uniform(0.2, 0.8, 2) * shape
    angles = generator.uniform(0, 2 * np.pi) + np.cumsum(generator.normal(0, jitter, steps))
    return start + np.cumsum(np.stack([np.sin(angles), np.cos(angles)], 1), 0) * length / steps


def spot(shape: tuple[int, ...], centre: np.ndarray, radii: np.ndarray, angle: float) -> np.ndarray:
    """Distance from the center of an ellipse, 1 on its edge: float32 [height, width]."""
    down, across = (np.arange(n, dtype=np.float32) - c for n, c in zip(shape, centre, strict=True))
    along = np.cos(angle) * down[:, None] + np.sin(angle) * across[None, :]
    beside = np.cos(angle) * across[None, :] - np.sin(angle) * down[:, None]
    distance: np.ndarray = np.hypot(along / radii[0], beside / radii[1])
    return distance


def scratch(generator: np.random.Generator, canvas: np.ndarray, strength: float) -> Drawn:
    """A bright, nearly straight groove with a dark side."""
    side = max(canvas.shape)
    mask = line(
        path(generator, canvas.shape, generator.uniform(0.3, 0.7) * side, 0.04, 24), generator.uniform(1.0, 1.8) * side / 224, canvas.shape
    )
    dark = np.roll(mask, 1 + side // 224, 0)
    return canvas + strength * (0.3 * mask - 0.2 * dark), [np.maximum(mask, dark) > COVERED]


def crack(generator: np.random.Generator, canvas: np.ndarray, strength: float) -> Drawn:
    """A dark, jagged line that branches."""
    side = max(canvas.shape)
    trunk = path(generator, canvas.shape, generator.uniform(0.3, 0.6) * side, 0.5, 30)
    mask = line(trunk, generator.uniform(1.2, 2.0) * side / 224, canvas.shape)
    for _ in range(generator.integers(1, 3)):
        branch = path(generator, canvas.shape, generator.uniform(0.08, 0.2) * side, 0.5, 12)
        branch += trunk[generator.integers(5, 25)] - branch[0]
        mask = np.maximum(mask, line(branch, side / 224, canvas.shape))
    return canvas - 0.38 * strength * mask, [mask > COVERED]


def blowhole(generator: np.random.Generator, canvas: np.ndarray, strength: float) -> Drawn:
    """One to three dark pits with a bright rim on one side."""
    side, regions = max(canvas.shape), []
    for _ in range(generator.integers(1, 4)):
        centre = generator.uniform(0.15, 0.85, 2) * canvas.shape
        radii = generator.uniform(0.012, 0.03, 2) * side
        angle = generator.uniform(0, np.pi)
        pit = np.clip(1.6 - spot(canvas.shape, centre, radii, angle), 0, 1)
        rim = np.clip(1.6 - spot(canvas.shape, centre + 0.4 * radii.mean(), radii * 1.25, angle), 0, 1) - pit
        canvas = canvas - strength * (0.35 * pit - 0.15 * np.clip(rim, 0, 1))
        regions.append(np.maximum(pit, rim) > COVERED)
    return canvas, regions


def stain(generator: np.random.Generator, canvas: np.ndarray, strength: float) -> Drawn:
    """A flat patch with a ragged edge, darker or lighter."""
    side = max(canvas.shape)
    radii = generator.uniform(0.07, 0.16, 2) * side
    distance = spot(canvas.shape, generator.uniform(0.2, 0.8, 2) * canvas.shape, radii, generator.uniform(0, np.pi))
    patch = np.clip((1.1 - distance + 0.22 * smooth_noise(generator, canvas.shape, (14, 14))) * 5, 0, 1)
    return canvas * (1 + generator.choice((-1.0, 0.8)) * 0.28 * strength * patch), [patch > COVERED]


def uneven(generator: np.random.Generator, canvas: np.ndarray, strength: float) -> Drawn:
    """The coating or the light fails towards one edge, in waves."""
    ramp = slope(generator, canvas.shape)
    waves = np.sin(ramp * generator.uniform(6, 14) + generator.uniform(0, 6))
    fall = np.clip(ramp - 0.3, 0, 1)
    return canvas * (1 - strength * (0.7 * fall + 0.2 * waves * ramp)), [fall > COVERED * fall.max()]


def slope(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """0 at one edge to 1 at the opposite, in a random direction: float32 [height, width]."""
    angle = generator.uniform(0, 2 * np.pi)
    down, across = (np.linspace(-0.5, 0.5, n, dtype=np.float32) for n in shape)
    ramp = np.sin(angle) * down[:, None] + np.cos(angle) * across[None, :]
    scaled: np.ndarray = (ramp - ramp.min()) / (ramp.max() - ramp.min())
    return scaled


def disturb(generator: np.random.Generator, canvas: np.ndarray, difficulty: float) -> np.ndarray:
    """What a good part may show too: light that falls off a little, a soft shadow, dust and short hairs."""
    side = max(canvas.shape)
    canvas = canvas * (1 - generator.uniform(0, 0.05 + 0.12 * difficulty) * slope(generator, canvas.shape))
    canvas = canvas + 0.02 * difficulty * smooth_noise(generator, canvas.shape, (4, 4))
    for _ in range(generator.poisson(6 * difficulty)):
        speck = path(generator, canvas.shape, generator.uniform(0.004, 0.02) * side, 0.6, 4)
        speck += generator.uniform(-0.2, 0.2, 2) * canvas.shape
        canvas = canvas + generator.choice((-0.25, 0.15)) * line(speck, 0.8 * side / 224, canvas.shape)
    return canvas


DEFECTS: dict[str, Callable[[np.random.Generator, np.ndarray, float], Drawn]] = {
    "scratch": scratch,
    "blowhole": blowhole,
    "crack": crack,
    "stain": stain,
    "uneven": uneven,
}


@dataclass(frozen=True, kw_only=True)
class Settings(PictureSettings):
    targets: str = option(
        CLASSES,
        "classes: one label per picture; boxes: where each defect is; masks: the class of each pixel; none: labels are not read",
        choices=(CLASSES, *SHAPED, NONE),
    )
    seed: int = option(0, "seed of the generated scenes", low=0)
    samples: int = option(4000, "number of pictures", low=10, high=1_000_000)
    exposures: int = option(2, "pictures of each scene", low=1, high=20)
    texture: str = option("metal", "mixed: each scene has one of the other textures", choices=(*TEXTURES, "mixed"))
    defect_share: float = option(0.2, "share of scenes with a defect, equally many of each type", low=0.01, high=0.9)
    difficulty: float = option(0.3, "0: strong defects on a clean surface; 1: faint defects among dust and shadows", low=0.0, high=1.0)

    def class_names(self) -> Sequence[str]:
        """What the numbers in boxes and masks stand for."""
        defects = [DEFECT] if self.merge_defects else list(DEFECTS)
        return [BACKGROUND, *defects] if self.targets == MASKS else defects

    def sort_labels(self, labels: Iterable[str]) -> list[str]:
        return list(labels) if self.targets in SHAPED else sorted(labels)


def probe(settings: Settings) -> Mapping[str, Any]:
    """The pictures depend on the settings, which are parameters of the stage, and on the versions of numpy and Pillow."""
    tools = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "pillow"))
    return {"digest": hashlib.sha256(tools.encode()).hexdigest(), "files": 0, "bytes": 0}


def items(settings: Settings) -> Iterator[Item]:
    for number in follow(range(settings.samples), "drawing", "picture"):
        index, exposure = divmod(number, settings.exposures)
        if exposure == 0:
            generator = np.random.default_rng([settings.seed, index])
            kind = choose_kind(index, settings.defect_share)
            canvas, regions = draw_scene(generator, kind, settings)
        image, window = expose(generator, canvas, settings)
        name = f"{kind}/{index:06d}-{exposure}"
        label = make_label(kind, [region[window] for region in regions], settings)
        yield Item(name, label, f"{index:06d}", hashlib.sha256(image.tobytes()).hexdigest(), image)


def make_label(kind: str, regions: Sequence[np.ndarray], settings: Settings) -> Label:
    """The kind itself, or boxes or a mask of what the picture shows of its defects."""
    if settings.targets not in SHAPED:
        return kind
    number = 0 if settings.merge_defects or kind == GOOD else list(DEFECTS).index(kind)
    seen = [region for region in regions if region.any()]
    if settings.targets == BOXES:
        return Boxes.of([surround(region) for region in seen], [number] * len(seen), [region.sum() for region in seen])
    covered = np.any(seen, axis=0) if seen else np.zeros(settings.size, bool)
    return Mask.pack(covered.astype(np.uint8) * (number + 1))


def surround(region: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the smallest box around a region."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def choose_kind(index: int, defect_share: float) -> str:
    """Every 1/defect_share-th scene has a defect, each type in turn."""
    count = int((index + 1) * defect_share)
    if count == int(index * defect_share):
        return GOOD
    kinds = tuple(DEFECTS)
    return kinds[count % len(kinds)]


def draw_scene(generator: np.random.Generator, kind: str, settings: Settings) -> Drawn:
    """Brightness 0..1, float32 [height, width], larger than the pictures by MARGIN on each side; and the regions of its defects."""
    shape = tuple(round(side * (1 + 2 * MARGIN)) for side in settings.size)
    texture = settings.texture if settings.texture != "mixed" else str(generator.choice(list(TEXTURES)))
    pattern = TEXTURES[texture](generator, shape)
    canvas = GREY_LEVEL + generator.uniform(*TEXTURE_CONTRAST) * pattern
    canvas = disturb(generator, canvas, settings.difficulty)
    if kind == GOOD:
        return canvas, []
    strength = (1.1 - 0.75 * settings.difficulty) * generator.uniform(0.8, 1.2)
    return DEFECTS[kind](generator, canvas, strength)


def expose(generator: np.random.Generator, canvas: np.ndarray, settings: Settings) -> tuple[np.ndarray, tuple[slice, slice]]:
    """One picture of the scene, uint8 [height, width, 1]: shifted, with its own exposure and sensor noise; and which part it shows."""
    height, width = settings.size
    top, left = (int(generator.integers(0, whole - part + 1)) for whole, part in zip(canvas.shape, (height, width), strict=True))
    window = slice(top, top + height), slice(left, left + width)
    light = canvas[window] * np.float32(generator.uniform(0.75, 1.25))
    noise = generator.standard_normal((height, width), np.float32) * np.float32(generator.uniform(*NOISE))
    picture: np.ndarray = np.rint(np.clip(light + noise, 0, 1) * 255).astype(np.uint8)[:, :, None]
    return picture, window
