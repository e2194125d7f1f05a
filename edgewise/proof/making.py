"""Run a format's make.py and describe what it wrote: shared by the stages that make models."""

import contextlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise.agent.ports import PORTS_FILE
from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.errors import MissingExtra, VariantFailed
from edgewise.plugins import Maker
from edgewise.proof import checks, isolation
from edgewise.stats.agreement import GroupAgreement, worst_of

SOURCE = Path("models/source")
DIGITS = 2  # of an SQNR in dB
INHERITED = ("layout", "meaning", "sample_axis", "value", "state")  # fields of a port that no converter changes


@contextlib.contextmanager
def translate_errors(requires: Mapping[str, str], module: str | None = None) -> Iterator[None]:
    """For a block that calls make.py: a missing package becomes MissingExtra, a ValueError (what the format cannot do) VariantFailed.

    requires: REQUIRES of make.py. module: the format, if files of one are made; if a package of its runtime is missing, that is
    VariantFailed too.
    """
    try:
        with isolation.translate_missing_runtime(module) if module else contextlib.nullcontext():
            yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in requires:
            raise
        raise MissingExtra(package, requires[package]) from None
    except ValueError as error:
        raise VariantFailed(" ".join(str(error).split())) from error


def unreadable_source(make: Maker, kind: str) -> VariantFailed:
    """The error for a source of format `kind` that make.py cannot read, with another way to the same end if there is one."""
    advice = f"; {make.ELSEWHERE[kind]}" if kind in make.ELSEWHERE else ""
    return VariantFailed(f"not from a source of format {kind}: this format reads {', '.join(make.SOURCES)}{advice}")


def write_schemes(target: Path, variants: Mapping[str, Mapping[str, Any]], blank: Manifest, work: Callable[[str, Path], Manifest]) -> None:
    """Write `target`/SCHEME for every scheme: what work(scheme, folder) makes if variants have the scheme, else a manifest `skipped`.

    variants: by scheme. A VariantFailed in the work is written as `skipped`, too, with its reason: the variants that need it fail with it.
    """
    with artifact.building(target) as folder:
        for scheme, wanted in variants.items():
            place = folder / scheme
            place.mkdir()
            made = replace(blank, scheme=scheme, status="skipped", reason=f"no variant of scheme {scheme} asks for it")
            if wanted:
                try:
                    made = work(scheme, place)
                except VariantFailed as failure:
                    made = replace(made, reason=str(failure))
                    print(f"{target}: {scheme}: skipped: {failure}", file=sys.stderr)
            artifact.write(place, made)


def compare_with_source(module: str, folder: Path, engine: Mapping[str, Any], min_db: float, source: Path = SOURCE) -> list[GroupAgreement]:
    """The outputs of the model in `folder`, run in a process of its own, against those of `source` for its probe samples, by group.
    VariantFailed below min_db (see `checks.least_sqnr_db`), and as `checks.compare_outputs`."""
    inputs, expected = checks.read_probe(source)
    given = isolation.compute_outputs(module, folder, {"threads": 1, **engine}, inputs)
    return checks.compare_outputs(expected, given, checks.least_sqnr_db(min_db, artifact.read(source).details.get("precision")))


def check_against_source(module: str, folder: Path, engine: Mapping[str, Any], min_db: float, source: Path = SOURCE) -> float:
    """The lowest SQNR in dB of `compare_with_source`."""
    return lowest_db(compare_with_source(module, folder, engine, min_db, source))


def lowest_db(found: Sequence[GroupAgreement]) -> float:
    return round(worst_of(found).sqnr_db, DIGITS)


def describe_agreement(found: Sequence[GroupAgreement]) -> list[dict[str, Any]]:
    """The groups as entries of a manifest's details, the one that agrees least first."""
    ordered = sorted(found, key=lambda one: one.sqnr_db)
    return [
        {"output": one.output, "group": one.group, "sqnr_db": round(one.sqnr_db, DIGITS), "largest_difference": one.largest_difference}
        for one in ordered
    ]


def make_tensors(given: Sequence[Mapping[str, Any]], source: Sequence[Port]) -> tuple[Port, ...]:
    """The ports that make.py describes; what it does not say of one is taken from the source's port of that name."""
    known = {tensor.name: tensor for tensor in source}
    made = []
    for entry in given:
        origin = known.get(entry["name"])
        inherited = {key: getattr(origin, key) for key in INHERITED} if origin else {}
        made.append(Port(**{**inherited, **entry, "shape": tuple(entry["shape"])}))
    return tuple(made)


def write_ports(folder: Path, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
    """Write ports.json of a model (see agent.ports) where a port is a constant, carries state or has its samples elsewhere than first."""
    plan = artifact.plan_ports(inputs, outputs)
    if any(plan.values()):
        artifact.write_json(folder / PORTS_FILE, plan)


def find_tool_versions(packages: Mapping[str, str]) -> dict[str, str]:
    """Installed versions of the distributions that provide these import names."""
    owners = importlib.metadata.packages_distributions()
    return {name: importlib.metadata.version(owners[name][0]) for name in sorted(packages) if name in owners}
