"""Defects, and what is none: each takes brightness 0..1, float32 [height, width], and gives it back changed. strength about 0.3 to 1.3."""

from collections.abc import Callable

import numpy as np

from stages.data.surface_textures import cloud

FINE = 2  # lines are drawn so many times larger, then shrunk: smooth edges


def line(points: np.ndarray, width: float, shape: tuple[int, ...]) -> np.ndarray:
    """How much of each pixel a line through points [n, (row, column)] covers, 0..1. width in pixels, at least 1."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (shape[1] * FINE, shape[0] * FINE))
    ImageDraw.Draw(canvas).line([(x * FINE, y * FINE) for y, x in points], fill=255, width=round(max(width, 1) * FINE), joint="curve")
    return np.asarray(canvas.resize((shape[1], shape[0]), Image.Resampling.BOX), np.float32) / 255


def path(generator: np.random.Generator, shape: tuple[int, ...], length: float, jitter: float, steps: int) -> np.ndarray:
    """Points [steps, 2] of a line that starts well inside; each step turns by a normal angle of `jitter` radians."""
    start = generator.uniform(0.2, 0.8, 2) * shape
    angles = generator.uniform(0, 2 * np.pi) + np.cumsum(generator.normal(0, jitter, steps))
    return start + np.cumsum(np.stack([np.sin(angles), np.cos(angles)], 1), 0) * length / steps


def spot(shape: tuple[int, ...], centre: np.ndarray, radii: np.ndarray, angle: float) -> np.ndarray:
    """Distance from the centre of an ellipse, 1 on its edge: float32 [height, width]."""
    down, across = (np.arange(n, dtype=np.float32) - c for n, c in zip(shape, centre, strict=True))
    along = np.cos(angle) * down[:, None] + np.sin(angle) * across[None, :]
    beside = np.cos(angle) * across[None, :] - np.sin(angle) * down[:, None]
    return np.hypot(along / radii[0], beside / radii[1])


def scratch(generator: np.random.Generator, canvas: np.ndarray, strength: float) -> np.ndarray:
    """A bright, nearly straight groove with a dark side."""
    side = max(canvas.shape)
    mask = line(
        path(generator, canvas.shape, generator.uniform(0.3, 0.7) * side, 0.04, 24), generator.uniform(1.0, 1.8) * side / 224, canvas.shape
    )
    return canvas + strength * (0.3 * mask - 0.2 * np.roll(mask, 1 + side // 224, 0))


def crack(generator: np.random.Generator, canvas: np.ndarray, strength: float) -> np.ndarray:
    """A dark, jagged line that branches."""
    side = max(canvas.shape)
    trunk = path(generator, canvas.shape, generator.uniform(0.3, 0.6) * side, 0.5, 30)
    mask = line(trunk, generator.uniform(1.2, 2.0) * side / 224, canvas.shape)
    for _ in range(generator.integers(1, 3)):
        branch = path(generator, canvas.shape, generator.uniform(0.08, 0.2) * side, 0.5, 12)
        branch += trunk[generator.integers(5, 25)] - branch[0]
        mask = np.maximum(mask, line(branch, side / 224, canvas.shape))
    return canvas - 0.38 * strength * mask


def blowhole(generator: np.random.Generator, canvas: np.ndarray, strength: float) -> np.ndarray:
    """One to three dark pits with a bright rim on one side."""
    side = max(canvas.shape)
    for _ in range(generator.integers(1, 4)):
        centre = generator.uniform(0.15, 0.85, 2) * canvas.shape
        radii = generator.uniform(0.012, 0.03, 2) * side
        angle = generator.uniform(0, np.pi)
        pit = np.clip(1.6 - spot(canvas.shape, centre, radii, angle), 0, 1)
        rim = np.clip(1.6 - spot(canvas.shape, centre + 0.4 * radii.mean(), radii * 1.25, angle), 0, 1) - pit
        canvas = canvas - strength * (0.35 * pit - 0.15 * np.clip(rim, 0, 1))
    return canvas


def stain(generator: np.random.Generator, canvas: np.ndarray, strength: float) -> np.ndarray:
    """A flat patch with a ragged edge, darker or lighter."""
    side = max(canvas.shape)
    radii = generator.uniform(0.07, 0.16, 2) * side
    distance = spot(canvas.shape, generator.uniform(0.2, 0.8, 2) * canvas.shape, radii, generator.uniform(0, np.pi))
    patch = np.clip((1.1 - distance + 0.22 * cloud(generator, canvas.shape, (14, 14))) * 5, 0, 1)
    return canvas * (1 + generator.choice((-1.0, 0.8)) * 0.28 * strength * patch)


def uneven(generator: np.random.Generator, canvas: np.ndarray, strength: float) -> np.ndarray:
    """The coating or the light fails towards one edge, in waves."""
    ramp = slope(generator, canvas.shape)
    waves = np.sin(ramp * generator.uniform(6, 14) + generator.uniform(0, 6))
    return canvas * (1 - strength * (0.7 * np.clip(ramp - 0.3, 0, 1) + 0.2 * waves * ramp))


def slope(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """0 at one edge to 1 at the opposite, in a random direction: float32 [height, width]."""
    angle = generator.uniform(0, 2 * np.pi)
    down, across = (np.linspace(-0.5, 0.5, n, dtype=np.float32) for n in shape)
    ramp = np.sin(angle) * down[:, None] + np.cos(angle) * across[None, :]
    return (ramp - ramp.min()) / (ramp.max() - ramp.min())


def disturb(generator: np.random.Generator, canvas: np.ndarray, difficulty: float) -> np.ndarray:
    """What a good part may show too: light that falls off a little, a soft shadow, dust and short hairs."""
    side = max(canvas.shape)
    canvas = canvas * (1 - generator.uniform(0, 0.05 + 0.12 * difficulty) * slope(generator, canvas.shape))
    canvas = canvas + 0.02 * difficulty * cloud(generator, canvas.shape, (4, 4))
    for _ in range(generator.poisson(6 * difficulty)):
        speck = path(generator, canvas.shape, generator.uniform(0.004, 0.02) * side, 0.6, 4)
        speck += generator.uniform(-0.2, 0.2, 2) * canvas.shape
        canvas = canvas + generator.choice((-0.25, 0.15)) * line(speck, 0.8 * side / 224, canvas.shape)
    return canvas


DEFECTS: dict[str, Callable[[np.random.Generator, np.ndarray, float], np.ndarray]] = {
    "scratch": scratch,
    "blowhole": blowhole,
    "crack": crack,
    "stain": stain,
    "uneven": uneven,
}
