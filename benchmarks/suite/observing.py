"""
How many events the viewer takes while it draws.
"""

from __future__ import annotations

import json
import os
import pty
import random
import select
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path

from suite.bench import Bench
from suite.figures import OURS, Goal, Row, Section
from suite.peers import PeerError
from txmetrics_tcp import Key, Metric, MetricKind, Operation, encode_metric

GOAL = 100_000
"""Events per second."""

LINES, COLUMNS = 45, 160

TITLE = "Observing"

HOW = """\
`metrics-tcp observe` in a terminal of 160 by 45, sorted by rate. It is sent a stream that is made
beforehand, of counters, gauges and histograms in equal numbers; sending does little more than
`send`, in a thread of the benchmark, which also reads what is drawn. First as fast as the viewer
reads: the stream then waits for it, none of it is left out. Then 100,000 events a second: how much
of one processor that takes, and how many frames are drawn, of which ten are the most."""

_BENCHMARKS = Path(__file__).resolve().parent.parent
_ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(_BENCHMARKS), str(_BENCHMARKS.parent)]),
    "TERM": "xterm-256color",
    "COLORTERM": "truecolor",
}

_KINDS = (
    (MetricKind.COUNTER, Operation.INCREMENT_COUNTER),
    (MetricKind.GAUGE, Operation.SET_GAUGE),
    (MetricKind.HISTOGRAM, Operation.RECORD_HISTOGRAM),
)


def pieces(series: int) -> list[bytes]:
    """A stream in pieces of a thousand events each, to be sent over and over again."""
    numbers = random.Random(1)
    now = time.time_ns()
    events = []
    for number in range(max(series, 3_000) // 1000 * 1000):
        kind, operation = _KINDS[number % 3]
        key = Key.of(kind, f"requests_{number % series % 100}", {"route": str(number % series)})
        value = 1 if kind is MetricKind.COUNTER else numbers.lognormvariate(0, 1)
        events.append(encode_metric(Metric(key, operation, value, now + number * 1000)))
    return [b"".join(events[at : at + 1000]) for at in range(0, len(events), 1000)]


def send(listening: socket.socket, stream: list[bytes], rate: float | None) -> None:
    """
    Serve one client for as long as it stays.

    @param rate: events per second; None for as fast as it reads.
    """
    client, _ = listening.accept()
    began = time.perf_counter()
    sent = 0
    with client, suppress(OSError):
        while True:
            client.sendall(stream[sent % len(stream)])
            sent += 1
            if rate is not None:
                time.sleep(max(0.0, began + sent * 1000 / rate - time.perf_counter()))


def observe(stream: list[bytes], rate: float | None, seconds: float) -> dict[str, float]:
    """What one run of the viewer reports."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=send, args=(listening, stream, rate), daemon=True)
        thread.start()
        ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        reading, writing = os.pipe()
        port = listening.getsockname()[1]
        viewer = subprocess.Popen(
            [sys.executable, "-m", "suite.observing_peer", str(port), str(seconds), str(writing)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            pass_fds=[writing],
            env=os.environ | _ENVIRONMENT,
            start_new_session=True,
        )
        os.close(theirs)
        os.close(writing)
        report = b""
        drawn = b""
        with viewer:
            deadline = time.monotonic() + seconds + 60
            while reading in (ready := select.select([ours, reading], [], [], 1)[0]) or not report:
                with suppress(OSError):  # the terminal is closed
                    if ours in ready:
                        drawn = (drawn + os.read(ours, 65536))[-2000:]
                if reading in ready:
                    data = os.read(reading, 65536)
                    report += data
                    if not data:
                        break
                if time.monotonic() > deadline:
                    viewer.kill()
            viewer.kill()
        os.close(ours)
        os.close(reading)
        thread.join(5)
    if not report:
        raise PeerError(f"the viewer reported nothing: {drawn.decode(errors='replace')}")
    answer: dict[str, float] = json.loads(report)
    return answer


def run(bench: Bench) -> Section:
    rows = []
    seconds = 1.0 if bench.quick else 8.0
    for series in (300, 9_999):
        stream = pieces(series)
        speed: dict[str, list[float]] = {}
        share: list[float] = []
        frames: list[float] = []
        kept: list[float] = []
        for _ in bench.rounds(3):
            fast = observe(stream, None, seconds)
            speed.setdefault(OURS, []).append(fast["events"] / fast["seconds"])
            speed.setdefault("goal", []).append(GOAL)
            steady = observe(stream, GOAL, seconds)
            kept.append(steady["events"] / steady["seconds"])
            share.append(steady["cpu"] / steady["seconds"] * 100)
            frames.append(steady["frames"] / steady["seconds"])
        what = f"{series:,} series"
        rows += [
            Row.of(f"{what}: as fast as it can", "events/s", speed, "goal", Goal(1)),
            Row.of(f"{what}: taken of 100,000 a second", "events/s", {OURS: kept}),
            Row.of(f"{what}: processor at that", "%", {OURS: share}),
            Row.of(f"{what}: frames at that", "1/s", {OURS: frames}),
        ]
    return Section(TITLE, HOW, rows)
