"""
The number of events that the viewer ingests while it draws.

``python -m suite.observing PORT SECONDS FILE`` is the process of the viewer. It measures C{SECONDS}
seconds, which begin one second after the first event, and writes the events, frames and processor
time to C{FILE} as JSON.
"""

from __future__ import annotations

import json
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections import deque
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from suite.bench import Bench
from suite.figures import OURS, Row, Section
from suite.peers import PeerError, environment, python
from suite.streams import mixed
from txmetrics_tcp import MetricKind
from txmetrics_tcp._net.endpoints import client_endpoint
from txmetrics_tcp.cli.observe import install_reactor, run_app

RATE = 100_000
"""Events per second."""

PIECE = 1_000
"""The number of events for one send."""

LINES, COLUMNS = 45, 160

WARM = 1.0
"""The seconds before the measurement, in which the viewer receives every series."""

TITLE = "Observing"

HOW = """\
`metrics-tcp observe`, sorted by rate, in a terminal of 160 by 45, receives a prepared stream of
counters, gauges and histograms in equal numbers: first as fast as it reads, then 100,000 events a
second. It draws at most ten frames a second."""


def send(listening: socket.socket, stream: list[bytes], rate: float | None) -> None:
    """
    Serve one client until it disconnects.

    @param rate: events per second; None for as fast as the client reads.
    """
    client, _ = listening.accept()
    began = time.perf_counter()
    sent = 0
    with client, suppress(OSError):
        while True:
            client.sendall(stream[sent % len(stream)])
            sent += 1
            if rate is not None:
                time.sleep(max(0.0, began + sent * PIECE / rate - time.perf_counter()))


def observe(stream: list[bytes], rate: float | None, seconds: float) -> dict[str, float]:
    """Run the viewer, and return its report."""
    terminal, screen = pty.openpty()
    ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    with socket.create_server(("127.0.0.1", 0)) as listening, TemporaryDirectory() as directory:
        report = Path(directory) / "report"
        port = listening.getsockname()[1]
        viewer = subprocess.Popen(
            [*python("suite.observing"), str(port), str(seconds), str(report)],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            env={**environment(), "TERM": "xterm-256color", "COLORTERM": "truecolor"},
            start_new_session=True,
        )
        os.close(screen)
        drawn: deque[bytes] = deque(maxlen=50)
        threads = [
            threading.Thread(target=send, args=(listening, stream, rate), daemon=True),
            threading.Thread(target=drain, args=(terminal, drawn), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            viewer.wait(seconds + 60)
        finally:
            viewer.kill()
        threads[1].join()
        os.close(terminal)
        if not report.exists():
            shown = b"".join(drawn).decode(errors="replace")
            raise PeerError(f"the viewer wrote no report: {shown}")
        found: dict[str, float] = json.loads(report.read_text())
    return found


def drain(terminal: int, drawn: deque[bytes]) -> None:
    """Read the terminal's output until the viewer ends."""
    with suppress(OSError):
        while True:
            drawn.append(os.read(terminal, 65536))


def run(bench: Bench) -> Section:
    rows = []
    seconds = 0.5 if bench.quick else 3.0
    for series in (300,) if bench.quick else (300, 9_999):
        frames = mixed(list(MetricKind), series, max(series, 3_000) // PIECE * PIECE)
        stream = [b"".join(frames[at : at + PIECE]) for at in range(0, len(frames), PIECE)]
        fast: list[float] = []
        steady: dict[str, list[float]] = {"events": [], "cpu": [], "frames": []}
        for _ in bench.rounds(3):
            found = observe(stream, None, seconds)
            fast.append(found["events"] / found["seconds"])
            found = observe(stream, RATE, seconds)
            for name, samples in steady.items():
                samples.append(found[name] / found["seconds"])
        what = f"{series:,} series"
        rows += [
            Row.of(f"{what}: as fast as it can", "events/s", {OURS: fast}),
            Row.of(f"{what}: taken of {RATE:,} a second", "events/s", {OURS: steady["events"]}),
            Row.of(f"{what}: processor time at that", "s per s", {OURS: steady["cpu"]}),
            Row.of(f"{what}: frames at that", "1/s", {OURS: steady["frames"]}),
        ]
    return Section(TITLE, HOW, rows)


def main(port: str, seconds: float, file: str) -> int:
    """Run the viewer, and measure it."""
    install_reactor()
    # These imports need the installed reactor.
    from twisted.internet import reactor
    from twisted.internet.defer import inlineCallbacks
    from twisted.internet.task import deferLater

    from txmetrics_tcp.observe.app import ObserveApp
    from txmetrics_tcp.observe.sources import LiveSource

    source = LiveSource(reactor, port, client_endpoint(reactor, port))
    app = ObserveApp([source])
    app.rows.sort_by("rate")

    def state() -> tuple[float, ...]:
        return time.perf_counter(), source.view.events, app.frames, time.process_time()

    @inlineCallbacks
    def measure() -> Any:
        while not source.view.events:
            yield deferLater(reactor, 0.01)
        yield deferLater(reactor, WARM)
        begun = state()
        yield deferLater(reactor, seconds)
        differences = [now - then for now, then in zip(state(), begun, strict=True)]
        report = dict(zip(("seconds", "events", "frames", "cpu"), differences, strict=True))
        Path(file).write_text(json.dumps(report))
        app.exit(0)

    reactor.callLater(0, measure)
    return run_app(reactor, app)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
