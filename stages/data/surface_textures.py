"""Patterns of a surface: float32 [height, width], mean 0 and standard deviation 1."""

from collections.abc import Callable

import numpy as np

Shape = tuple[int, ...]


def cloud(generator: np.random.Generator, shape: Shape, cells: Shape) -> np.ndarray:
    """Smooth noise: random values in cells (rows, columns), interpolated."""
    from PIL import Image

    coarse = generator.standard_normal(cells, np.float32)
    return np.array(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def standard(pattern: np.ndarray) -> np.ndarray:
    return ((pattern - pattern.mean()) / pattern.std()).astype(np.float32)


def metal(generator: np.random.Generator, shape: Shape) -> np.ndarray:
    """Brushed: fine streaks along the line, over soft bands and grain."""
    height = shape[0]
    streaks = cloud(generator, shape, (height, 3)) + cloud(generator, shape, (height // 2, 8))
    return standard(streaks + 0.8 * cloud(generator, shape, (6, 3)) + 0.5 * generator.standard_normal(shape, np.float32))


def tiles(generator: np.random.Generator, shape: Shape) -> np.ndarray:
    """Glazed tiles, each of its own shade, with mottles and dark joints."""
    side = max(shape) / generator.uniform(2.5, 4.0)
    down, across = (np.arange(n) / side + generator.uniform(0, 1) for n in shape)
    shades = generator.standard_normal((8, 8), np.float32)[down.astype(int)[:, None], across.astype(int)[None, :]]
    gap = np.minimum(*np.meshgrid(*(np.abs((axis + 0.5) % 1 - 0.5) for axis in (across, down))))
    joint = np.clip(1.5 - gap * side / (0.012 * max(shape)), 0, 1)
    mottles = cloud(generator, shape, (40, 40)) + cloud(generator, shape, (12, 12))
    return standard(0.5 * shades + 0.6 * mottles - 4.0 * joint + 0.3 * generator.standard_normal(shape, np.float32))


def fabric(generator: np.random.Generator, shape: Shape) -> np.ndarray:
    """Plain weave: threads that go over and under each other, a little bent, of uneven thickness."""
    pitch = max(shape) / generator.uniform(24, 34)
    grid = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")
    down, across = (axis / pitch + 0.35 * cloud(generator, shape, (5, 5)) for axis in grid)
    over = (np.floor(down) + np.floor(across)) % 2
    threads = np.where(over == 1, np.sin(np.pi * (down % 1)) * 1.1, np.sin(np.pi * (across % 1)))
    slubs = cloud(generator, shape, (shape[0] // 6, 4)) + cloud(generator, shape, (4, shape[1] // 6))
    return standard(threads + 0.12 * slubs + 0.15 * generator.standard_normal(shape, np.float32))


TEXTURES: dict[str, Callable[[np.random.Generator, Shape], np.ndarray]] = {"metal": metal, "tiles": tiles, "fabric": fabric}
