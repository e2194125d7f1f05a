"""`edgewise probe`: what the configured device is and has, what a bundle needs there, and what is wrong with the settings for it."""

from collections.abc import Iterator, Mapping
from typing import Any

from edgewise.agent.infer import fits
from edgewise.bundle.contents import INPUT_PACKAGES
from edgewise.config.schema import Config
from edgewise.devices.access import connect
from edgewise.measure import device_facts, threads
from edgewise.measure.runs import Run

KINDS = {"image": "pictures", "text": "text"}


def describe_device(settings: Config) -> Iterator[str]:
    """Lines for the terminal. Raises DeviceError where the device cannot be reached."""
    found = device_facts.probe(settings)
    yield device_facts.format_facts(found)
    yield f"{'bundle':10}{', '.join(describe_needs(find_releases(settings)))}"
    warning = threads.warn_of_threads(settings.device.settings["threads"], found["facts"], settings.device.name)
    if warning:
        yield warning


def find_releases(settings: Config) -> Mapping[str, Any]:
    """Package -> its version on the device, of those that a bundle needs beside its runtime; None for one that is missing. They are asked
    for by themselves and stand in no record: no measurement depends on them."""
    packages = sorted(package for ranges in INPUT_PACKAGES.values() for package in ranges)
    with connect(settings.device) as connection:
        run = Run.of(connection.run({"kind": "probe", "packages": packages}, device_facts.DEADLINE_S), facts=1)
    releases = run.one("facts")["facts"]["packages"]
    return {package: releases[package] for package in packages}


def describe_needs(releases: Mapping[str, Any]) -> Iterator[str]:
    for kind, ranges in INPUT_PACKAGES.items():
        for package, (oldest, too_new) in ranges.items():
            release = releases[package]
            if release is None:
                yield f"{package} missing (for models of {KINDS[kind]})"
            elif fits(release, {"from": oldest, "below": too_new}):
                yield f"{package} {release}"
            else:
                yield f"{package} {release} (for models of {KINDS[kind]} install '{package}>={oldest},<{too_new}')"
