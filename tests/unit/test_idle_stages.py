"""Stages that no variant of the configuration needs say so: else they look like work on formats that the user did not choose."""

import importlib
from types import SimpleNamespace

import pytest

from edgewise.artifacts import artifact
from edgewise.compress import pruned_sources
from edgewise.proof import making

NONE = SimpleNamespace(
    formats={"ncnn": SimpleNamespace(used=False)}, scans={"int8-mixed": {}}, tunings={"int8-qat": {}}, prunings={"onnx-fp32": None}
)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("convert", "convert-ncnn: nothing to do, no variant uses ncnn\n"),
        ("scan_layers", "scan-layers: nothing to do, no variant keeps layers in float by their sensitivity\n"),
        ("train_qat", "train-qat: nothing to do, no variant has the scheme int8-qat\n"),
        ("prune", "prune: nothing to do, no variant has the setting prune\n"),
    ],
)
def test_a_stage_with_nothing_to_do_says_so(stage, said, monkeypatch, capsys):
    module = importlib.import_module(f"stages.{stage}")
    monkeypatch.setattr(module.schema, "read", lambda: NONE)
    monkeypatch.setattr(module.schema, "read_compared", lambda name: {}, raising=False)
    monkeypatch.setattr(module, "sys", SimpleNamespace(argv=["convert", "ncnn"]), raising=False)
    monkeypatch.setattr(artifact, "read", lambda place: None)
    for place, name in ((artifact, "write_status"), (making, "write_schemes"), (module, "write_schemes"), (pruned_sources, "update")):
        monkeypatch.setattr(place, name, lambda *_: None, raising=False)
    module.main()
    assert capsys.readouterr().out == said
