"""Obtain the source that the configuration names: trained from scratch, from a checkpoint, or imported from a file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.targets import BOXES, MASKS
from edgewise.config import schema
from edgewise.config.settings import build
from edgewise.errors import EdgewiseError, MissingExtra, ModelError
from edgewise.proof import checks, isolation, making
from edgewise.sources.inspection import check_stand_in, one_line
from edgewise.stats.agreement import relative_variation

DATA, SOURCE = Path("models/data"), Path("models/source")
SCORES = {"accuracy_validation": "accuracy", "ap50_validation": "AP50", "mean_iou_validation": "mean IoU"}
DEFAULT, SUITED = "default", {BOXES: "detection", MASKS: "segmentation"}  # of conf/train/
COLLAPSED = 1e-4  # float32 converters move outputs by 1e-7 to 1e-5 of their size


def write_source(configuration: schema.Config) -> Mapping[str, Any]:
    """Write models/source. Returns the content of metrics/train.json: scores on validation, curve, warnings, hash of the weights."""
    plugin = configuration.model.load()
    settings = build(plugin.Settings, configuration.model.settings, "model")
    data = artifact.read(DATA)
    with artifact.building(SOURCE) as folder:
        try:
            fields = dict(run_plugin(plugin, settings, DATA, configuration.train, configuration.seed, folder))
        except ModuleNotFoundError as error:
            package = (error.name or "").split(".")[0]
            if package not in plugin.REQUIRES:
                raise
            raise MissingExtra(package, plugin.REQUIRES[package]) from None
        training, weights = fields.pop("training"), fields.pop("weights")
        fields |= {side: making.make_tensors(fields[side], data.inputs) for side in ("inputs", "outputs")}
        common = {"kind": "source", "config_key": "model", "preprocessing": data.preprocessing, "labels": data.labels}
        manifest = artifact.Manifest(**{**common, **fields})
        if configuration.task.load().SCORED:
            artifact.require_scored(manifest, data.labels)
        artifact.write(folder, manifest)
        digest = artifact.sha256(folder / weights)
        suited = find_unsuited(configuration.train, data, training)
        warnings = [*training.get("warnings", ()), *suited, *find_collapsed(folder)]
    more = {"warnings": warnings} if warnings else {}  # an empty list breaks `dvc plots show`
    return {"schema": artifact.METRICS_SCHEMA, **{**training, **more}, "weights_sha256": digest}


def find_unsuited(train: schema.Train, data: artifact.Manifest, training: Mapping[str, Any]) -> list[str]:
    """A warning for a detector or segmenter that was trained with the settings for classifiers."""
    better = SUITED.get(data.details.get("targets", ""))
    if better is None or train.name != DEFAULT or not training.get("epochs"):
        return []
    return [
        f"train.name: {DEFAULT} has settings for classifiers; for {data.details['targets']} take train.name={better}, which trains longer"
    ]


def find_collapsed(source: Path) -> list[str]:
    """A warning for each output of the source that is the same for every probe sample: no variant can be compared with it, and the source
    is the cause, not the converter that its variants fail in."""
    inputs, outputs = checks.read_probe(source)
    if not any(relative_variation(array) for array in inputs.values()):  # a single sample, repeated
        return []
    shares = {name: relative_variation(array) for name, array in outputs.items()}
    moving = any(share >= COLLAPSED for share in shares.values())
    still = {name for name, array in outputs.items() if moving and all(np.array_equal(sample, array[0]) for sample in array)}
    constants = [
        f"the source gives the same {name} for every sample: it is a constant of the model, as anchors are, or has learned nothing"
        for name in still
    ]
    return constants + [
        f"the source gives the same {name} for every sample (they vary by {share:.1g} of their size): no variant can be compared with it;"
        " it has learned nothing yet, or its preprocessing is wrong: train longer (train.epochs), or check the file and the data section"
        for name, share in shares.items()
        if share < COLLAPSED and name not in still
    ]


def run_plugin(plugin: ModuleType, settings: Any, *arguments: Any) -> Mapping[str, Any]:
    """plugin.obtain, in a process of its own if the user's file may crash it."""
    if getattr(settings, "path", None):
        check_stand_in(Path(settings.path))
    if not plugin.ISOLATED:
        fields: Mapping[str, Any] = plugin.obtain(settings, *arguments)
        return fields

    def aborted(how: str) -> ModelError:
        return ModelError(
            f"model.path: {settings.path} crashes its runtime ({how}); export it again, with simpler operators or newer tools"
        )

    return isolation.call_isolated(obtain_alone, plugin.obtain, settings, *arguments, aborted=aborted)


def obtain_alone(obtain: Callable[..., Mapping[str, Any]], settings: Any, *arguments: Any) -> Mapping[str, Any]:
    """What a plugin makes of the user's file. ModelError for whatever a library raises on an odd one."""
    try:
        return obtain(settings, *arguments)
    except (EdgewiseError, ImportError, OSError, MemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"model.path: {settings.path} cannot be imported: {type(error).__name__}: {one_line(error)}; it uses something that is not"
            " supported yet: export it again, with another exporter or opset"
        ) from error


def summarize(training: Mapping[str, Any]) -> str:
    """One line on how good the source is."""
    for name, words in SCORES.items():
        if training.get(name) is not None:
            return f"{words} on validation {training[name]:.4f} after {training['epochs']} epochs"
    if "loss_validation" in training:
        return f"loss on validation {training['loss_validation']:.4g}"
    tried = f", it {training['tried']}" if "tried" in training else ""
    return f"imported unchanged{tried}"
