"""The host's end of payload.hold: the device is kept as long as this process lives, and says so now and then."""

import contextlib
import getpass
import json
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stages.devices import channel
from stages.payload import hold
from stages.payload.faults import FAULTS, Fault
from stages.payload.protocol import wrong_field

BEAT_S, SILENT_S = 10.0, 60.0  # a beat costs the device far less than a millisecond; a link that stalls for a while is not lost


class Hold:
    """`command` starts payload.hold on the device; `ensure` is called before each use of it, since that process ends with its link.

    explain(exit code, stderr): the fault behind a process that ended without an answer.
    """

    def __init__(self, command: Sequence[str], host: str, workdir: str, wait_s: float, explain: Callable[[int, str], Fault]):
        self.command, self.host, self.explain = command, host, explain
        who = f"{getpass.getuser()}@{platform.node()}"
        self.request = {"workdir": workdir, "who": who, "wait_s": wait_s, "silent_s": SILENT_S}
        self.process: subprocess.Popen | None = None
        self.ended = threading.Event()

    def ensure(self) -> None:
        """Fault `busy` where another host does not end in time, and what `explain` gives."""
        if self.process and self.process.poll() is None:
            return
        self.end()
        self.process, self.ended = channel.start(self.command), threading.Event()
        say(self.process, json.dumps(self.request))
        threading.Thread(target=beat, args=(self.process, self.ended), daemon=True).start()
        while "held" not in (reply := self._reply(self.process)):
            checked(reply, self.host, {"waiting": "text"})
            print(f"waiting: {reply['waiting']} measures on {self.host}", file=sys.stderr, flush=True)

    def end(self) -> None:
        self.ended.set()
        if self.process:
            self.process.kill()
            self.process.communicate()
        self.process = None

    def _reply(self, process: subprocess.Popen) -> dict[str, Any]:
        """The next line after MARK; a login shell's noise is skipped."""
        assert process.stdout
        for line in process.stdout:
            reply = reply_in(line, hold.MARK)
            if reply is not None:
                return reply
        _, stderr = process.communicate()
        raise self.explain(process.returncode, stderr.decode(errors="replace"))


def reply_in(line: bytes, mark: str) -> dict[str, Any] | None:
    """The reply in a line that begins with `mark`; None in any other, and where a lost link has cut it."""
    text = line.decode(errors="replace").strip()
    with contextlib.suppress(ValueError):
        reply = json.loads(text[len(mark) :]) if text.startswith(mark) else None
        return reply if isinstance(reply, dict) else None
    return None


def checked(reply: dict[str, Any], host: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """The reply where it has `fields` (name -> kind, as in protocol.CHECKS). Fault that it tells; `protocol` where it is neither."""
    word, seen = reply.get("fault"), reply.get("seen")
    if isinstance(word, str) and word in FAULTS and isinstance(seen, str):
        raise Fault(word, f"{host}: {seen}")
    wrong = wrong_field(reply, fields)
    if wrong:
        raise Fault("protocol", f"{host}: the device replied {str(reply)[:80]}: {wrong}")
    return reply


def beat(process: subprocess.Popen, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        say(process, "")


def say(process: subprocess.Popen, line: str) -> None:
    assert process.stdin
    with contextlib.suppress(OSError, ValueError):  # it has ended, which `ensure` finds out
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()
