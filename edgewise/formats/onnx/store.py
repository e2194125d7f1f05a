"""The form in which model.onnx is stored: graph optimized offline, weights in a separate file, or an ORT file.

ONNX Runtime's optimizer copies weights into the layouts of its kernels at every load. If the graph is optimized offline, the session loads
in a tenth of the time, and weights in a separate file are mapped instead of copied (ResNet-18 fp32: 3 MB of anonymous memory instead of
146). But the file only runs on the release that wrote it and, at level `all`, on processors with the same vector width.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgewise.formats.onnx.run import LEVELS, MODEL, ONLY_ERRORS, OPTIMIZED, ORT, PACKAGE, versions

FILE: Mapping[str, tuple[Any, ...]] = {"offline_optimized": (False, True), "format": ("onnx", "ort"), "external_data": (False, True)}
WEIGHTS = "weights.bin"
MIN_EXTERNAL_BYTES = 1024  # smaller constants stay in the graph, where the optimizer can read them
CPU = ["CPUExecutionProvider"]
MAX_GROWTH, SLACK_BYTES = 1.2, 1 << 20  # beyond this, weights were widened; other kernel layouts and the graph add less


def store(folder: Path, file: Mapping[str, Any], engine: Mapping[str, Any], mapped: bool) -> dict[str, Any]:
    """plugins.Storer.store."""
    ort, external = file["format"] == "ort", file["external_data"] or mapped
    if ort and external:
        setting = "load.mode mapped" if mapped else "file.external_data"
        raise ValueError(f"{setting}: an ORT file contains its weights and is copied when it is loaded; use file.format onnx for this")
    if ort or file["offline_optimized"] or mapped:
        return optimize(folder, engine, ORT if ort else OPTIMIZED, external)
    if external:
        write_external_weights(folder / MODEL)
        return {"form": "its weights are in a separate file"}
    return {}


def optimize(folder: Path, engine: Mapping[str, Any], target: str, external: bool) -> dict[str, Any]:
    """Replace model.onnx by `target`, its graph optimized for the CPU at the level of engine.graph_optimization."""
    level = engine.get("graph_optimization", "all")
    if level == "disable":
        raise ValueError(f"engine.graph_optimization: 'disable' leaves nothing to optimize offline; allowed here: {', '.join(LEVELS)[9:]}")
    if list(engine.get("providers", CPU)) != CPU:
        raise ValueError(f"engine.providers: {', '.join(engine['providers'])}; a graph is optimized offline for {CPU[0]} only")
    before = (folder / MODEL).stat().st_size
    write_optimized(folder, target, LEVELS[level], external)
    (folder / MODEL).unlink()
    after = (folder / target).stat().st_size + (file_size(folder / WEIGHTS) if external else 0)
    if after > MAX_GROWTH * before + SLACK_BYTES:
        raise ValueError(
            f"file.offline_optimized: ONNX Runtime widens these weights when it optimizes, {before / 1e6:.1f} MB became {after / 1e6:.1f}; "
            "remove it for this scheme"
        )
    limited_to = "this release and processors of the same kind" if level == "all" else "this release"
    release = versions()[PACKAGE]
    return {"release": release, "form": f"its graph was optimized offline by {PACKAGE} {release}: the file is for {limited_to}"}


def write_optimized(folder: Path, target: str, level: str, external: bool) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ONLY_ERRORS
    options.intra_op_num_threads = 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    options.optimized_model_filepath = str(folder / target)
    entries = {"session.save_model_format": "ORT"} if target == ORT else {}
    if external:
        prefix = "session.optimized_model_external_initializers_"
        entries |= {f"{prefix}file_name": WEIGHTS, f"{prefix}min_size_in_bytes": str(MIN_EXTERNAL_BYTES)}
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    onnxruntime.InferenceSession(str(folder / MODEL), options, providers=CPU)


def write_external_weights(path: Path) -> None:
    import onnx

    model = onnx.load(path)
    path.unlink()
    onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=WEIGHTS, size_threshold=MIN_EXTERNAL_BYTES)
    make_readable([path.with_name(WEIGHTS)])


def make_readable(paths: Iterable[Path]) -> None:
    """onnx makes external weights readable for their owner only; give them the usual permissions."""
    for path in filter(Path.exists, paths):
        path.chmod(0o644)


def file_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
