"""The Model Registry: the Pareto front and the chosen variant, each content once, with an alias for what it is best at.

    resnet18-digits@local-fastest       also -smallest, -most-accurate, and with a budget @local-camera_512mb: what it chose
    resnet18-digits@local-grid-fastest  of the sweep `grid`

A version is identified by the content of its files, not by the run that measured it: measuring again moves aliases and adds nothing.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from edgewise.agent import ports, preprocess, ragged, sessions
from edgewise.agent.packages import list_packages
from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.config import schema
from edgewise.config.digests import Digests
from edgewise.config.schema import Config, Variant
from edgewise.devices.shipping import code_tree
from edgewise.proof import checks, making
from edgewise.track.run_set import KEY, Candidate, Registration, content_digest

VARIANTS = Path("models/variants")


def register(client: Any, registrations: Iterable[Registration], runs: Mapping[str, str]) -> None:
    """Write the versions that are missing and move the aliases. runs: {key of a run record: run id}."""
    for registration in registrations:
        if registration.candidates:
            ensure_model(client, registration.name)
            numbers = {candidate.key: version_number(client, registration.name, candidate, runs) for candidate in registration.candidates}
            move_aliases(client, registration, numbers)


def version_number(client: Any, name: str, candidate: Candidate, runs: Mapping[str, str]) -> str:
    with candidate_files(candidate) as root:
        return ensure_version(client, name, candidate, root, runs[candidate.key])


def move_aliases(client: Any, registration: Registration, numbers: Mapping[str, str]) -> None:
    known = client.get_registered_model(registration.name).aliases
    for alias, key in registration.aliases.items():
        if key is None and alias in known:
            client.delete_registered_model_alias(registration.name, alias)
        elif key is not None and str(known.get(alias)) != numbers[key]:
            client.set_registered_model_alias(registration.name, alias, numbers[key])


@contextmanager
def candidate_files(candidate: Candidate) -> Iterator[Path]:
    """A folder with the pipeline's files: the workspace, or a copy of the experiment's files from DVC's cache."""
    if candidate.revision is None:
        yield Path()
        return
    from dvc.api import DVCFileSystem

    with tempfile.TemporaryDirectory() as folder:
        cache = DVCFileSystem(rev=candidate.revision)
        for path in (schema.PATH.parent / "source/probe.npz", schema.PATH, VARIANTS / candidate.variant):
            Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
            cache.get(str(path), str(Path(folder, path)), recursive=True)
        yield Path(folder)


def ensure_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Variants made and measured by Edgewise: the Pareto front and what was chosen")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def ensure_version(client: Any, name: str, candidate: Candidate, root: Path, run: str) -> str:
    """The number of the version with this content, created if missing. Of two writers the one with the higher number deletes its own."""
    settings, folder = schema.read(root / schema.PATH), root / VARIANTS / candidate.variant
    variant = settings.variant(candidate.variant).with_engine((candidate.result.get("engine_auto") or {}).get("kept", {}))
    key = version_key(artifact.read(folder), variant)
    if found := find_versions(client, name, key):
        return found[0]
    model = log_model(client, run, folder, variant, settings, checks.read_probe(root / making.SOURCE)[0])
    tags = {KEY: key, "variant": variant.name, "device": settings.device.name}
    made = client.create_model_version(name, f"models:/{model}", run, tags=tags, model_id=model, description=variant.name).version
    first = find_versions(client, name, key)[0]
    if first != str(made):
        client.delete_model_version(name, str(made))
    return first


def find_versions(client: Any, name: str, key: str) -> list[str]:
    """The numbers of the versions with this content, oldest first."""
    found = client.search_model_versions(f"name = '{name}' AND tags.`{KEY}` = '{key}'")
    return [str(number) for number in sorted(int(version.version) for version in found)]


def version_key(manifest: Manifest, variant: Variant) -> str:
    """A hash of what the model's predictions depend on: files, tensors, engine settings, and the code that goes with it."""
    tensors = schema.to_plain([*manifest.inputs, *manifest.outputs])
    files = {name: entry["sha256"] for name, entry in manifest.files.items()}
    runner = Digests().digest([f"{variant.module}.run", sessions.__name__, ports.__name__, preprocess.__name__, ragged.__name__])
    return content_digest({"files": files, "runner": runner, "engine": variant.engine, "tensors": tensors})


def log_model(client: Any, run: str, folder: Path, variant: Variant, settings: Config, example: Mapping[str, Any]) -> str:
    """Log the variant in `folder` as the MLflow model of its run. Returns the model's id."""
    model = find_logged_model(client, run)
    if model is None:  # a run that an earlier release wrote
        model = client.create_logged_model(client.get_run(run).info.experiment_id, variant.name, source_run_id=run).model_id
    with tempfile.TemporaryDirectory() as workshop:
        how = {"threads": settings.device.settings.get("threads") or 1, **variant.engine}
        first = {name: ragged.take(array, 0) for name, array in example.items()}
        save_model(Path(workshop), model, folder, schema.part(variant.module, "run"), how, first)
        client.log_model_artifacts(model, str(Path(workshop, "model")))
    client.finalize_logged_model(model, "READY")
    return model


def find_logged_model(client: Any, run: str) -> str | None:
    """The id of the model that belongs to a run."""
    outputs = client.get_run(run).outputs
    return str(outputs.model_outputs[0].model_id) if outputs and outputs.model_outputs else None


def save_model(workshop: Path, identity: str, folder: Path, runner: ModuleType, how: Mapping[str, Any], example: Mapping[str, Any]) -> None:
    """Write workshop/model: the variant's folder, the code that runs it, signature, input example and pip requirements."""
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature

    manifest, code = artifact.read(folder), workshop / "code"
    code.mkdir()
    for name, path in code_tree(runner.__name__).files.items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, code / name)
    mlflow.pyfunc.save_model(
        workshop / "model",
        python_model=Path(__file__).with_name("mlflow_model.py"),
        artifacts={"variant": str(folder), "code": str(code)},
        model_config={"runner": runner.__name__, "settings": dict(how)},
        signature=ModelSignature(tensor_schema(manifest.fed), tensor_schema(manifest.answered)),
        input_example=dict(example),
        pip_requirements=pip_requirements(runner),
        mlflow_model=Model(model_id=identity),
    )


def tensor_schema(tensors: tuple[Port, ...]) -> Any:
    """The signature with an open batch: `sessions.run_batched` splits batches where the file fixes their size."""
    import numpy as np
    from mlflow.types import Schema, TensorSpec

    return Schema([TensorSpec(np.dtype(t.dtype), (-1, *(-1 if n is None else n for n in t.shape[1:])), t.name) for t in tensors])


def pip_requirements(runner: ModuleType) -> list[str]:
    """mlflow, numpy and the packages of the runtime in the versions that scored the variant, without local parts such as +cpu."""
    packages = ("mlflow", "numpy", *list_packages(runner).values())
    return [f"{package}=={metadata.version(package).partition('+')[0]}" for package in packages]
