"""The classes of a model that the user brings: a file with one name a line, in the order of the model's outputs.

The folders of the data set then need not be all of them, nor in this order: each is found among the names, or among the
synonyms that a line lists with commas (`tench, Tinca tinca`).
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stages.core.errors import ConfigError, DataError

BACKGROUND = "background"


def read(path: Path, offset: int) -> list[str]:
    """One name for each output, none twice. offset: outputs before the first line; negative: lines before the first output."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.label_names: {path}: {getattr(error, 'strerror', None) or error}; give a text of one class a line") from None
    names = [line.strip() for line in lines if line.strip()]
    if len(names) + min(offset, 0) < 2:
        raise ConfigError(f"data.label_offset: {offset} with {len(names)} names in {path} leaves fewer than two classes")
    before = [BACKGROUND] if offset == 1 else [f"{BACKGROUND} {i}" for i in range(offset)]
    return unique([*before, *names[max(0, -offset) :]])


def unique(names: Sequence[str]) -> list[str]:
    """Two kinds of crane are two classes: a name that was there before gets its place in brackets."""
    seen: set[str] = set()
    found = []
    for place, name in enumerate(names):
        found.append(f"{name} ({place})" if name in seen else name)
        seen.add(name)
    return found


def find(labels: Iterable[str], names: Sequence[str]) -> dict[str, int]:
    """Position in `names` of each label of the data. DataError for a label that is in none of them, or in several."""
    places: dict[str, set[int]] = {}
    for place, name in enumerate(names):
        for synonym in (name, *name.split(",")):
            places.setdefault(plain(synonym), set()).add(place)
    whole = {plain(name): place for place, name in enumerate(names)}
    return {label: whole[plain(label)] if plain(label) in whole else _only(label, places, names) for label in labels}


def plain(name: str) -> str:
    return name.replace("_", " ").strip().casefold()


def _only(label: str, places: Mapping[str, set[int]], names: Sequence[str]) -> int:
    found = sorted(places.get(plain(label), ()))
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"data.label_names: {label!r} is in several lines ({'; '.join(names[i] for i in found)}); use the whole name of one"
        )
    close = difflib.get_close_matches(plain(label), places, n=3)
    raise DataError(
        f"data.label_names: {label!r}, a class of the data, is none of the {len(names)} names; near to it: {', '.join(close) or 'nothing'};"
        " rename the class, or mend the file"
    )
