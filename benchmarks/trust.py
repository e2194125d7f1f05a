"""Are the intervals right? A against A, and A against B with a known ratio, on a quiet machine and beside a busy core.

    python -m benchmarks.trust aa --repeats 10 --busy 1      reference against itself, quiet and with one core kept busy
    python -m benchmarks.trust ab --variant onnx-int8-static --busy 1
    python -m benchmarks.trust visits --variants onnx-int8-static onnx-fp16 --visits 20 --minutes 40 --busy 1    see single_visits.py
    python -m benchmarks.trust designs                       designs of one, two and three visits, from the visits stored by `visits`
    python -m benchmarks.trust verdicts --visits 5           verdicts of one run against the other runs, all variants; see verdict_runs.py
    python -m benchmarks.trust tools --variants onnx-fp32    against benchmark_app and litert-benchmark

Run in a project after `dvc repro`. Each repeat is measured interleaved, as the bench stage does (bench.interleave of the profile),
first quiet, then with busy cores, so that slow changes of the machine affect both; with busy cores also sequentially (all of
A, then all of B), with as many processes. The true ratio is 1 for `aa`; for `ab` it is that of all interleaved pairs on the quiet machine.
"""

import argparse
import contextlib
import functools
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from benchmarks import single_visits, verdict_runs, visit_designs
from benchmarks.foreign_tools import at_a_stretch, compare
from edgewise.artifacts import records
from edgewise.artifacts.samples import Samples
from edgewise.artifacts.visits import Trust
from edgewise.config import schema
from edgewise.config.choices import without_margin
from edgewise.config.settings import build
from edgewise.devices.access import connect
from edgewise.measure.pairs import PairedRuns, make_pair_runner, measure_pairs
from edgewise.measure.runs import PlacedVariant, Run, blocks_by_process, place_variant, store_inputs
from edgewise.stats.timing import Side, median_ratio, percentile_levels, ratio_interval

MODELS = Path("models")
SPIN = "while True: pass"
DRAWS = 4000


@dataclass(frozen=True)
class Found:
    ratio: float
    low: float
    high: float

    def holds(self, truth: float) -> bool:
        return self.low <= truth <= self.high

    @property
    def width(self) -> float:
        """The whole interval as a share of the ratio."""
        return (self.high - self.low) / self.ratio


Rows = dict[str, list[Found]]


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many processes that never sleep."""
    running = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def interleaved(variant: PlacedVariant, reference: PlacedVariant, bench: schema.Bench) -> PairedRuns:
    return measure_pairs(make_pair_runner(variant, reference, bench), bench, variant.name)


def paired(found: Sequence[PairedRuns]) -> Found:
    """Ratio and interval of all pairs together."""
    variant, reference = (blocks_by_process(run for each in found for run in getattr(each, side)) for side in ("variant", "reference"))
    return Found(median_ratio(variant, reference), *ratio_interval(variant, reference))


def sequential(variant: PlacedVariant, reference: PlacedVariant, bench: schema.Bench, processes: int) -> Found:
    """What is usually done: one after the other, the samples of each pooled over processes."""
    sides: list[list[Run]] = [[measured.latency(at_a_stretch(bench)) for _ in range(processes)] for measured in (reference, variant)]
    return unpaired(blocks_by_process(sides[1]), blocks_by_process(sides[0]))


def unpaired(variant: Side, reference: Side) -> Found:
    """Ratio of the medians over processes, with a bootstrap that draws the processes of each side on their own."""
    random = np.random.default_rng(0)
    medians = [np.array([np.median(np.concatenate(list(process))) for process in s]) for s in (variant, reference)]
    drawn = [np.median(m[random.integers(len(m), size=(DRAWS, len(m)))], axis=1) for m in medians]
    low, high = np.quantile(drawn[0] / drawn[1], percentile_levels(len(variant)))
    return Found(float(np.median(medians[0]) / np.median(medians[1])), float(low), float(high))


def profile(name: str) -> schema.Bench:
    settings = yaml.safe_load(Path(f"conf/bench/{name}.yaml").read_text(encoding="utf-8"))
    return build(schema.Bench, {**without_margin("bench", settings), "name": name}, f"conf/bench/{name}.yaml")


@contextlib.contextmanager
def subjects(settings: schema.Config, names: Sequence[str], bench: schema.Bench) -> Iterator[list[PlacedVariant]]:
    with tempfile.TemporaryDirectory() as folder, connect(settings.device) as connection:
        samples = Samples.open(MODELS / "data")
        store_inputs(samples, bench.scope, Path(folder))
        inputs = f"{connection.place(Path(folder))}/inputs.npz"
        yield [place_variant(settings.variant(n), MODELS, inputs, samples, bench, settings.device, connection) for n in names]


def table(rows: dict[str, list[Found]], truth: float) -> str:
    columns = "| order | holds the truth | median width | worst width | points from .. to | worst error |"
    lines = [
        f"| {name} | {sum(f.holds(truth) for f in found)} of {len(found)} | {np.median([f.width for f in found]):.1%} "
        f"| {max(f.width for f in found):.1%} | {min(f.ratio for f in found):.3f} .. {max(f.ratio for f in found):.3f} "
        f"| {max(abs(f.ratio / truth - 1) for f in found):.1%} |"
        for name, found in rows.items()
    ]
    return "\n".join([columns, "|---|---|---|---|---|---|", *lines])


def study(
    variant: PlacedVariant, reference: PlacedVariant, bench: schema.Bench, repeats: int, busy: int, beside: bool
) -> tuple[Rows, Found]:
    """The rows of the table, and all interleaved pairs in quiet taken together. beside: where it is busiest, measure sequentially, too."""
    rows: Rows = defaultdict(list)
    quiet: list[PairedRuns] = []
    for count in (0, busy) * repeats if busy else (0,) * repeats:
        label = f"{count} busy" if count else "quiet"
        with neighbours(count):
            found = interleaved(variant, reference, bench)
            rows[f"{bench.interleave}, {label}"].append(paired([found]))
            if beside and count == busy:
                rows[f"sequential, {label}"].append(sequential(variant, reference, bench, len(found.variant)))
        quiet += [] if count else [found]
    return rows, paired(quiet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("aa", "ab", "tools", "visits", "designs", "verdicts"))
    parser.add_argument("--variant", default="onnx-int8-static")
    parser.add_argument("--variants", nargs="+", default=["onnx-fp32"])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--busy", type=int, default=0, help="neighbours that never sleep")
    parser.add_argument("--no-sequential", action="store_true", help="leave out the usual way, which takes half of the time")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--visits", type=int, default=20, help="of each variant in each condition")
    parser.add_argument("--minutes", type=float, default=40.0, help="over which all visits are spread, at least")
    parser.add_argument("--margin", type=float, default=0.03, help="of `verdicts`: the difference that does not matter, as a share")
    parser.add_argument("--raw", type=Path, default=Path("single_visits.json"), help="file for every visit")
    arguments = parser.parse_args()
    settings, bench = schema.read(), profile(arguments.profile)
    print(f"{arguments.what}, profile {arguments.profile}, {arguments.busy} busy neighbours, reference {settings.reference}")
    tasks: dict[str, Callable[[], str]] = {
        "aa": lambda: against(settings, settings.reference, bench, arguments),
        "ab": lambda: against(settings, arguments.variant, bench, arguments),
        "visits": lambda: single(settings, bench, arguments),
        "designs": lambda: visit_designs.describe(arguments.raw),
        "verdicts": lambda: verdicts(settings, bench, arguments),
        "tools": lambda: compare(settings, arguments.variants, bench, arguments.repeats, subjects),
    }
    print(tasks[arguments.what]())


def single(settings: schema.Config, bench: schema.Bench, arguments: argparse.Namespace) -> str:
    trust = single_visits.known_trust()
    with subjects(settings, [*arguments.variants, settings.reference], bench) as (*placed, reference):
        found = visit(placed, reference, bench, trust, arguments, arguments.busy)
    return single_visits.describe(found, trust)


def visit(
    placed: Sequence[PlacedVariant], reference: PlacedVariant, bench: schema.Bench, trust: Trust, arguments: argparse.Namespace, busy: int
) -> single_visits.Found:
    """All visits asked for, with those that the raw file holds already."""
    plan = single_visits.Plan(arguments.visits, arguments.minutes, busy, neighbours)
    before = visit_designs.read_raw(arguments.raw)[0] if arguments.raw.exists() else {}
    keep = functools.partial(single_visits.write_raw, trust=trust, path=arguments.raw)
    return single_visits.visit_in_turns(placed, reference, bench, plan, before, keep)


def verdicts(settings: schema.Config, bench: schema.Bench, arguments: argparse.Namespace) -> str:
    trust = single_visits.known_trust()
    rows = records.read_plain(records.METRICS / "summary.json")["variants"]
    ready = [name for name in settings.variants if name in rows and rows[name]["status"] == "ok"]
    with subjects(settings, [*ready, settings.reference], bench) as (*placed, reference):
        found = visit(placed, reference, bench, trust, arguments, busy=0)
    runs = {name: conditions[single_visits.QUIET] for name, conditions in found.items()}
    return verdict_runs.describe(runs, runs.pop(settings.reference), trust, arguments.margin)


def against(settings: schema.Config, name: str, bench: schema.Bench, arguments: argparse.Namespace) -> str:
    with subjects(settings, [name, settings.reference], bench) as (variant, reference):
        rows, quiet = study(variant, reference, bench, arguments.repeats, arguments.busy, not arguments.no_sequential)
    truth = 1.0 if name == settings.reference else quiet.ratio
    plain = {order: [(f.ratio, f.low, f.high) for f in found] for order, found in rows.items()}
    head = f"{name}: true ratio {truth:.4f}; all quiet pairs together {quiet.ratio:.4f} [{quiet.low:.4f}, {quiet.high:.4f}]"
    return f"{head}\n\n{table(rows, truth)}\n{json.dumps(plain)}"


if __name__ == "__main__":
    main()
