"""Fixtures that more than one file uses."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Real pictures and models that lie beside the checkout on the developers' machines; never part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder shared/data beside the checkout is absent")
    return SHARED_DATA


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of params.yaml and conf/ that a test may spoil."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    return tmp_path


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database of MLflow to copy: making the tables takes seconds, once is enough."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path
