"""`edgewise trust`: how much the ratios of latencies move from one visit to the next on this device.

Two variants that use the machine unlike the reference are measured in many short visits over some minutes. What their visits differ by
more than their own intervals explain is the device's movement, which each visit of any variant is subject to.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from edgewise.artifacts import artifact, records, visits
from edgewise.artifacts.samples import Samples
from edgewise.artifacts.visits import Visit
from edgewise.config import schema
from edgewise.config.schema import Bench
from edgewise.devices.access import connect, lock
from edgewise.errors import UserError
from edgewise.measure import device_facts
from edgewise.measure.bench import place_pair
from edgewise.measure.collecting import estimate_trust
from edgewise.measure.pairs import MIN_PAIRS, RunPair, make_key, make_pair_runner, make_visit, measure_pairs
from edgewise.measure.runs import PlacedVariant
from edgewise.plugins import Connection

MODELS, METRICS = Path("models"), Path("metrics")
SHORT_BLOCKS = 20  # of a visit's processes: half of the profile quick
LEAST_VISITS = 3
WANTED = 2  # variants
Say = Callable[[str], None]


def check_plan(count: int, minutes: float) -> None:
    """UserError for too few visits to say anything of their spread, and for a time below 0."""
    if count < LEAST_VISITS:
        raise UserError(f"edgewise trust: --visits: {count} must be at least {LEAST_VISITS}; with fewer than 8 the result is rough")
    if not 0 <= minutes < math.inf:
        raise UserError(f"edgewise trust: --minutes: {minutes:g} must be 0 (no waiting) or more")


def short_visit(bench: Bench) -> Bench:
    """The profile for the visits of the study: as few pairs as give an interval, with short runs, and nothing but latency."""
    blocks = min(bench.blocks, SHORT_BLOCKS)
    return replace(bench, claims=True, processes=MIN_PAIRS, max_processes=MIN_PAIRS, blocks=blocks, min_samples=1)


def choose_variants(settings: schema.Config, given: Sequence[str] = ()) -> tuple[str, ...]:
    """The variants to visit: those given, else one with integer and one with float weights, each as far from the reference's latency as
    there is. UserError where fewer than two can be visited."""
    for name in given:
        artifact.require_ok(artifact.read(MODELS / "variants" / settings.variant(name).name), name)
    chosen = tuple(dict.fromkeys(given)) or pick_unlike(settings)
    if len(chosen) < WANTED or settings.reference in chosen:
        raise UserError(
            f"edgewise trust: {', '.join(chosen) or 'no variant'} beside the reference {settings.reference}; it needs at least {WANTED}"
            " other variants, ideally one of integers and one of floats: add them to params.yaml and run `dvc repro` first"
        )
    return chosen


def pick_unlike(settings: schema.Config) -> tuple[str, ...]:
    """Names of at most WANTED variants that were made and differ most from the reference, of both kinds of weights where there are both."""
    ranked = sorted((name for name in settings.variants if name != settings.reference and is_made(name)), key=distance, reverse=True)
    kinds = [[name for name in ranked if has_integers(name) is kind] for kind in (True, False)]
    first = [names[0] for names in kinds if names]
    return tuple([*first, *(name for name in ranked if name not in first)][:WANTED])


def is_made(name: str) -> bool:
    folder = MODELS / "variants" / name
    return (folder / artifact.MANIFEST).exists() and artifact.read(folder).ok


def has_integers(name: str) -> bool:
    """Whether most bytes of the weights are integers."""
    weights = artifact.read(MODELS / "variants" / name).details["facts"]["weights_bytes_by_dtype"]
    return bool(sum(count for dtype, count in weights.items() if "int" in dtype) > sum(weights.values()) / 2)


def distance(name: str) -> float:
    """How far its latency lies from the reference's, as the logarithm of their ratio; 0 where it was not measured."""
    path = METRICS / "bench" / f"{name}.json"
    record = records.read(records.BenchResult, path) if path.exists() else None
    ratio = record.latency.ratio_to_reference if isinstance(record, records.BenchResult) else None
    return abs(math.log(ratio)) if ratio else 0.0


@dataclass(frozen=True)
class Subject:
    """A variant of the study with the reference beside it, both on the device."""

    variant: PlacedVariant
    reference: PlacedVariant
    bench: Bench
    key: str

    @cached_property
    def pair(self) -> RunPair:
        """Made in the first visit, since it times a run first."""
        return make_pair_runner(self.variant, self.reference, self.bench)

    def visit(self) -> Visit:
        start = time.monotonic()
        found = measure_pairs(self.pair, self.bench, self.variant.name)
        names = {"key": self.key, "variant": self.variant.name, "reference": self.reference.name}
        visit = make_visit(found, self.bench, time.monotonic() - start, visits.STUDY, **names)
        assert visit is not None  # short_visit claims, and asks for enough pairs
        return visit


def run_study(settings: schema.Config, names: Sequence[str], count: int, minutes: float, say: Say = print) -> list[Visit]:
    """Visit each variant `count` times, evenly over so many minutes, or as fast as it goes. Each visit is stored as it ends.

    The device is locked while it measures, and free between visits.
    """
    fingerprint, found = require_probed(settings), []
    with tempfile.TemporaryDirectory() as folder, connect(settings.device) as connection:
        with lock(settings.device), connection.reserve():
            subjects = [make_subject(settings, name, fingerprint, connection, Path(folder)) for name in names]
        for number in spread_over_time(count, 60 * minutes):
            with lock(settings.device), connection.reserve():
                visited = [subject.visit() for subject in (subjects if number % 2 == 0 else subjects[::-1])]
            for visit in visited:
                visits.append(visit, fingerprint)
            found += visited
            say(f"visit {number + 1} of {count}: " + ", ".join(f"{visit.variant} {visit.ratio:.3f}" for visit in visited))
    return found


def describe_trust(settings: schema.Config) -> str:
    """What is known of the device now, and what to do next."""
    fingerprint = records.read_plain(METRICS / "device.json")["fingerprint"]
    known = estimate_trust(visits.read_store(fingerprint).values(), fingerprint, settings.bench.interleave)
    if known is None:
        return "no variant was visited twice: nothing is known of how far visits lie apart"
    most = "" if known.resolved else "an unknown amount up to about "
    moves = (
        f"{most}{100 * known.log_variance**0.5:.2g} % (standard deviation, {known.degrees:.3g} degrees of freedom, {known.visits} visits)"
    )
    return (
        f"from visit to visit ratios move by {moves} beyond what a visit's own interval says; `dvc repro` adds it to every interval and"
        f" measures nothing{'' if known.resolved else '; visits in a quieter hour would know it better'}"
    )


def require_probed(settings: schema.Config) -> str:
    """The device's fingerprint. UserError where it is emulated, or is not the one of metrics/device.json."""
    if settings.device.load().EMULATED:
        raise UserError(f"edgewise trust: the device '{settings.device.name}' is emulated, and nothing is timed on it; name a real one")
    known = records.read_plain(METRICS / "device.json")["fingerprint"]
    now = device_facts.make_device_record(settings, device_facts.probe(settings))["fingerprint"]
    if known != now:
        raise UserError("edgewise trust: the device is not the one of metrics/device.json, or it has changed: run `dvc repro` first")
    return str(now)


def make_subject(settings: schema.Config, name: str, fingerprint: str, connection: Connection, folder: Path) -> Subject:
    """Place a variant and the reference on the device. folder: a temporary one, for the inputs."""
    bench, samples = short_visit(settings.bench), Samples.open(MODELS / "data")
    own = folder / name
    own.mkdir()
    variant, reference = place_pair(settings, name, samples, connection, own)
    return Subject(
        variant, reference, bench, make_key(variant, reference, bench, fingerprint, records.read_plain(METRICS / "runtimes.json"))
    )


def spread_over_time(count: int, seconds: float) -> Iterator[int]:
    """Yield 0 to count - 1, waiting before each until its share of the time is over."""
    start = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, start + seconds * number / max(1, count - 1) - time.monotonic()))
        yield number
