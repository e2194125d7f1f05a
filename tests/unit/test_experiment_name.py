"""What a project is called in MLflow."""

import pytest

from edgewise.config.experiment_name import name_experiment, subject
from edgewise.config.schema import Plugin
from edgewise.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "option"),
        ({"path": None}, "option"),
        ({"path": "/pictures/magnetic tile"}, "magnetic-tile"),
        ({"path": "coco128/data.yaml"}, "coco128"),
        ({"path": "nets/yolox_nano.onnx"}, "yolox_nano"),
        ({"path": "data"}, "option"),
        ({"callable": "torchvision.models.resnet18"}, "resnet18"),
        ({"callable": "my.data:load"}, "load"),
    ],
)
def test_the_subject_is_what_the_user_brought(settings: dict, name: str) -> None:
    assert subject(Plugin("option", "module", settings)) == name


def test_a_given_name_is_kept_and_a_bad_one_refused() -> None:
    plugin = Plugin("digits", "module")
    assert name_experiment("tiles-v2", plugin, plugin) == "tiles-v2" and name_experiment(None, plugin, plugin) == "digits-digits"
    for bad in ("", "a/b", "a b", 7):
        with pytest.raises(ConfigError, match="experiment"):
            name_experiment(bad, plugin, plugin)
