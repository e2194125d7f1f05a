"""The formats that conf/format/ lists, their float models, and which pairs of format and scheme a test net cannot have.

A format whose packages are missing skips its own tests, with the reason, and those alone.
"""

import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from edgewise.config import compose, schema
from edgewise.config.compose import Options
from tests.support import sources
from tests.support.shared import Shared

ROOT = Path(__file__).parents[2]
OPTIONS = Options(ROOT / "conf")
FORMATS = OPTIONS.names("format")
PAIRS = [(name, scheme) for name in FORMATS for scheme in yaml.safe_load((ROOT / f"conf/format/{name}.yaml").read_text())["schemes"]]
# What cannot be made of a kind of source (see tests/support/source_kinds.py; "torch" is the net of tests/support/sources.py): (kind,
# format, scheme), and a pattern of the reason that must be given. What is not here must work; what is here must fail with its reason.
QUANTIZED = "it can be measured as int8-static, int8-mixed, int8-qat, not as "
INAPPLICABLE: Mapping[tuple[str, str, str], str] = {
    **{("tflite_int8", "tflite", s): QUANTIZED + s for s in ("fp32", "fp16", "int8-dynamic", "int16x8-static", "int4-weight")},
    **{("tflite_int8", "openvino", s): "OpenVINO would round it in another way" for s in ("fp32", "fp16", "int8-static", "int4-weight")},
}


def form(name: str) -> Mapping[str, Any]:
    return OPTIONS.load("format", name, "test")


def part(name: str, which: str) -> ModuleType:
    """run, make, facts ... of a format."""
    return schema.part(form(name)["module"], which)


UNCUTTABLE = {name: reason for name in FORMATS if (reason := part(name, "split").UNSUPPORTED)}  # whose files cannot be written in parts


def needs(name: str) -> list[str]:
    """Packages by import name: of the format itself and of the formats that lie between a torch source and it.

    What REQUIRES names for the extra of something that is no format (keras) is for sources of that kind alone."""
    make = part(name, "make")
    before = [] if "torch" in make.SOURCES else needs(make.SOURCES[0])
    own = [package for package, extra in make.REQUIRES.items() if extra in FORMATS]
    return [package.partition(".")[0] for package in (*before, *own, part(name, "run").RUNTIME)]


def require(name: str) -> None:
    """Skip the test where a package of this format is missing."""
    for package in needs(name):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"format {name} needs {package}, which is not installed")


class Floats(Mapping[str, Path]):
    """The float model of every format, made of one source when it is first asked for: folder by format name.

    Beside the model: layers.json, the nodes of each layer, and tensors.json, its inputs and outputs.
    """

    def __init__(self, source: Path, shared: Shared):
        self.source, self.shared = source, shared

    def __getitem__(self, name: str) -> Path:
        require(name)
        return self.shared.folder(f"float-{name}", lambda folder: self._convert(name, folder))

    def __iter__(self) -> Iterator[str]:
        return iter(FORMATS)

    def __len__(self) -> int:
        return len(FORMATS)

    def _convert(self, name: str, folder: Path) -> None:
        make = part(name, "make")
        origin = self.source if "torch" in make.SOURCES else self[make.SOURCES[0]]
        folder.mkdir()
        result = make.convert(origin, folder, form(name).get("convert") or {})
        (folder / "layers.json").write_text(json.dumps(dict(result["layers"])))
        (folder / "tensors.json").write_text(json.dumps([list(result["inputs"]), list(result["outputs"])]))


def variant(name: str, scheme: str, **settings: Any) -> schema.Variant:
    """A variant as compose makes it, with these settings in params.yaml."""
    choices = compose.read_choices(ROOT / "params.yaml")
    choices["variants"][f"{name}-{scheme}-test"] = {"format": name, "scheme": scheme, **settings}
    return compose.compose_choices(choices, OPTIONS).variants[f"{name}-{scheme}-test"]


def quantize(chosen: schema.Variant, floats: Mapping[str, Path], source: Path, folder: Path, keep: list[str] | None = None) -> Path:
    parent = floats[chosen.format]
    folder.mkdir()
    calibration = sources.feeds_for(source) if chosen.calibration else []
    make = schema.part(chosen.module, "make")
    make.quantize(parent, source, folder, chosen.scheme, schema.to_plain(chosen), calibration, keep or [])
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
