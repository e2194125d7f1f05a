"""Which layers a user keeps, said once in the names of the source."""

import json

import numpy as np
import pytest

from edgewise.artifacts.samples import Samples
from edgewise.compress.job import Job
from edgewise.config.schema import Variant
from edgewise.errors import VariantFailed


def job(folder, **kept) -> Job:
    (folder / "layers.json").write_text(json.dumps({"stem": ["n1"], "head": ["n2", "n3"]}))
    variant = Variant("tflite-int4-weight", "tflite", "int4-weight", "edgewise.formats.tflite", **kept)
    return Job(variant, folder, folder, Samples((), {}, {}, np.zeros((4, 1), np.float32), {}, kind="values"))


def test_layers_kept_float_and_in_8_bits(tmp_path):
    found = job(tmp_path, keep_float=("stem",), keep_int8=("h*",))
    assert found.in_float() == ["stem"] and found.nodes(found.in_int8()) == ["n2", "n3"]


def test_a_layer_is_kept_in_one_way_only(tmp_path):
    with pytest.raises(VariantFailed, match=r"^head: named by keep_int8 and by keep_float; take it out of one of them$"):
        job(tmp_path, keep_float=("stem", "head"), keep_int8=("head",)).in_int8()


def test_an_unknown_layer_names_the_setting(tmp_path):
    with pytest.raises(VariantFailed, match=r"^keep_int8: 'haed' matches no layer of the source; did you mean 'head'\?"):
        job(tmp_path, keep_int8=("haed",)).in_int8()
