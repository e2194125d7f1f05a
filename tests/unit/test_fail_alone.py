"""A variant's failure is its own, whatever the exception: making, judging and measuring go on with the next variant."""

import sys
from pathlib import Path

import pytest

from edgewise.artifacts import artifact, records
from edgewise.artifacts.artifact import Manifest
from edgewise.errors import DataError, DeviceError, InfrastructureError, ModelError
from edgewise.proof import isolation
from stages import bench_on_device, convert, evaluate, quantize
from tests.support.fabricate import fabricate

NAME, REFERENCE = "onnx-int8-static", "onnx-fp32"


class RuntimeOfItsOwn(Exception):
    """As runtimes define them, outside of any family that could be listed."""


UNFORESEEN = [
    AttributeError("'NoneType' object has no attribute 'scale'"),
    IndexError("list index out of range"),
    KeyError("axis"),
    TypeError("unhashable type"),
    RuntimeError("Invalid model with\nunknown initializers/tensors"),
    AssertionError(),
    NotImplementedError("GridSample"),
    RecursionError("maximum recursion depth exceeded"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    RuntimeOfItsOwn("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT"),
    FileNotFoundError(2, "No such file or directory", "external.data"),
    ZeroDivisionError("division by zero"),
]
OTHERS = [
    (DeviceError("unreachable", "no route"), DeviceError),
    (DataError("data.splits.test: the split is empty"), DataError),
    (ModuleNotFoundError("No module named 'nowhere'", name="nowhere"), ModuleNotFoundError),
    (MemoryError(), InfrastructureError),
    (OSError(28, "No space left on device"), OSError),
    (OSError(12, "Cannot allocate memory"), OSError),
    (BlockingIOError(11, "Resource temporarily unavailable"), OSError),
    (OSError(24, "Too many open files"), OSError),
    (ConnectionResetError(104, "Connection reset by peer"), OSError),
    (KeyboardInterrupt(), KeyboardInterrupt),
]


def outcome_of_making() -> str | None:
    return artifact.read(Path("models/variants") / NAME).reason


def outcome_of_converting() -> str | None:
    return artifact.read(Path("models/onnx")).reason


def outcome_of_judging() -> str | None:
    found = records.read(records.Evaluation, Path(f"metrics/evaluate/{NAME}.json"))
    return found.reason if isinstance(found, records.Failed) else None


def outcome_of_measuring() -> str | None:
    found = records.read(records.BenchResult, Path(f"metrics/bench/{NAME}.json"))
    return found.reason if isinstance(found, records.Failed) else None


STAGES = {
    "making": (quantize, "make_variant", NAME, outcome_of_making),
    "converting": (convert, "convert", "onnx", outcome_of_converting),
    "judging": (evaluate, "evaluate", NAME, outcome_of_judging),
    "measuring": (bench_on_device, "measure", NAME, outcome_of_measuring),
}


@pytest.fixture
def stage(tmp_path, monkeypatch, request):
    """(run the stage whose work raises `error`, what was recorded of it)."""
    stage, function, argument, outcome = STAGES[request.param]
    fabricate(tmp_path)
    for place in ("onnx", "source"):
        artifact.write_status(tmp_path / "models" / place, Manifest(kind="format", format="onnx"), tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage", argument])

    def run(error: BaseException) -> str | None:
        def fail(*_, **__):
            raise error

        monkeypatch.setattr(stage, function, fail)
        stage.main()
        return outcome()

    return run


@pytest.mark.parametrize("stage", STAGES, indirect=True)
@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: type(error).__name__)
def test_what_nobody_expected_is_recorded_with_the_tools_own_words(stage, error, capsys):
    reason = stage(error)
    assert reason and type(error).__name__ in reason and "did not expect" in reason
    assert "\n" not in reason and " ".join(str(error).split()) in reason
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("stage", STAGES, indirect=True)
@pytest.mark.parametrize(("error", "raised"), OTHERS, ids=lambda value: getattr(value, "__name__", type(value).__name__))
def test_what_may_be_otherwise_next_time_ends_the_run_and_is_not_recorded(stage, error, raised):
    with pytest.raises(raised):
        stage(error)


@pytest.mark.parametrize("stage", ["judging"], indirect=True)
def test_a_class_without_a_label_fails_a_variant_alone_and_of_the_reference_it_ends_the_run(stage, monkeypatch):
    """Quantization may move the number of a class; that of the reference is the model's own."""
    error = ModelError("model.path: the model detects class number 80, the data has 80")
    assert stage(error) == f"{error}; if {REFERENCE} is judged, its classes were lost in making {NAME}"
    monkeypatch.setattr(sys, "argv", ["stage", REFERENCE])
    with pytest.raises(ModelError):
        stage(error)


def refuse(*_) -> None:
    raise RuntimeOfItsOwn("RUNTIME_EXCEPTION : not a member of any family")


def test_a_runtime_with_exceptions_of_its_own_refuses_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr(isolation, "part", refuse)
    with pytest.raises(isolation.VariantFailed, match="the runtime refuses this file: RuntimeOfItsOwn: RUNTIME_EXCEPTION"):
        isolation._compute("edgewise.formats.onnx", str(tmp_path), {}, {}, 1)
