"""The training loop: AdamW or SGD, warm-up and cosine decay, random changes to pictures; the weights of the best epoch are kept.

The same seed and number of threads give the same bytes.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.artifacts.samples import Samples
from edgewise.artifacts.targets import CLASSES, MULTI_LABEL
from edgewise.config.schema import Train
from edgewise.errors import ConfigError, DataError

Augment = Callable[[dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray]]
VALIDATION_BATCH = 256
CLASSES_ONLY = {"monitor": ("loss", "last"), "class_weights": ("none",), "label_smoothing": (0.0,)}  # values allowed for other targets
DIGITS = 6  # decimals in the curve
AUGMENTATIONS = ("flip_horizontal", "flip_vertical", "shift_pixels", "brightness", "contrast")


@contextlib.contextmanager
def repeatable(seed: int, threads: int | None) -> Iterator[int]:
    """Fixed seed, deterministic kernels and a fixed number of threads, on which sums depend; yields that number."""
    import torch

    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    try:
        yield torch.get_num_threads()
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_num_threads(before[1])


def fit(source: Any, samples: Samples, train: Train, seed: int, augment: Augment) -> dict[str, Any]:
    """Train `source` (inputs by position, outputs [n, labels]) in place and leave it with the weights of its best epoch.

    augment(feeds, generator) returns a changed copy of a training batch. Returns the content of metrics/train.json: scores on
    validation, number of epochs, the epoch kept, and the curve.
    """
    import torch
    from tqdm import tqdm

    check_splits(samples, train.epochs)
    rng, loss = np.random.default_rng(seed), criterion(samples, train)
    chosen = samples.indices("train")
    batches = max(1, len(chosen) // train.batch_size)
    optimizer = make_optimizer(source, train)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, train.epochs * batches, train.warmup_share))
    curve: list[dict[str, Any]] = []
    check_targets(train, samples)
    best = Best(train)
    with tqdm(total=train.epochs * batches, desc="train", unit="step", disable=None) as bar:
        for epoch in range(1, train.epochs + 1):
            # equal parts instead of a short last batch: BatchNorm fails on a batch of one
            feeds = (
                (augment(samples.feeds(part), rng), samples.targets(part)) for part in np.array_split(rng.permutation(chosen), batches)
            )
            loss_train = train_epoch(source, feeds, loss, optimizer, rate, bar)
            row = {"epoch": epoch, "loss_train": loss_train, "learning_rate": rate.get_last_lr()[0], **validate(source, samples, loss)}
            if not math.isfinite(row["loss_validation"]):
                raise divergence_error(row["loss_validation"], rate)
            curve.append({name: round(value, DIGITS) for name, value in row.items()})
            bar.set_postfix({name: f"{value:.3f}" for name, value in row.items() if name.endswith("validation")}, epoch=epoch)
            if best.update(source, row):
                break
    best.restore(source)
    scores = {name: round(value, DIGITS) for name, value in validate(source, samples, loss).items()}
    return {"accuracy_validation": None, **scores, "epochs": len(curve), "epoch_kept": best.epoch, "curve": curve}


def check_splits(samples: Samples, epochs: int) -> None:
    """DataError if there are no samples to train on, or to choose the epoch and to validate by. A model that is trained for 0 epochs,
    as an imported one, needs no training split."""
    for split in ("train", "validation") if epochs else ("validation",):
        if not len(samples.indices(split)):
            use = "the model is to be trained" if epochs else "the model is validated on it"
            raise DataError(f"data.splits: {split} is empty, but {use}; give each split a share, for example 0.1")


def check_targets(train: Train, samples: Samples) -> None:
    """ConfigError for settings that only apply to classes, if the targets are something else."""
    for key, allowed in CLASSES_ONLY.items():
        given = getattr(train, key)
        if samples.kind != CLASSES and given not in allowed:
            raise ConfigError(
                f"train.{key}: {given!r} needs classes, but data.targets is {samples.kind}; allowed: {', '.join(map(str, allowed))}"
            )


def train_epoch(source: Any, batches: Any, loss: Any, optimizer: Any, rate: Any, bar: Any) -> float:
    """One pass over `batches`; returns the mean loss per sample. ConfigError if the loss becomes NaN or infinite."""
    import torch

    source.train()
    total, count = 0.0, 0
    for feeds, targets in batches:
        optimizer.zero_grad(set_to_none=True)
        value = loss(source(*to_tensors(feeds)), torch.from_numpy(targets))
        if not math.isfinite(value.item()):
            raise divergence_error(value.item(), rate)
        value.backward()
        optimizer.step()
        rate.step()
        bar.update()
        total, count = total + value.item() * len(targets), count + len(targets)
    return total / count


def divergence_error(value: float, rate: Any) -> ConfigError:
    peak = rate.base_lrs[0]
    return ConfigError(
        f"train.learning_rate: with {peak:g} the loss became {value} in step {rate.last_epoch + 1};"
        f" try train.learning_rate={peak / 10:g}, or a longer train.warmup_share"
    )


def schedule(step: int, steps: int, warmup_share: float) -> float:
    """Factor of the peak learning rate: linear warm-up, then cosine decay to zero (Loshchilov and Hutter 2017)."""
    warmup = round(steps * warmup_share)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def make_optimizer(source: Any, train: Train) -> Any:
    """AdamW or SGD, with weight decay on matrices and filters only: on biases and norm layers it costs accuracy."""
    import torch

    parameters = [p for p in source.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if train.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=train.learning_rate, momentum=train.momentum, nesterov=train.momentum > 0, fused=True)
    return torch.optim.AdamW(groups, lr=train.learning_rate, fused=True)


def criterion(samples: Samples, train: Train) -> Any:
    """The loss: cross entropy for classes, binary cross entropy for multi_label, squared error for values."""
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


def validate(source: Any, samples: Samples, loss: Any) -> dict[str, float]:
    """Loss on the whole validation split; for classes also accuracy and balanced accuracy (mean recall)."""
    import torch

    chosen = samples.indices("validation")
    parts = np.array_split(chosen, math.ceil(len(chosen) / VALIDATION_BATCH))
    source.eval()
    with torch.no_grad():
        logits = torch.cat([source(*to_tensors(samples.feeds(part))) for part in parts])
    targets = samples.targets(chosen)
    found = {"loss_validation": loss(logits, torch.from_numpy(targets)).item()}
    if samples.kind != CLASSES:
        return found
    correct = logits.argmax(1).numpy() == targets
    recalls = [correct[targets == label].mean() for label in np.unique(targets)]
    return {**found, "accuracy_validation": float(correct.mean()), "accuracy_balanced_validation": float(np.mean(recalls))}


class Best:
    """Keeps the weights of the best epoch; ties are decided by the lower loss."""

    def __init__(self, train: Train):
        self.monitor, self.patience = train.monitor, train.patience
        self.score: tuple[float, float] | None = None
        self.epoch = 0
        self.state: dict[str, Any] | None = None

    def update(self, source: Any, row: dict[str, Any]) -> bool:
        """Record an epoch. Returns True after `patience` epochs without a better one: stop."""
        score = (self.monitored(row), -row["loss_validation"])
        if self.score is None or score > self.score:
            self.score, self.epoch = score, row["epoch"]
            self.state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
        return self.patience is not None and row["epoch"] - self.epoch >= self.patience

    def monitored(self, row: dict[str, Any]) -> float:
        """The value that is compared between epochs; higher is better."""
        if self.monitor == "last":
            return float(row["epoch"])
        return float(-row["loss_validation"] if self.monitor == "loss" else row[f"{self.monitor}_validation"])

    def restore(self, source: Any) -> None:
        if self.state is not None:
            source.load_state_dict(self.state)


def to_tensors(feeds: Mapping[str, np.ndarray]) -> list[Any]:
    """Feeds as torch tensors, in their order."""
    import torch

    return [torch.from_numpy(np.ascontiguousarray(array)) for array in feeds.values()]


@dataclass(frozen=True)
class Pixels:
    """The model's input values for black and white, [channels, 1, 1] each.

    With them, brightness 1.2 of a normalized batch is brightness 1.2 of the picture file, and no value leaves the valid range.
    """

    black: np.ndarray
    white: np.ndarray

    @classmethod
    def of(cls, preprocessing: Mapping[str, Any]) -> "Pixels":
        mean, std = (np.asarray(preprocessing[key], np.float32)[:, None, None] for key in ("mean", "std"))
        return cls((0 - mean) / std, (255 * preprocessing["scale"] - mean) / std)


def check_augmentations(train: Train, preprocessing: Mapping[str, Any] | None) -> None:
    """ConfigError if the settings ask for changes of pictures and the inputs are none."""
    wanted = [name for name in AUGMENTATIONS if getattr(train, name)]
    if wanted and (preprocessing or {}).get("kind") != "image":
        raise ConfigError(f"train.{wanted[0]}: {getattr(train, wanted[0])!r} changes pictures, but this data set has none; remove it")


def augment_images(images: np.ndarray, train: Train, pixels: Pixels, rng: np.random.Generator) -> np.ndarray:
    """A changed copy of normalized float32 [n, channels, height, width]; each picture is changed at random."""
    if train.flip_horizontal:
        images = flip_half(images, 3, rng)
    if train.flip_vertical:
        images = flip_half(images, 2, rng)
    if train.shift_pixels:
        images = shift(images, rng.integers(-train.shift_pixels, train.shift_pixels + 1, (2, len(images))))
    if train.brightness or train.contrast:
        images = adjust_light(
            images, random_factors(train.brightness, len(images), rng), random_factors(train.contrast, len(images), rng), pixels
        )
    return images


def flip_half(images: np.ndarray, axis: int, rng: np.random.Generator) -> np.ndarray:
    """Mirror each picture along `axis` with probability 0.5."""
    chosen = rng.random(len(images)) < 0.5
    return np.where(chosen[:, None, None, None], np.flip(images, axis), images)


def shift(images: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Move picture i by offsets[0][i] rows and offsets[1][i] columns; border pixels fill the gap."""
    height, width = images.shape[2:]
    rows = np.clip(np.arange(height) - offsets[0][:, None], 0, height - 1)
    columns = np.clip(np.arange(width) - offsets[1][:, None], 0, width - 1)
    images = np.take_along_axis(images, rows[:, None, :, None], axis=2)
    return np.take_along_axis(images, columns[:, None, None, :], axis=3)


def random_factors(spread: float, count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(1 - spread, 1 + spread, (count, 1, 1, 1)).astype(np.float32)


def adjust_light(images: np.ndarray, brightness: np.ndarray, contrast: np.ndarray, pixels: Pixels) -> np.ndarray:
    """Scale the distance from black (brightness), then the distance from each channel's mean (contrast)."""
    images = pixels.black + brightness * (images - pixels.black)
    mean = images.mean(axis=(2, 3), keepdims=True)
    lowest, highest = np.minimum(pixels.black, pixels.white), np.maximum(pixels.black, pixels.white)  # data.range may be the negative
    relit: np.ndarray = np.clip(mean + contrast * (images - mean), lowest, highest)
    return relit
