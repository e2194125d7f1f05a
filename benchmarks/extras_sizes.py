"""How large each extra of pyproject.toml is on the disk, from what is installed here.

    python -m benchmarks.extras_sizes

Counts the files of Edgewise's own dependencies and of each extra's, with all that they need, each package once. An extra's figure is
what `pip install '.[EXTRA]'` puts into an empty environment; packages that are not installed here are named and not counted.
"""

from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = "edgewise"
COLUMNS = "| extra | MB | packages | largest |\n| --- | --- | --- | --- |"
LARGEST = 3


def closure(extra: str | None) -> tuple[set[str], set[str]]:
    """The packages that the extra needs with all that they need; those among them that are not installed."""
    pending = [(PROJECT, frozenset({extra} if extra else ()))]
    seen, missing = set(pending), set()
    while pending:
        name, extras = pending.pop()
        try:
            requirements = metadata.distribution(name).requires or []
        except metadata.PackageNotFoundError:
            missing.add(name)
            continue
        for found in needed(requirements, extras):
            if found not in seen:
                seen.add(found)
                pending.append(found)
    return {name for name, _ in seen} - missing - {PROJECT}, missing


def needed(requirements: Iterable[str], extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Requirements that hold on this machine, by canonical name."""
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement.name.lower().replace("_", "-").replace(".", "-"), frozenset(requirement.extras)


def size_bytes(name: str) -> int:
    """Of the files that the package installed. ValueError where it recorded none."""
    files = metadata.distribution(name).files
    if files is None:
        raise ValueError(f"{name} has no record of its files; install it with pip")
    return sum(path.stat().st_size for path in (Path(file.locate()) for file in files) if path.is_file())


def row(label: str, extra: str | None) -> str:
    packages, missing = closure(extra)
    sizes = {name: size_bytes(name) for name in packages}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
    told = ", ".join(f"{name} {sizes[name] / 1e6:.0f}" for name in largest) + (
        f"; not here: {', '.join(sorted(missing))}" if missing else ""
    )
    return f"| {label} | {sum(sizes.values()) / 1e6:.0f} | {len(packages)} | {told} |"


def main() -> None:
    print(COLUMNS)
    print(row("(none)", None))
    for extra in metadata.metadata(PROJECT).get_all("Provides-Extra") or []:
        print(row(f"`{extra}`", extra))


if __name__ == "__main__":
    main()
