"""One contract for all formats: every scheme of every format, against the float source as oracle."""

import json
import re
import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from edgewise.artifacts.samples import Samples
from edgewise.compress import partition
from edgewise.config import schema
from edgewise.proof import checks, isolation
from tests.conftest import ROOT
from tests.support import sources
from tests.support.formats import FORMATS, INAPPLICABLE, PAIRS, UNCUTTABLE, contents, form, part, quantize, require, variant

pytestmark = [pytest.mark.framework, pytest.mark.formats]

APPLICABLE = [pair for pair in PAIRS if ("torch", *pair) not in INAPPLICABLE]


@pytest.fixture(scope="module")
def made(source, floats, tmp_path_factory):
    """made(name, scheme): the folder of that variant, made once."""
    folders: dict[tuple[str, str], Path] = {}

    def get(name: str, scheme: str) -> Path:
        if (name, scheme) not in folders:
            target = tmp_path_factory.mktemp("variants") / "v"
            folders[name, scheme] = quantize(variant(name, scheme), floats, source, target)
        return folders[name, scheme]

    return get


@pytest.mark.parametrize("name", FORMATS)
def test_float_model_gives_the_sources_outputs(name, source, floats):
    inputs, expected = checks.read_probe(source)
    given = isolation.compute_outputs(form(name)["module"], floats[name], {"threads": 1}, inputs)
    assert checks.check_outputs(expected, given, 60.0) >= 60.0


@pytest.mark.parametrize("name", FORMATS)
def test_every_layer_of_the_source_has_nodes_that_are_in_the_file(name, source, floats):
    layers = json.loads((floats[name] / "layers.json").read_text())
    assert set(layers) == {"stem", "depthwise", "block.0", "head"}
    present = {node["name"] for node in part(name, "facts").facts(floats[name])["nodes"]}
    assert all(nodes and set(nodes) <= present for nodes in layers.values())


@pytest.mark.parametrize(("name", "scheme"), APPLICABLE)
def test_scheme_is_what_it_says_and_answers_like_the_source(name, scheme, source, made):
    chosen, folder = variant(name, scheme), made(name, scheme)
    assert 0 < checks.check_scheme(part(name, "facts").facts(folder), part(name, "make").SCHEMES[scheme], [], chosen.name) <= 1
    inputs, expected = checks.read_probe(source)
    given = isolation.compute_outputs(chosen.module, folder, {"threads": 1, **chosen.engine}, inputs)
    checks.check_outputs(expected, given, chosen.min_sqnr_db)
    agreement = (given["logits"].argmax(1) == expected["logits"].argmax(1)).mean()
    assert agreement >= (0.7 if scheme.startswith("int4") else 0.9)
    assert given["logits"].dtype == np.float32


@pytest.mark.parametrize(("name", "scheme"), [pair for pair in APPLICABLE if pair[1] != "fp32"])
def test_kept_layers_stay_float(name, scheme, source, floats, tmp_path):
    chosen = variant(name, scheme)
    nodes = checks.list_nodes(["head"], json.loads((floats[name] / "layers.json").read_text()))
    folder = quantize(chosen, floats, source, tmp_path / "kept", nodes)
    facts = part(name, "facts").facts(folder)
    found = {node["name"]: node for node in facts["nodes"]}
    assert all(found[node]["weights_dtype"] == "float32" for node in nodes)
    checks.check_scheme(facts, part(name, "make").SCHEMES[scheme], nodes, chosen.name)


@pytest.mark.parametrize("name", [name for name, scheme in PAIRS if scheme == "int8-mixed"])
def test_what_lies_between_kept_layers_stays_float_too(name, source, floats, tmp_path):
    chosen = variant(name, "int8-mixed")
    nodes = checks.list_nodes(["stem", "depthwise", "block.0", "head"], json.loads((floats[name] / "layers.json").read_text()))
    folder = quantize(chosen, floats, source, tmp_path / "v", nodes)
    inputs, expected = checks.read_probe(source)
    given = isolation.compute_outputs(chosen.module, folder, {"threads": 1, **chosen.engine}, inputs)
    assert checks.check_outputs(expected, given, 60.0) >= 60.0  # an 8-bit input alone leaves 63, sums and pools as well about 50


@pytest.mark.parametrize(("name", "scheme"), APPLICABLE)
def test_the_same_again_byte_for_byte(name, scheme, source, floats, made, tmp_path):
    assert contents(made(name, scheme)) == contents(quantize(variant(name, scheme), floats, source, tmp_path / "second"))


@pytest.mark.parametrize("name", FORMATS)
def test_one_sample_or_many_give_the_same(name, source, floats):
    inputs, _ = checks.read_probe(source)
    session = part(name, "run").load(str(floats[name]), {"threads": 1})
    whole = isolation.run_batched(session, inputs)["logits"]
    single = [isolation.run_batched(session, {"image": inputs["image"][i : i + 1]})["logits"][0] for i in range(4)]
    np.testing.assert_allclose(whole[:4], single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_a_profile_tells_of_each_run_what_was_executed(name, source, floats):
    inputs, _ = checks.read_probe(source)
    profiler, session = part(name, "profile"), part(name, "run").load(str(floats[name]), {"threads": 1})
    profiled, feeds, wall_ns = profiler.load(str(floats[name]), {"threads": 1}), {"image": inputs["image"][:1]}, []
    for _ in range(3):
        start = time.perf_counter_ns()
        given = profiled.run(feeds)
        wall_ns.append(time.perf_counter_ns() - start)
    np.testing.assert_array_equal(given["logits"], session.run(feeds)["logits"])
    found = profiled.profile()
    in_file = [node for node in part(name, "facts").facts(floats[name])["nodes"] if "conv" in node["operator"].lower()]
    for operators, wall in zip(found["runs"], wall_ns, strict=True):
        assert {key for op in operators for key in op} == {"name", "type", "kernel", "dtype", "converts", "fallback", "time_ns"}
        assert len([op for op in operators if "conv" in op["type"].lower()]) == len(in_file) == 3
        if profiler.UNSUPPORTED:
            assert {op["time_ns"] for op in operators} == {None}
        else:
            rounding_ns = 3000 * len(operators)  # a runtime may tell a mean of the three runs in whole microseconds
            assert 0 < sum(op["time_ns"] for op in operators) <= wall + rounding_ns
    assert found["trace"] is None or len(json.loads(found["trace"])) > 3


@pytest.mark.parametrize("name", FORMATS)
def test_runner_imports_its_one_runtime_only(name):
    module = form(name)["module"]
    code = f"import importlib, sys; run = importlib.import_module('{module}.run'); print(run.RUNTIME, *sorted(m for m in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    runtime = loaded[0].split(".")[0]
    heavy = {package.partition(".")[0] for each in FORMATS for package in (*part(each, "make").REQUIRES, part(each, "run").RUNTIME)}
    heavy |= {"mlflow", "hydra", "transformers"}
    assert heavy & set(loaded[1:]) <= {runtime}
    assert not [name for name in loaded[1:] if name.startswith("edgewise.") and not name.startswith(("edgewise.agent", "edgewise.formats"))]


@pytest.mark.parametrize("name", FORMATS)
def test_a_runner_tells_the_installed_version_and_imports_its_runtime_whole(name):
    require(name)
    module = form(name)["module"]
    code = (
        "import importlib, sys; from edgewise.agent.packages import import_packages;"
        f"run = importlib.import_module('{module}.run'); import_packages(run);"
        "before = set(sys.modules);"
        "versions = run.versions(); print('told', versions[run.PACKAGE], len([m for m in set(sys.modules) - before if '.' not in m]))"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ours = [line for line in printed.splitlines() if line.startswith("told ")]  # a runtime may print something, before or at the end
    _, told, more = ours[0].split()
    assert told == metadata.version(part(name, "run").PACKAGE) and more == "0"


@pytest.mark.parametrize("name", FORMATS)
def test_declarations_hold_together(name):
    make = part(name, "make")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(make.SETTINGS) <= set(make.SCHEMES)
    assert name in extras and set(make.REQUIRES.values()) <= set(extras)
    for declared in make.SCHEMES.values():
        assert set(declared) - {"least_elements"} == {"weights", "activations", "covers"} and declared["covers"]


@pytest.mark.parametrize(("name", "scheme"), [pair for pair in APPLICABLE if pair[0] not in UNCUTTABLE])
def test_parts_compute_what_the_whole_does(name, scheme, source, floats, tmp_path):
    chosen = variant(name, scheme, load={"mode": "split", "parts": 3})
    folder = quantize(chosen, floats, source, tmp_path / "variant")
    inputs, _ = checks.read_probe(source)
    whole = isolation.compute_outputs(chosen.module, folder, {"threads": 1}, inputs)
    model = part(name, "split").cuttable(folder, source, scheme, schema.to_plain(chosen), [])
    sizes = partition.write_parts(model, chosen.load, [], folder)
    partition.remove_unsplit(folder, model.files)
    assert len(sizes) == 3 and max(sizes) < 0.9 * sum(sizes)
    assert checks.check_outputs(whole, isolation.compute_outputs(chosen.module, folder, {"threads": 1}, inputs), 60.0) >= 60.0


@pytest.mark.parametrize(("name", "scheme"), [pair for pair in APPLICABLE if pair[0] in UNCUTTABLE])
def test_a_format_that_cannot_be_cut_says_so(name, scheme, source, floats, tmp_path):
    chosen = variant(name, scheme, load={"mode": "split", "parts": 3})
    with pytest.raises(ValueError, match=f"^{re.escape(UNCUTTABLE[name])}$"):
        part(name, "split").cuttable(floats[name], source, scheme, schema.to_plain(chosen), [])


@pytest.mark.parametrize("name", FORMATS)
def test_every_engine_setting_loads_and_changes_no_answer(name, source, floats):
    run = part(name, "run")
    assert set(form(name)["engine"]) - {"auto"} == set(run.ENGINE), "the yaml lists what run.py declares"
    inputs, expected = checks.read_probe(source)
    tried = {(key, value) for key, values in run.ENGINE.items() for value in (values or ())[:3]}
    for key, value in sorted(tried, key=str):
        given = isolation.run_batched(run.load(str(floats[name]), {"threads": 1, key: value}), inputs)
        least_db = 25.0 if value in run.REDUCED_PRECISION.get(key, ()) else 60.0
        assert checks.check_outputs(expected, given, least_db) >= least_db, (key, value)
    with pytest.raises(ValueError, match=f"unknown engine settings .*; allowed: {', '.join(run.ENGINE)}"):
        run.load(str(floats[name]), {"no_such_setting": 1})


@pytest.mark.parametrize(
    ("name", "engine", "message"),
    [
        ("onnx", {"execution_mode": "paralel"}, "did you mean 'parallel'"),
        ("onnx", {"arena": 1}, "allowed: False, True"),
        ("openvino", {"streams": 0}, "from 1 to 256"),
        ("tflite", {"xnnpac": True}, "did you mean 'xnnpack'"),
    ],
)
def test_an_engine_setting_is_checked_before_anything_runs(name, engine, message):
    with pytest.raises(schema.ConfigError, match=message):
        variant(name, "fp32", engine=engine)


def test_a_provider_that_the_wheel_lacks_is_named_with_those_that_it_has(floats):
    run = part("onnx", "run")
    with pytest.raises(ValueError, match=r"CUDAExecutionProvider: not in this wheel of onnxruntime; it has: .*CPUExecutionProvider"):
        run.load(str(floats["onnx"]), {"providers": ["CUDAExecutionProvider"]})


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in UNCUTTABLE])
def test_a_gate_answers_for_normal_samples_and_lets_the_others_pass(name, source, floats, tmp_path):
    chosen = variant(name, "fp32", load={"mode": "lazy", "at": "head", "shut_share": 0.75})
    folder = quantize(chosen, floats, source, tmp_path / "variant")
    pictures, targets = sources.pictures(256, 3)
    spec = {"kind": "array"}
    samples = Samples(sources.LABELS, spec, {"image": pictures}, targets, {"calibration": range(256)}, normal=0)
    whole = isolation.compute_outputs(chosen.module, folder, {"threads": 1}, {"image": pictures})["logits"]
    model = part(name, "split").cuttable(folder, source, "fp32", schema.to_plain(chosen), [])
    partition.write_parts(model, chosen.load, json.loads((floats[name] / "layers.json").read_text())["head"], folder)
    found = partition.fit_gate(chosen, samples, model.channel_axis, folder)
    given = isolation.compute_outputs(chosen.module, folder, {"threads": 1}, {"image": pictures})["logits"]
    with np.load(folder / "gate.npz") as stored:
        shut = (np.abs(given - stored["answer:logits"]) < 1e-6).all(axis=1)
    opened = np.abs(given - whole).max(axis=1) < 1e-4
    assert found["gate_normal_samples"] == (targets == 0).sum()
    assert (opened ^ shut).all()
    assert opened[targets != 0].mean() > 0.9 and shut[targets == 0].mean() == pytest.approx(0.75, abs=0.02)
