"""
How many events a viewer can take: decoded, and folded into what it knows.
"""

from __future__ import annotations

import random
import tempfile
import time

from suite.bench import Bench
from suite.commands import NAME
from suite.decoding import PIECE, prost
from suite.figures import OURS, REFERENCE, Row, Section
from suite.peers import PeerError
from txmetrics_tcp import (
    Decoder,
    Key,
    Metric,
    MetricKind,
    Operation,
    SourceView,
    encode_metric,
)

TITLE = "Viewing"

HOW = """\
A stream in memory is decoded in pieces of 64 KiB, and folded into a `SourceView`: totals, values,
the rates of the last minute, and the distributions of samples, which come from a lognormal
distribution; a clock that goes on by a second with every 100,000 events lets seconds and windows
pass. The summary of each histogram is asked for at the end. Beside it: prost, which decodes the
same bytes, as the clients of the Rust family do, and has no view; and our own view alone, of events
that are decoded already."""

FOLD = "ours, the view alone"

_OPERATIONS = {
    MetricKind.COUNTER: Operation.INCREMENT_COUNTER,
    MetricKind.GAUGE: Operation.SET_GAUGE,
    MetricKind.HISTOGRAM: Operation.RECORD_HISTOGRAM,
}


def stream(kind: MetricKind, series: int, events: int) -> bytes:
    """Events of so many series, by turns."""
    keys = [
        Key.of(kind, NAME, {"method": "GET", "route": f"/{number:04}"}) for number in range(series)
    ]
    now = time.time_ns()
    chance = random.Random(1)
    values = [
        number % 100 if kind is MetricKind.COUNTER else chance.lognormvariate(-6, 1)
        for number in range(1000)
    ]
    return b"".join(
        encode_metric(
            Metric(keys[number % series], _OPERATIONS[kind], values[number % 1000], now + number)
        )
        for number in range(events)
    )


def view(data: bytes, events: int, series: int) -> float:
    """Events per second, decoded and folded."""
    now = [0.0]
    start = time.perf_counter()
    decoder = Decoder()
    seen = SourceView(lambda: now[0])
    for at in range(0, len(data), PIECE):
        seen.fold(decoder.feed(data[at : at + PIECE]))
        now[0] = seen.events / 100_000
    return _speed(seen, start, events, series)


def fold(data: bytes, events: int, series: int) -> float:
    """Events per second, folded."""
    now = [0.0]
    decoder = Decoder()
    pieces = [list(decoder.feed(data[at : at + PIECE])) for at in range(0, len(data), PIECE)]
    start = time.perf_counter()
    seen = SourceView(lambda: now[0])
    for piece in pieces:
        seen.fold(piece)
        now[0] = seen.events / 100_000
    return _speed(seen, start, events, series)


def _speed(seen: SourceView, start: float, events: int, series: int) -> float:
    for one in seen.series.values():
        one.summary()
    seconds = time.perf_counter() - start
    if (seen.events, len(seen.series)) != (events, series):
        raise PeerError(f"{seen.events} of {events} events, {len(seen.series)} of {series} series")
    return events / seconds


def run(bench: Bench) -> Section:
    events = 5_000 if bench.quick else 200_000
    rows = []
    for kind in MetricKind:
        for series in (1, 1000):
            data = stream(kind, series, events)
            speed: dict[str, list[float]] = {}
            with tempfile.NamedTemporaryFile() as file:
                file.write(data)
                file.flush()
                for _ in bench.rounds(5):
                    speed.setdefault(OURS, []).append(view(data, events, series))
                    speed.setdefault(FOLD, []).append(fold(data, events, series))
                    if bench.peers.rust:
                        speed.setdefault(REFERENCE, []).append(prost(bench, file.name, events))
            what = f"{kind.value}s, {series:,} series"
            rows.append(Row.of(what, "events/s", speed, REFERENCE))
    return Section(TITLE, HOW, rows)
