"""A study that two processes run at once: the second would empty the clone of the first."""

import fcntl

import pytest

from edgewise.errors import ConfigError
from edgewise.study import runner


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project whose studies end where they would be cloned."""

    def stop(*given):
        raise StopIteration

    monkeypatch.setattr(runner, "make_clone", stop)
    (tmp_path / runner.CONF).mkdir(parents=True)
    for name in ("boards", "figures"):
        (tmp_path / runner.CONF / f"{name}.yaml").touch()
    return tmp_path


@pytest.mark.parametrize("start", [runner.run_study, runner.make_variants])
def test_a_study_that_runs_already_is_not_started_again(root, start):
    folder = root / ".edgewise" / "studies"
    folder.mkdir(parents=True)
    with (folder / "boards.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="the study boards is already running in another process; wait for it"):
            start(root, "boards", ())
        with pytest.raises(StopIteration):
            start(root, "figures", ())
    with pytest.raises(StopIteration):
        start(root, "boards", ())
