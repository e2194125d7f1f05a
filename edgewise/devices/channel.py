"""Run the agent once in a child process: the job goes to its stdin, checked events come from its stdout.

Every transport does it this way; they differ in the command that starts the agent and in what the end of the child means.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgewise.agent.protocol import MAX_LINE_BYTES, EventReader, Fault, ProtocolFault, encode_job

STDERR_TAIL_BYTES = 8192
CHUNK_BYTES = 1 << 20
GRACE_S = 3.0  # the agent ends itself at its deadline and prints where it was; the host kills it only after that
CRASH_MARK = "Fatal Python error"
ABORT_SIGNALS = (signal.SIGABRT, signal.SIGSEGV, signal.SIGILL, signal.SIGFPE, signal.SIGBUS)


def run_agent(
    command: Sequence[str],
    job: Mapping[str, Any],
    deadline_s: float,
    explain: Callable[["ProcessEnd"], Fault] | None = None,
    **popen: Any,
) -> Iterator[dict[str, Any]]:
    """Start `command` in a process group of its own and yield its events, the last of which is `done`.

    job: `kind` and the fields of protocol.JOBS. Raises Fault if another end comes. In any case the whole group is killed afterwards.
    """
    line = encode_job(deadline_s=deadline_s, **job)
    process = start_process(command, **popen)
    try:
        yield from _AgentRun(process, deadline_s, explain or explain_end).events(line)
    finally:
        _kill_group(process)


def start_process(command: Sequence[str], **popen: Any) -> subprocess.Popen[bytes]:
    """Start a process with three pipes, in a group of its own. Fault if the program does not exist or cannot be executed."""
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True, **popen)
    except OSError as error:
        raise Fault("agent_error", f"{command[0]} cannot be started: {error.strerror}") from error


class _AgentRun:
    def __init__(self, process: subprocess.Popen[bytes], deadline_s: float, explain: Callable[["ProcessEnd"], Fault]):
        self.process, self.deadline_s, self.explain = process, deadline_s, explain
        self.start = time.monotonic()
        self.reader, self.stderr = EventReader(), b""
        self.unsent = b""

    def events(self, job: bytes) -> Iterator[dict[str, Any]]:
        self.unsent = job
        for line in self._lines():
            event = self.reader.parse_line(line)
            if event and event["event"] == "error":
                raise Fault(event["fault"], f"{event['phase']}: {event['message']}")
            if event:
                yield event
        if not self.reader.ended:
            raise self._fault()

    def _lines(self) -> Iterator[bytes]:
        """Lines of stdout with their newline; the last one may lack it, and a line that is too long is yielded incomplete."""
        rest = bytearray()
        for chunk in self._chunks():
            first, *others = chunk.split(b"\n")
            rest += first
            for other in others:
                yield bytes(rest) + b"\n"
                rest = bytearray(other)
            if len(rest) > MAX_LINE_BYTES:
                yield bytes(rest)
        if rest:
            yield bytes(rest)

    def _chunks(self) -> Iterator[bytes]:
        """Data from stdout until its end. Meanwhile the job is written and stderr is read; its tail is kept."""
        with selectors.DefaultSelector() as selector:
            for stream in (self.process.stdout, self.process.stderr):
                selector.register(stream, selectors.EVENT_READ)  # type: ignore[arg-type]
            os.set_blocking(self.process.stdin.fileno(), False)  # type: ignore[union-attr]
            selector.register(self.process.stdin, selectors.EVENT_WRITE)  # type: ignore[arg-type]
            while any(key.fileobj is self.process.stdout for key in selector.get_map().values()):
                ready = selector.select(self._patience_s())
                if not ready and self.reader.ended:
                    return  # a helper process of the runtime keeps the pipe open
                if not ready or self._left_s() <= 0:
                    raise self._fault()
                for key, _ in ready:
                    if key.fileobj is self.process.stdin:
                        self._send(key.fd)
                        if not self.unsent:
                            selector.unregister(key.fileobj)
                        continue
                    data = os.read(key.fd, CHUNK_BYTES)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is self.process.stdout:
                        yield data
                    else:
                        self.stderr = (self.stderr + data)[-STDERR_TAIL_BYTES:]

    def _send(self, stdin: int) -> None:
        """Write as much of the job as the pipe takes, without Python's buffer: closing that would raise once the child has ended."""
        try:
            self.unsent = self.unsent[os.write(stdin, self.unsent) :]
        except BrokenPipeError:  # it has ended; the reason is in its stderr
            self.unsent = b""

    def _patience_s(self) -> float:
        left_s = max(0.0, self._left_s())
        return min(left_s, GRACE_S) if self.reader.ended else left_s

    def _left_s(self) -> float:
        return self.start + self.deadline_s + GRACE_S - time.monotonic()

    def _fault(self) -> Fault:
        """Why there was no terminal event."""
        try:
            code = self.process.wait(max(0.1, self._left_s()))
        except subprocess.TimeoutExpired:
            code = None
        assert self.process.stderr
        os.set_blocking(self.process.stderr.fileno(), False)
        self.stderr = (self.stderr + (self.process.stderr.read() or b""))[-STDERR_TAIL_BYTES:]
        elapsed_s = time.monotonic() - self.start
        ending = ProcessEnd(code, self.stderr.decode(errors="replace"), self.reader.started, elapsed_s, self.deadline_s)
        try:
            self.reader.check_end()
        except ProtocolFault as fault:
            return fault
        return self.explain(ending)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the child and all that it started. The group has the child's number, and outlives it if a grandchild hangs."""
    with contextlib.suppress(ProcessLookupError):  # all of it has ended already
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()
    process.wait()


@dataclass(frozen=True)
class ProcessEnd:
    """How a child ended without the event done or error. code: as in subprocess, negative for a signal; None: it had to be killed."""

    code: int | None
    stderr: str
    started: bool  # `hello` had come
    elapsed_s: float
    deadline_s: float

    @property
    def last_words(self) -> str:
        """The last lines of stderr before a crash, and its innermost frame, which faulthandler prints first."""
        printed, crashed, trace = self.stderr.partition(CRASH_MARK)
        frame = trace.rpartition("most recent call first):")[2].strip().splitlines()[:1] if crashed else []
        lines = [line.strip() for line in (printed + (crashed + trace.partition("\n")[0] if crashed else "")).splitlines() if line.strip()]
        return " | ".join([*lines[-3:], *frame])[-500:] or "it printed nothing"


def describe_code(code: int) -> str:
    """The exit code of a process as in subprocess: SIGSEGV, signal 35, exit code 1."""
    if code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"


def explain_end(ending: ProcessEnd) -> Fault:
    """The fault behind an end, for any transport; each may look for faults of its own first."""
    if ending.code is None or ending.elapsed_s >= ending.deadline_s:
        return Fault("deadline", f"the run took more than {ending.deadline_s:g} s ({ending.last_words})")
    seen = f"the run ended with {describe_code(ending.code)} ({ending.last_words})"
    if "bad_alloc" in ending.stderr:
        return Fault("out_of_memory", seen)
    if -ending.code in ABORT_SIGNALS and ending.started:
        return Fault("model_aborted", seen)
    return Fault("killed" if ending.code < 0 and -ending.code not in ABORT_SIGNALS else "agent_error", seen)
