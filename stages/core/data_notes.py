"""What the user should know about a prepared data set although nothing is wrong enough to stop."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.core.plugins import Item

NAMED = 20  # so many unreadable samples, or copies, are named in the manifest; all are counted


def copies(items: Sequence[Item]) -> dict[str, Any]:
    """Samples with the same content as one before, and those of them that have another label."""
    first: dict[str, Item] = {}
    again = [(first[item.sha256], item) for item in items if first.setdefault(item.sha256, item) is not item]
    torn = [f"{one.name} = {other.name}" for one, other in again if one.label != other.label]
    return {"count": len(again), "with_another_label": len(torn), "named": torn[:NAMED]}


def shared(groups: np.ndarray, splits: Mapping[str, np.ndarray]) -> int:
    """Groups in more than one split: only where the data brings splits that are not clean."""
    return sum(len(set(groups[indices])) for indices in splits.values()) - len(set(groups))


def notes(details: Mapping[str, Any]) -> list[str]:
    """What the user should know although nothing is wrong enough to stop."""
    unreadable, copied, leaks = details["unreadable"], details["copies"], details["groups_in_two_splits"]
    found = []
    if unreadable["count"]:
        named = "; ".join(f"{name}: {reason}" for name, reason in unreadable["named"].items())
        found.append(f"{unreadable['count']} samples could not be read and are left out: {named}")
    if copied["with_another_label"]:
        found.append(f"{copied['with_another_label']} samples have a copy with another label: {', '.join(copied['named'])}")
    if leaks:
        found.append(f"{leaks} groups (or copies of a file) are in two of the splits that the data brings: scores will be too good")
    for name, by_label in details["counts"].items():
        absent = [label for label, count in by_label.items() if not count]
        if absent and len(absent) < len(by_label):
            found.append(f"{name} has no sample of: {', '.join(absent)}")
    return found
