"""What MLflow loads for a registered variant. This file is copied into the model, and of Edgewise what lies in its `code` artifact.

    model = mlflow.pyfunc.load_model("models:/resnet18-digits@local-fastest")
    model.predict({"image": pictures})          what the variant takes: float32, normalized, any number of samples
    model.unwrap_python_model().feeds([path])   which it makes of picture files, where the variant takes pictures

Standard library, numpy and mlflow; the runtime comes with run.py.
"""

import importlib
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

Arrays = dict[str, np.ndarray]
# of a `predict` without type hints: MLflow knows none for arrays by name
warnings.filterwarnings("ignore", category=UserWarning, module=r"mlflow\.pyfunc\.utils\.data_validation")


class Variant(PythonModel):  # type: ignore[misc]  # mlflow's modules are Any to mypy, see pyproject.toml
    """The variant's folder, run by its format's own run.py."""

    def load_context(self, context: PythonModelContext) -> None:
        self.folder, self.code = (Path(context.artifacts[name]) for name in ("variant", "code"))
        self.package = f"edgewise_served_{abs(hash(self.code))}"  # a name that no other module has: each model brings its own code
        holder = ModuleType(self.package)
        holder.__path__ = [str(self.code)]
        sys.modules[self.package] = holder
        self.session = self.module("sessions").load(self.module("run"), str(self.folder), context.model_config)

    def module(self, name: str) -> ModuleType:
        """A file of the `code` artifact."""
        return importlib.import_module(f"{self.package}.{name}")

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow would take a hint for a schema
        """Outputs by name, float32 [n, ...], of inputs by name, [n, ...]."""
        return self.module("sessions").run_batched(self.session, dict(model_input))

    def feeds(self, pictures: Sequence[str]) -> Arrays:
        """What `predict` takes, of picture files; needs Pillow. ValueError where the variant takes no pictures."""
        manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        spec = manifest["preprocessing"]
        if not spec or spec["kind"] != "image":
            raise ValueError(f"this model takes {[tensor['name'] for tensor in manifest['inputs']]}, no pictures")
        own = self.module("preprocess")
        batch = np.stack([own.fit(own.decode(path), spec) for path in pictures])
        return {manifest["inputs"][0]["name"]: own.normalize(batch, spec)}


set_model(Variant())
