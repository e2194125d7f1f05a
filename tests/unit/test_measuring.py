"""Rounds, the stop rule, grades and records, on events that are made up."""

from dataclasses import replace

import numpy as np
import pytest

from edgewise.agent.protocol import Fault, ProtocolFault
from edgewise.artifacts import records
from edgewise.config.schema import Bench, Plugin
from edgewise.devices.access import connect
from edgewise.errors import DeviceError, VariantFailed
from edgewise.measure import pairs, passes, results, runs
from edgewise.measure.runs import Run

BENCH = Bench(name="quick", processes=4, max_processes=8, min_samples=40, target_half_width=0.02, max_s=1000.0)
HELLO = {"event": "hello", "cpus": [0, 1]}


def made_block(wall_ms: np.ndarray, waited: float = 0.0, **sensors: tuple) -> dict:
    wall = (wall_ms * 1e6).astype(int).tolist()
    before, after = ({name: pair[side] for name, pair in sensors.items()} for side in (0, 1))
    wait = [int(waited * ns) for ns in wall]
    return {"event": "block", "wall_ns": wall, "cpu_ns": wall, "wait_ns": wait, "before": before, "after": after}


def made_run(level: float = 1.0, *, seed: int = 0, steady: bool = True, runs: int = 40, blocks: int = 1, **more) -> Run:
    random = np.random.default_rng(seed)
    made = [made_block(level * random.normal(1, 0.002, runs), **more) for _ in range(blocks)]
    times = [{"event": "loaded", "wall_ns": int(20e6 * level)}, {"event": "first_inference", "wall_ns": int(5e6 * level)}]
    return Run.of([HELLO, *times, {"event": "warmup", "steady": steady}, *made, {"event": "done"}], block=blocks)


class Source:
    """Runs whose level is known; notes the order in which it was asked."""

    def __init__(self, name: str, level: float, order: list[str], scatter: float = 0.001):
        self.name, self.level, self.order, self.scatter = name, level, order, scatter
        self.random = np.random.default_rng(ord(name))

    def __call__(self) -> Run:
        self.order.append(self.name)
        return made_run(self.level * self.random.normal(1, self.scatter), seed=len(self.order))


def paired(variant: Source, reference: Source) -> pairs.RunPair:
    def pair(variant_first: bool) -> tuple[Run, Run]:
        if variant_first:
            return variant(), reference()
        its = reference()
        return variant(), its

    return pair


def run_rounds(bench: Bench = BENCH, scatter: float = 0.001, **more) -> tuple[pairs.PairedRuns, list[str]]:
    order: list[str] = []
    found = pairs.measure_pairs(paired(Source("B", 0.5, order, scatter), Source("A", 1.0, order, scatter)), bench, "b", **more)
    return found, order


def test_rounds_go_a_b_b_a_and_stop_at_the_interval():
    found, order = run_rounds()
    assert "".join(order) == "ABBAABBA" and found.stop == "ci"
    assert len(found.variant) == len(found.reference) == 4


def test_rounds_go_on_to_the_last_process_where_the_interval_stays_wide():
    found, order = run_rounds(scatter=0.2)
    assert "".join(order) == "ABBA" * 4 and found.stop == "budget"


def test_the_time_budget_ends_rounds_but_never_below_the_processes_asked_for():
    clock = iter(range(0, 10_000, 100)).__next__
    found, order = run_rounds(replace(BENCH, max_s=550.0), scatter=0.2, clock=clock)
    assert found.stop == "budget" and len(order) == 10
    clock = iter(range(0, 10_000, 1000)).__next__
    assert len(run_rounds(replace(BENCH, max_s=1.0), scatter=0.2, clock=clock)[1]) == 2 * BENCH.processes


def test_a_profile_that_claims_nothing_has_no_interval():
    bench = replace(BENCH, claims=False, processes=2)
    found, order = run_rounds(bench)
    result = results.make_bench_result(found, passes.Passes(), bench, variant="b", reference="a", threads=1, device_fingerprint="f")
    assert "".join(order) == "ABBA" and found.stop == "budget"
    assert result.latency.ratio_ci95 is None and result.latency.p50_ci95_ms is None
    assert result.latency.ratio_to_reference == pytest.approx(0.5, rel=0.01) and result.memory is None


def test_the_reference_against_itself_gives_the_smallest_claim():
    order: list[str] = []
    found = pairs.measure_pairs(paired(Source("B", 1.0, order, 0.01), Source("A", 1.0, order, 0.01)), BENCH, "a")
    result = results.make_bench_result(found, passes.Passes(), BENCH, variant="a", reference="a", threads=1, device_fingerprint="f")
    low, high = result.latency.ratio_ci95
    assert low <= 1 <= high and result.latency.smallest_claim_share == pytest.approx(max(1 - low, high - 1), rel=0.1)


def test_too_few_samples_are_no_reason_to_stop():
    found, _ = run_rounds(replace(BENCH, min_samples=40 * 6))
    assert len(found.variant) == 6 and found.stop == "ci"


def test_the_record_holds_what_was_measured():
    found, _ = run_rounds()
    marks = [("baseline", 100, 100), ("load", 300, 350), ("first_inference", 320, 350), ("runs", 330, 360), ("release", 110, 400)]
    parts = [{"rss": rss, "peak": peak, "anonymous": rss - 50, "file": 40, "shared": 10} for _, rss, peak in marks]
    events = [
        {"event": "memory", "mark": mark, "bytes": part, "peak_reset": True, "major_faults": 3}
        for (mark, _, _), part in zip(marks, parts, strict=True)
    ]
    result = results.make_bench_result(
        found, passes.Passes(Run.of(events)), BENCH, variant="b", reference="a", threads=1, device_fingerprint="f"
    )
    assert result.latency.p50_ms == pytest.approx(0.5, rel=0.01) and result.latency.reference_p50_ms == pytest.approx(1.0, rel=0.01)
    assert result.latency.ratio_ci95[0] <= result.latency.ratio_to_reference <= result.latency.ratio_ci95[1]
    assert result.latency.load_ms == pytest.approx(10, rel=0.01) and result.latency.first_inference_ms == pytest.approx(2.5, rel=0.01)
    assert (result.latency.processes, result.latency.samples) == (4, 160)
    assert result.latency.p95_ms is not None and result.latency.p99_ms is None
    assert result.memory == records.Memory(100, 300, 320, 400, 300, 110, running_anonymous_bytes=280, running_file_bytes=50)


@pytest.mark.parametrize(
    ("runs", "expected", "reason"),
    [
        ([made_run()] * 4, "clean", None),
        ([made_run(waited=0.05)] + [made_run()] * 4, "degraded", "20 % of the runs waited"),
        ([made_run(waited=0.05)] * 4, "noisy", "100 % of the runs waited"),
        ([made_run(waited=0.005)] * 4, "clean", None),
        ([made_run(1.0), made_run(1.1), made_run(1.2)], "degraded", "between the middle half"),
        ([made_run(1.0), made_run(2.0), made_run(3.0)], "noisy", "between the middle half"),
        ([made_run(steal_ns=(0, 40e6 * 0.2))] * 3, "noisy", "hypervisor"),
        ([made_run(cpu0_khz=(1.5e6, 1.5e6)), made_run(cpu0_khz=(1.43e6, 1.43e6))], "degraded", "lower frequency"),
        ([made_run(cpu0_khz=(0.0, 0.0))] * 3, "clean", None),  # as some virtual machines tell it
        ([made_run(steady=False)] * 3, "degraded", "never settled"),
    ],
)
def test_grades_and_their_evidence(runs, expected, reason):
    grade, words = results.grade(results.gather_evidence(runs, runs))
    assert grade == expected
    assert words is None if reason is None else reason in words


def test_a_kernel_without_schedstat_is_never_clean():
    run = made_run()
    for block in run.all("block"):
        block["wait_ns"] = None
    found = results.gather_evidence([run], [run])
    assert found["disturbed_share"] is None and found["steal_share"] is None and found["temperature_max_degc"] is None
    assert results.grade(found) == ("degraded", results.NO_WAITING)


def test_a_run_that_lacks_events_gives_no_number():
    with pytest.raises(ProtocolFault, match="1 events block where 2 were expected"):
        Run.of(made_run().events, block=2)


class Broken:
    def __init__(self, word: str):
        self.word = word

    def run(self, job, deadline_s):
        raise Fault(self.word, "seen")


@pytest.mark.parametrize(("word", "error"), [("model_aborted", VariantFailed), ("model_rejected", VariantFailed), ("killed", Fault)])
def test_only_the_files_own_faults_are_the_variants_failure(word, error):
    with pytest.raises(error, match="seen"):
        runs.PlacedVariant("onnx-fp32", {}, Broken(word), 1.0, {}).latency(BENCH)


def test_a_fault_leaves_as_a_device_error_with_its_word():
    with pytest.raises(DeviceError) as caught, connect(Plugin("local", "edgewise.devices.local", {"threads": 1})):
        raise Fault("oom_killed", "seen")
    assert caught.value.fault == "oom_killed" and caught.value.exit_code == 3


def minute_block(wall_ms: float, **sensors: float) -> dict:
    """Half a minute of runs at one speed."""
    return made_block(np.full(int(30_000 / wall_ms), wall_ms), **{name: (value, value) for name, value in sensors.items()})


def heated(end_ms: float, **end: float) -> Run:
    start = {"cpu0_khz": 1.5e6, "zone_mdegc": 50_000.0, "throttle_bits": 0x50000}
    return Run.of(
        [HELLO, *[minute_block(10.0, **start)] * 2, *[minute_block(12.0, **start)] * 2, *[minute_block(end_ms, **{**start, **end})] * 2]
    )


@pytest.mark.parametrize(
    ("end", "minute"), [({}, None), ({"cpu0_khz": 1.2e6}, 2), ({"throttle_bits": float(0x50004)}, 2), ({"cpu0_khz": 1.45e6}, None)]
)
def test_sustained_load_tells_drift_and_throttling(end, minute):
    rounds = pairs.PairedRuns((heated(15.0, zone_mdegc=83_000.0, **end),), (heated(10.0),), "budget")
    found = results.make_sustained(rounds)
    assert found is not None and found.minutes == 3 and found.throttled_from_minute == minute
    assert found.drift == pytest.approx(0.5) and found.temperature_max_degc == 83.0
    assert (found.ratio_start, found.ratio_end) == (pytest.approx(1.0), pytest.approx(1.5))


def test_a_short_run_says_nothing_of_sustained_load():
    assert results.make_sustained(pairs.PairedRuns((made_run(),), (made_run(),), "ci")) is None


@pytest.mark.parametrize(("bits", "share"), [((0x0, 0x0), 0.0), ((0x50000, 0x50000), 0.0), ((0x0, 0x40000), 1.0), ((0x4, 0x50004), 1.0)])
def test_throttle_bits_that_stick_since_boot_are_compared(bits, share):
    assert results.gather_evidence([made_run(throttle_bits=bits)], [made_run(throttle_bits=bits)])["throttled_share"] == share


def test_a_run_that_gets_slower_is_seen():
    slower = Run.of([HELLO, {"event": "warmup", "steady": True}, made_block(np.linspace(1.0, 1.3, 40))])
    found = results.gather_evidence([slower] * 3, [slower] * 3)
    assert found["quarter_drift"] == pytest.approx(0.22, abs=0.03) and results.grade(found)[0] == "noisy"


def test_cools_down_before_each_run():
    jobs_seen = []

    class Recorder:
        def run(self, job, deadline_s):
            jobs_seen.append(job)
            return [{"event": "cooled", "waited_s": 1.0, "hottest_mdegc": None}] if job["kind"] == "cool_down" else made_run().events

    bench = replace(BENCH, blocks=1)
    runs.PlacedVariant("onnx-fp32", {}, Recorder(), 9.0, {"below_degc": 55.0, "max_s": 5.0}).latency(bench)
    assert [job["kind"] for job in jobs_seen] == ["cool_down", "latency"] and jobs_seen[0]["below_degc"] == 55.0
