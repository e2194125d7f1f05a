"""models/pruned: each pruned source once, for all variants that name the same settings.

    sources/KEY/         a source, as in models/source
    sources/KEY.json     what it was made from, and the history of its training
    VARIANT/             a manifest for every variant: which source it is made from (details: source, sha256), or `skipped` with the reason

A variant depends on its own folder alone, so that others, with or without `prune`, do not touch it. DVC empties models/pruned before the
stage runs, so finished sources also stand in models/.pruned, with what each was made from: another pruned variant, or an interruption,
makes none of them again. A source is there as a whole or not at all.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.compress import pruning, qat
from edgewise.compress.float_models import PRUNED, PRUNED_SOURCES
from edgewise.config.prune_settings import Distillation
from edgewise.config.schema import Config, Pruning, to_plain
from edgewise.errors import MissingExtra, UserError, VariantFailed
from edgewise.proof.isolation import fail_alone
from edgewise.proof.making import SOURCE, translate_errors
from edgewise.sources.distillation import Distilled
from edgewise.sources.objectives import Objective

DATA, STORE = Path("models/data"), Path("models/.pruned")
REQUIRES = {**qat.REQUIRES, **pruning.REQUIRES}


def update(configuration: Config, environment: Mapping[str, Any]) -> None:
    """Make models/pruned what the configuration asks for. environment: what sources depend on beside settings and data: code, packages."""
    wanted = list_wanted(configuration)
    keep_only(STORE, {name for key in wanted for name in (key, f"{key}.json")})
    failures: dict[str, str] = {}
    for key, job in wanted.items():
        try:
            if job.before_qat.key in failures:
                raise VariantFailed(failures[job.before_qat.key])
            make_once(configuration, job, describe_origin(configuration, job, environment))
        except VariantFailed as failure:
            failures[key] = str(failure)
            print(f"{PRUNED_SOURCES / key}: {failure}", file=sys.stderr)
    with artifact.building(PRUNED) as folder:
        for path in STORE.glob("*"):
            place(path, folder / PRUNED_SOURCES.name / path.name)
        for name, asked in configuration.prunings.items():
            (folder / name).mkdir()
            artifact.write(folder / name, point(name, asked, failures))


def list_wanted(configuration: Config) -> dict[str, Pruning]:
    """All sources to be made, by key, in the order of making: those of int8-qat after the float ones that they begin with."""
    asked = [job for job in configuration.prunings.values() if job is not None]
    return {job.key: job for job in [*(job.before_qat for job in asked), *asked]}


def keep_only(folder: Path, names: Collection[str]) -> None:
    """Remove everything else from a folder."""
    for path in folder.glob("*"):
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def describe_origin(configuration: Config, job: Pruning, environment: Mapping[str, Any]) -> str:
    """A hash of everything that a pruned source depends on."""
    content = {
        "job": to_plain(job),
        "train": to_plain(configuration.train),
        "model": to_plain(configuration.model),
        "seed": configuration.seed,
        "inputs": [artifact.sha256(folder / artifact.MANIFEST) for folder in (SOURCE, DATA)],
        "environment": dict(environment),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_once(configuration: Config, job: Pruning, origin: str) -> None:
    """Write KEY and KEY.json into the store, unless they stand there made from the same. VariantFailed, in one line, where it cannot be
    made."""
    folder, record = STORE / job.key, STORE / f"{job.key}.json"
    if folder.exists() and record.exists() and json.loads(record.read_text(encoding="utf-8"))["made_from"] == origin:
        return
    record.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    with fail_in_one_line(f"pruning {job.key}"), artifact.building(folder) as building:
        history = prune(configuration, job, building) if job.qat is None else tune(configuration, job, building)
    artifact.write_json(record, {"made_from": origin, "history": history})


def place(path: Path, target: Path) -> None:
    """A file, or a folder of files, at another place too: by a hard link where the file system has them."""
    if path.is_dir():
        for child in path.iterdir():
            place(child, target / child.name)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


@contextlib.contextmanager
def fail_in_one_line(doing: str) -> Iterator[None]:
    """VariantFailed for whatever fails, a missing package with the command that installs it included; lack of disk or memory passes."""
    try:
        with fail_alone(doing), translate_errors(REQUIRES):
            yield
    except (MissingExtra, UserError) as error:
        raise VariantFailed(str(error)) from error


def prune(configuration: Config, job: Pruning, folder: Path) -> Any:
    model, train, seed = configuration.model, configuration.train, configuration.seed
    return pruning.make_pruned(model, SOURCE, DATA, job.settings, train, seed, folder)


def tune(configuration: Config, job: Pruning, folder: Path) -> Any:
    """Fine-tune a pruned source with fake quantization; its teacher is the float source before it was pruned."""
    import torch

    assert job.qat is not None
    teacher = qat.ExportedModule(torch.export.load(SOURCE / qat.PROGRAM))
    settings = job.settings.distillation

    def teach(objective: Objective, samples: Samples) -> Objective:
        return Distilled(objective, teacher, Distillation(settings.weight, settings.temperature), samples)

    base = STORE / job.before_qat.key
    return [dict(qat.fine_tune(base, DATA, job.qat, configuration.train, configuration.seed, folder, teach))]


def point(name: str, asked: Pruning | None, failures: Mapping[str, str]) -> Manifest:
    """The manifest of models/pruned/VARIANT."""
    blank = Manifest(kind="pruned", config_key=f"prunings.{name}")
    if asked is None:
        return dataclasses.replace(blank, status="skipped", reason="the variant is made of models/source")
    if asked.key in failures:
        return dataclasses.replace(blank, status="failed", reason=failures[asked.key])
    digest = artifact.sha256(STORE / asked.key / artifact.MANIFEST)
    return dataclasses.replace(blank, details={"source": asked.key, "sha256": digest})
