"""Training against the outputs of another net, the teacher, beside the objective of the data (Hinton et al. 2015).

loss = (1 - weight) * the objective's loss + weight * the distance to the teacher's outputs + features * the distance inside

The distance between two outputs depends on what they are:

classes, masks   temperature^2 * KL divergence of the softmax at that temperature, a mean over samples and pixels; without labels too, of
                 outputs that are named logits or map
multi_label      binary cross entropy to the teacher's probabilities
boxes            of scores binary cross entropy to the teacher's probabilities, of boxes L1 weighted by the teacher's best score; sums over
                 the points, divided by the sum of the teacher's best scores, as the objective's are by the number of objects
otherwise        squared error, divided by the variance of the teacher's output

Without an objective (no labels) the teacher is all there is. Inside: attention maps (Zagoruyko and Komodakis 2017), the squares of a
layer's output summed over channels and normalized, at the last layer of each resolution; that needs a net of the same modules.

The teacher is the source before it was pruned, or the net that train.teacher names, which has to fit the data and the net that is trained.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.artifacts.targets import BOXES, CLASSES, MASKS, MULTI_LABEL, NONE
from edgewise.config.prune_settings import Distillation
from edgewise.config.schema import Train
from edgewise.errors import ConfigError, EdgewiseError
from edgewise.sources import training
from edgewise.sources.augmentation import Pixels, augment_images
from edgewise.sources.box_objective import BoxObjective
from edgewise.sources.inspection import one_line
from edgewise.sources.objectives import Arrays, Objective
from edgewise.sources.torch_ports import ProgramSession
from edgewise.sources.torch_program import PROGRAM_FILE, load

LEAST = 1e-6  # beneath a division
Outputs = Sequence[Any]
HOW = "name models/source of the project that trained it, or a file of torch.export.save"


class Imitation:
    """The objective of data without labels: there is nothing but the teacher's outputs. monitors: no score is known."""

    score: str | None = None
    chance = 0.0
    monitors: tuple[str, ...] = ("loss", "last")
    validation_batch = 64

    def __init__(self, samples: Samples, train: Train, outputs: Sequence[str]):
        self.samples, self.train, self.outputs = samples, train, tuple(outputs)

    def check(self, shapes: Sequence[Sequence[int]]) -> str | None:
        return None

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.samples.indices("train"))

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> tuple[Arrays, Any]:
        feeds = self.samples.feeds(indices)
        if self.samples.preprocessing.get("kind") == "image":
            pixels = Pixels.of(self.samples.preprocessing)
            feeds = {name: augment_images(array, self.train, pixels, rng) for name, array in feeds.items()}
        return feeds, None

    def loss(self, outputs: Outputs, targets: Any) -> Any:
        return 0.0 * sum(output.sum() for output in outputs)

    def validate(self, answers: Iterable[tuple[np.ndarray, Outputs]]) -> dict[str, float]:
        return {"loss_validation": 0.0}


class Distilled:
    """An objective with a teacher. teacher: a module that takes the same inputs; it is used as it is, in evaluation mode."""

    def __init__(self, objective: Objective, teacher: Any, settings: Distillation, samples: Samples):
        self.objective, self.teacher, self.settings, self.samples = objective, teacher, settings, samples
        self.outputs, self.score, self.chance = objective.outputs, objective.score, objective.chance
        self.monitors, self.validation_batch = objective.monitors, objective.validation_batch
        self.weight = 1.0 if isinstance(objective, Imitation) else settings.weight
        self.distance = choose_distance(samples.kind, objective.outputs, settings.temperature)
        self.teacher.eval()
        self.inside: Inside | None = None

    @contextmanager
    def looking_inside(self, student: Any) -> Iterator[None]:
        """For the time of a training: compare what is inside of both nets, if the settings ask for it."""
        if not self.settings.features:
            yield
            return
        feeds = self.samples.feeds(self.samples.indices("train")[:2])
        self.inside = Inside.of(self.teacher, student, feeds)
        try:
            yield
        finally:
            self.inside.close()
            self.inside = None

    def check(self, shapes: Sequence[Sequence[int]]) -> str | None:
        return self.objective.check(shapes)

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        return self.objective.epoch(rng)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> tuple[Arrays, Any]:
        feeds, targets = self.objective.batch(indices, rng)
        return feeds, (targets, self.taught(feeds))

    def taught(self, feeds: Mapping[str, np.ndarray]) -> Outputs:
        """What the teacher says of a batch."""
        import torch

        if not self.weight and not self.settings.features:
            return []
        with torch.no_grad():
            return training.run(self.teacher, feeds)

    def loss(self, outputs: Outputs, targets: tuple[Any, Outputs]) -> Any:
        truth, taught = targets
        value = (1 - self.weight) * self.objective.loss(outputs, truth)
        if self.weight:
            value = value + self.weight * self.distance(outputs, taught)
        return value + self.settings.features * self.inside.distance() if self.inside else value

    def validate(self, answers: Iterable[tuple[np.ndarray, Outputs]]) -> dict[str, float]:
        """The scores and the loss of the objective alone: they are compared with those of nets that had no teacher. Without labels the
        loss is the distance to the teacher."""
        if not isinstance(self.objective, Imitation):
            return self.objective.validate(answers)
        parts = [(len(indices), self.distance(outputs, self.taught(self.samples.feeds(indices))).item()) for indices, outputs in answers]
        return {"loss_validation": sum(count * value for count, value in parts) / sum(count for count, _ in parts)}


def choose_distance(kind: str, names: Sequence[str], temperature: float) -> Callable[[Outputs, Outputs], Any]:
    """The distance of a student's outputs to a teacher's, a scalar tensor. kind: of the targets; names: of the outputs."""
    if kind == BOXES and len(names) == len(BoxObjective.outputs):
        return detection_distance

    def of_one(name: str) -> Callable[[Any, Any], Any]:
        if kind in (CLASSES, MASKS) or (kind == NONE and name in ("logits", "map")):
            return lambda student, teacher: soft_divergence(student, teacher, temperature)
        return binary_divergence if kind == MULTI_LABEL else squared_error

    parts = [of_one(name) for name in names]
    return lambda outputs, taught: sum(part(*pair) for part, *pair in zip(parts, outputs, taught, strict=True))


def soft_divergence(student: Any, teacher: Any, temperature: float) -> Any:
    """T^2 * KL(teacher || student) of the softmax over axis 1 at temperature T, a mean over the rest; logits [n, classes, ...]."""
    from torch.nn import functional

    own, wanted = (functional.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return temperature**2 * functional.kl_div(own, wanted, reduction="none", log_target=True).sum(1).mean()


def binary_divergence(student: Any, teacher: Any) -> Any:
    """The mean binary cross entropy of logits to the teacher's probabilities."""
    from torch.nn import functional

    return functional.binary_cross_entropy_with_logits(student, teacher.sigmoid())


def squared_error(student: Any, teacher: Any) -> Any:
    """The mean squared error over the variance of the teacher's values."""
    return (student - teacher).square().mean() / teacher.var().clamp(min=LEAST)


def detection_distance(outputs: Outputs, taught: Outputs) -> Any:
    """Of a detector on grids: scores, logits [n, classes, points], and boxes, [n, 4, points] (see box_objective)."""
    (scores, boxes), (wanted_scores, wanted_boxes) = outputs, taught
    best = wanted_scores.sigmoid().amax(1)
    entropy = (binary_divergence(scores, wanted_scores) - binary_divergence(wanted_scores, wanted_scores)) * scores.numel()
    away = (boxes - wanted_boxes).abs().sum(1) * best
    return (entropy + away.sum()) / best.sum().clamp(min=1)


class Inside:
    """Attention maps of the same layers of two nets, kept from their last runs."""

    def __init__(self, teacher: Any, student: Any, paths: Sequence[str]):
        self.paths = paths
        self.seen: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        self.handles = [
            net.get_submodule(path).register_forward_hook(lambda layer, _, result, path=path, kept=kept: kept.update({path: result}))
            for net, kept in zip((teacher, student), self.seen, strict=True)
            for path in paths
        ]

    @classmethod
    def of(cls, teacher: Any, student: Any, feeds: Mapping[str, np.ndarray]) -> "Inside":
        """At the last layer of each resolution. ValueError where the student lacks one of these modules."""
        paths = last_of_each_resolution(teacher, feeds)
        own = {path for path, _ in student.named_modules()}
        missing = [path for path in paths if path not in own]
        if missing or not paths:
            raise ValueError(
                f"distillation.features: the net has no {missing[0] if missing else 'layer with a map'}, which the teacher has; set it to 0"
            )
        return cls(teacher, student, paths)

    def distance(self) -> Any:
        """The mean squared distance of the maps, a mean over the layers."""
        taught, own = self.seen
        parts = [(attention_map(own[path]) - attention_map(taught[path]).detach()).square().sum(1).mean() for path in self.paths]
        return sum(parts) / len(parts)

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def attention_map(output: Any) -> Any:
    """[n, positions], of length 1: the squares of a map [n, channels, rows, columns] or of tokens [n, tokens, channels] over channels."""
    from torch.nn import functional

    squares = output.square().sum(1 if output.ndim == 4 else -1)
    return functional.normalize(squares.flatten(1), dim=1)


def last_of_each_resolution(net: Any, feeds: Mapping[str, np.ndarray]) -> list[str]:
    """Paths of the last layer without children that gives a map, or tokens, of each number of positions."""
    import torch

    found: dict[tuple[int, ...], str] = {}

    def note(path: str, result: Any) -> None:
        if torch.is_tensor(result) and result.is_floating_point() and result.ndim in (3, 4):
            size = tuple(result.shape[2:] if result.ndim == 4 else result.shape[1:2])
            if np.prod(size) > 1:
                found[size] = path

    leaves = [(path, child) for path, child in net.named_modules() if not [*child.children()]]
    handles = [child.register_forward_hook(lambda layer, _, result, path=path: note(path, result)) for path, child in leaves]
    with torch.no_grad():
        training.run(net.eval(), feeds)
    for handle in handles:
        handle.remove()
    return list(found.values())


def find_objective(
    objective: Objective | None,
    samples: Samples,
    train: Train,
    names: Sequence[str],
    shapes: Sequence[Sequence[int]],
    feeds: Mapping[str, np.ndarray],
) -> Objective | None:
    """The objective with the teacher that `train` names, if it names one. names, shapes: of the outputs of the net that is trained, for
    these feeds. ConfigError where the teacher does not fit the data or that net."""
    if train.teacher is None:
        return objective
    if train.distillation.features:
        raise ConfigError(
            f"train.distillation.features: {train.distillation.features:g}, but the layers of a teacher that is a file cannot be read;"
            " set it to 0"
        )
    teacher = open_teacher(Path(train.teacher), samples)
    check_answers(teacher, feeds, shapes, train.teacher)
    return Distilled(objective or Imitation(samples, train, names), teacher, train.distillation, samples)


def with_known_monitor(train: Train, objective: Objective) -> Train:
    """The recipe; of data without labels the epoch is chosen by the loss, whatever score it names."""
    return train if train.monitor in objective.monitors else dataclasses.replace(train, monitor="loss")


def open_teacher(path: Path, samples: Samples) -> Any:
    """The module of a source of another project or of an exported program; takes the inputs by position."""
    if not path.exists():
        raise ConfigError(f"train.teacher: {path} does not exist; {HOW}")
    if path.is_dir():
        check_source(path, samples)
    file = path / PROGRAM_FILE if path.is_dir() else path
    try:
        return ProgramSession(file, load(file)).module
    except EdgewiseError as error:
        raise ConfigError(f"train.teacher: {str(error).removeprefix('model.path: ')}; {HOW}") from error


def check_source(folder: Path, samples: Samples) -> None:
    """ConfigError unless the folder is a torch source for the same labels and the same preprocessing."""
    try:
        manifest = artifact.read(folder)
    except EdgewiseError as error:
        raise ConfigError(f"train.teacher: {folder} is not a source ({error}); {HOW}") from error
    if manifest.kind != "source" or manifest.format != "torch":
        raise ConfigError(f"train.teacher: {folder} is a {manifest.kind} of format {manifest.format}, not a source in torch; {HOW}")
    if samples.labels and manifest.labels != samples.labels:
        raise ConfigError(
            f"train.teacher: {folder} knows the labels {', '.join(manifest.labels)}, the data has {', '.join(samples.labels)};"
            " they must be the same in the same order"
        )
    own, theirs = dict(samples.preprocessing), dict(manifest.preprocessing or {})
    other = next((key for key in {**own, **theirs} if own.get(key) != theirs.get(key)), None)
    if other is not None:
        raise ConfigError(
            f"train.teacher: {folder} was trained on data with {other} {theirs.get(other)}, this data has {own.get(other)};"
            " set data.* so that both see the same"
        )


def check_answers(teacher: Any, feeds: Mapping[str, np.ndarray], shapes: Sequence[Sequence[int]], name: str) -> None:
    """ConfigError unless the teacher answers in the same shapes."""
    import torch

    try:
        with torch.no_grad():
            given = [[*result.shape] for result in training.run(teacher, feeds)]
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ConfigError(f"train.teacher: {name} does not accept this data: {one_line(error)}; {HOW}") from error
    wanted = [[*shape] for shape in shapes]
    if given != wanted:
        raise ConfigError(f"train.teacher: {name} returns {given}, and the model that is trained {wanted}; choose another")
