"""CODE and FOREACH of stage scripts as compose reads them, and what the placeholders stand for."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from edgewise.config import compose, stage_code
from edgewise.config.digests import Digests
from edgewise.config.schema import KEYS, Config, Plugin, Qat, read
from edgewise.config.stage_code import StageCode, read_declared, stage_digests
from edgewise.errors import ConfigError
from tests.conftest import ROOT
from tests.support.formats import FORMATS


@pytest.fixture(scope="module")
def config() -> Config:
    return compose.compose(ROOT / "params.yaml", ROOT / "conf")


def script(folder: Path, text: str, name: str = "toy_stage") -> Path:
    path = folder / "stages" / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_what_a_script_declares_is_read_and_not_run(tmp_path: Path) -> None:
    path = script(tmp_path, 'import no_such_module\nFOREACH = "variants"\nCODE: tuple[str, ...] = ("edgewise.proof", "{task}")\n1 / 0\n')
    assert read_declared(path) == StageCode(("edgewise.proof", "{task}"), "variants")
    assert read_declared(script(tmp_path, "x = 1")) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("CODE = tuple(names)", "must be plain literals"),
        ('CODE = "edgewise.proof"', "must be a tuple of strings"),
        ("CODE = (1,)", "must be a tuple of strings"),
        ('CODE = ()\nFOREACH = "days"', "'days'; allowed: variants, formats"),
        ("CODE = (", "line 1: '\\(' was never closed"),
    ],
)
def test_a_wrong_declaration_is_named_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"toy_stage.py.*{said}"):
        read_declared(script(tmp_path, text))


def test_a_digest_for_each_variant_or_format_or_one(tmp_path: Path, config: Config) -> None:
    script(tmp_path, 'CODE = ("edgewise.stats",)')
    script(tmp_path, 'FOREACH = "variants"\nCODE = ("{format}.run",)', "each_one")
    script(tmp_path, 'FOREACH = "formats"\nCODE = ("{format}.run",)', "each_format")
    script(tmp_path, "x = 1", "probing")
    found = stage_digests(config, Digests(tmp_path))
    assert found.keys() == {"toy-stage", "each-one", "each-format"} and isinstance(found["toy-stage"], str)
    assert found["each-one"].keys() == config.variants.keys() and found["each-format"].keys() == config.formats.keys()
    assert found["each-one"]["onnx-fp32"] == found["each-one"]["onnx-int8-static"] != found["each-one"]["torch-fp32"]


def test_an_edit_of_a_stage_script_changes_its_digest_alone(tmp_path: Path, config: Config) -> None:
    script(tmp_path, 'CODE = ("edgewise.stats",)', "one")
    script(tmp_path, 'CODE = ("edgewise.stats",)', "other")
    before = stage_digests(config, Digests(tmp_path))
    script(tmp_path, '"""What it does."""\n\nCODE = ("edgewise.stats",)  # all of it\n', "one")
    assert stage_digests(config, Digests(tmp_path)) == before
    script(tmp_path, 'CODE = ("edgewise.stats",)\nx = 1', "one")
    after = stage_digests(config, Digests(tmp_path))
    assert after["other"] == before["other"] and after["one"] != before["one"]


def test_the_users_own_modules_that_settings_name_count(tmp_path: Path, config: Config) -> None:
    """model.callable and data.callable, what these import from the project, and a plugin of the user's own."""
    (tmp_path / "my_parts.py").write_text("width = 8")
    (tmp_path / "my_nets.py").write_text("import my_parts\ndef tiny(): ...")
    (tmp_path / "my_task.py").write_text("x = 1")
    script(tmp_path, 'CODE = ("{source}",)', "train")
    script(tmp_path, 'CODE = ("{task}",)', "judge")
    model = Plugin("callable", "edgewise.sources.python_callable", {"callable": "my_nets.tiny"})
    own = replace(config, model=model, task=Plugin("mine", "my_task"))

    def changes(file: str, text: str) -> set[str]:
        before = stage_digests(own, Digests(tmp_path))
        (tmp_path / file).write_text(text)
        after = stage_digests(own, Digests(tmp_path))
        return {stage for stage in before if before[stage] != after[stage]}

    assert changes("my_parts.py", "width = 16") == {"train"}
    assert changes("my_nets.py", "import my_parts\ndef tiny(): ...  # small") == set()
    assert changes("my_task.py", "x = 2") == {"judge"}


def test_formats_on_the_way_count_for_a_fine_tuned_variant_alone(config: Config) -> None:
    tuned = replace(config.variants["openvino-int8-static"], qat=Qat())
    own = replace(config, variants={**config.variants, "tuned": tuned})
    found = stage_code.for_each(own, "variants")
    assert found["tuned"]["between"] == ("edgewise.formats.onnx",) and found["openvino-int8-static"]["between"] == ()


def test_the_file_that_stages_read_leaves_out_what_dvc_compares(tmp_path: Path, config: Config) -> None:
    path = tmp_path / "config.yaml"
    compose.write(config, path, {"code": {"report": "1"}, "runtimes": {}})
    assert set(KEYS) <= yaml.safe_load(path.read_text()).keys() and read(path) == config


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("model", ["onnx_file", "keras_file", "tflite_file", "torch_file", "resnet18"])
def test_the_way_from_any_source_to_any_format_has_an_end(config: Config, model: str, name: str) -> None:
    """Also where the source cannot be read there, which is the variant's own failure later: torch reads torch alone."""
    module = yaml.safe_load((ROOT / f"conf/model/{model}.yaml").read_text())["module"]
    way = stage_code.between(replace(config, model=Plugin(model, module, {})), name)
    assert len(way) == len(set(way)) < len(config.formats)
    if (model, name) == ("resnet18", "openvino"):
        assert way == ("edgewise.formats.onnx",)
