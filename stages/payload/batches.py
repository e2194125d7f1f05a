"""Any number of samples through a session, in batches as large as the file allows. Standard library and numpy; Python 3.9."""

from __future__ import annotations

from typing import Any, Dict

import numpy as np

Arrays = Dict[str, np.ndarray]


def run_batched(session: Any, feeds: Arrays, batch: int = 64) -> Arrays:
    """Outputs of `session` for all samples of `feeds`, batched as far as the file's first dimension allows."""
    fixed = [entry["shape"][0] for entry in session.inputs if entry["shape"]]
    step = next((size for size in fixed if size is not None), batch)
    count = len(next(iter(feeds.values())))
    parts = [session.run(_chunk(feeds, start, step, exact=any(fixed))) for start in range(0, count, step)]
    return {name: np.concatenate([p[name] for p in parts])[:count] for name in parts[0]}


def _chunk(feeds: Arrays, start: int, step: int, exact: bool) -> Arrays:
    """Samples start to start + step; where the batch is fixed the last chunk is filled up with copies of its last sample."""
    chunk = {name: array[start : start + step] for name, array in feeds.items()}
    short = step - len(next(iter(chunk.values())))
    if exact and short > 0:
        chunk = {name: np.concatenate([array, array[-1:].repeat(short, axis=0)]) for name, array in chunk.items()}
    return chunk
