"""Try whether the preprocessing is that of the model's training.

The model is tried on some labelled samples. If it is often wrong, common ways to preprocess pictures are tried too. The best of them is
suggested, as settings, if it is significantly better on more samples: by the sign test over samples, which for classes is McNemar's. The
test split is not used. How right it is on a sample, see trial_marks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.agent import preprocess
from edgewise.artifacts.samples import Samples
from edgewise.sources.trial_marks import Marks, choose_marks
from edgewise.stats.paired import mcnemar_p

Arrays = dict[str, np.ndarray]
Values = Mapping[str, Sequence[float]]  # data.range, data.mean, data.std
Run = Callable[[Arrays], Arrays]  # feeds to outputs, [n, ...] each

GOOD_ENOUGH = 0.9  # mean from which on nothing else is tried
ALPHA = 0.001  # about twenty ways are tried, so a false suggestion has a probability of 1 in 50 at most
BATCH = 100  # samples that are run together
IMAGENET: Values = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CAFFE: Values = {"range": [0, 255], "mean": [103.939, 116.779, 123.68]}
MNIST: Values = {"mean": [0.1307], "std": [0.3081]}
VALUES: tuple[Values, ...] = (  # most common first: of equally good ones the first is suggested
    {"range": [0, 255]},
    {"range": [0, 1]},
    {"range": [-1, 1]},
    IMAGENET,
    CAFFE,
    MNIST,
    {"range": [-128, 127]},
    {"range": [255, 0]},
    {"range": [1, 0]},
    {"range": [1, -1]},
)


@dataclass(frozen=True)
class Trial:
    """words: how right the model is with the current settings, such as "is correct on 95% of 100 samples"; warning: what the user should
    know, or None."""

    samples: int
    words: str
    warning: str | None


def try_preprocessing(run: Run, samples: Samples, scored: str | None, seed: int = 0) -> Trial | None:
    """None if there are no samples outside of test, or nothing says what is right. scored: the output with one value for each label."""
    marks = choose_marks(samples, scored)
    pool = np.concatenate([samples.indices(split) for split in ("train", "validation", "calibration")])
    drawn = np.random.default_rng(seed).permutation(marks.select(pool)) if marks and len(pool) else pool[:0]
    if marks is None or not len(drawn):
        return None
    chosen = drawn[: marks.first]
    outputs = run(samples.feeds(chosen))
    found = marks.of(outputs, chosen)
    if found is None:
        return None
    now = _mean(found)
    warning = None
    if now < GOOD_ENOUGH:
        warning = _suggest_better(run, samples, marks, drawn, now) or marks.explain(outputs, chosen)
    return Trial(len(chosen), marks.now.format(mean=now, count=len(chosen)), warning)


def _mean(marks: np.ndarray) -> float:
    known = marks[~np.isnan(marks)]
    return float(known.mean()) if len(known) else 0.0


def _suggest_better(run: Run, samples: Samples, marks: Marks, drawn: np.ndarray, now: float) -> str | None:
    """A warning that names the settings with which the model is right most often, if they are significantly better than the current."""
    if samples.preprocessing["kind"] != "image":
        return None
    ways = alternatives(samples.preprocessing, VALUES[: marks.ways])
    tried = [(_mean(_mark(run, samples, marks, drawn[: marks.first], spec)), words, spec) for words, spec in ways]
    most, words, spec = max(tried, key=lambda entry: entry[0])
    if most <= now:
        return None
    chosen = drawn[: marks.more]
    before, after = (_mark(run, samples, marks, chosen, each) for each in (samples.preprocessing, spec))
    if mcnemar_p(int((after > before).sum()), int((after < before).sum())) >= ALPHA or _mean(after) <= _mean(before):
        return None
    if not marks.believable(after, chosen):
        return None
    return (
        f"the model {marks.now.format(mean=_mean(before), count=len(chosen))} with the current preprocessing, and"
        f" {marks.then.format(mean=_mean(after))} with {words}: it was probably trained that way (the test split was not used)"
    )


def _mark(run: Run, samples: Samples, marks: Marks, chosen: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """How right the model is, float [n], if pictures are preprocessed by `spec`; 0 where its outputs cannot be read."""
    parts = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
    fed = ({name: preprocess.normalize(stored, spec) for name, stored in samples.raw(part).items()} for part in parts)
    outputs = [run(feeds) for feeds in fed]
    found = marks.of({name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}, chosen)
    return np.zeros(len(chosen)) if found is None else found


def alternatives(spec: Mapping[str, Any], values: Sequence[Values] = VALUES) -> Iterator[tuple[str, dict[str, Any]]]:
    """Common preprocessings other than the current one: as settings, and as a spec (see edgewise.agent.preprocess)."""
    channels = spec["channels"]
    for order in ("RGB", "BGR") if channels == 3 else ("RGB",):
        for given in values:
            if len(given.get("mean", ())) > channels:
                continue
            limits = given.get("range") or (0, 1)
            changes = preprocess.scaling_spec(limits, given.get("mean") or (0,), given.get("std") or (1,), channels)
            changed = {**spec, **changes, "order": order, "dtype": "float32"}
            if any(not np.allclose(changed[key], spec[key]) for key in changes) or order != spec.get("order", "RGB"):
                words = [f"data.{key}={list(value)}".replace(" ", "") for key, value in given.items()]
                yield " ".join([*words, *(["data.channel_order=bgr"] if order == "BGR" else [])]), changed
