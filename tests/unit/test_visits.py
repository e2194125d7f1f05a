"""The store of visits: what is kept, under which key, and what is forgotten."""

from dataclasses import replace

import pytest

from edgewise.artifacts import visits
from edgewise.artifacts.visits import Visit
from edgewise.errors import EdgewiseError

VISIT = Visit("k" * 32, "2026-01-01T00:00:00.000+00:00", "onnx-int8", "onnx-fp32", "blocks", 0.3, 0.01, 5, 40.0)
BOARD, OTHER = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(visits.ENVIRONMENT, raising=False)
    return tmp_path


def test_visits_are_added_and_come_back_in_the_order_of_their_time():
    later = replace(VISIT, at="2026-01-02T00:00:00.000+00:00", ratio=0.31)
    for visit in (later, VISIT, replace(VISIT, key="j" * 32)):
        visits.append(visit, BOARD)
    assert visits.read_store(BOARD) == {"k" * 32: [VISIT, later], "j" * 32: [replace(VISIT, key="j" * 32)]}


def test_another_device_knows_none_of_them():
    visits.append(VISIT, BOARD)
    assert visits.read_store(OTHER) == {}


def test_the_store_may_lie_elsewhere(here, monkeypatch):
    monkeypatch.setenv(visits.ENVIRONMENT, str(here / "shared"))
    visits.append(VISIT, BOARD)
    assert [path.name for path in (here / "shared" / BOARD[:16]).iterdir()] == [f"{VISIT.key}.jsonl"] and not (here / ".edgewise").exists()


def test_the_key_changes_with_all_that_decides_a_latency():
    base = {"files": ["ab"], "engine": {"threads": 1}, "runtimes": "onnxruntime 1.20", "device": BOARD}
    changed = [{**base, name: value} for name, value in {"files": ["cd"], "engine": {"threads": 2}, "device": OTHER}.items()]
    assert len({visits.make_key(each) for each in (base, *changed)}) == 4 and visits.make_key(base) == visits.make_key(
        dict(reversed(base.items()))
    )


@pytest.mark.parametrize("line", ["{", "[]", "\udcff\udcfe", '{"schema": 1}', '{"schema": 2, "key": "k"}'])
def test_a_line_that_is_no_visit_is_named(line):
    visits.append(VISIT, BOARD)
    path = visits.device_folder(BOARD) / f"{VISIT.key}.jsonl"
    path.write_text(path.read_text() + line + "\n", errors="surrogateescape")
    with pytest.raises(EdgewiseError) as caught:
        visits.read_store(BOARD)
    assert f"{path}, line 2" in str(caught.value)


def test_the_points_of_a_sweep_share_the_store(here, monkeypatch):
    from edgewise.sweep.clone import share_store

    share_store(visits.STORE, here, here / ".edgewise/sweeps/a/point")
    monkeypatch.chdir(here / ".edgewise/sweeps/a/point")
    visits.append(VISIT, BOARD)
    monkeypatch.chdir(here)
    assert visits.read_store(BOARD) == {VISIT.key: [VISIT]}
