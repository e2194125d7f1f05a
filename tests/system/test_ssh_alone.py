"""Two hosts and one board: only one of them measures at a time, over a real sshd."""

import os
import signal

import pytest

from edgewise.devices.access import connect
from edgewise.errors import DeviceError
from edgewise.measure.runs import Run
from tests.system.board import PROBE, plugin

pytestmark = pytest.mark.system


def test_a_second_host_is_told_who_measures(sshd):
    with connect(plugin(sshd.device())) as first, first.reserve():
        assert Run.of(first.run(PROBE, 30), facts=1)
        said = r"busy: 127.0.0.1: \w+@\S+ since .* within 1 s; another measurement runs on this device"
        with pytest.raises(DeviceError, match=said), connect(plugin(sshd.device(busy_max_s=1.0))) as second, second.reserve():
            pass
        with connect(plugin(sshd.device())) as third:
            assert Run.of(third.run(PROBE, 30), facts=1), "a probe disturbs nobody, and need not wait"
    with connect(plugin(sshd.device(busy_max_s=5.0))) as second, second.reserve():
        assert Run.of(second.run(PROBE, 30), facts=1)
    assert sshd.nothing_runs()


def test_a_lost_link_gives_the_board_free_and_takes_it_again(sshd):
    with connect(plugin(sshd.device())) as first, first.reserve():
        os.kill(first.link.master.pid, signal.SIGKILL)
        first.link.master.wait()
        with connect(plugin(sshd.device(busy_max_s=10.0))) as second, second.reserve():
            assert Run.of(second.run(PROBE, 30), facts=1)
        assert Run.of(first.run(PROBE, 30), facts=1)
        with pytest.raises(DeviceError, match="busy"), connect(plugin(sshd.device(busy_max_s=0.0))) as second, second.reserve():
            pass
