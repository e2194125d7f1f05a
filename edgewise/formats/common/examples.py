"""What a torch program is given when it is exported for samples one by one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgewise.agent.ports import from_samples_first

Entry = Mapping[str, Any]


def make_example(entry: Entry, probe: Mapping[str, np.ndarray], inputs: Sequence[Entry]) -> np.ndarray:
    """What one input of the source takes first: of one sample (or of as many as the source is fixed to), or its constant, or zeros as its
    state.

    entry: one of `inputs`, those of the source's manifest. probe: the content of probe.npz.
    """
    if entry.get("value") is not None:
        return np.array(entry["value"], entry["dtype"])
    if entry.get("state"):
        return np.zeros([1 if size is None else size for size in entry["shape"]], entry["dtype"])
    axis = entry.get("sample_axis", 0)
    count = 1 if axis is None else entry["shape"][axis] or 1
    samples = probe[f"in:{entry['name']}"][:count]
    step = samples[:, 0] if any(each.get("state") for each in inputs) else samples
    return np.array(from_samples_first(step, axis), entry["dtype"], order="C")
