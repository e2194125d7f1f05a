"""The way from the configuration to a device."""

import contextlib
from collections.abc import Iterator
from typing import cast

from stages.core.config import Plugin
from stages.core.errors import DeviceError
from stages.core.plugins import Connection
from stages.core.settings import build
from stages.payload.faults import Fault


@contextlib.contextmanager
def connected(device: Plugin) -> Iterator[Connection]:
    """A connection to the configured device. Whatever goes wrong on it leaves this block as DeviceError with the fault's word."""
    module = device.load()
    try:
        with module.connect(build(module.Settings, device.settings, "device")) as connection:
            yield cast(Connection, connection)
    except Fault as fault:
        raise DeviceError(fault.word, str(fault)) from fault
