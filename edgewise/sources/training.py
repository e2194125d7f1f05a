"""The training loop: AdamW or SGD, warm-up and cosine decay; the weights of the best epoch are kept. What is minimized: see objectives.

The same seed and number of threads give the same bytes.
"""

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.errors import ConfigError, DataError
from edgewise.sources.objectives import Objective

DIGITS = 6  # decimals in the curve


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


def fit(source: Any, samples: Samples, train: Train, seed: int, objective: Objective) -> dict[str, Any]:
    """Train `source` (inputs by position, outputs as the objective takes them) in place and leave it with the weights of its best epoch.

    Returns the content of metrics/train.json: scores on validation, number of epochs, the epoch kept, and the curve.
    """
    import torch
    from tqdm import tqdm

    check_splits(samples, train.epochs)
    rng, size = np.random.default_rng(seed), len(objective.epoch(np.random.default_rng(seed)))
    batches = max(1, size // train.batch_size)
    optimizer = make_optimizer(source, train)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, train.epochs * batches, train.warmup_share))
    judged = follow_average(source, optimizer, train.ema) if train.ema else source
    curve: list[dict[str, Any]] = []
    best = Best(train)
    with tqdm(total=train.epochs * batches, desc="train", unit="step", disable=None) as bar:
        for epoch in range(1, train.epochs + 1):
            # equal parts instead of a short last batch: BatchNorm fails on a batch of one
            parts = np.array_split(objective.epoch(rng), batches)
            drawn = ((*objective.batch(part, rng), len(part)) for part in parts)
            loss_train = train_epoch(source, drawn, objective.loss, optimizer, rate, bar)
            row = {"epoch": epoch, "loss_train": loss_train, "learning_rate": rate.get_last_lr()[0], **validate(judged, samples, objective)}
            if not math.isfinite(row["loss_validation"]):
                raise divergence_error(row["loss_validation"], rate)
            curve.append({name: round(value, DIGITS) for name, value in row.items()})
            bar.set_postfix({name: f"{value:.3f}" for name, value in row.items() if name.endswith("validation")}, epoch=epoch)
            if best.update(judged, row):
                break
    best.restore(source)
    scores = {name: round(value, DIGITS) for name, value in validate(source, samples, objective).items()}
    return {"accuracy_validation": None, **scores, "epochs": len(curve), "epoch_kept": best.epoch, "curve": curve}


def check_splits(samples: Samples, epochs: int) -> None:
    """DataError if there are no samples to train on, or to choose the epoch and to validate by. A model that is trained for 0 epochs,
    as an imported one, needs no training split."""
    for split in ("train", "validation") if epochs else ("validation",):
        if not len(samples.indices(split)):
            use = "the model is to be trained" if epochs else "the model is validated on it"
            raise DataError(f"data.splits: {split} is empty, but {use}; give each split a share, for example 0.1")


def train_epoch(
    source: Any, batches: Iterable[tuple[Mapping[str, np.ndarray], Any, int]], loss: Any, optimizer: Any, rate: Any, bar: Any
) -> float:
    """One pass over `batches` of feeds, targets and their number; returns the mean loss per sample. ConfigError if the loss becomes NaN or
    infinite."""
    source.train()
    total, seen = 0.0, 0
    for feeds, targets, count in batches:
        optimizer.zero_grad(set_to_none=True)
        value = loss(run(source, feeds), targets)
        if not math.isfinite(value.item()):
            raise divergence_error(value.item(), rate)
        value.backward()
        optimizer.step()
        rate.step()
        bar.update()
        total, seen = total + value.item() * count, seen + count
    return total / seen


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


def follow_average(source: Any, optimizer: Any, decay: float) -> Any:
    """A copy of `source` whose weights and running statistics are the exponential moving average of its own after each step (Polyak and
    Juditsky 1992)."""
    import torch
    from torch.optim.swa_utils import AveragedModel

    def blend(kept: Sequence[torch.Tensor], new: Sequence[torch.Tensor], _: Any) -> None:
        for old, value in zip(kept, new, strict=True):
            old.lerp_(value, 1 - decay) if old.is_floating_point() else old.copy_(value)

    average = AveragedModel(source, multi_avg_fn=blend, use_buffers=True)
    optimizer.register_step_post_hook(lambda *_: average.update_parameters(source))
    return average.module


def validate(source: Any, samples: Samples, objective: Objective) -> dict[str, float]:
    """Loss and scores on the whole validation split."""
    import torch

    chosen = samples.indices("validation")
    parts = np.array_split(chosen, math.ceil(len(chosen) / objective.validation_batch))
    source.eval()
    with torch.no_grad():
        return objective.validate((part, run(source, samples.feeds(part))) for part in parts)


def run(source: Any, feeds: Mapping[str, np.ndarray]) -> Sequence[Any]:
    """The outputs of a module that returns one tensor or several."""
    result = source(*to_tensors(feeds))
    return result if isinstance(result, (tuple, list)) else (result,)


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
