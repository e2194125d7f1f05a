"""Where to cut a model into parts, and the folder that holds them.

A format's split.py offers the model as steps in the order of execution (`cuttable`); here is decided after which of them to cut.
"""

import itertools
import json
import math
import operator
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core.artifact import write_json
from stages.core.errors import VariantFailed
from stages.core.plugins import Cuttable
from stages.core.variant import Load
from stages.payload import parts

Step = Mapping[str, Any]  # of plugins.Cuttable


def cut(model: Cuttable, how: Load, first_nodes: Sequence[str], folder: Path) -> list[int]:
    """Write the parts into `folder`/part-N and parts.json beside them. Returns the bytes of weights of each part.

    first_nodes: nodes (of layers.json) that begin the second part; empty: cut into `how.parts` parts by bytes.
    """
    steps = model.steps
    ends = [before(steps, first_nodes)] if first_nodes else balanced(steps, how.parts)
    bounds = list(itertools.pairwise([0, *ends, len(steps)]))
    for number, (start, end) in enumerate(bounds):
        target = folder / f"part-{number}"
        target.mkdir()
        model.write(start, end, target)
    names = [f"part-{number}" for number in range(len(bounds))]
    write_json(folder / parts.FILE, {"parts": names, "keep": how.keep, "inputs": list(model.inputs), "outputs": list(model.outputs)})
    return [sum(step["weights_bytes"] for step in steps[start:end]) for start, end in bounds]


def drop_whole(folder: Path, names: Sequence[str]) -> None:
    """Remove the whole model's files once its parts are written."""
    for name in names:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def before(steps: Sequence[Step], nodes: Sequence[str]) -> int:
    """The number of steps before the first of `nodes`."""
    place = next((index for index, step in enumerate(steps) if step["node"] in nodes), None)
    allowed = [index for index in range(1, len(steps)) if place is not None and index <= place and steps[index - 1]["crossing"]]
    if not allowed:
        raise VariantFailed(f"load.at: {', '.join(nodes)} cannot begin a part: no cut is possible before it")
    return allowed[-1]


def balanced(steps: Sequence[Step], count: int) -> list[int]:
    """After how many steps to cut, for `count` parts: the largest part is as small as can be, then as few tensors as can be cross."""
    running = [0, *itertools.accumulate(step["weights_bytes"] for step in steps)]
    places = [index + 1 for index, step in enumerate(steps[:-1]) if step["crossing"]]
    if len(places) < count - 1:
        raise VariantFailed(f"load.parts: {count} parts need {count - 1} cuts, this model allows {len(places)}; ask for fewer parts")

    def bytes_between(start: int, end: int) -> int:
        return running[end] - running[start]

    def tensors_or_too_large(start: int, end: int) -> float:
        return math.inf if bytes_between(start, end) > largest else steps[end - 1]["crossing"]

    largest, _ = cheapest(places, len(steps), count, bytes_between, max)
    return cheapest(places, len(steps), count, tensors_or_too_large, operator.add)[1]


def cheapest(
    places: Sequence[int], end: int, count: int, cost: Callable[[int, int], float], join: Callable[[float, float], float]
) -> tuple[float, list[int]]:
    """Dynamic programming: the way to cut 0..end at `places` into `count` parts whose costs, joined, are least; and that cost."""
    best: dict[int, tuple[float, list[int]]] = {0: (0, [])}
    for stops in [places] * (count - 1) + [[end]]:
        best = {
            stop: min((join(spent, cost(start, stop)), [*cuts, stop]) for start, (spent, cuts) in best.items() if start < stop)
            for stop in stops
            if any(start < stop for start in best)
        }
    spent, cuts = best[end]
    return spent, cuts[:-1]


def reopened(folder: Path) -> int:
    """In how many parts the variant of `folder` lies that are loaded and released at each inference; 0 for a whole one."""
    if not (folder / parts.FILE).exists():
        return 0
    plan = json.loads((folder / parts.FILE).read_text(encoding="utf-8"))
    return 0 if plan["keep"] else len(plan["parts"])
