"""What MLflow loads for a registered variant. The model holds a copy of this file and, in its `code` artifact, the code that runs it.

    model = mlflow.pyfunc.load_model("models:/resnet18-digits@local-fastest")
    model.predict({"image": pictures})          what the variant takes: float32, normalized, any number of samples
    model.unwrap_python_model().feeds([path])   the same, of picture files, for a variant that takes pictures

Standard library, numpy and mlflow; the runtime comes with run.py.
"""

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

SESSIONS, PREPROCESS = "edgewise.agent.sessions", "edgewise.agent.preprocess"
Arrays = dict[str, np.ndarray]


class Variant(PythonModel):  # type: ignore[misc]  # mlflow's modules are Any to mypy, see pyproject.toml
    """The variant's folder, run by its format's own run.py."""

    _skip_type_hint_validation = True  # MLflow asks `predict` for type hints, and has none for a dictionary of arrays

    def load_context(self, context: PythonModelContext) -> None:
        self.folder, code = (Path(context.artifacts[name]) for name in ("variant", "code"))
        runner = context.model_config["runner"]
        self.sessions, self.preprocess, run = import_own(code, SESSIONS, PREPROCESS, runner)
        self.session = self.sessions.load(run, str(self.folder), context.model_config["settings"])

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow reads a type hint as a schema
        """Outputs by name, float32 [n, ...], of inputs by name, [n, ...]."""
        return self.sessions.run_batched(self.session, dict(model_input))

    def feeds(self, pictures: Sequence[str]) -> Arrays:
        """Read and preprocess picture files for `predict`. Needs Pillow. Raises ValueError where the variant takes no pictures."""
        manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        spec = manifest["preprocessing"]
        if not spec or spec["kind"] != "image":
            raise ValueError(f"this model takes {[tensor['name'] for tensor in manifest['inputs']]}, no pictures")
        pre = self.preprocess
        batch = np.stack([pre.resize_to_spec(pre.decode_picture(path), spec) for path in pictures])
        return {manifest["inputs"][0]["name"]: pre.normalize(batch, spec)}


def import_own(code: Path, *names: str) -> list[ModuleType]:
    """Modules of the `code` artifact. Each model brings its own: those of another model, or of an installed Edgewise, stay as they are."""
    others = take_modules()
    sys.path.insert(0, str(code))
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(code))
        take_modules()
        sys.modules.update(others)


def take_modules() -> dict[str, ModuleType]:
    """Edgewise's modules, removed from those that are imported."""
    names = [name for name in sys.modules if name.partition(".")[0] == "edgewise"]
    return {name: sys.modules.pop(name) for name in names}


set_model(Variant())
