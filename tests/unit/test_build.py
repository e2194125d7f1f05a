"""Which layers a user keeps, said once in the names of the source."""

import json

import numpy as np
import pytest

from edgewise.artifacts.samples import Samples
from edgewise.compress.build import Build
from edgewise.config.schema import Variant
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
