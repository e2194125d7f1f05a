"""What data sets of text files share: the files and their splits, and lines or records as samples."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.config.settings import option
from edgewise.data.common import SPLIT_NAMES, check_unreadable, follow, sort_numerically
from edgewise.data.wordpiece import TextSettings
from edgewise.errors import DataError
from edgewise.plugins import Item, Unreadable

Record = tuple[int, Sequence[str]]  # number of its line in the file, counted from 1, and its columns


@dataclass(frozen=True, kw_only=True)
class TextFileSettings(TextSettings):
    """Settings that every data set of text files has."""

    path: str = option(help="a file, or a folder with train, dev and test files; absolute or relative to the project")
    max_unreadable_share: float = option(0.01, "largest share of samples that may lack text or label", low=0.0, high=1.0)

    def sort_labels(self, labels: Any) -> list[str]:
        return sort_numerically(labels)


@dataclass(frozen=True)
class Kind:
    """suffixes: of the files in a folder. expected: what to give instead of a path that is no such file, as a clause. noun: of samples."""

    suffixes: tuple[str, ...]
    expected: str
    noun: str


@dataclass(frozen=True)
class Columns:
    """Which columns hold the text, joined by `separator`, and the label; None: there are no labels."""

    texts: tuple[int, ...]
    label: int | None
    separator: str = " "

    def sample(self, name: str, cells: Sequence[str], split: str | None) -> Item | Unreadable:
        if max((*self.texts, -1 if self.label is None else self.label)) >= len(cells):
            return Unreadable(name, f"{len(cells)} columns")
        text = self.separator.join(part for place in self.texts if (part := cells[place].strip()))
        label = None if self.label is None else cells[self.label].strip()
        if not text or label == "":
            return Unreadable(name, "no label" if text else "no text")
        return Item(name, label, None, hashlib.sha256(text.encode()).hexdigest(), text, split)


def probe_files(settings: TextFileSettings, kind: Kind) -> dict[str, Any]:
    """Digest of the files' content, which is small enough to be read on each run."""
    files = list(list_files(settings, kind))
    paths = [*files, Path(settings.tokenizer).expanduser()] if settings.tokenizer else files
    digests = [f"{path.name} {hashlib.sha256(read_bytes(path, kind)).hexdigest()}" for path in paths]
    digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return {"digest": digest, "files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def read_items(
    settings: TextFileSettings, kind: Kind, records: Callable[[Path], tuple[Columns, Iterable[Record]]]
) -> Iterator[Item | Unreadable]:
    """The samples of all files. Repeated texts have the same hash and thus form a group. records: of one file, with its columns."""
    unreadable, total = [], 0
    for path, split in list_files(settings, kind).items():
        columns, rows = records(path)
        for number, cells in follow(rows, f"reading {path.name}", kind.noun):
            item = columns.sample(f"{path.name}:{number}", cells, split)
            total += 1
            if isinstance(item, Unreadable):
                unreadable.append(item)
            yield item
    check_unreadable(unreadable, total, settings.max_unreadable_share, f"data.path: {kind.noun}s")


def list_files(settings: TextFileSettings, kind: Kind) -> Mapping[Path, str | None]:
    """The files, each with the split that its samples belong to; None: to be split."""
    path = Path(settings.path).expanduser()
    if not path.is_dir():
        return {path: None}
    named = [p for p in sorted(path.iterdir()) if p.suffix.lower() in kind.suffixes and p.stem.lower() in SPLIT_NAMES]
    found = {p: SPLIT_NAMES[p.stem.lower()] for p in named}
    if None not in found.values():
        raise DataError(f"data.path: {path}: has no train{kind.suffixes[0]}; {kind.expected}")
    return found


def read_bytes(path: Path, kind: Kind) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"data.path: {path}: {error.strerror}; {kind.expected}") from None


def read_text(path: Path, kind: Kind) -> str:
    """The content without a byte order mark. DataError if the file is not UTF-8."""
    try:
        return read_bytes(path, kind).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"data.path: {path} is not UTF-8 at byte {error.start}; convert it, for example with: iconv -f latin1 -t utf-8"
        ) from None
