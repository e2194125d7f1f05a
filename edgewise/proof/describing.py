"""What the stages that make models share: running a format's make.py and describing what came out."""

import contextlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Tensor
from edgewise.errors import MissingExtra, VariantFailed
from edgewise.plugins import Maker
from edgewise.proof import checks, isolation

SOURCE = Path("models/source")


@contextlib.contextmanager
def making(requires: Mapping[str, str], module: str | None = None) -> Iterator[None]:
    """Around calls into make.py: a missing package becomes MissingExtra, a ValueError (the format's 'cannot') VariantFailed.

    module: of the format that is made, if one is: what comes with its runtime fails the variant where it is missing.
    """
    try:
        with isolation.running(module) if module else contextlib.nullcontext():
            yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in requires:
            raise
        raise MissingExtra(package, requires[package]) from None
    except ValueError as error:
        raise VariantFailed(" ".join(str(error).split())) from error


def unread(make: Maker, kind: str) -> VariantFailed:
    """Why a format cannot be made of a source of format `kind`, with what leads there all the same."""
    more = f"; {make.ELSEWHERE[kind]}" if kind in make.ELSEWHERE else ""
    return VariantFailed(f"not from a source of format {kind}: this format reads {', '.join(make.SOURCES)}{more}")


def by_scheme(target: Path, errands: Mapping[str, Mapping[str, Any]], blank: Manifest, work: Callable[[str, Path], Manifest]) -> None:
    """Write `target`/SCHEME for every scheme: what work(scheme, folder) makes where a variant has an errand, else a manifest `skipped`.

    Also skipped, with the reason, where the work fails for good (VariantFailed): the variants that need it pass that on.
    """
    with artifact.building(target) as folder:
        for scheme, wanted in errands.items():
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


def against_source(module: str, folder: Path, engine: Mapping[str, Any], least_db: float, source: Path = SOURCE) -> float:
    """SQNR in dB of the model in `folder`, run in a process of its own, against the outputs of `source` on its probe samples."""
    inputs, expected = checks.probe(source)
    given = isolation.outputs(module, folder, {"threads": 1, **engine}, inputs)
    return round(checks.check_outputs(expected, given, least_db), 2)


def tensors(given: Sequence[Mapping[str, Any]], source: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The tensors of a format; layout and meaning are the source's unless the format says otherwise."""
    known = {tensor.name: tensor for tensor in source}
    made = []
    for entry in given:
        origin = known.get(entry["name"])
        inherited = {"layout": origin.layout, "meaning": origin.meaning} if origin else {}
        made.append(Tensor(**{**inherited, **entry, "shape": tuple(entry["shape"])}))
    return tuple(made)


def tool_versions(packages: Mapping[str, str]) -> dict[str, str]:
    """Installed versions of the distributions that provide these import names."""
    owners = importlib.metadata.packages_distributions()
    return {name: importlib.metadata.version(owners[name][0]) for name in sorted(packages) if name in owners}
