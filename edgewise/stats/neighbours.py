"""Whether embeddings of a variant stand to each other as the reference's do: directions, and the nearest neighbours of each sample."""

import numpy as np

TIE = 1e-6  # similarities that differ by less are equal: float32 sums differ by as much
MAX_CELLS = 4_000_000  # similarities that are held at a time


def normalize_rows(vectors: np.ndarray) -> np.ndarray:
    """Each row at length 1, float64; a row of zeros stays one."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    rows: np.ndarray = wide / np.where(lengths > 0, lengths, 1)
    return rows


def cosines(reference: np.ndarray, variant: np.ndarray) -> np.ndarray:
    """The cosine of the angle between each two rows, float64 [n], from [n, d]; 0 where one is all zeros and the other is not."""
    one, other = normalize_rows(reference), normalize_rows(variant)
    both_zero = ~one.any(axis=1) & ~other.any(axis=1)
    return np.clip(np.where(both_zero, 1.0, (one * other).sum(axis=1)), -1.0, 1.0)


def neighbours_kept(reference: np.ndarray, variant: np.ndarray, k: int) -> np.ndarray:
    """For each sample the share of its k nearest neighbours by the reference that are among its k nearest by the variant: [n], from [n, d].

    Nearness is the cosine. Samples that are as near as the k-th count as near. k: at most n - 1.
    """
    one, other = (normalize_rows(vectors).astype(np.float32) for vectors in (reference, variant))
    step = max(1, MAX_CELLS // len(one))
    return np.concatenate([_kept(one, other, np.arange(start, min(start + step, len(one))), k) for start in range(0, len(one), step)])


def _kept(one: np.ndarray, other: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """Of the samples `rows`."""
    before, after = (vectors[rows] @ vectors.T for vectors in (one, other))
    for similarities in (before, after):
        similarities[np.arange(len(rows)), rows] = -np.inf
    nearest = np.argpartition(-before, k - 1, axis=1)[:, :k]
    limit = -np.partition(-after, k - 1, axis=1)[:, k - 1 : k]
    shares: np.ndarray = (np.take_along_axis(after, nearest, axis=1) >= limit - TIE).mean(axis=1)
    return shares
