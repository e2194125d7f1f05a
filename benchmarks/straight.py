"""The baseline for the pipeline's overhead: one plain script without DVC, stages, proof or intervals.

    python benchmarks/straight.py            after `dvc repro` has made models/source and models/data

Converts, quantizes, evaluates and measures fp32, int8-dynamic and int8-static of ONNX and TFLite, as a user would write
it in an afternoon, and prints its results and timings (JSON on the last line).
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SECONDS: dict[str, float] = {}
THREADS = 2
Run = Callable[[np.ndarray], np.ndarray]  # pictures -> scores


@contextlib.contextmanager
def clock(name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    SECONDS[name] = SECONDS.get(name, 0.0) + time.perf_counter() - start


def load_data(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibration pictures, test pictures (float32 NCHW) and test targets, normalized as models/data says."""
    manifest = json.loads((folder / "manifest.json").read_text())
    spec, splits = manifest["preprocessing"], json.loads((folder / "splits.json").read_text())
    pictures, targets = np.load(folder / "inputs/image.npy"), np.load(folder / "targets.npy")

    def normalized(indices: list[int]) -> np.ndarray:
        scaled = pictures[indices].astype(np.float32) * np.float32(spec["scale"])
        centred = (scaled - np.asarray(spec["mean"], np.float32)) / np.asarray(spec["std"], np.float32)
        return np.ascontiguousarray(centred.transpose(0, 3, 1, 2))

    return normalized(splits["calibration"][:128]), normalized(splits["test"]), targets[splits["test"]]


def make_onnx(program: Path, calibration: np.ndarray, out: Path) -> dict[str, Path]:
    with clock("import"):
        import torch
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    files = {name: out / f"onnx-{name}.onnx" for name in ("fp32", "int8-dynamic", "int8-static")}

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is Any to mypy, see pyproject.toml
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(self.left, None)
            return None if picture is None else {"image": picture[None]}

    with clock("convert"):
        module = torch.export.load(program).module()
        example = torch.from_numpy(calibration[:2])
        shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
        torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        ).save(files["fp32"])
    with clock("quantize"):
        quant_pre_process(files["fp32"], out / "prepared.onnx")
        quantize_dynamic(out / "prepared.onnx", files["int8-dynamic"], weight_type=QuantType.QUInt8)
        quantize_static(
            out / "prepared.onnx",
            files["int8-static"],
            Reader(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    return files


def make_tflite(program: Path, calibration: np.ndarray, out: Path) -> dict[str, Path]:
    with clock("import"):
        import litert_torch
        import torch
        from ai_edge_quantizer import quantizer, recipe
    files = {name: out / f"tflite-{name}.tflite" for name in ("fp32", "int8-dynamic", "int8-static")}
    with clock("convert"):
        litert_torch.convert(torch.export.load(program).module(), (torch.from_numpy(calibration[:1]),)).export(str(files["fp32"]))
    with clock("quantize"):
        for name, wanted in (("int8-dynamic", recipe.dynamic_wi8_afp32()), ("int8-static", recipe.static_wi8_ai8())):
            tool = quantizer.Quantizer(str(files["fp32"]))
            tool.load_quantization_recipe(wanted)
            statistics = None
            if name == "int8-static":
                from ai_edge_litert.interpreter import Interpreter

                given = next(iter(Interpreter(str(files["fp32"])).get_signature_list()["serving_default"]["inputs"]))
                statistics = tool.calibrate({"serving_default": [{given: picture[None]} for picture in calibration]})
            tool.quantize(statistics).export_model(str(files[name]), overwrite=True)
    return files


def onnx_runner(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pictures: session.run(None, {"image": pictures})[0]


def tflite_runner(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=THREADS)
    interpreter.allocate_tensors()
    given, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def quantized(array: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
        scale, zero = detail["quantization"]
        return np.clip(np.round(array / scale + zero), -128, 127).astype(np.int8) if scale else array

    def run(picture: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], quantized(picture, given))
        interpreter.invoke()
        found: np.ndarray = interpreter.get_tensor(answer["index"]).astype(np.float32)
        return found

    return run


def measure(run: Run, test: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    with clock("evaluate"):
        answers = np.concatenate([run(test[i : i + 1]) for i in range(len(test))]).argmax(axis=1)
    with clock("bench"):
        start = time.perf_counter()
        while time.perf_counter() - start < 0.5:
            run(test[:1])
        samples = []
        while time.perf_counter() - start < 2.5:
            before = time.perf_counter()
            run(test[:1])
            samples.append(time.perf_counter() - before)
    return {"accuracy_top1": float((answers == targets).mean()), "latency_p50_ms": 1000 * float(np.median(samples))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--no-bench", action="store_true", help="leave the measuring out of the total")
    arguments = parser.parse_args()
    start = time.perf_counter()
    calibration, test, targets = load_data(arguments.models / "data")
    program, results = arguments.models / "source/program.pt2", {}
    with tempfile.TemporaryDirectory() as out:
        for make, runner in ((make_onnx, onnx_runner), (make_tflite, tflite_runner)):
            for path in make(program, calibration, Path(out)).values():
                results[path.stem] = {**measure(runner(path), test, targets), "size_bytes": path.stat().st_size}
    for name, result in results.items():
        print(f"{name:22} {result['accuracy_top1']:.4f} {result['latency_p50_ms']:8.2f} ms {result['size_bytes'] / 1e6:6.1f} MB")
    total = time.perf_counter() - start - (SECONDS["bench"] if arguments.no_bench else 0.0)
    print(json.dumps({"total_s": round(total, 1), **{name: round(value, 1) for name, value in SECONDS.items()}}))


if __name__ == "__main__":
    main()
