"""What single choices of params.yaml mean: the word none in a variant, the name of the experiment."""

import pytest
import yaml

from edgewise.config import compose
from edgewise.config.choices import check_tracking_uri, name_experiment, subject
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


def test_the_tracking_store_is_a_server_or_a_database() -> None:
    for good in (
        None,
        "http://tracking:5000",
        "https://me@tracking.example/mlflow",
        "sqlite:////srv/mlflow.db",
        "postgresql+psycopg2://mlflow@db/mlflow",
    ):
        assert check_tracking_uri(good) == good
    for bad in ("", "tracking:5000", "http://", "mlruns", 7, "ftp://tracking"):
        with pytest.raises(ConfigError, match=r"tracking_uri: .* must be the address .* for example http://tracking:5000"):
            check_tracking_uri(bad)


def test_a_password_does_not_go_into_params_yaml() -> None:
    with pytest.raises(ConfigError, match="goes into git") as caught:
        check_tracking_uri("https://me:secret@tracking:5000")
    assert "secret" not in str(caught.value) and "MLFLOW_TRACKING_URI" in str(caught.value)


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
