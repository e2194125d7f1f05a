"""`edgewise compare`: the same file under two releases of its runtime, its outputs and, in turns, its latency."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgewise.artifacts import artifact, records
from edgewise.artifacts.samples import Samples
from edgewise.artifacts.visits import Trust
from edgewise.config import schema
from edgewise.devices import environments
from edgewise.devices.access import lock
from edgewise.devices.environments import Environment, Requirement
from edgewise.devices.local import COMMAND
from edgewise.errors import EdgewiseError, UserError, VariantFailed
from edgewise.measure import device_outputs
from edgewise.measure.collecting import read_trust, to_measured
from edgewise.measure.pairs import make_pair_runner, make_visit, measure_pairs
from edgewise.measure.runs import PlacedVariant, blocks_by_process, place_variant, store_inputs
from edgewise.stats.agreement import HIGHEST_DB, GroupAgreement, compare_groups
from edgewise.stats.random_effects import Spread, pool
from edgewise.stats.timing import median_ratio

MODELS = Path("models")
SAMPLES = 16  # whose outputs are compared where the profile compares none


@dataclass(frozen=True)
class Compared:
    """The file of a variant under the release that is `installed` and under `other`. ratio: latency under `other` / under `installed`.

    between_visits: whether the interval holds for other visits too; None without an interval.
    """

    variant: str
    installed: str
    other: str
    samples: int
    outputs: tuple[GroupAgreement, ...]
    ratio: float
    ratio_ci95: tuple[float, float] | None
    between_visits: bool


def compare_releases(settings: schema.Config, name: str, requirement: Requirement) -> Compared:
    """UserError for a variant that was not made, a package that is not its runtime, and a device that is not this machine; EdgewiseError
    where one of the releases cannot run the file."""
    variant = settings.variant(name)
    artifact.require_ok(artifact.read(MODELS / "variants" / name), name)
    runner = schema.part(variant.module, "run")
    check_request(settings, requirement, runner.PACKAGE, name)
    python = environments.make_environment(requirement)
    with tempfile.TemporaryDirectory() as folder, lock(settings.device):
        code = environments.ship_code(f"{variant.module}.run", Path(folder) / "code")
        here, there = (place_under(settings, variant, p, code, Path(folder)) for p in (Path(COMMAND[0]), python))
        there = replace(there, name=f"{name} under {requirement}")
        feeds = device_outputs.store_feeds(Samples.open(MODELS / "data"), settings.bench.agreement_samples or SAMPLES, Path(folder))
        try:
            outputs = [device_outputs.compute_on_device(placed, feeds) for placed in (here, there)]
            return measure_both(settings, here, there, outputs, requirement)
        except VariantFailed as failure:
            raise EdgewiseError(f"edgewise compare: {failure}") from failure


def check_request(settings: schema.Config, requirement: Requirement, package: str, name: str) -> None:
    if normalized(requirement.package) != normalized(package):
        raise UserError(
            f"edgewise compare: {requirement.package} is not the runtime of {name}; that is {package}, so give --with {package}==..."
        )
    if settings.device.module != "edgewise.devices.local":
        raise UserError(
            f"edgewise compare: the device '{settings.device.name}' is not this machine, and environments are made only here; set"
            " device.name=local, or install the other release there and run `dvc repro`"
        )


def normalized(package: str) -> str:
    return package.lower().replace("_", "-").replace(".", "-")


def place_under(settings: schema.Config, variant: schema.Variant, python: Path, code: Path, folder: Path) -> PlacedVariant:
    """The variant on this machine, run by another Python. folder: a temporary one, for the inputs."""
    samples, connection = Samples.open(MODELS / "data"), Environment(python, code)
    store_inputs(samples, settings.bench.scope, folder)
    placed = place_variant(variant, MODELS, str(folder / "inputs.npz"), samples, settings.bench, settings.device, connection)
    return replace(placed, fields={**placed.fields, "python": str(python)})


def measure_both(
    settings: schema.Config, here: PlacedVariant, there: PlacedVariant, outputs: list[device_outputs.Arrays], requirement: Requirement
) -> Compared:
    bench, start = settings.bench, time.monotonic()
    found = measure_pairs(make_pair_runner(there, here, bench), bench, here.name)
    names = {"key": "", "variant": there.name, "reference": here.name}
    visit = make_visit(found, bench, time.monotonic() - start, **names)
    trust = known_trust()
    spread = Spread(trust.log_variance, trust.degrees) if trust else None
    installed, other = (run[0].one("hello")["versions"].get(requirement.package, "?") for run in (found.reference, found.variant))
    return Compared(
        variant=here.name,
        installed=f"{requirement.package} {installed}",
        other=f"{requirement.package} {other}",
        samples=len(next(iter(outputs[0].values()))),
        outputs=tuple(compare_groups(*outputs)),
        ratio=visit.ratio if visit else median_ratio(blocks_by_process(found.variant), blocks_by_process(found.reference)),
        ratio_ci95=pool([to_measured(visit)], spread).interval() if visit else None,
        between_visits=trust is not None,
    )


def known_trust() -> Trust | None:
    """The trust of metrics/trust.json, where it is of the device that was probed last."""
    path, trust = records.METRICS / "device.json", read_trust()
    known = trust is not None and path.exists() and records.read_plain(path)["fingerprint"] == trust.fingerprint
    return trust if known else None


def describe_compared(found: Compared) -> Iterator[str]:
    """Lines for the terminal: the outputs by port and group, then the latency."""
    yield f"{found.variant}: one file under {found.installed}, which is installed, and under {found.other}"
    for each in found.outputs:
        same = each.sqnr_db == HIGHEST_DB
        seen = "identical bit by bit" if same else f"SQNR {each.sqnr_db:.1f} dB, largest difference {each.largest_difference:.3g}"
        yield f"  output {each.name}: {seen}, {found.samples} samples{'; it no longer moves' if each.dead else ''}"
    interval = f" [{found.ratio_ci95[0]:.3f}, {found.ratio_ci95[1]:.3f}]" if found.ratio_ci95 else ", without an interval (profile)"
    within = "" if found.between_visits or not found.ratio_ci95 else ", within this visit"
    yield f"  latency: {found.other} takes {found.ratio:.3f}{interval} of the time of {found.installed}, in turns{within}"
