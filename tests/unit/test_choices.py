"""What single choices of params.yaml mean: the word none in a variant, the name of the experiment."""

import pytest
import yaml

from edgewise.config import compose
from edgewise.config.choices import name_experiment, subject
from edgewise.config.schema import Plugin
from edgewise.errors import ConfigError
from tests.conftest import ROOT


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


def settings_of_schemes() -> list[tuple[str, str, str]]:
    loaded = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "conf/format").glob("*.yaml"))}
    return [(name, scheme, key) for name, form in loaded.items() for scheme, given in form["schemes"].items() for key in given or ()]


def test_the_word_none_removes_nothing_that_a_scheme_needs():
    """It is refused where it would be, or is the string that it looks like, or there was nothing."""
    options = compose.Options(ROOT / "conf")
    refused = set()
    for form, scheme, key in settings_of_schemes():
        default = options.load("format", form, "")["schemes"][scheme][key]
        try:
            made = compose.variant(f"{form}-{scheme}", {"format": form, "scheme": scheme, key: "none"}, options)
        except ConfigError as error:
            assert f"variants.{form}-{scheme}.{key}: " in str(error)
            refused.add(key)
        else:
            assert default is None or getattr(made, key) is not None, (form, scheme, key)
    assert {"calibration", "mixed", "qat", "per_channel", "symmetric", "keep_float"} <= refused
