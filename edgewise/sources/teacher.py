"""train.teacher: another net that the source learns from, beside the labels or without them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.errors import ConfigError, EdgewiseError
from edgewise.sources import training
from edgewise.sources.distillation import Distilled, Imitation
from edgewise.sources.inspection import one_line
from edgewise.sources.objectives import Objective
from edgewise.sources.torch_ports import ProgramSession
from edgewise.sources.torch_program import PROGRAM_FILE, load

HOW = "name models/source of the project that trained it, or a file of torch.export.save"


def find_objective(
    objective: Objective | None,
    samples: Samples,
    train: Train,
    names: Sequence[str],
    shapes: Sequence[Sequence[int]],
    feeds: Mapping[str, np.ndarray],
) -> Objective | None:
    """The objective with the teacher that `train` names, if it names one. names, shapes: of the outputs of the net that is trained, for
    these feeds. ConfigError where the teacher does not fit the data or that net."""
    if train.teacher is None:
        return objective
    if train.distillation.features:
        raise ConfigError(
            f"train.distillation.features: {train.distillation.features:g}, but the layers of a teacher that is a file cannot be read;"
            " set it to 0"
        )
    teacher = open_teacher(Path(train.teacher), samples)
    check_answers(teacher, feeds, shapes, train.teacher)
    return Distilled(objective or Imitation(samples, train, names), teacher, train.distillation, samples)


def with_known_monitor(train: Train, objective: Objective) -> Train:
    """The recipe; of data without labels the epoch is chosen by the loss, whatever score it names."""
    return train if train.monitor in objective.monitors else dataclasses.replace(train, monitor="loss")


def open_teacher(path: Path, samples: Samples) -> Any:
    """The module of a source of another project or of an exported program; takes the inputs by position."""
    if not path.exists():
        raise ConfigError(f"train.teacher: {path} does not exist; {HOW}")
    if path.is_dir():
        check_source(path, samples)
    file = path / PROGRAM_FILE if path.is_dir() else path
    try:
        return ProgramSession(file, load(file)).module
    except EdgewiseError as error:
        raise ConfigError(f"train.teacher: {str(error).removeprefix('model.path: ')}; {HOW}") from error


def check_source(folder: Path, samples: Samples) -> None:
    """ConfigError unless the folder is a torch source for the same labels and the same preprocessing."""
    try:
        manifest = artifact.read(folder)
    except EdgewiseError as error:
        raise ConfigError(f"train.teacher: {folder} is not a source ({error}); {HOW}") from error
    if manifest.kind != "source" or manifest.format != "torch":
        raise ConfigError(f"train.teacher: {folder} is a {manifest.kind} of format {manifest.format}, not a source in torch; {HOW}")
    if samples.labels and manifest.labels != samples.labels:
        raise ConfigError(
            f"train.teacher: {folder} knows the labels {', '.join(manifest.labels)}, the data has {', '.join(samples.labels)};"
            " they must be the same in the same order"
        )
    own, theirs = dict(samples.preprocessing), dict(manifest.preprocessing or {})
    other = next((key for key in {**own, **theirs} if own.get(key) != theirs.get(key)), None)
    if other is not None:
        raise ConfigError(
            f"train.teacher: {folder} was trained on data with {other} {theirs.get(other)}, this data has {own.get(other)};"
            " set data.* so that both see the same"
        )


def check_answers(teacher: Any, feeds: Mapping[str, np.ndarray], shapes: Sequence[Sequence[int]], name: str) -> None:
    """ConfigError unless the teacher answers in the same shapes."""
    import torch

    try:
        with torch.no_grad():
            given = [[*result.shape] for result in training.run(teacher, feeds)]
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ConfigError(f"train.teacher: {name} does not accept this data: {one_line(error)}; {HOW}") from error
    wanted = [[*shape] for shape in shapes]
    if given != wanted:
        raise ConfigError(f"train.teacher: {name} returns {given}, and the model that is trained {wanted}; choose another")
