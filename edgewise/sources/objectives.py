"""What a training minimizes, and how good the model is on validation: one objective for each kind of targets.

Labels   classes, multi_label, values: one tensor of outputs, [n, labels]
Masks    masks: one tensor of logits, [n, classes, rows, columns], as coarse as the model likes
Boxes    boxes: of a detector on grids, see box_objective
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from edgewise.agent.geometry import IGNORE, Geometry
from edgewise.artifacts.samples import Samples
from edgewise.artifacts.targets import BOXES, CLASSES, MASKS, MULTI_LABEL, NONE
from edgewise.config.schema import Train
from edgewise.errors import ConfigError
from edgewise.sources.augmentation import Moves, Pixels, augment_images, relight
from edgewise.sources.box_objective import BoxObjective
from edgewise.stats.mean_iou import PixelCounts, mean_iou, pixel_confusion

Arrays = dict[str, np.ndarray]
CLASSES_ONLY = {"class_weights": ("none",), "label_smoothing": (0.0,)}  # values allowed for other targets


class Objective(Protocol):
    """Outputs are a sequence of torch tensors, [n, ...], in the order of `outputs`; targets are whatever `loss` takes."""

    outputs: tuple[str, ...]  # names of the model's outputs
    score: str | None  # name of the score that is best compared between models
    chance: float  # its value for a model that knows nothing
    monitors: tuple[str, ...]  # the values of train.monitor that it knows
    validation_batch: int

    def check(self, shapes: Sequence[Sequence[int]]) -> str | None:
        """Why outputs of these shapes do not fit the data, and what to do, as a clause; None if they do."""

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """Indices of the samples of one epoch in random order, of the same number each time."""

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> tuple[Arrays, Any]:
        """Feeds and targets of a training batch; pictures are changed at random."""

    def loss(self, outputs: Sequence[Any], targets: Any) -> Any:
        """The mean over the samples, a scalar tensor."""

    def validate(self, answers: Iterable[tuple[np.ndarray, Sequence[Any]]]) -> dict[str, float]:
        """`loss_validation` and the scores from the outputs for all samples of the validation split. answers: indices of some of the
        samples, and the outputs for them."""


def choose(samples: Samples, train: Train, decoding: Mapping[str, Any] | None = None) -> Objective | None:
    """The objective for the data's kind of targets; None if there is none: without labels, and for boxes where it is not known how the
    model's outputs become boxes. ConfigError for settings of `train` that only apply to another kind.

    decoding: how a detector's outputs become boxes, see box_objective.
    """
    objective: Objective
    if samples.kind == MASKS:
        objective = Masks(samples, train)
    elif samples.kind == BOXES and decoding is not None:
        objective = BoxObjective(samples, train, decoding)
    elif samples.kind in (BOXES, NONE):
        return None
    else:
        objective = Labels(samples, train)
    check_settings(train, samples.kind, objective)
    return objective


def check_settings(train: Train, kind: str, objective: Objective) -> None:
    """ConfigError for a setting that the objective does not have. kind: of the targets."""
    allowed = {"monitor": objective.monitors, **({} if kind == CLASSES else CLASSES_ONLY)}
    for key, values in allowed.items():
        given = getattr(train, key)
        if given not in values:
            needs = "needs classes, but data.targets is" if kind != CLASSES else "is for other targets; data.targets is"
            raise ConfigError(f"train.{key}: {given!r} {needs} {kind}; allowed: {', '.join(map(str, values))}")


class Labels:
    """Cross entropy for classes, binary cross entropy for multi_label, squared error for values."""

    outputs: tuple[str, ...] = ("logits",)
    validation_batch = 256

    def __init__(self, samples: Samples, train: Train):
        self.samples, self.train = samples, train
        self.criterion = criterion(samples, train)
        classes = samples.kind == CLASSES
        self.monitors: tuple[str, ...] = ("accuracy", "accuracy_balanced", "loss", "last") if classes else ("loss", "last")
        self.score = "accuracy_validation" if classes else None
        self.chance = 1 / len(samples.labels)

    def check(self, shapes: Sequence[Sequence[int]]) -> str | None:
        labels = len(self.samples.labels)
        if len(shapes) == 1 and [*shapes[0][1:]] == [labels]:
            return None
        return (
            f"the data has {labels} labels, so it must return [{shapes[0][0]}, {labels}] and nothing else;"
            " set the number of classes in model.arguments"
        )

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.samples.indices("train"))

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> tuple[Arrays, Any]:
        feeds, preprocessing = self.samples.feeds(indices), self.samples.preprocessing
        if preprocessing.get("kind") == "image":
            pixels = Pixels.of(preprocessing)
            feeds = {name: augment_images(array, self.train, pixels, rng) for name, array in feeds.items()}
        return feeds, self.samples.targets(indices)

    def loss(self, outputs: Sequence[Any], targets: np.ndarray) -> Any:
        import torch

        return self.criterion(outputs[0], torch.from_numpy(targets))

    def validate(self, answers: Iterable[tuple[np.ndarray, Sequence[Any]]]) -> dict[str, float]:
        """For classes also accuracy and balanced accuracy (mean recall)."""
        import torch

        indices, outputs = zip(*answers, strict=True)
        logits, targets = torch.cat([logits for (logits,) in outputs]), self.samples.targets(np.concatenate(indices))
        found = {"loss_validation": self.loss([logits], targets).item()}
        if self.samples.kind != CLASSES:
            return found
        correct = logits.argmax(1).numpy() == targets
        recalls = [correct[targets == label].mean() for label in np.unique(targets)]
        return {**found, "accuracy_validation": float(correct.mean()), "accuracy_balanced_validation": float(np.mean(recalls))}


class Masks:
    """Cross entropy over pixels. Logits may be coarser than the input: they are enlarged to its size."""

    outputs: tuple[str, ...] = ("map",)
    score: str | None = "mean_iou_validation"
    chance = 0.0
    monitors: tuple[str, ...] = ("mean_iou", "loss", "last")
    validation_batch = 32

    def __init__(self, samples: Samples, train: Train):
        self.samples, self.train, self.pixels = samples, train, Pixels.of(samples.preprocessing)

    def check(self, shapes: Sequence[Sequence[int]]) -> str | None:
        labels = len(self.samples.labels)
        if len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][1] == labels:
            return None
        return (
            f"the data has masks of {labels} labels, so it must return logits [{shapes[0][0]}, {labels}, rows, columns] and nothing else;"
            " set the number of classes in model.arguments"
        )

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.samples.indices("train"))

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> tuple[Arrays, Any]:
        ((name, images),) = self.samples.feeds(indices).items()
        moves = Moves.draw(self.train, len(images), rng)
        masks = [moves.mask(i, mask) for i, mask in enumerate(self.masks(indices))]
        return {name: relight(moves.pictures(images), self.train, self.pixels, rng)}, masks

    def masks(self, indices: np.ndarray) -> list[np.ndarray]:
        """The mask of each picture, uint8 of the input's size."""
        pairs = zip(self.samples.targets(indices), self.samples.sizes(indices), strict=True)
        return [Geometry.of(self.samples.preprocessing, *size).mask_to_input(mask) for mask, size in pairs]

    def loss(self, outputs: Sequence[Any], targets: Sequence[np.ndarray]) -> Any:
        """The mean over the pixels that have a class."""
        import torch

        truth = torch.from_numpy(np.stack(targets)).long()
        total = torch.nn.functional.cross_entropy(enlarge(outputs[0], truth), truth, ignore_index=IGNORE, reduction="sum")
        return total / max(1, int((truth != IGNORE).sum()))

    def validate(self, answers: Iterable[tuple[np.ndarray, Sequence[Any]]]) -> dict[str, float]:
        """The mean IoU too, at the input's size."""
        losses, confusions = [], []
        for indices, outputs in answers:
            masks = self.masks(indices)
            losses.append(self.loss(outputs, masks).item() * len(indices))
            said = enlarge(outputs[0], masks[0]).argmax(1).numpy()
            confusions += [pixel_confusion(*pair, len(self.samples.labels)) for pair in zip(said, masks, strict=True)]
        score = mean_iou(PixelCounts.of(np.stack(confusions)))[0]
        return {"loss_validation": sum(losses) / len(confusions), "mean_iou_validation": float(score)}


def enlarge(logits: Any, masks: Any) -> Any:
    """Logits [n, classes, rows, columns] at the size of the masks, bilinear."""
    import torch

    return torch.nn.functional.interpolate(logits, size=tuple(masks.shape[-2:]), mode="bilinear", align_corners=False)


def criterion(samples: Samples, train: Train) -> Any:
    """The loss of `Labels` as a function of logits and targets."""
    import torch

    if samples.kind != CLASSES:
        return torch.nn.BCEWithLogitsLoss() if samples.kind == MULTI_LABEL else torch.nn.MSELoss()
    weights = None
    if train.class_weights == "balanced":
        weights = torch.from_numpy(balanced_weights(samples.targets(samples.indices("train")), len(samples.labels)))
    return torch.nn.CrossEntropyLoss(weight=weights, label_smoothing=train.label_smoothing)


def balanced_weights(targets: np.ndarray, classes: int) -> np.ndarray:
    """Weight of each class, float32 [classes]: samples / (classes * samples of the class), as scikit-learn's `balanced`."""
    counts = np.bincount(targets, minlength=classes)
    return (len(targets) / (classes * np.maximum(counts, 1))).astype(np.float32)
