"""From the bench stage and `edgewise trust` to metrics/visits.json and trust.json, with models that sleep."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.artifacts import artifact, records, visits
from edgewise.artifacts.visits import Visit
from edgewise.config import schema
from edgewise.config.schema import Bench
from edgewise.errors import UserError
from edgewise.measure import collecting, pairs, trust
from edgewise.measure.pairs import PairedRuns
from edgewise.measure.runs import PlacedVariant
from stages import visits as stage
from tests.unit.test_bench_stage import BENCH, bench, configure, make_data, make_variant  # noqa: F401

QUICK = replace(
    BENCH, name="quick", interleave="processes", max_processes=3, claims=True, agreement_samples=0, memory=False, min_samples=5, blocks=2
)


def read(name: str) -> dict:
    return json.loads(Path(f"metrics/{name}.json").read_text())


def visit(number: int, ratio: float, source: str = visits.BENCH, key: str = "k", variant: str = "int8") -> Visit:
    return Visit(key, f"2026-01-{number:02}T00:00:00.000+00:00", variant, "fp32", "blocks", ratio, 0.001, 5, 1.0, source)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose variant fake-b was measured on the device of metrics/device.json, in one visit."""
    monkeypatch.chdir(tmp_path)
    configure({name: make_variant(name, {}) for name in ("fake-a", "fake-b")}, replace(QUICK, interleave="blocks"))
    artifact.write_json(Path("metrics/device.json"), {"schema": 2, "fingerprint": "e" * 64})
    measured(visit(1, 0.5))
    return tmp_path


def measured(known: Visit) -> None:
    """Write metrics/bench as the stage does."""
    conditions = records.Conditions("quick", "model", 1, "e" * 64)
    records.write(Path("metrics/bench/fake-b.json"), records.BenchResult("fake-b", "fake-a", conditions, visit=known))


def collected() -> list[str]:
    """When the variant was visited, after the stage."""
    stage.main()
    return [each["at"][:10] for each in read("visits")["variants"].get("fake-b", ())]


def test_a_repeat_is_added_to_what_was_measured(project):
    assert collected() == ["2026-01-01"] and read("trust") == {"schema": 2, "trust": None}
    before = Path("metrics/visits.json").read_bytes(), Path("metrics/trust.json").read_bytes()
    assert collected() == ["2026-01-01"]
    assert (Path("metrics/visits.json").read_bytes(), Path("metrics/trust.json").read_bytes()) == before, "nothing makes the report anew"
    measured(visit(2, 0.51))
    assert collected() == ["2026-01-01", "2026-01-02"]


def test_a_changed_device_forgets(project):
    assert collected() == ["2026-01-01"]
    artifact.write_json(Path("metrics/device.json"), {"schema": 2, "fingerprint": "f" * 64})
    assert collected() == [], "it was measured elsewhere"
    artifact.write_json(Path("metrics/device.json"), {"schema": 2, "fingerprint": "e" * 64})
    assert collected() == ["2026-01-01"], "and is there again"


def test_another_key_forgets(project):
    collected()
    measured(visit(2, 0.51, key="another"))
    assert collected() == ["2026-01-02"]


def test_a_measurement_that_came_by_git_joins_the_store(project):
    assert not Path(".edgewise/visits").exists()
    assert [collected(), collected()] == [["2026-01-01"], ["2026-01-01"]]
    assert [len(path.read_text().splitlines()) for path in Path(".edgewise/visits").rglob("*.jsonl")] == [1]


def test_short_visits_of_a_study_say_how_far_visits_lie_apart_and_no_more(project):
    for number, ratio in enumerate((0.50, 0.52, 0.49, 0.51), 2):
        visits.append(visit(number, ratio, visits.STUDY), "e" * 64)
    assert collected() == ["2026-01-01"] and read("trust")["trust"]["visits"] == 5 and read("trust")["trust"]["degrees"] > 3
    assert read("trust")["trust"]["own"] == {}, "five visits are too few to know a variant by itself"
    visits.append(visit(9, 0.50, visits.STUDY), "e" * 64)
    assert collected() == ["2026-01-01"] and read("trust")["trust"]["own"]["fake-b"]["visits"] == 6


def test_a_profile_without_claims_leaves_no_visit():
    assert pairs.make_visit(PairedRuns((), (), "budget"), BENCH, 1.0, key="k", variant="a", reference="b") is None


def test_the_key_holds_files_engine_runtime_and_device(project):
    make_data()

    def key(engine: dict | None = None, device: str = "e" * 64, runtime: str = "fake 1", profile: Bench = QUICK) -> str:
        sides = [PlacedVariant(name, {"settings": {"threads": 1, **(engine or {})}}, None, 1.0, {}) for name in ("fake-b", "fake-a")]
        return pairs.make_key(*sides, profile, device, {"variants": {"fake-b": runtime}})

    longer = replace(QUICK, processes=9, max_s=99.0)
    same, changed = {key(), key(profile=longer)}, {key({"threads": 2}), key(device="f" * 64), key(runtime="fake 2")}
    changed.add(key(profile=replace(QUICK, block_s=0.5)))
    (Path("models/variants/fake-b") / "model.json").write_text('{"another": 1}')
    artifact.write(Path("models/variants/fake-b"), artifact.Manifest("variant", format="fake", scheme="fp32"))
    assert len(same) == 1 and len(changed | {key()}) == 5 and not same & (changed | {key()})


def test_trust_visits_two_variants_as_the_bench_stage_does(bench, monkeypatch):  # noqa: F811
    for module in (trust, pairs):
        monkeypatch.setattr(module, "MIN_PAIRS", 2)
    three = {"fake-a": {"sleep_ms": 2}, "fake-b": {"sleep_ms": 1}, "fake-c": {"sleep_ms": 3}}
    record = bench(three, "fake-b", settings=replace(QUICK, max_processes=2))["visit"]
    assert record["degrees"] == 1 and record["log_standard_error"] > 0 and record["source"] == "bench"
    said: list[str] = []
    found = trust.run_study(schema.read(), ("fake-b", "fake-c"), 2, 0.0, said.append)
    assert [each.variant for each in found] == ["fake-b", "fake-c", "fake-c", "fake-b"] and len(said) == 2
    assert found[0].key == record["key"] != found[1].key and {each.source for each in found} == {"trust"}
    stage.main()
    known = read("trust")["trust"]
    assert f"{known['visits']} visits" in trust.describe_trust(schema.read())
    assert known["variants"] == ["fake-b", "fake-c"] and known["visits"] == 5 and len(read("visits")["variants"]["fake-b"]) == 1
    with pytest.raises(UserError, match="at least 2"):
        trust.choose_variants(schema.read(), ["fake-b"])
    artifact.write_json(Path("metrics/device.json"), {**read("device"), "fingerprint": "f" * 64})
    with pytest.raises(UserError, match="dvc repro"):
        trust.run_study(schema.read(), ("fake-b", "fake-c"), 2, 0.0)


@pytest.mark.parametrize(("count", "minutes"), [(2, 1.0), (8, -1.0), (8, float("nan"))])
def test_a_plan_that_says_nothing_is_refused(count, minutes):
    with pytest.raises(UserError, match="edgewise trust: --"):
        trust.check_plan(count, minutes)


def test_visits_are_spread_over_the_time(monkeypatch):
    slept, now = [], [0.0]
    monkeypatch.setattr(trust.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(trust.time, "sleep", lambda seconds: slept.append(round(seconds, 6)) or now.__setitem__(0, now[0] + seconds))
    for number in trust.spread_over_time(4, 90.0):
        now[0] += 70.0 if number == 1 else 10.0
    assert slept == [0.0, 20.0, 0.0, 0.0], "the third and fourth are late"


def test_variants_unlike_the_reference_are_picked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ratios = {"fake-a": 1.0, "fake-b": 0.9, "fake-c": 0.2, "fake-d": 3.0, "fake-e": 0.1}
    weights = {"fake-a": "float32", "fake-b": "float16", "fake-c": "int8", "fake-d": "float32", "fake-e": "int4"}
    configure({name: make_variant(name, {}) for name in ratios})
    for name, ratio in ratios.items():
        facts = {"facts": {"weights_bytes_by_dtype": {weights[name]: 90, "float32": 5}}}
        artifact.write(Path("models/variants") / name, artifact.Manifest("variant", details=facts))
        conditions = records.Conditions("quick", "model", 1, "board")
        record = records.BenchResult(name, "fake-a", conditions, latency=records.Latency(ratio_to_reference=ratio))
        records.write(Path(f"metrics/bench/{name}.json"), record)
    assert trust.choose_variants(schema.read()) == ("fake-e", "fake-d")


def test_trust_needs_a_study_and_leaves_out_the_reference_itself():
    repeated = [visit(day, ratio) for day, ratio in ((1, 0.30), (2, 0.31), (3, 0.29))]
    itself = [replace(each, key="r", variant="fp32") for each in repeated]
    assert collecting.estimate_trust([repeated, itself], "board", "blocks") is None
    studied = [replace(each, source=visits.STUDY) for each in repeated]
    known = collecting.estimate_trust([studied, itself], "board", "blocks")
    assert known is not None and known.visits == 3 and known.log_variance**0.5 == pytest.approx(0.033, abs=0.001)
    assert collecting.estimate_trust([studied], "board", "processes") is None, "whole processes in turn move otherwise"
