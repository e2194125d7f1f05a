"""The progress of reading data: nothing is lost, and a log that is no terminal gets a line every half minute."""

import sys
import time

import pytest

from edgewise.data import common


@pytest.mark.parametrize(
    ("given", "total", "lines"),
    [
        (range(100), None, ["reading: 30 of 100 pictures, 30 s", "reading: 60 of 100 pictures, 60 s", "reading: 90 of 100 pictures, 90 s"]),
        (iter(range(40)), None, ["reading: 30 pictures, 30 s"]),
        (iter(range(40)), 40, ["reading: 30 of 40 pictures, 30 s"]),
        (range(20), None, []),
    ],
    ids=["long", "of unknown length", "of given length", "short"],
)
def test_a_line_every_half_minute_where_there_is_no_terminal(capsys, monkeypatch, given, total, lines):
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))  # each element takes a second
    found = list(common.follow(given, "reading", "picture", total))
    assert found == list(range(len(found))) and len(found) in (20, 40, 100)
    assert capsys.readouterr().err.splitlines() == [*lines]


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(common, "BAR_AFTER_S", 0.0)
    assert list(common.follow(range(3), "reading", "picture")) == [0, 1, 2]
    assert "reading: 100%" in capsys.readouterr().err
