"""How far reading the samples has come: a bar on a terminal, elsewhere (a log file, CI) a line every half minute."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")
LINE_EVERY_S = 30.0
BAR_AFTER_S = 3.0


def follow(given: Iterable[T], doing: str, unit: str, total: int | None = None) -> Iterator[T]:
    """The same elements. doing: what is done, 'reading'; unit: of what, in the singular; total: None: its length, if it has one."""
    count = total if total is not None else len(given) if isinstance(given, Sized) else None
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(given, desc=doing, unit=unit, total=count, delay=BAR_AFTER_S)
    else:
        yield from _print_lines(given, doing, unit, count)


def _print_lines(given: Iterable[T], doing: str, unit: str, total: int | None) -> Iterator[T]:
    begun = said = time.monotonic()
    for number, element in enumerate(given, 1):
        yield element
        now = time.monotonic()
        if now - said >= LINE_EVERY_S:
            said = now
            print(
                f"{doing}: {number}{f' of {total}' if total is not None else ''} {unit}s, {now - begun:.0f} s", file=sys.stderr, flush=True
            )
