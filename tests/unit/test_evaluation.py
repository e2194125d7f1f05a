"""How a variant is run where it is judged."""

import os
from dataclasses import replace

import numpy as np
import pytest

from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Variant
from edgewise.tasks import evaluation

VARIANT = Variant(name="onnx-fp32", format="onnx", scheme="fp32", module="edgewise.formats.onnx", min_sqnr_db=0.0, min_device_sqnr_db=0.0)
SAMPLES = Samples(("a", "b"), {}, {"x": np.zeros((4, 2), np.float32)}, np.zeros(4, np.int64), {"test": range(4)})


class Loaded(Exception):
    """With the settings that a session was asked for."""


@pytest.mark.parametrize(
    ("engine", "threads"),
    [({"threads": 3}, 3), ({"threads": 1, "arena": False}, 1), ({}, 2), ({"arena": False}, 2)],
)
def test_a_variant_is_judged_with_its_own_threads_and_else_on_every_core_that_it_may_use(engine, threads, monkeypatch):
    def load(runner, folder, settings, keep):
        raise Loaded(settings)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})  # a container may have two of a machine's 64
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(evaluation.sessions, "load", load)
    with pytest.raises(Loaded) as asked:
        next(evaluation.iterate_outputs(replace(VARIANT, engine=engine), SAMPLES, SAMPLES.indices("test"), "test"))
    assert asked.value.args[0] == {**engine, "threads": threads}


@pytest.mark.parametrize(("allowed", "threads"), [((1,), 1), (range(1, 1025), 2), ((4, 8), 4), (None, 2)])
def test_a_runtime_is_asked_for_as_many_threads_as_it_can_use(allowed, threads, monkeypatch):
    """tract has a single one: its variants could not be judged on a machine with two cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert evaluation.count_threads(allowed) == threads
