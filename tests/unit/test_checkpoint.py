"""Continuing from the user's checkpoint: what is loaded, and every kind of file and content that is refused."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgewise.errors import ModelError
from edgewise.sources.checkpoint import load_into

pytestmark = pytest.mark.framework


def net(classes: int = 10, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    body = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8))
    return torch.nn.ModuleDict({"body": body, "classifier": torch.nn.Linear(8, classes)})


def same(module: torch.nn.Module, other: torch.nn.Module, part: str = "") -> bool:
    mine, theirs = module.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine if name.startswith(part))


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
@pytest.mark.parametrize("kind", ["safetensors", "torch", "old torch", "nested"])
def test_loads_what_was_saved(tmp_path: Path, kind: str, prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in net(seed=1).state_dict().items()}
    path = tmp_path / "weights.bin"
    if kind == "safetensors":
        save_file(state, path)
    else:
        content = {"state_dict": state, "epoch": 3} if kind == "nested" else state
        torch.save(content, path, _use_new_zipfile_serialization=kind != "old torch")
    module = net()
    assert not same(module, net(seed=1))
    load_into(module, path, (), 10)
    assert same(module, net(seed=1))


def test_half_precision_is_widened(tmp_path: Path) -> None:
    save_file(net(seed=1).half().state_dict(), tmp_path / "w.safetensors")
    module = net()
    load_into(module, tmp_path / "w.safetensors", (), 10)
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}


@pytest.mark.parametrize("pattern", ["classifier", "classifier.*", "class*"])
def test_ignored_layers_keep_their_initial_weights(tmp_path: Path, pattern: str) -> None:
    save_file(net(classes=1000, seed=1).state_dict(), tmp_path / "w.safetensors")
    module = net()
    load_into(module, tmp_path / "w.safetensors", (pattern,), 10)
    assert same(module, net(seed=1), "body") and same(module, net(), "classifier")


def refused(path: Path, ignore: tuple[str, ...] = (), classes: int = 10) -> str:
    module = net(classes)
    with pytest.raises(ModelError) as caught:
        load_into(module, path, ignore, classes)
    assert same(module, net(classes)), "a refused checkpoint must not change the model"
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Bomb:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize(
    "save", [lambda x, path: torch.save(x, path), lambda x, path: path.write_bytes(pickle.dumps(x))], ids=["torch", "pickle"]
)
def test_a_pickle_with_code_is_refused_and_never_run(tmp_path: Path, save) -> None:
    save({"w": Bomb(tmp_path / "marker")}, tmp_path / "w.pt")
    message = refused(tmp_path / "w.pt")
    assert not (tmp_path / "marker").exists()
    assert "can run code on loading" in message and "torch.save(model.state_dict(), FILE)" in message


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "model.pt")
    assert "can run code on loading (torch.nn.modules.container.ModuleDict)" in refused(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read"),
        (b"some text that is no checkpoint at all", "w.bin"),
        (b"PK\x03\x04 a damaged archive", "cannot be read"),
        (b"\x99\x00\x00\x00\x00\x00\x00\x00{broken", "a damaged or truncated safetensors file"),
    ],
    ids=["empty", "text", "damaged zip", "damaged safetensors"],
)
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "w.bin").write_bytes(content)
    assert says in refused(tmp_path / "w.bin")


@pytest.mark.parametrize("save", [lambda x, path: torch.save(x, path), save_file], ids=["torch", "safetensors"])
def test_a_truncated_file_is_refused(tmp_path: Path, save) -> None:
    save(net().state_dict(), tmp_path / "w.bin")
    (tmp_path / "w.bin").write_bytes((tmp_path / "w.bin").read_bytes()[:-100])
    assert "w.bin" in refused(tmp_path / "w.bin")


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "absent.pt")
    assert "is a folder" in refused(tmp_path) and "model.safetensors" in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [([1, 2], "holds a list"), ({}, "not named tensors"), ({"epoch": 3}, "'epoch' is a int"), (torch.zeros(3), "Tensor")],
)
def test_content_that_is_no_state_dict(tmp_path: Path, content: object, says: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert says in refused(tmp_path / "w.pt")


def changed(tmp_path: Path, **tensors: torch.Tensor | None) -> Path:
    state = {**net(seed=1).state_dict(), **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path) -> None:
    message = refused(changed(tmp_path, body__0__bias=None, neck__bias=torch.zeros(2)))
    assert "body.0.bias missing in the file" in message and "neck.bias unknown to the model" in message
    assert "model.weights_ignore=[body,neck]" in message


def test_another_shape_is_named_with_both(tmp_path: Path) -> None:
    message = refused(changed(tmp_path, body__0__weight=torch.zeros(8, 5)))
    assert "body.0.weight [8, 5] instead of [8, 6]" in message


def test_a_head_for_other_classes_names_the_setting(tmp_path: Path) -> None:
    message = refused(changed(tmp_path, classifier__weight=torch.zeros(1000, 8), classifier__bias=torch.zeros(1000)))
    assert "trained for 1000 classes, the data has 10" in message
    assert "model.weights_ignore=[classifier]" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, value: float) -> None:
    bad = torch.ones(8, 6)
    bad[3, 2] = value
    assert "NaN or infinite values in body.0.weight;" in refused(changed(tmp_path, body__0__weight=bad))


def test_an_ignored_layer_that_does_not_exist(tmp_path: Path) -> None:
    assert "did you mean 'classifier'?" in refused(changed(tmp_path), ("clasifier",))
