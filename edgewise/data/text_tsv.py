"""Sentences with a label, one per line: text, tab, label.

One file, or a folder with train.tsv, dev.tsv (validation) and test.tsv, which are then the splits.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.config.settings import option
from edgewise.data.common import SPLIT_NAMES, check_unreadable, sort_numerically
from edgewise.data.wordpiece import TextSettings, WordPieceEncoder
from edgewise.errors import DataError
from edgewise.plugins import Item, Unreadable

__all__ = ["Settings", "encoder", "items", "probe"]

EXPECTED = "give a file of lines with text, tab, label, or a folder with train.tsv, dev.tsv and test.tsv"
encoder = WordPieceEncoder


@dataclass(frozen=True, kw_only=True)
class Settings(TextSettings):
    path: str = option(help="a .tsv file, or a folder with train.tsv, dev.tsv and test.tsv; absolute or relative to the project")
    text_column: int = option(0, "index of the column, from 0", low=0)
    label_column: int = option(1, "index of the column, from 0", low=0)
    header: bool = option(False, "whether the first line holds column names")
    max_unreadable_share: float = option(0.01, "largest share of lines that may lack text or label", low=0.0, high=1.0)

    def sort_labels(self, labels: Any) -> list[str]:
        return sort_numerically(labels)


def probe(settings: Settings) -> Mapping[str, Any]:
    """Digest of the files' content, which is small enough to be read on each run."""
    files = list(list_files(settings))
    paths = [*files, Path(settings.tokenizer).expanduser()] if settings.tokenizer else files
    digests = [f"{path.name} {hashlib.sha256(read_bytes(path)).hexdigest()}" for path in paths]
    digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return {"digest": digest, "files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def items(settings: Settings) -> Iterator[Item | Unreadable]:
    """Repeated sentences have the same hash and thus form a group."""
    unreadable, total = [], 0
    for path, split in list_files(settings).items():
        for number, line in enumerate(read_lines(path, settings.header), 2 if settings.header else 1):
            item = parse_line(f"{path.name}:{number}", line, split, settings)
            total += 1
            if isinstance(item, Unreadable):
                unreadable.append(item)
            yield item
    check_unreadable(unreadable, total, settings.max_unreadable_share, "data.path: lines")


def list_files(settings: Settings) -> dict[Path, str | None]:
    """The files, each with the split that its samples belong to; None: to be split."""
    path = Path(settings.path).expanduser()
    if not path.is_dir():
        return {path: None}
    found = {p: SPLIT_NAMES[p.stem.lower()] for p in sorted(path.glob("*.tsv")) if p.stem.lower() in SPLIT_NAMES}
    if None not in found.values():
        raise DataError(f"data.path: {path}: has no train.tsv; {EXPECTED}")
    return found


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"data.path: {path}: {error.strerror}; {EXPECTED}") from None


def read_lines(path: Path, header: bool) -> Sequence[str]:
    try:
        content = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"data.path: {path} is not UTF-8 at byte {error.start}; convert it, for example with: iconv -f latin1 -t utf-8"
        ) from None
    return content.replace("\r\n", "\n").rstrip("\n").split("\n")[int(header) :]


def parse_line(name: str, line: str, split: str | None, settings: Settings) -> Item | Unreadable:
    cells = [cell.strip() for cell in line.split("\t")]
    if max(settings.text_column, settings.label_column) >= len(cells):
        return Unreadable(name, f"{len(cells)} columns")
    text, label = cells[settings.text_column], cells[settings.label_column]
    if not text or not label:
        return Unreadable(name, "no label" if text else "no text")
    return Item(name, label, None, hashlib.sha256(text.encode()).hexdigest(), text, split)
