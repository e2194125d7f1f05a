"""The training loop on a tiny net: figures against scikit-learn and torch, repeatability, what is kept, what is refused."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.utils.class_weight import compute_class_weight

from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.errors import ConfigError, DataError
from edgewise.sources import objectives, training
from edgewise.sources.training import to_tensors
from tests.support.training_project import make_data

pytestmark = pytest.mark.framework


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return Samples.open(make_data(tmp_path_factory.mktemp("digits"), channels=1))


def net(seed: int = 0) -> torch.nn.Module:
    """Ends in BatchNorm over single values: a batch of one picture is an error in it."""
    torch.manual_seed(seed)
    convolution = torch.nn.Conv2d(1, 16, 4, 4)
    return torch.nn.Sequential(convolution, torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(256, 10), torch.nn.BatchNorm1d(10))


def fit(module: torch.nn.Module, samples: Samples, seed: int = 0, **settings) -> dict:
    train = Train("test", **settings)
    with training.repeatable(seed, 1):
        return training.fit(module, samples, train, seed, objectives.choose(samples, train))


def digest(module: torch.nn.Module) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values())).hexdigest()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_it_learns(samples: Samples, optimizer: str) -> None:
    history = fit(net(), samples, epochs=12, batch_size=16, learning_rate=0.02, optimizer=optimizer, shift_pixels=0)
    assert history["accuracy_validation"] > 0.8
    assert history["curve"][-1]["loss_train"] < history["curve"][0]["loss_train"] / 2
    assert [row["epoch"] for row in history["curve"]] == list(range(1, 13))


def test_the_same_seed_gives_the_same_bytes(samples: Samples) -> None:
    digests = []
    for seed in (3, 3, 4):
        module = net()
        fit(module, samples, seed, epochs=2)
        digests.append(digest(module))
    assert digests[0] == digests[1] != digests[2]


def test_no_batch_of_one_picture(samples: Samples) -> None:
    assert len(samples.indices("train")) % 32 == 1
    assert fit(net(), samples, epochs=1, batch_size=32)["epochs"] == 1


def test_no_epochs_keep_the_initial_weights(samples: Samples) -> None:
    module = net()
    history = fit(module, samples, epochs=0)
    assert digest(module) == digest(net())
    assert history["curve"] == [] and 0 <= history["accuracy_validation"] < 0.5


def test_scores_are_those_of_scikit_learn(samples: Samples) -> None:
    module, chosen = net().eval(), samples.indices("validation")
    targets = samples.targets(chosen)
    with torch.no_grad():
        logits = module(*to_tensors(samples.feeds(chosen)))
    answers, objective = logits.argmax(1).numpy(), objectives.Labels(samples, Train("x", class_weights="balanced"))
    scores = training.validate(module, samples, objective)
    assert scores["accuracy_validation"] == pytest.approx(accuracy_score(targets, answers))
    assert scores["accuracy_balanced_validation"] == pytest.approx(balanced_accuracy_score(targets, answers))
    weight = torch.from_numpy(objectives.balanced_weights(samples.targets(samples.indices("train")), 10))
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets), weight)
    assert scores["loss_validation"] == pytest.approx(expected.item(), rel=1e-5)


def test_class_weights_are_those_of_scikit_learn() -> None:
    targets = np.array([0] * 30 + [1] * 5 + [2] * 65)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets)
    np.testing.assert_allclose(objectives.balanced_weights(targets, 3), expected, rtol=1e-6)
    assert np.isfinite(objectives.balanced_weights(targets, 4)).all()


def test_schedule_rises_to_the_peak_and_falls_as_the_cosine_of_torch() -> None:
    factors = [training.schedule(step, 100, 0.2) for step in range(100)]
    assert factors[0] > 0 and factors[20] == 1.0 and max(factors) == 1.0
    assert np.allclose(np.diff(factors[:21]), 1 / 21)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=80)
    for factor in factors[20:]:
        assert factor == pytest.approx(cosine.get_last_lr()[0], abs=1e-6)
        optimizer.step()
        cosine.step()
    assert training.schedule(0, 10, 0.0) == 1.0


def test_weight_decay_spares_biases_and_norm_layers() -> None:
    module = net()
    decayed, spared = training.make_optimizer(module, Train("x", weight_decay=0.3)).param_groups
    assert decayed["weight_decay"] == 0.3 and spared["weight_decay"] == 0.0
    assert {id(p) for p in decayed["params"]} == {id(module[0].weight), id(module[3].weight)}
    assert len(spared["params"]) == 4


def test_the_average_is_that_of_the_weights_after_each_step() -> None:
    module = net()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    average, seen = training.follow_average(module, optimizer, 0.75), []
    for step in range(4):
        optimizer.zero_grad()
        module(torch.full((2, 1, 16, 16), float(step))).square().sum().backward()
        optimizer.step()
        seen.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
    expected = seen[0]
    for state in seen[1:]:
        expected = {name: 0.75 * expected[name] + 0.25 * tensor for name, tensor in state.items()}
    for name, tensor in average.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name])
        else:
            assert tensor == seen[-1][name]


def test_the_average_is_validated_and_kept(samples: Samples) -> None:
    plain, averaged = net(), net()
    kept = {"epochs": 2, "monitor": "last"}
    first, second = fit(plain, samples, **kept), fit(averaged, samples, ema=0.9, **kept)
    assert [row["loss_train"] for row in first["curve"]] == [
        row["loss_train"] for row in second["curve"]
    ]  # it does not change the training
    assert second["loss_validation"] == second["curve"][-1]["loss_validation"] != first["loss_validation"]
    assert digest(plain) != digest(averaged)


def row(epoch: int, accuracy: float, loss: float) -> dict:
    return {"epoch": epoch, "accuracy_validation": accuracy, "accuracy_balanced_validation": 1 - accuracy, "loss_validation": loss}


@pytest.mark.parametrize(("monitor", "kept"), [("accuracy", 3), ("accuracy_balanced", 1), ("loss", 2), ("last", 4)])
def test_the_best_epoch_is_restored(monitor: str, kept: int) -> None:
    module, best = torch.nn.Linear(1, 1), training.Best(Train("x", monitor=monitor))
    for epoch, (accuracy, loss) in enumerate([(0.5, 0.9), (0.7, 0.3), (0.9, 0.6), (0.9, 0.7)], start=1):
        torch.nn.init.constant_(module.weight, epoch)
        assert not best.update(module, row(epoch, accuracy, loss))
    best.restore(module)
    assert (best.epoch, module.weight.item()) == (kept, kept)


def test_patience_ends_the_training() -> None:
    module, best = torch.nn.Linear(1, 1), training.Best(Train("x", patience=2))
    over = [best.update(module, row(epoch, accuracy, 0.5)) for epoch, accuracy in enumerate([0.5, 0.7, 0.6, 0.7], start=1)]
    assert over == [False, False, False, True]


def test_a_loss_that_is_no_number_names_the_learning_rate(samples: Samples) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
    with pytest.raises(
        ConfigError, match=r"train\.learning_rate: with 10 the loss became (nan|inf) in step \d+; try train\.learning_rate=1"
    ):
        torch.nn.init.constant_(module[1].weight, 1e37)
        fit(module, samples, epochs=3, learning_rate=10.0, optimizer="sgd")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_that_training_needs_and_that_is_empty_is_named(samples: Samples, split: str) -> None:
    without = dataclasses.replace(samples, splits={**samples.splits, split: []})
    with pytest.raises(DataError, match=rf"data\.splits: {split} is empty"):
        fit(net(), without, epochs=1)


def test_a_model_that_is_not_trained_needs_no_training_split(samples: Samples) -> None:
    without = dataclasses.replace(samples, splits={**samples.splits, "train": []})
    assert fit(net(), without, epochs=0)["epochs"] == 0
    with pytest.raises(DataError, match=r"data\.splits: validation is empty, but the model is validated on it"):
        fit(net(), dataclasses.replace(without, splits={**without.splits, "validation": []}), epochs=0)


def test_a_validation_loss_that_is_no_number_names_the_learning_rate(samples: Samples) -> None:
    class Broken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) if self.training else self.inner(x) * float("nan")

    with pytest.raises(ConfigError, match=r"train\.learning_rate: with 0\.001 the loss became nan"):
        fit(Broken(), samples, epochs=1)


def test_repeatable_leaves_torch_as_it_was() -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    with training.repeatable(0, 1) as threads:
        assert threads == 1 and torch.are_deterministic_algorithms_enabled()
    assert (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()) == before
