"""Building the model: classes of transformers by name, the user's own callable, what follows from the data, what is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgewise.artifacts.artifact import Manifest, Port
from edgewise.config.settings import build
from edgewise.errors import ConfigError, ModelError, UserError
from edgewise.sources import python_callable, torch_source, transformers_model
from tests.support.training_project import TINY

pytestmark = pytest.mark.framework

USER_CODE = """
import torch

def net(num_labels, width=4):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 24 * 16, width), torch.nn.Linear(width, num_labels))

def flexible(**kwargs):
    return net(kwargs["outputs"])

class Net(torch.nn.Linear):
    def __init__(self, n_classes):
        super().__init__(16, n_classes)

def nothing():
    return None

def broken(num_classes):
    raise ValueError("width must be odd\\nand more")

SIZE = 3
"""


def data(channels: int = 3) -> Manifest:
    return Manifest("data", inputs=(Port("image", (None, channels, 24, 16), "float32", "NCHW", "image"),), labels=("a", "b", "c", "d"))


@pytest.fixture
def user_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's module lies in the project's top folder, which is the current one."""
    (tmp_path / "edge_net.py").write_text(USER_CODE)
    (tmp_path / "needy_net.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("sys.path", [entry for entry in __import__("sys").path if entry])
        yield
    __import__("sys").modules.pop("edge_net", None)


def call(path: str, **settings) -> torch.nn.Module:
    return python_callable.create(python_callable.Settings(callable=path, **settings), data())


@pytest.mark.parametrize(
    ("path", "settings"),
    [
        ("edge_net.net", {}),
        ("edge_net.net", {"arguments": {"width": 7}}),
        ("edge_net.net", {"arguments": {"num_labels": 4}}),
        ("edge_net.flexible", {"classes_argument": "outputs"}),
        ("edge_net.Net", {}),
    ],
)
def test_a_callable_gets_the_number_of_labels(user_code: None, path: str, settings: dict) -> None:
    last = list(call(path, **settings).modules())[-1]
    assert last.out_features == 4


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("edge_net.nett", r"edge_net has no callable 'nett'; did you mean 'net'\?"),
        ("edge_net.SIZE", "no callable 'SIZE'"),
        ("net", "must be a dotted path"),
        ("edge_nut.net", "'edge_nut' cannot be imported"),
        ("needy_net.make", "a_package_that_nobody_has"),
        ("edge_net.nothing", "returned a NoneType"),
        ("edge_net.broken", r"edge_net.broken\(num_classes=4\) failed: width must be odd and more; fix"),
        ("edge_net.flexible", r"edge_net.flexible\(\) failed: 'outputs'"),
    ],
)
def test_callables_that_do_not_serve(user_code: None, path: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        call(path)


def test_transformers_take_labels_and_picture_size_from_the_data() -> None:
    module = transformers_model.create(transformers_model.Settings(**TINY), data(channels=1))
    assert (module.config.num_channels, module.config.num_labels) == (1, 4)
    vit = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 8}
    module = transformers_model.create(
        transformers_model.Settings(model="ViTForImageClassification", config="ViTConfig", arguments=vit), data()
    )
    assert module(torch.zeros(2, 3, 24, 16)).logits.shape == (2, 4)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"model": "ResNetForImageClasification"}, ConfigError, "model.model: .* similar: ResNetForImageClassification"),
        ({"config": "ResnetConfig"}, ConfigError, "model.config: .* similar: ResNetConfig"),
        ({"arguments": {"hidden_size": [8]}}, ConfigError, r"model.arguments.hidden_size: .* did you mean 'hidden_sizes'\?"),
        ({"arguments": {"layer_type": "fancy"}}, ModelError, "cannot be built with them: .*layer_type=fancy"),
        ({"arguments": {"hidden_sizes": [8, 16], "depths": "many"}}, ModelError, "cannot be built"),
    ],
)
def test_transformers_settings_that_do_not_serve(change: dict, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        transformers_model.create(transformers_model.Settings(**{**TINY, **change}), data())
    assert "\n" not in str(caught.value)


def test_batchnorm_momentum_is_set_everywhere() -> None:
    model = transformers_model.Settings(
        model="MobileNetV2ForImageClassification", config="MobileNetV2Config", arguments={"depth_multiplier": 0.25}, batchnorm_momentum=0.1
    )
    module = transformers_model.create(model, data())
    norms = [child for child in module.modules() if isinstance(child, torch.nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.997}, "transformers has mended it: the setting can go"
    torch_source.initialize(module, model, 4)
    assert {norm.momentum for norm in norms} == {0.1}


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"model\.callable: missing"):
        build(python_callable.Settings, {"callable": "???"}, "model")
    with pytest.raises(ConfigError, match=r"model\.batchnorm_momentum: 3\.0 must be at least"):
        build(transformers_model.Settings, {**TINY, "batchnorm_momentum": 3}, "model")
