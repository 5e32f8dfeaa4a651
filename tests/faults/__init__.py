"""
Scripts that provoke faults that the package had.

Each prints what it measures and the right value, and ends with C{OK} or C{WRONG} and status 0 or 1.
They use public names only, so they also run with other versions of the package.  Run one with
``python -m tests.faults.NAME``; its docstring names its arguments, if it has any.
"""

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, CompletedProcess, Popen
from subprocess import run as run_process
from typing import Any, NoReturn

from twisted.internet import reactor as _reactor
from twisted.internet.threads import blockingCallFromThread
from twisted.logger import formatEvent, globalLogPublisher

from tests import environment
from tests.daemon import LIMIT
from txmetrics_tcp import Decoder, Event, ExporterSettings, SourceView, TcpBuilder, ThreadedExporter

# Twisted declares the reactor as a module.
reactor: Any = _reactor

COMMAND = [sys.executable, "-m", "txmetrics_tcp"]
"""The program C{metrics-tcp}."""


class Report:
    """
    @ivar wrong: the cases with a wrong value.
    """

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def equal(self, case: str, measured: object, expected: object) -> None:
        self._add(case, measured, str(expected), measured == expected)

    def at_most(self, case: str, measured: float, limit: float, unit: str) -> None:
        self._add(case, f"{measured:.3g} {unit}", f"at most {limit:.3g}", measured <= limit)

    def contains(self, case: str, measured: object, *words: str) -> None:
        """Check that the text of a value contains words."""
        text = str(measured)
        self._add(case, text[:160], f"with {', '.join(words)}", all(word in text for word in words))

    def _add(self, case: str, measured: object, expected: str, right: bool) -> None:
        print(f"{case}: {measured} (expected: {expected})", flush=True)
        if not right:
            self.wrong.append(case)


def run(main: Callable[..., None]) -> NoReturn:
    """
    Run a script.

    @param main: called with a L{Report} and the arguments, which are numbers.
    """
    report = Report()
    try:
        main(report, *map(int, sys.argv[1:]))
    except Exception as error:
        traceback.print_exc()
        report.wrong.append(f"{type(error).__name__}: {error}")
    print(f"WRONG: {'; '.join(report.wrong)}" if report.wrong else "OK", flush=True)
    sys.exit(bool(report.wrong))


def outcome(call: Callable[[], object]) -> object:
    """Return the result of a call, or the text of its exception."""
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def exporter(endpoint: str | int = 0, **settings: Any) -> ThreadedExporter:
    """Install an exporter; by default, on a free port and without metrics of its own."""
    builder = TcpBuilder(settings=ExporterSettings(**{"own_metrics": False, **settings}))
    return builder.listen_address(endpoint).install_in_thread()


def port_of(exporter: ThreadedExporter) -> int:
    return exporter.addresses[0].port  # type: ignore[attr-defined, no-any-return]


def start(*arguments: str, program: Sequence[str] = COMMAND, **options: Any) -> Popen[bytes]:
    """
    Start a command of C{metrics-tcp}, or another program.

    @param options: those of C{Popen}.
    """
    options = {"env": environment(), "stdin": DEVNULL, **options}
    return Popen([*program, *arguments], **options)


def finish(
    *arguments: str, program: Sequence[str] = COMMAND, **options: Any
) -> CompletedProcess[str]:
    """
    Run a command of C{metrics-tcp}, or another program, to its end.

    @param options: those of C{subprocess.run}.
    """
    return run_process(
        [*program, *arguments],
        env=environment(),
        stdin=DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        **options,
    )


def read_all(descriptor: int) -> Iterator[bytes]:
    """Yield what arrives from a pipe or a terminal until its other side is closed, and close it."""
    with suppress(OSError):  # the end of a terminal
        while data := os.read(descriptor, 65536):
            yield data
    os.close(descriptor)


def log_lines() -> list[str]:
    """Return a list to which the text of each later log event is appended."""
    lines: list[str] = []
    observe: Any = lambda event: lines.append(formatEvent(event))  # noqa: E731
    globalLogPublisher.addObserver(observe)
    return lines


def connect(
    exporter: ThreadedExporter, host: str = "127.0.0.1", buffer: int = 4096
) -> socket.socket:
    """
    Connect a socket.

    @param buffer: the size of its receive buffer.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port_of(exporter), type=socket.SOCK_STREAM
    )[0]
    connection = socket.socket(family, kind, protocol)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(LIMIT)
    connection.connect(address)
    return connection


class Viewer:
    """
    @ivar data: what has been received.
    @ivar events: the events in it.
    @ivar view: their state.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._decoder = Decoder()
        self.data = b""
        self.events: list[Event] = []
        self.view = SourceView()

    def read_until(self, condition: Callable[[], object]) -> None:
        while not condition():
            data = self._connection.recv(65536)
            if not data:
                raise EOFError("the stream ended")
            events = list(self._decoder.feed(data))
            self.data += data
            self.events += events
            self.view.ingest(events)

    def totals(self) -> dict[str, float]:
        return {str(key): series.value for key, series in self.view.series.items()}


def reactor_seconds() -> float:
    """Return the processor time of the reactor thread."""
    return float(blockingCallFromThread(reactor, time.thread_time))


def resident_bytes() -> int:
    """Return the resident memory of this process (on Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
