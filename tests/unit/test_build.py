"""Which layers a user keeps, said once in the names of the source; the samples that a search needs."""

import dataclasses
import json

import numpy as np
import pytest

from edgewise.artifacts.samples import Samples
from edgewise.artifacts.targets import CLASSES
from edgewise.compress import mixed
from edgewise.compress.build import Build
from edgewise.config.schema import AccuracyControl, Mixed, Variant
from edgewise.errors import VariantFailed


def build(folder, **kept) -> Build:
    (folder / "layers.json").write_text(json.dumps({"stem": ["n1"], "head": ["n2", "n3"]}))
    variant = Variant("tflite-int4-weight", "tflite", "int4-weight", "edgewise.formats.tflite", **kept)
    return Build(variant, folder, folder, Samples((), {}, {}, np.zeros((4, 1), np.float32), {}, kind="values"))


def test_layers_kept_float_and_in_8_bits(tmp_path):
    found = build(tmp_path, keep_float=("stem",), keep_int8=("h*",))
    assert found.float_layers() == ["stem"] and found.nodes_of(found.int8_layers()) == ["n2", "n3"]


def test_a_layer_is_kept_in_one_way_only(tmp_path):
    with pytest.raises(VariantFailed, match=r"^head: named by keep_int8 and by keep_float; remove it from one of them$"):
        build(tmp_path, keep_float=("stem", "head"), keep_int8=("head",)).int8_layers()


def test_an_unknown_layer_names_the_setting(tmp_path):
    with pytest.raises(VariantFailed, match=r"^keep_int8: 'haed' matches no layer of the source; did you mean 'head'\?"):
        build(tmp_path, keep_int8=("haed",)).int8_layers()


@pytest.mark.parametrize("setting", ["accuracy_control", "mixed"])
def test_a_search_without_validation_samples_says_what_to_set(tmp_path, setting):
    """`data.splits.validation=0` is what Edgewise itself advises for few samples and a trained model."""
    limit = {"accuracy_control": AccuracyControl(1.0)} if setting == "accuracy_control" else {"mixed": Mixed(20)}
    samples = Samples((), {}, {"x": np.zeros((4, 2), np.float32)}, np.zeros(4, np.int64), {"validation": []}, kind=CLASSES)
    made = dataclasses.replace(build(tmp_path, **limit), samples=samples)
    with pytest.raises(VariantFailed, match=r"^data\.splits\.validation: the split is empty, but .* for example 0\.1$"):
        made.accuracy_control_arguments() if setting == "accuracy_control" else mixed.search(made, np.arange(2), [], tmp_path)
