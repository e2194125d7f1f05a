"""Which runtimes are installed, and what becomes of a variant whose runtime is not: here and on the device."""

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest

from edgewise.config.runtimes import MISSING, making_packages, own_packages, version
from edgewise.config.schema import Format
from edgewise.errors import VariantFailed
from edgewise.measure.device_facts import find_missing_runtime, make_runtimes_record
from edgewise.proof import isolation
from tests.conftest import ROOT
from tests.support.formats import FORMATS

LISTED = f"""
import json
from edgewise.config.runtimes import installed_runtimes
from edgewise.config.schema import Format
print(json.dumps(installed_runtimes({{name: Format(f"edgewise.formats.{{name}}", True) for name in {FORMATS}}})))
"""


def installed(*hidden: str) -> dict[str, dict[str, str]]:
    """installed_runtimes in a process that cannot see the packages `hidden`."""
    paths = os.pathsep.join((str(ROOT / "tests/support/hidden"), str(ROOT)))
    env = {**os.environ, "PYTHONPATH": paths, "EDGEWISE_TESTS_HIDE": ",".join(hidden)}
    done = subprocess.run([sys.executable, "-c", LISTED], env=env, check=True, capture_output=True, text=True)
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


def test_every_format_has_an_entry_and_only_that_of_a_missing_runtime_differs() -> None:
    all_there, lacking = installed(), installed("openvino", "nncf")
    assert set(all_there) == set(lacking) == set(FORMATS)
    assert lacking["openvino"] == {"run": "openvino missing", "make": "nncf missing, openvino missing"}
    assert {name for name in FORMATS if all_there[name] != lacking[name]} <= {"openvino"}


def test_a_package_for_making_alone_does_not_touch_what_runs() -> None:
    lacking = installed("nncf")["openvino"]
    assert "nncf missing" in lacking["make"] and lacking["run"] == installed()["openvino"]["run"]


def test_versions_are_those_of_the_distributions() -> None:
    assert version("numpy") == metadata.version("numpy")
    assert version("yaml") == metadata.version("pyyaml")  # called otherwise than what it provides
    assert version("no_such_package") == MISSING


def test_the_packages_of_a_format_are_those_of_the_extra_that_installs_its_runtime() -> None:
    assert own_packages("edgewise.formats.tflite") == dict.fromkeys(("ai_edge_litert", "ai_edge_quantizer", "litert_torch"), "tflite")
    assert "onnx" not in own_packages("edgewise.formats.openvino")


def lack(package: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named '{package}'", name=f"{package}.part")


def test_a_missing_package_of_the_formats_own_fails_the_variant_with_what_installs_it() -> None:
    with (
        pytest.raises(VariantFailed, match=r"'nncf' is not installed; .*pip install .*\[openvino\]"),
        isolation.translate_missing_runtime("edgewise.formats.openvino"),
    ):
        raise lack("nncf")


@pytest.mark.parametrize("package", ["tensorflow", "users_own"])
def test_any_other_missing_package_passes_through(package: str) -> None:
    with pytest.raises(ModuleNotFoundError), isolation.translate_missing_runtime("edgewise.formats.openvino"):
        raise lack(package)


class Named:
    def __init__(self, variants: dict[str, str]):
        self.variants = {name: Format(module, True) for name, module in variants.items()}


def test_the_record_of_the_devices_runtimes_has_an_entry_for_each_variant() -> None:
    settings = Named({"onnx-fp32": "edgewise.formats.onnx", "tflite-fp32": "edgewise.formats.tflite"})
    found = {"packages": {"numpy": "2.0", "onnxruntime": "1.20", "ai-edge-litert": None}}
    record = make_runtimes_record(settings, found)  # type: ignore[arg-type]
    assert record["variants"] == {"onnx-fp32": "onnxruntime 1.20", "tflite-fp32": "ai-edge-litert missing"}
    for package, variant in {"ai-edge-litert": "tflite-fp32", "onnxruntime": None, "numpy": None, "ai-edge-litert-nightly": None}.items():
        said = f"No module named 'x'; on the device: python -m pip install {package}; install the runtime with it"
        assert find_missing_runtime(record, said, "onnx-fp32", "tflite-fp32") == variant


def test_a_runtime_of_several_packages_has_the_version_of_each() -> None:
    settings = Named({"a": "edgewise.formats.executorch"})
    found = {"packages": {"numpy": "2.0", "torch": "2.13.0+cpu", "executorch": None}}
    record = make_runtimes_record(settings, found)  # type: ignore[arg-type]
    assert record["variants"] == {"a": "torch 2.13.0+cpu, executorch missing"}
    said = "No module named 'executorch'; on the device: python -m pip install torch executorch"
    assert find_missing_runtime(record, said, "a") == "a"


def test_onnx_is_usable_without_torch_whose_release_still_counts_where_it_exports():
    """Who brings an ONNX file needs no torch, which is four times as large as all the rest."""
    module = "edgewise.formats.onnx"
    assert "torch" not in own_packages(module) and "torch" in making_packages(module)
    assert "torch" not in making_packages("edgewise.formats.openvino")
