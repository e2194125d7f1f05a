"""A plausible finished pipeline without running one: models/ and metrics/ as the stages before `report` leave them.

fabricate(tmp_path)               five variants: the reference, three good ones, one failed
fabricate(tmp_path, THIRTEEN)     the default variants, all ok
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import yaml

from edgewise.artifacts import artifact
from edgewise.artifacts.records import SCHEMA, BenchResult, Conditions, Latency, Memory, Noise, Summary
from edgewise.config import schema
from edgewise.config.schema import Bench, Budget, Calibration, Config, Format, Plugin, Train, Variant, to_plain
from edgewise.report import overview

FINGERPRINT = "x86_64-avx512-2c-1f0e"
LABELS = tuple(str(i) for i in range(10))


@dataclass(frozen=True)
class Made:
    """One variant as it is to look: lost and gained are the flips against the reference, ratio its latency."""

    name: str
    mb: float
    ratio: float
    lost: int = 0
    gained: int = 0
    peak_mb: float = 160
    weights: str = "float32"
    covered: float | None = None
    kept: tuple[str, ...] = ()
    fails_in: str | None = None  # "variants", "evaluate" or "bench"
    grade: str = "clean"


FIVE = (
    Made("onnx-fp32", 44.9, 1.0),
    Made("onnx-int8-static", 11.4, 0.31, lost=3, gained=1, peak_mb=39, weights="int8", covered=0.9995, kept=("classifier.1",)),
    Made("torch-int8-dynamic", 44.8, 1.004, lost=0, gained=0, peak_mb=310, weights="float32", covered=0.0005),
    Made("tflite-int4-weight", 5.8, 1.62, lost=40, gained=6, peak_mb=95, weights="int4", covered=0.9995, grade="noisy"),
    Made("openvino-int8-static", 11.4, 0.2, fails_in="variants"),
)
THIRTEEN = (
    Made("torch-fp32", 44.8, 1.72, peak_mb=310),
    Made("torch-int8-dynamic", 44.8, 1.69, peak_mb=312, covered=0.0005),
    Made("onnx-fp32", 44.9, 1.0),
    Made("onnx-fp16", 22.5, 0.98, gained=1, peak_mb=150, weights="float16", covered=1.0),
    Made("onnx-int8-dynamic", 11.3, 1.55, lost=2, gained=1, peak_mb=30, weights="int8", covered=0.9995),
    Made("onnx-int8-static", 11.4, 0.31, lost=3, gained=1, peak_mb=39, weights="int8", covered=0.9995),
    Made("tflite-fp32", 44.8, 1.42, peak_mb=90),
    Made("tflite-fp16", 22.5, 1.41, gained=1, peak_mb=90, weights="float16", covered=1.0),
    Made("tflite-int8-dynamic", 11.3, 0.28, lost=2, gained=2, peak_mb=27, weights="int8", covered=0.9995),
    Made("tflite-int8-static", 11.4, 0.27, lost=4, gained=1, peak_mb=26, weights="int8", covered=0.9995),
    Made("tflite-int4-weight", 5.8, 1.62, lost=15, gained=3, peak_mb=95, weights="int4", covered=0.9995, grade="noisy"),
    Made("openvino-fp32", 44.8, 1.02, peak_mb=120),
    Made("openvino-int8-static", 11.4, 0.2, lost=2, gained=1, peak_mb=71, weights="int8", covered=0.9995, grade="degraded"),
)


def fabricate(
    root: Path,
    rows: Sequence[Made] = FIVE,
    *,
    samples: int = 540,
    bench: bool = True,
    budget: Budget | None = None,
    task: str = "classification",
) -> Config:
    """Write everything below `root` and return the configuration that was written to models/config.yaml. task: classification or none."""
    settings = replace(configure(rows, budget or Budget("none")), task=Plugin(task, f"edgewise.tasks.{task}"))
    (root / "models").mkdir(parents=True, exist_ok=True)
    (root / "models/config.yaml").write_text(yaml.safe_dump(to_plain(settings), sort_keys=False), encoding="utf-8")
    metrics = root / "metrics"
    artifact.write_json(metrics / "device.json", {"schema": SCHEMA, "name": "local", "fingerprint": FINGERPRINT, "facts": device_facts()})
    artifact.write_json(metrics / "runtimes.json", runtimes([row.name for row in rows]))
    artifact.write_json(metrics / "data.json", {"schema": SCHEMA, "digest": "5f" * 32, "files": 1797})
    artifact.write_json(metrics / "train.json", train_record())
    make_data(root, samples)
    for row in rows:
        make_variant(root, row, samples, bench)
        if task == "none" and row.fails_in not in ("variants", "evaluate"):
            forget_scores(root, row.name)
    lock = {
        "schema": "2.0",
        "stages": {f"{stage}@{row.name}": lock_entry(stage, row) for row in rows for stage in ("quantize", "evaluate")},
    }
    (root / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    return settings


def write_report(figure: bool = False) -> Summary:
    """Run `report` on what lies in the current folder, without its table; the figure, which takes longest, only where it is asked for."""
    settings = schema.read()
    summary = overview.summarize(settings)
    with contextlib.nullcontext() if figure else mock.patch.object(overview.figure, "draw_figure"):
        overview.write_report(summary, settings)
    return summary


def make_data(root: Path, samples: int) -> None:
    """models/data with the test split alone: grey pictures, 24x24, brighter towards a side that tells the class."""
    targets = logits(FIVE[0], samples)[1]
    across, down = np.meshgrid(np.arange(24), np.arange(24))
    angles = 2 * np.pi * np.arange(10) / 10
    shades = [128 + 5 * (np.cos(a) * (across - 12) + np.sin(a) * (down - 12)) for a in angles]
    with artifact.building(root / "models/data", root / "models") as folder:
        (folder / "inputs").mkdir()
        np.save(folder / "inputs/image.npy", np.stack([shades[t] for t in targets]).astype(np.uint8)[..., None])
        np.save(folder / "targets.npy", targets)
        (folder / "splits.json").write_text(json.dumps({"test": list(range(samples))}), encoding="utf-8")
        image = artifact.Port("image", (None, 1, 24, 24), "float32", "NCHW", "image")
        artifact.write(folder, artifact.Manifest("data", inputs=(image,), preprocessing={"kind": "image"}, labels=LABELS))


def configure(rows: Sequence[Made], budget: Budget) -> Config:
    variants, formats = {}, {}
    for row in rows:
        kind, _, scheme = row.name.partition("-")
        formats[kind] = Format(f"edgewise.formats.{kind}", used=True)
        settings = {"calibration": Calibration(), "per_channel": True} if scheme == "int8-static" else {}
        variants[row.name] = Variant(row.name, kind, scheme, f"edgewise.formats.{kind}", keep_float=row.kept, **settings)
    return Config(
        experiment="resnet18-digits",
        seed=1,
        data=Plugin("digits", "edgewise.data.digits", {"image_size": 64}),
        model=Plugin("resnet18", "edgewise.sources.transformers_model", {"config": {"depths": [2, 2, 2, 2]}}),
        train=Train("default"),
        device=Plugin("local", "edgewise.devices.local", {"threads": 1}),
        bench=Bench("quick"),
        budget=budget,
        reference="onnx-fp32",
        variants=variants,
        formats=formats,
    )


def make_variant(root: Path, row: Made, samples: int = 540, bench: bool = True) -> None:
    """The artifacts and metrics of one variant; a failure in one stage is passed on by the later ones, as the stages do."""
    reason = "int8-static covers 0 % of the weights; schemes that openvino offers: fp32, int8-static"
    after = {"variants": 0, "evaluate": 1, "bench": 2, None: 3}[row.fails_in]
    kind, _, scheme = row.name.partition("-")
    failed = artifact.Manifest("variant", "failed", reason, kind, scheme, f"variants.{row.name}")
    with artifact.building(root / "models/variants" / row.name, root / "models") as folder:
        if after > 0:
            (folder / f"model.{kind}").write_bytes(row.name.encode())
        artifact.write(folder, replace(failed, status="ok", reason=None, details=details(row)) if after > 0 else failed)
    evaluation, bench_record = (
        {"schema": SCHEMA, "status": "failed", "reason": reason},
        {"schema": SCHEMA, "status": "failed", "reason": reason},
    )
    for stage, kind in (("evaluate", "evaluation"), ("bench", "bench")):
        artifact.write_status(root / "models" / stage / row.name, artifact.Manifest(kind, "failed", reason), root / "models")
    if after > 1:
        evaluation = evaluate(root / "models/evaluate" / row.name, row, samples)
    if after > 2:
        bench_record = bench_result(row)
        artifact.write_json(root / f"models/bench/{row.name}/samples.json", {"schema": SCHEMA, "processes": []})
    artifact.write_json(root / f"metrics/evaluate/{row.name}.json", evaluation)
    if bench:
        artifact.write_json(root / f"metrics/bench/{row.name}.json", bench_record)


def details(row: Made) -> dict:
    """Manifest details of a variant: a small net in which int8 covers what `weights` says."""
    main, rest = (row.weights, "float32") if row.weights != "float32" else ("float32", None)
    tail = "int8" if row.covered is not None and row.covered < 0.01 else "float32"  # torch's dynamic scheme leaves convolutions alone
    acts = "dynamic" if "dynamic" in row.name and tail == "float32" else "float32" if "weight" in row.name else main
    size = int(row.mb * 1e6)
    by_dtype = {main: size - 40_000, rest: 40_000} if rest else {main: size}
    nodes = [
        {"name": f"conv{i}", "operator": "Conv", "weights_dtype": main, "activations_dtype": acts, "elements": 1_000_000} for i in range(20)
    ]
    last = "dynamic" if tail == "int8" else "float32"
    nodes.append({"name": "fc", "operator": "Gemm", "weights_dtype": tail, "activations_dtype": last, "elements": 5120})
    facts = {
        "operators": {f"Conv[{main}]": 20, "Gemm[float32]": 1},
        "weights_bytes_by_dtype": by_dtype,
        "weights_elements": 11_200_000,
        "nodes": nodes,
    }
    measured = 31.9 if row.covered else 120.0
    groups = [{"output": "logits", "group": "", "sqnr_db": measured, "largest_difference": 0.1}]
    return {"facts": facts, "covered_share": row.covered, "sqnr_db": measured, "agreement": groups, "kept_float": list(row.kept)}


def logits(row: Made, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [samples, 10] that make exactly `lost` and `gained` flips against the reference's, and the targets."""
    rng = np.random.default_rng(7)
    targets = rng.integers(0, 10, samples)
    answers = targets.copy()
    wrong = samples // 30 + 6  # the reference's own mistakes, at the end of the list
    answers[-wrong:] = (targets[-wrong:] + 1) % 10
    if row.gained:
        answers[-row.gained :] = targets[-row.gained :]
    answers[: row.lost] = (targets[: row.lost] + 3) % 10
    scores = rng.normal(0, 1, (samples, 10))
    noise = 0.0 if row.covered is None else 0.02
    scores += np.random.default_rng(len(row.name)).normal(0, noise, scores.shape)
    scores[np.arange(samples), answers] += 9
    return scores.astype(np.float32), targets


def evaluate(folder: Path, row: Made, samples: int) -> dict:
    outputs, targets = logits(row, samples)
    answers = outputs.argmax(axis=1)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (targets, answers), 1)
    recall = confusion.diagonal() / confusion.sum(axis=1)
    with artifact.building(folder, folder.parents[1]) as target:
        np.savez(target / "outputs.npz", logits=outputs)
        np.save(target / "targets.npy", targets)
        content = {"confusion": confusion.tolist(), "recall_per_class": dict(zip(LABELS, recall.tolist(), strict=True))}
        (target / "details.json").write_text(json.dumps(content), encoding="utf-8")
        artifact.write(target, artifact.Manifest("evaluation", labels=LABELS))
    return {
        "schema": SCHEMA,
        "status": "ok",
        "samples": samples,
        "scores": {
            "accuracy_top1": float(np.mean(answers == targets)),
            "accuracy_balanced": float(recall.mean()),
            "macro_f1": float(recall.mean()),
        },
        "size_bytes": int(row.mb * 1e6),
        "covered_share": row.covered,
    }


def forget_scores(root: Path, name: str) -> None:
    """Leave of a variant's evaluation what the task `none` leaves: the outputs."""
    record, folder = root / f"metrics/evaluate/{name}.json", root / "models/evaluate" / name
    artifact.write_json(record, {**json.loads(record.read_text(encoding="utf-8")), "scores": {}})
    (folder / "details.json").write_text("{}", encoding="utf-8")
    artifact.write(folder, artifact.Manifest("evaluation", details={"answer": "values"}))


def bench_result(row: Made) -> dict:
    p50, width = 3.2 * row.ratio, 0.04 if row.grade == "noisy" else 0.012
    record = BenchResult(
        variant=row.name,
        reference="onnx-fp32",
        conditions=Conditions("quick", "model", 1, FINGERPRINT),
        latency=Latency(
            p50_ms=p50,
            p50_ci95_ms=(p50 * (1 - 2 * width), p50 * (1 + 2 * width)),
            p90_ms=p50 * 1.04,
            p95_ms=p50 * 1.06,
            reference_p50_ms=3.2,
            ratio_to_reference=row.ratio,
            ratio_ci95=(row.ratio * (1 - width), row.ratio * (1 + width)),
            load_ms=31.0,
            first_inference_ms=p50 * 3,
            samples=640,
            processes=5,
            stop="ci",
        ),
        noise=Noise(row.grade, "run-queue wait 9 % of the time" if row.grade != "clean" else None),
        memory=Memory(
            baseline_rss_bytes=45_000_000,
            after_load_rss_bytes=int((45 + 0.8 * row.peak_mb) * 1e6),
            after_first_inference_rss_bytes=int((45 + 0.9 * row.peak_mb) * 1e6),
            peak_rss_bytes=int((45 + row.peak_mb) * 1e6),
            peak_rss_above_baseline_bytes=int(row.peak_mb * 1e6),
            after_release_rss_bytes=60_000_000,
            running_anonymous_bytes=int(0.6 * row.peak_mb * 1e6),
            running_file_bytes=int((45 + 0.2 * row.peak_mb) * 1e6),
        ),
    )
    return {"schema": SCHEMA, "status": "ok", **to_plain(record)}


def device_facts() -> dict:
    known = {"cpu": "Fabricated CPU @ 2.0GHz", "cores": 2, "memory_bytes": 25_000_000_000, "isa": ["avx2", "avx512f"], "os": "Linux"}
    return {**known, "board": None}


def runtimes(variants: Sequence[str]) -> dict:
    packages = {"onnxruntime": "1.31.1", "numpy": "2.4.6"}
    return {"schema": SCHEMA, "packages": packages, "variants": dict.fromkeys(variants, "onnxruntime 1.31.1")}


def train_record() -> dict:
    curve = [
        {
            "epoch": epoch,
            "loss_train": 2.0 / (epoch + 1),
            "loss_validation": 2.2 / (epoch + 1),
            "accuracy_validation": 1 - 0.5 / (epoch + 1),
            "learning_rate": 1e-3,
        }
        for epoch in range(8)
    ]
    return {
        "schema": SCHEMA,
        "accuracy_validation": curve[-1]["accuracy_validation"],
        "epochs": 8,
        "weights_sha256": "ab" * 32,
        "curve": curve,
    }


def lock_entry(stage: str, row: Made) -> dict:
    return {
        "cmd": f"python -m stages.{stage} {row.name}",
        "outs": [{"path": f"models/{stage}/{row.name}", "md5": f"{len(row.name):032x}", "size": 1}],
    }
